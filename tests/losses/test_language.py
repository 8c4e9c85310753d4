"""Objectives of pre-training: what is hidden, what is predicted, and what a likelihood says."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from recsys_cl.errors import InputError
from recsys_cl.losses.language import (
    IGNORED,
    bits_per_character,
    causal_language_loss,
    mask_each,
    mask_tokens,
    masked_language_loss,
    perplexity,
)

close = torch.testing.assert_close
MASK, VOCABULARY = 4, 1_000
SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}


@pytest.fixture(scope="module")
def texts():
    ids = torch.randint(5, VOCABULARY, (400, 50), generator=torch.Generator().manual_seed(0))
    maskable = torch.ones_like(ids, dtype=torch.bool)
    maskable[:, 0] = maskable[:, -1] = False
    return ids, maskable


def hide(ids, maskable, **options):
    options = {"mask_id": MASK, "vocabulary_size": VOCABULARY, "example": np.arange(len(ids))} | options
    return mask_tokens(ids, maskable, **options)


def test_fifteen_percent_are_chosen_and_only_where_they_may_be(texts):
    ids, maskable = texts
    _, labels = hide(ids, maskable)
    chosen = labels != IGNORED
    assert not (chosen & ~maskable).any()
    close(labels[chosen], ids[chosen])
    assert chosen[maskable].double().mean() == pytest.approx(0.15, abs=0.01)  # sd 0.0026 over 19,200 places


def test_of_the_chosen_80_percent_are_masked_10_random_10_kept(texts):
    ids, maskable = texts
    hidden, labels = hide(ids, maskable)
    chosen = labels != IGNORED
    masked, kept = (hidden == MASK)[chosen], (hidden == ids)[chosen]
    assert masked.double().mean() == pytest.approx(0.8, abs=0.03)  # sd 0.0075 over 2,880 places
    assert kept.double().mean() == pytest.approx(0.1, abs=0.03)
    assert (~masked & ~kept).double().mean() == pytest.approx(0.1, abs=0.03)
    close(hidden[~chosen], ids[~chosen])


def test_the_random_tokens_come_from_the_whole_vocabulary(texts):
    ids, maskable = texts
    hidden, _ = hide(ids, maskable, share=1.0)
    random = hidden[maskable & (hidden != MASK) & (hidden != ids)]
    assert 0 <= random.min() < VOCABULARY * 0.02
    assert VOCABULARY * 0.98 < random.max() < VOCABULARY
    assert random.double().mean() == pytest.approx(VOCABULARY / 2, rel=0.05)


def test_what_is_hidden_depends_on_seed_epoch_and_example_and_not_on_the_batch(texts):
    ids, maskable = texts
    hidden, labels = hide(ids, maskable, epoch=3, seed=1)
    rows = torch.tensor([7, 3])
    alone = hide(ids[rows], maskable[rows], epoch=3, seed=1, example=rows.numpy())
    close(alone, (hidden[rows], labels[rows]))
    mixed = hide(ids[rows], maskable[rows], epoch=np.array([3, 5]), seed=1, example=rows.numpy())
    close(mixed[0][0], hidden[7])
    for other in ({"epoch": 4, "seed": 1}, {"epoch": 3, "seed": 2}):
        assert (hide(ids, maskable, **other)[1] != labels).any()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, math.nan])
def test_a_share_that_is_none_is_refused(texts, share):
    with pytest.raises(InputError, match="above 0 and at most 1"):
        hide(*texts, share=share)


def test_mask_each_hides_every_maskable_token_once():
    ids, maskable = torch.tensor([1, 7, 8, 9, 2]), torch.tensor([False, True, True, True, False])
    hidden, labels = mask_each(ids, maskable, mask_id=MASK)
    close(hidden, torch.tensor([[1, 4, 8, 9, 2], [1, 7, 4, 9, 2], [1, 7, 8, 4, 2]]))
    assert [row[row != IGNORED].tolist() for row in labels] == [[7], [8], [9]]


def test_masked_loss_is_that_of_transformers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForMaskedLM(BertConfig(**SIZE)).eval()
        ids = torch.randint(5, 50, (3, 8))
    labels = ids.masked_fill(torch.arange(8) % 3 != 0, IGNORED)
    found = model(input_ids=ids, labels=labels)
    close(masked_language_loss(found.logits, labels), found.loss)


def test_causal_loss_is_that_of_transformers_and_shifts_by_one():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZE)).eval()
        ids = torch.randint(5, 50, (3, 8))
    labels = ids.clone()
    labels[1, 5:] = IGNORED
    found = model(input_ids=ids, labels=labels)
    close(causal_language_loss(found.logits, labels), found.loss)
    by_hand = [
        -F.log_softmax(found.logits[row, place], dim=0)[ids[row, place + 1]]
        for row, length in enumerate([8, 5, 8])
        for place in range(length - 1)
    ]
    close(causal_language_loss(found.logits, labels), torch.stack(by_hand).mean())


def test_nothing_to_predict_costs_nothing_and_keeps_the_graph():
    logits = torch.randn(2, 4, 6, requires_grad=True)
    loss = masked_language_loss(logits, torch.full((2, 4), IGNORED))
    loss.backward()
    assert loss == 0
    close(logits.grad, torch.zeros_like(logits))


def test_no_opinion_has_the_vocabulary_as_perplexity():
    loss = masked_language_loss(torch.zeros(1, 10, 30), torch.arange(10)[None])
    assert perplexity(10 * float(loss), 10) == pytest.approx(30)


def test_bits_per_character_do_not_depend_on_how_the_text_is_cut():
    letters = 4 * math.log(8)  # four letters out of eight
    pairs = 2 * math.log(64)  # two pairs out of sixty-four
    assert perplexity(letters, 4) != pytest.approx(perplexity(pairs, 2))
    assert bits_per_character(letters, ["abcd"]) == pytest.approx(3)
    assert bits_per_character(pairs, ["abcd"]) == pytest.approx(3)
