"""Hidden events: how many, which, and by what they are decided."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.data import RowRandom
from recsys_cl.errors import InputError
from recsys_cl.objectives.parts import cloze

check = settings(deadline=None, max_examples=60, derandomize=True)
LENGTHS = st.lists(st.integers(0, 8), min_size=1, max_size=8).map(np.array)
SHARES = st.sampled_from([1e-9, 0.2, 0.6, 1.0])


def by_row(hidden: np.ndarray, lengths: np.ndarray) -> list[list[bool]]:
    return [row.tolist() for row in np.split(hidden, np.cumsum(lengths)[:-1])]


@given(LENGTHS, SHARES, st.sampled_from([0.0, 0.5, 1.0]))
@check
def test_every_row_with_events_hides_at_least_one(lengths, share, last):
    hidden = cloze(lengths, RowRandom(0, 0, np.arange(len(lengths))), share=share, last=last)
    assert hidden.shape == (lengths.sum(),)
    assert [any(row) for row in by_row(hidden, lengths)] == (lengths > 0).tolist()


@given(LENGTHS, SHARES)
@check
def test_what_is_hidden_depends_on_the_example_and_not_on_the_batch(lengths, share):
    chance = RowRandom(5, 2, np.arange(len(lengths)) + 10)
    options = {"share": share, "last": 0.3}
    together = by_row(cloze(lengths, chance, **options), lengths)
    for b in range(len(lengths)):
        assert cloze(lengths[[b]], RowRandom(5, 2, chance.example[[b]]), **options).tolist() == together[b]
    epochs = np.where(np.arange(len(lengths)) % 2, 2, 7)
    mixed = by_row(cloze(lengths, RowRandom(5, epochs, chance.example), **options), lengths)
    assert mixed[1::2] == together[1::2]


@pytest.mark.parametrize(("n", "share"), [(1, 0.2), (3, 0.2), (10, 0.6)])
def test_as_many_are_hidden_as_the_docstring_says(n, share):
    """4,000 rows of n events, five standard errors of a count with at most binomial variance."""
    rows = 4_000
    hidden = cloze(np.full(rows, n), RowRandom(0, 0, np.arange(rows)), share=share).reshape(rows, n)
    expected = n * share + (1 - share) ** n
    assert abs(hidden.sum(1).mean() - expected) <= 5 * np.sqrt(n * share * (1 - share) / rows)
    places = hidden.mean(0)
    assert np.abs(places - places.mean()).max() < 5 * np.sqrt(0.25 / rows)  # no place is favoured


def test_another_epoch_and_another_seed_hide_other_events():
    lengths, counters = np.full(100, 10), [(0, 0), (0, 1), (1, 0)]
    first, *others = (cloze(lengths, RowRandom(seed, epoch, np.arange(100)), share=0.5) for seed, epoch in counters)
    for other in others:
        assert 0.4 < (first != other).mean() < 0.6


def test_some_rows_hide_their_last_event_alone():
    rows, n = 4_000, 20
    hidden = cloze(np.full(rows, n), RowRandom(0, 0, np.arange(rows)), share=0.5, last=0.25).reshape(rows, n)
    only_last = hidden[:, -1] & (hidden.sum(1) == 1)  # by chance of the other kind: once in 2^20
    assert abs(only_last.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / rows)
    assert abs(hidden[~only_last].mean() - 0.5) < 5 * np.sqrt(0.25 / (0.75 * rows * n))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 0.0}, "share=0"),
        ({"share": 1.5}, "share=1.5"),
        ({"share": float("nan")}, "share=nan"),
        ({"last": -0.1}, "last=-0.1"),
        ({"last": 2.0}, "last=2.0"),
        ({"chance": RowRandom(0, 0, np.arange(3))}, "do not fit"),
        ({"lengths": np.array([2, -1])}, "a length is -1"),
    ],
)
def test_bad_input(change, message):
    given = {"lengths": np.array([2, 3]), "chance": RowRandom(0, 0, np.arange(2)), "share": 0.2} | change
    with pytest.raises(InputError, match=message):
        cloze(**given)
