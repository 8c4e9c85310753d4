"""Windows: every event is asked for once an epoch, after what came right before it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError
from recsys_cl.training.windows import EventContext, Windows, ragged


def histories(lengths: list[int]) -> Sequences:
    """All items differ, so that an item says whose event it is and which."""
    ends = np.cumsum(lengths)
    return Sequences.from_lists([list(range(end - n, end)) for n, end in zip(lengths, ends, strict=True)])


def epoch_of(windows: Windows, epoch: int) -> list[tuple[list[int], list[int]]]:
    """Inputs and what is asked of every window of an epoch."""
    batch = windows.collate([(epoch, window) for window in range(len(windows))])
    sizes = batch["lengths"].tolist()
    return [
        (inputs.tolist(), asked.tolist())
        for inputs, asked in zip(batch["items"].split(sizes), batch["target"].split(sizes), strict=True)
    ]


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda ns: max(ns) > 1),
    length=st.integers(1, 9),
    epoch=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_every_event_but_the_first_is_asked_for_once_after_what_came_before(
    lengths: list[int], length: int, epoch: int
) -> None:
    train = histories(lengths)
    found = epoch_of(Windows(train, length=length), epoch)
    asked = sorted(item for _, items in found for item in items)
    first = set((np.cumsum(lengths) - lengths)[np.array(lengths) > 0].tolist())
    assert asked == sorted(set(range(sum(lengths))) - first)
    for inputs, items in found:
        assert 1 <= len(inputs) <= length
        assert [item + 1 for item in inputs] == items


def test_epochs_cut_elsewhere_and_the_same_epoch_cuts_alike() -> None:
    windows = Windows(histories([100, 100]), length=10)
    assert epoch_of(windows, 0) == epoch_of(Windows(histories([100, 100]), length=10), 0)
    assert epoch_of(windows, 0) != epoch_of(windows, 1)
    assert epoch_of(windows, 0) != epoch_of(Windows(histories([100, 100]), length=10, seed=1), 0)


def test_over_the_epochs_an_event_is_asked_for_after_contexts_of_every_length() -> None:
    windows = Windows(histories([60]), length=10)
    context = [
        next(items.index(35) + 1 for _, items in epoch_of(windows, epoch) if 35 in items) for epoch in range(400)
    ]
    counts = np.bincount(context, minlength=11)[1:]
    assert counts.min() > 20  # 40 expected of each


def test_a_window_is_the_same_whatever_stands_beside_it() -> None:
    windows = Windows(histories([30, 5, 22]), length=7)
    alone = [windows.collate([(2, number)])["items"].tolist() for number in range(len(windows))]
    together = windows.collate([(2, number) for number in range(len(windows))])["items"].tolist()
    there = [items for items in alone if set(items) <= set(together)]
    assert sorted(set(together)) == sorted({item for items in there for item in items})


def test_a_batch_of_empty_windows_still_teaches() -> None:
    windows = Windows(histories([12]), length=10)  # two windows, of which the second is empty if the cut is at 10
    sizes = {tuple(windows.collate([(epoch, 1)])["lengths"].tolist()) for epoch in range(200)}
    assert all(len(size) == 1 and 1 <= size[0] <= 10 for size in sizes)


def test_an_update_asks_for_new_events_after_what_came_before_them() -> None:
    train = histories([9, 3])
    train.times[:] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2]
    found = epoch_of(Windows(train, length=6, since=7.0), 0)
    assert found == [([3, 4, 5, 6, 7], [4, 5, 6, 7, 8])]  # 7 and 8 are new, half a window before them comes along


def test_nothing_to_predict_is_an_error() -> None:
    with pytest.raises(InputError, match="no user has two training events: nothing to predict"):
        Windows(histories([1, 1, 0]), length=5)
    with pytest.raises(InputError, match="one of them since 9"):
        Windows(histories([4]), length=5, since=9)


def test_ragged_lists_ranges() -> None:
    assert ragged(np.array([2, 5, 5]), np.array([4, 5, 6])).tolist() == [2, 3, 5]


def test_context_stands_beside_its_input() -> None:
    train = histories([12, 3, 9, 2])
    windows = Windows(train, length=5)
    cut = windows.cut([(0, window) for window in range(len(windows))])
    train.ratings[:] = np.arange(len(train.ratings)) % 5 + 1
    features = EventContext(train, ["rating"])(cut)["features"]
    events = np.concatenate([np.arange(begin, stop - 1) for begin, stop in zip(cut.begin, cut.stop, strict=True)])
    assert features[:, 0].tolist() == (2 * train.ratings[events]).astype(int).tolist()
