"""Content recommenders see the texts only, and are the projections and regressions they claim to be."""

import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.data import Interactions, Sequences, Split, cold_item_split, leave_last_n, synthetic
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.recommenders import LanguageContent, TextRidge, TfidfContent, content, create, load_recommender

NAMES = ["tfidf", "minilm", "minilm-raw", "ridge"]
NEWCOMERS = Sequences.from_lists([[3, 1, 4], [], [7], [5, 9, 2, 6]])
N_ITEMS = 64


class WordVectors:
    """An encoder without a network: the sum of a fixed random vector per word and one that all texts share."""

    shared, dim = 4.0, 24

    def __init__(self, name: str, **_: object) -> None:
        self.name = name

    def encode(self, texts: list[str]) -> Tensor:
        vectors = np.zeros((len(texts), 24))
        for row, text in enumerate(texts):
            vectors[row] = self.shared
            for word in text.split():
                vectors[row] += np.random.default_rng(zlib.crc32(word.encode())).normal(size=24)
        return torch.from_numpy(vectors).float()


@pytest.fixture(autouse=True)
def encoder(monkeypatch) -> type[WordVectors]:
    monkeypatch.setattr(content, "LanguageEncoder", WordVectors)
    monkeypatch.setattr(WordVectors, "shared", 4.0)
    return WordVectors


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthetic(120, N_ITEMS, 1_800, seed=5)


@pytest.fixture(scope="module")
def split(data) -> Split:
    return cold_item_split(data, share=0.2)


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def history(queries: Sequences, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Items and weights of one history."""
    place = slice(queries.start[row], queries.stop[row])
    return queries.items[place], queries.weights[place]


# TF-IDF


def test_tfidf_is_similarity_to_the_texts_of_the_history(data, split):
    """A plain loop over scikit-learn's vectors, up to the scale of each row, which no ranking sees."""
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(data.texts).toarray()
    scores = TfidfContent().fit(split).score(split.test.history[:15]).numpy()
    for row in range(15):
        items, weights = history(split.test.history, row)
        profile = sum(weight * vectors[item] for item, weight in zip(items, weights, strict=True))
        assert cosine(scores[row], vectors @ profile) == pytest.approx(1)


def test_a_model_that_is_fitted_again_forgets_the_first_catalogue(split):
    other = cold_item_split(synthetic(100, 96, 1_500, seed=9))
    recommender = TfidfContent().fit(split)
    recommender.score(NEWCOMERS)
    assert_close(recommender.fit(other).score(NEWCOMERS), TfidfContent().fit(other).score(NEWCOMERS))


# language model


def test_centred_vectors_have_mean_zero_before_they_are_normalised(data, split):
    state = LanguageContent().fit(split).state
    embeddings = WordVectors("").encode(data.texts)
    centred = embeddings - state["mean"]
    assert_close(centred.mean(0), torch.zeros(24), atol=1e-4, rtol=0)
    assert_close(state["vectors"], centred / centred.norm(dim=1, keepdim=True))
    assert_close(state["vectors"].norm(dim=1), torch.ones(N_ITEMS))


@pytest.mark.parametrize("centre", [True, False])
def test_the_language_model_scores_by_cosine_to_the_mean_of_the_history(centre, data, split):
    embeddings = WordVectors("").encode(data.texts).numpy().astype(np.float64)
    embeddings -= embeddings.mean(0) if centre else 0
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = LanguageContent(centre=centre).fit(split).score(split.test.history).numpy()
    for row in range(15):
        items, weights = history(split.test.history, row)
        profile = (weights[:, None] * embeddings[items]).sum(0)
        np.testing.assert_allclose(scores[row], [cosine(profile, vector) for vector in embeddings], atol=1e-5)


@pytest.mark.parametrize("name", ["minilm", "ridge"])
def test_what_all_texts_share_does_not_matter_once_it_is_centred(name, split, encoder):
    before = create(name).fit(split).score(NEWCOMERS)
    encoder.shared = -20.0
    assert_close(create(name).fit(split).score(NEWCOMERS), before, atol=1e-4, rtol=1e-4)


def test_what_all_texts_share_hides_the_differences_if_it_is_not_centred(split, encoder):
    encoder.shared = 100.0
    raw = LanguageContent(centre=False).fit(split).score(NEWCOMERS[:1])
    assert raw.min() > 0.99
    assert LanguageContent().fit(split).score(NEWCOMERS[:1]).min() < 0.2


def test_the_named_model_is_the_one_that_encodes(split, monkeypatch):
    asked = []

    class Recorder(WordVectors):
        def __init__(self, name: str, **options: object) -> None:
            asked.append(name)

    monkeypatch.setattr(content, "LanguageEncoder", Recorder)
    LanguageContent(model="some/model").fit(split)
    TextRidge(model="another/model").fit(split)
    assert asked == ["some/model", "another/model"]


# ridge


@pytest.mark.parametrize("l2", [0.5, 30.0])
def test_text_ridge_is_a_ridge_regression_per_user(l2, data, split):
    embeddings = WordVectors("").encode(data.texts).numpy().astype(np.float64)
    embeddings -= embeddings.mean(0)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    warm = np.flatnonzero(split.counts > 0)
    assert len(warm) < N_ITEMS
    scores = TextRidge(l2=l2).fit(split).score(split.test.history).numpy()
    for row in range(15):
        items, weights = history(split.test.history, row)
        behaviour = np.zeros(N_ITEMS)
        behaviour[items] = weights
        model = Ridge(alpha=l2, fit_intercept=False).fit(embeddings[warm], behaviour[warm])
        np.testing.assert_allclose(scores[row], embeddings @ model.coef_, atol=1e-4)


def test_strong_regularisation_makes_the_ridge_rank_like_the_mean_of_the_history(split):
    """(EᵀE + λI)⁻¹ tends to I / λ: the zero-shot profile."""
    histories = split.test.history[:20]
    ridge = TextRidge(l2=1e6).fit(split).score(histories).numpy()
    zero_shot = LanguageContent().fit(split).score(histories).numpy()
    for row in range(20):
        assert cosine(ridge[row], zero_shot[row]) == pytest.approx(1, abs=1e-4)


# what all of them keep to


@pytest.mark.parametrize("name", NAMES)
def test_newcomers_are_scored_and_an_empty_history_is_no_exception(name, split):
    scores = create(name).fit(split).score(NEWCOMERS)
    assert scores.shape == (4, N_ITEMS)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    assert scores[1].unique().tolist() == [0]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_scores_the_same_when_it_is_loaded(name, split, tmp_path):
    fitted = create(name).fit(split)
    fitted.save(tmp_path / "model")
    for loaded in (type(fitted).load(tmp_path / "model"), load_recommender(tmp_path / "model")):
        assert loaded == fitted
        assert_close(loaded.score(NEWCOMERS), fitted.score(NEWCOMERS), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_cold_items_are_found_by_their_texts(name, encoder):
    """Half as many again among the first five as by chance, in a world whose texts carry the taste."""
    encoder.shared = 0.5
    split = cold_item_split(synthetic(300, 300, 9_000, drift=0), share=0.2)
    text, chance = (evaluate(create(one).fit(split), split.test, ks=(5,)).mean("recall@5") for one in (name, "random"))
    assert text > 1.5 * chance


@pytest.mark.parametrize("name", ["tfidf", "minilm", "minilm-raw"])
def test_an_items_own_text_finds_the_item(name, data, split):
    fitted = create(name).fit(split)
    assert fitted.reads_text
    for item in (0, 17, 63):
        scores = fitted.score_text(data.texts[item])
        assert scores.shape == (1, N_ITEMS)
        assert int(scores.argmax()) == item


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", "zzz qqq"])
def test_a_text_without_a_known_word_is_scored(name, text, split):
    fitted = create(name).fit(split)
    if not fitted.reads_text:
        with pytest.raises(InputError, match="does not read text"):
            fitted.score_text(text)
    else:
        assert fitted.score_text(text).isfinite().all()


@pytest.mark.parametrize("name", ["tfidf", "minilm"])
def test_behaviour_is_not_used(name, data):
    first, second = leave_last_n(data, 2), leave_last_n(data, 2)
    emptied = Split("none", data, second.train[:1], second.validation, second.test, 0)
    assert_close(create(name).fit(first).score(NEWCOMERS), create(name).fit(emptied).score(NEWCOMERS))


@pytest.mark.parametrize("name", NAMES)
def test_two_items_with_one_text_have_one_score(name):
    rng = np.random.default_rng(0)
    items = pd.DataFrame({"item_id": range(12), "text": ["red car", "red car", *(f"word{n} thing" for n in range(10))]})
    events = pd.DataFrame({"user_id": rng.integers(9, size=90), "item_id": rng.integers(12, size=90)})
    events = events.drop_duplicates(ignore_index=True)
    data = Interactions.from_tables(events.assign(timestamp=range(len(events))), items)
    scores = create(name).fit(leave_last_n(data, 1)).score(Sequences.from_lists([[3, 4], [0]]))
    assert_close(scores[:, 0], scores[:, 1])
