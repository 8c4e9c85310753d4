"""Forgetting: what an encoder must get right by construction, and that the sentences are what they claim to be."""

import re

import pytest
import torch
from torch import Tensor

from recsys_cl import assets
from recsys_cl.book.forgetting import TRIPLES, paraphrase_accuracy, similarity_correlation
from recsys_cl.errors import InputError
from recsys_cl.text import LanguageEncoder


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def number(text: str) -> int:
    """The same at every run, unlike ``hash``."""
    return int.from_bytes(text.encode(), "big")


def random_vectors(texts: list[str]) -> Tensor:
    return torch.stack([torch.randn(8, generator=torch.Generator().manual_seed(number(t) % 2**31)) for t in texts])


def bag_of_words(texts: list[str]) -> Tensor:
    vocabulary = sorted({word for triple in TRIPLES for text in triple for word in words(text)})
    return torch.tensor([[float(word in words(text)) for word in vocabulary] for text in texts])


def test_sixty_distinct_triples_whose_distractors_share_more_words() -> None:
    assert len(TRIPLES) == 60
    texts = [text for triple in TRIPLES for text in triple]
    assert len(set(texts)) == 180
    assert all(text == text.strip() and text.endswith((".", "?")) for text in texts)
    for anchor, paraphrase, distractor in TRIPLES:
        assert len(words(anchor) & words(distractor)) > len(words(anchor) & words(paraphrase))


def test_counting_words_is_misled_by_every_distractor() -> None:
    assert paraphrase_accuracy(bag_of_words) < 0.1


def test_one_vector_for_all_gets_nothing() -> None:
    assert paraphrase_accuracy(lambda texts: torch.ones(len(texts), 3)) == 0
    assert similarity_correlation(lambda texts: torch.ones(len(texts), 3), bag_of_words) == 0


def test_an_encoder_that_knows_the_answers_gets_all() -> None:
    place = {text: row for row, triple in enumerate(TRIPLES) for text in triple[:2]}

    def told(texts: list[str]) -> Tensor:
        return torch.eye(61)[[place.get(text, 60) for text in texts]]

    assert paraphrase_accuracy(told) == 1


def test_rotation_and_scale_are_not_forgetting() -> None:
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0))).Q
    turned = similarity_correlation(lambda texts: 3 * random_vectors(texts) @ rotation, random_vectors)
    assert turned == pytest.approx(1, abs=1e-4)


def test_another_encoder_has_another_geometry() -> None:
    other = similarity_correlation(lambda texts: random_vectors([text[::-1] for text in texts]), random_vectors)
    assert abs(other) < 0.1


def test_noise_lowers_the_correlation_step_by_step() -> None:
    noise = torch.randn(180, 8, generator=torch.Generator().manual_seed(1))
    levels = [
        similarity_correlation(lambda texts, size=size: random_vectors(texts) + size * noise, random_vectors)
        for size in (0.0, 0.3, 1.0, 3.0)
    ]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == pytest.approx(1)
    assert levels[-1] < 0.5


def test_the_untouched_model_is_neither_perfect_nor_at_chance() -> None:
    assets.fetch("minilm")
    accuracy = paraphrase_accuracy(LanguageEncoder("minilm").encode)
    assert 0.6 < accuracy < 0.8


@pytest.mark.parametrize(
    ("encode", "complaint"),
    [
        (lambda texts: torch.ones(3), "one vector per text"),
        (lambda texts: torch.ones(2, 3), "one vector per text"),
        (lambda texts: torch.full((len(texts), 3), torch.nan), "not finite"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(encode, complaint) -> None:
    with pytest.raises(InputError, match=complaint):
        paraphrase_accuracy(encode)
    with pytest.raises(InputError, match=complaint):
        similarity_correlation(encode, random_vectors)
