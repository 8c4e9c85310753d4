"""Parts of a batch that auxiliary losses need: views, dropped ids, event types."""

from collections.abc import Callable

import numpy as np

from recsys_cl.data import Sequences
from recsys_cl.objectives.auxiliary import DroppedIds, SameTargetViews, TargetEventTypes, TwoViews
from recsys_cl.positives.view_pairs import views_named
from recsys_cl.training.windows import Cut

CutOf = Callable[..., Cut]
N = 12


def test_two_views_are_rows_one_below_the_other(train: Sequences, cut_of: CutOf) -> None:
    cut = cut_of(train)
    batch = TwoViews(train, views_named("crop:0.5", mask_id=N), length=5)(cut)
    sizes = np.maximum((cut.stop - cut.begin) // 2, 1)
    assert batch["view_lengths"].tolist() == [*sizes, *sizes]
    assert len(batch["view_items"]) == 2 * sizes.sum()


def test_another_history_has_the_same_next_item(train: Sequences, cut_of: CutOf) -> None:
    cut = cut_of(train)
    batch = SameTargetViews(train, N, length=5)(cut)
    views = np.split(batch["view_items"], np.cumsum(batch["view_lengths"])[:-1])
    own, others = views[: len(cut.user)], views[len(cut.user) :]
    histories = [train.items[start:stop].tolist() for start, stop in zip(train.start, train.stop, strict=True)]
    target = train.items[cut.stop - 1]
    found = 0
    for user, inputs, other, item in zip(cut.user, own, others, target, strict=True):
        assert 1 <= len(other) <= 5
        rows = [h for u, h in enumerate(histories) if item in h[1:] and h[: h.index(item)][-5:] == other.tolist()]
        assert rows  # somebody chose the item right after these
        assert (
            inputs.tolist() == histories[user][histories[user].index(item) - len(inputs) : histories[user].index(item)]
        )
        found += histories[user] not in rows
    assert found > len(target) / 2  # most items have another user


def test_ids_are_dropped_for_a_batch_at_the_rate(cut_of: CutOf) -> None:
    few = Sequences.from_lists([[0, 1]])
    part = DroppedIds(1000, 0.3, seed=5)
    first, second = (part(cut_of(few, epoch))["keep_id"] for epoch in (0, 1))
    assert abs((~first).mean() - 0.3) < 0.05
    assert (first != second).any()


def test_target_event_types_are_those_of_the_targets(cut_of: CutOf) -> None:
    log = Sequences.from_lists([[3, 4, 5]])
    typed = Sequences(**{**vars(log), "event_types": np.array([0, 2, 1])})
    assert TargetEventTypes(typed)(cut_of(typed))["target_event_type"].tolist() == [2, 1]
