"""Token ids are cut with their ends kept, padded, and gathered by length."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys_cl.text.tokens import TextTokens, batches, cut_message


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 100))
def test_batches_hold_every_text_once_within_the_budget_and_the_longest_first(lengths, budget):
    made = batches(lengths, budget)
    assert sorted(number for batch in made for number in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[number] for number in batch) <= budget
    tops = [lengths[number] for batch in made for number in batch]
    assert tops == sorted(tops, reverse=True)


def test_padding_stands_on_the_right_and_is_masked(tokenizer):
    tokens = TextTokens(tokenizer("bert"), max_length=8, closed=False, name="bert")
    ids, mask = tokens.pad([[2, 5, 3], [2, 3]])
    assert ids.tolist() == [[2, 5, 3], [2, 3, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert mask.dtype == torch.int64


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_lengths_are_those_before_the_cut(kind, tokenizer):
    tokens = TextTokens(tokenizer(kind), max_length=4, closed=False, name=kind)
    rows, lengths = tokens(["war " * 9, "war", ""])
    specials = 2 if kind == "bert" else 0
    assert lengths == [9 + specials, 1 + specials, specials]
    assert list(map(len, rows)) == [4, 1 + specials, max(1, specials)]


def test_nothing_is_said_where_nothing_was_cut():
    assert cut_message([1, 256], 256) is None
    assert cut_message([100, 912] * 1_200, 256) == (
        "1,200 of 2,400 texts are longer than 256 tokens and were cut; the longest has 912"
    )
