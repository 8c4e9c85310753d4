"""Parts of a batch that sequence losses need: negatives, known positives, masked events."""

from collections.abc import Callable

import numpy as np

from recsys_cl.data import Sequences
from recsys_cl.negatives import UniformNegatives
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.objectives.parts import KnownItems, MaskedEvents, OwnNegatives, SharedNegatives
from recsys_cl.training.windows import Cut, Windows

CutOf = Callable[..., Cut]
N = 12


def targets_of(train: Sequences, cut: Cut) -> np.ndarray:
    return np.concatenate([train.items[begin + 1 : stop] for begin, stop in zip(cut.begin, cut.stop, strict=True)])


def test_own_negatives_are_uniform_over_the_others(train: Sequences, cut_of: CutOf) -> None:
    drawn, targets = [], []
    for epoch in range(60):
        cut = cut_of(train, epoch)
        drawn.append(OwnNegatives(train, N, 4)(cut)["negative"])
        targets.append(targets_of(train, cut))
    negative, target = np.concatenate(drawn), np.concatenate(targets)
    assert negative.min() == 0
    assert negative.max() == N - 1
    assert not (negative == target[:, None]).any()
    shift = (negative - target[:, None]) % N  # 1 to N - 1, all alike
    share = np.bincount(shift.ravel(), minlength=N)[1:] / shift.size
    np.testing.assert_allclose(share, 1 / (N - 1), atol=0.02)  # standard error .004


def test_own_negatives_can_be_what_the_user_never_chose(train: Sequences, cut_of: CutOf) -> None:
    few = train[np.array([1, 2, 3])]  # 3, 9 and 2 of the 12 items
    cut, known = cut_of(few), KnownPositives(few, N)
    negative = OwnNegatives(few, N, 3, known)(cut)["negative"]
    rows = np.repeat(cut.user, cut.stop - 1 - cut.begin)
    chosen = [set(few.items[start:stop]) for start, stop in zip(few.start, few.stop, strict=True)]
    light = rows != 1  # of the user with 9 of 12, a negative in ten is known after 8 draws
    assert not any(
        item in chosen[row] for row, items in zip(rows[light], negative[light], strict=True) for item in items
    )
    assert len(np.unique(negative[rows == 2])) > 2


def test_own_negatives_of_an_event_do_not_depend_on_its_batch(train: Sequences) -> None:
    windows, part = Windows(train, length=5), OwnNegatives(train, N, 3)
    whole = part(windows.cut([(1, window) for window in range(len(windows))]))["negative"]
    parts = [part(windows.cut([(1, window)]))["negative"] for window in range(len(windows))]
    alone = {row.tobytes() for rows in parts for row in rows}
    assert {row.tobytes() for row in whole} <= alone


def test_shared_negatives_come_with_their_chances(train: Sequences, cut_of: CutOf) -> None:
    sample = SharedNegatives(UniformNegatives(N), 7)(cut_of(train))
    assert sample["negative"].shape == sample["log_q"].shape == (7,)
    np.testing.assert_allclose(np.exp(sample["log_q"]), 1 / N, rtol=1e-6)


def test_known_items_are_all_that_the_windows_user_chose(train: Sequences, cut_of: CutOf) -> None:
    cut = cut_of(train)
    batch = KnownItems(train)(cut)
    for window, user in enumerate(cut.user):
        known = batch["known_item"][batch["known_row"] == window]
        assert known.tolist() == train.items[train.start[user] : train.stop[user]].tolist()


def test_masked_events_can_be_put_back(train: Sequences, cut_of: CutOf) -> None:
    cut = cut_of(train)
    batch = MaskedEvents(train, N, share=0.4, last=0.2)(cut)
    assert (batch["items"][batch["masked"]] == N).all()
    assert (batch["items"] == N).sum() == len(batch["masked"])
    restored = batch["items"].copy()
    restored[batch["masked"]] = batch["target"]
    events = np.concatenate([train.items[begin:stop] for begin, stop in zip(cut.begin, cut.stop, strict=True)])
    assert restored.tolist() == events.tolist()
    assert batch["lengths"].sum() == len(events)
