"""Sequences are views into one log: whatever is sliced, shortened or padded agrees with plain lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.data import PAD, Sequences

check = settings(deadline=None, max_examples=60, derandomize=True)
N_ITEMS = 7
HISTORIES = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=6), min_size=1, max_size=6)


def lists(sequences: Sequences) -> list[list[int]]:
    return [sequences.items[a:b].tolist() for a, b in zip(sequences.start, sequences.stop, strict=True)]


@given(HISTORIES)
@check
def test_from_lists_gives_the_lists_back(histories):
    sequences = Sequences.from_lists(histories)
    assert len(sequences) == len(histories)
    assert lists(sequences) == histories
    assert sequences.lengths.tolist() == [len(history) for history in histories]


@given(HISTORIES, st.data())
@check
def test_selecting_rows_selects_lists(histories, data):
    sequences = Sequences.from_lists(histories)
    rows = data.draw(st.lists(st.integers(0, len(histories) - 1), max_size=8))
    assert lists(sequences[np.array(rows, dtype=int)]) == [histories[row] for row in rows]
    first, last = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 6))
    assert lists(sequences[first:last]) == histories[first:last]


def test_attributes_follow_their_users():
    base = Sequences.from_lists([[1], [2], [3]])
    ones = np.ones(3)
    with_attributes = Sequences(base.items, ones, ones, ones, base.start, base.stop, np.arange(6).reshape(3, 2))
    assert with_attributes[np.array([2, 0])].attributes.tolist() == [[4, 5], [0, 1]]
    assert with_attributes[1:].last(1).attributes.tolist() == [[2, 3], [4, 5]]


@given(HISTORIES, st.integers(1, 8))
@check
def test_last_keeps_the_latest_events(histories, n):
    assert lists(Sequences.from_lists(histories).last(n)) == [history[-n:] for history in histories]


@given(HISTORIES, st.integers(1, 8), st.data())
@check
def test_recent_is_the_last_items_padded_on_the_left(histories, length, data):
    rows = data.draw(st.permutations(range(len(histories))))
    recent = Sequences.from_lists(histories)[np.array(rows)].recent(length)
    for row, place in enumerate(rows):
        tail = histories[place][-length:]
        assert recent[row].tolist() == [PAD] * (length - len(tail)) + tail


@given(HISTORIES, st.data())
@check
def test_flat_names_every_event_once_with_its_row(histories, data):
    rows = np.array(data.draw(st.permutations(range(len(histories)))))
    sequences = Sequences.from_lists(histories)[rows]
    row, position = sequences.flat()
    expected = [(new, item) for new, old in enumerate(rows) for item in histories[old]]
    assert list(zip(row.tolist(), sequences.items[position].tolist(), strict=True)) == expected


@given(HISTORIES, st.sampled_from([1.0, 0.8, 0.5]), st.integers(0, 3))
@check
def test_matrix_weighs_the_kth_latest_event_by_decay_to_the_k(histories, decay, seed):
    base = Sequences.from_lists(histories)
    weights = np.random.default_rng(seed).uniform(1, 5, len(base.items))
    sequences = Sequences(base.items, base.times, base.ratings, weights, base.start, base.stop)
    expected = np.zeros((len(histories), N_ITEMS))
    for row, history in enumerate(histories):
        for place, item in enumerate(history):
            expected[row, item] += weights[base.start[row] + place] * decay ** (len(history) - 1 - place)
    matrix = sequences.matrix(N_ITEMS, decay=decay)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-6)


@pytest.mark.parametrize("histories", [[], [[]], [[], []]])
def test_empty_histories_are_legitimate(histories):
    sequences = Sequences.from_lists(histories)
    assert sequences.recent(3).tolist() == [[PAD] * 3] * len(histories)
    assert sequences.matrix(4).shape == (len(histories), 4)
    assert sequences.matrix(4).nnz == 0


def test_a_selection_copies_no_events():
    sequences = Sequences.from_lists([[1, 2, 3], [4]])
    assert sequences[:1].last(2).items is sequences.items
