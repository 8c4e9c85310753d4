"""What objectives need beside the windows."""

import numpy as np
import pytest
from recsys_cl.training.window_parts import (
    EventContext,
    ForgottenIds,
    HiddenEvents,
    KnownItems,
    NextKinds,
    OwnNegatives,
    SameTarget,
    SharedNegatives,
    TwoViews,
)

from recsys_cl.data import Sequences
from recsys_cl.negatives import UniformNegatives
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.positives.view_pairs import views_named
from recsys_cl.training.windows import Cut, Windows

N = 12


@pytest.fixture
def train() -> Sequences:
    rng = np.random.default_rng(0)
    return Sequences.from_lists([rng.permutation(N)[:n].tolist() for n in (12, 3, 9, 2)])


def cut_of(train: Sequences, epoch: int = 0) -> Cut:
    windows = Windows(train, length=5)
    return windows.cut([(epoch, window) for window in range(len(windows))])


def asked_of(train: Sequences, cut: Cut) -> np.ndarray:
    return np.concatenate([train.items[begin + 1 : stop] for begin, stop in zip(cut.begin, cut.stop, strict=True)])


def test_own_negatives_are_uniform_over_the_others(train: Sequences) -> None:
    drawn, asked = [], []
    for epoch in range(60):
        cut = cut_of(train, epoch)
        drawn.append(OwnNegatives(train, N, 4)(cut)["negative"])
        asked.append(asked_of(train, cut))
    negative, target = np.concatenate(drawn), np.concatenate(asked)
    assert negative.min() == 0
    assert negative.max() == N - 1
    assert not (negative == target[:, None]).any()
    shift = (negative - target[:, None]) % N  # 1 to N - 1, all alike
    share = np.bincount(shift.ravel(), minlength=N)[1:] / shift.size
    np.testing.assert_allclose(share, 1 / (N - 1), atol=0.02)  # standard error .004


def test_own_negatives_can_be_what_the_user_never_chose(train: Sequences) -> None:
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


def test_shared_negatives_come_with_their_chances(train: Sequences) -> None:
    sample = SharedNegatives(UniformNegatives(N), 7)(cut_of(train))
    assert sample["negative"].shape == sample["log_q"].shape == (7,)
    np.testing.assert_allclose(np.exp(sample["log_q"]), 1 / N, rtol=1e-6)


def test_known_items_are_all_that_the_windows_user_chose(train: Sequences) -> None:
    cut = cut_of(train)
    batch = KnownItems(train)(cut)
    for window, user in enumerate(cut.user):
        known = batch["known_item"][batch["known_row"] == window]
        assert known.tolist() == train.items[train.start[user] : train.stop[user]].tolist()


def test_hidden_events_can_be_put_back(train: Sequences) -> None:
    cut = cut_of(train)
    batch = HiddenEvents(train, N, share=0.4, last=0.2)(cut)
    assert (batch["items"][batch["hidden"]] == N).all()
    assert (batch["items"] == N).sum() == len(batch["hidden"])
    restored = batch["items"].copy()
    restored[batch["hidden"]] = batch["asked"]
    events = np.concatenate([train.items[begin:stop] for begin, stop in zip(cut.begin, cut.stop, strict=True)])
    assert restored.tolist() == events.tolist()
    assert batch["lengths"].sum() == len(events)


def test_two_views_are_rows_one_below_the_other(train: Sequences) -> None:
    cut = cut_of(train)
    batch = TwoViews(train, views_named("crop:0.5", mask_id=N), length=5)(cut)
    sizes = np.maximum((cut.stop - cut.begin) // 2, 1)
    assert batch["view_lengths"].tolist() == [*sizes, *sizes]
    assert len(batch["view_items"]) == 2 * sizes.sum()


def test_another_history_has_the_same_next_item(train: Sequences) -> None:
    cut = cut_of(train)
    batch = SameTarget(train, N, length=5)(cut)
    views = np.split(batch["view_items"], np.cumsum(batch["view_lengths"])[:-1])
    own, others = views[: len(cut.user)], views[len(cut.user) :]
    histories = [train.items[start:stop].tolist() for start, stop in zip(train.start, train.stop, strict=True)]
    asked = train.items[cut.stop - 1]
    found = 0
    for user, inputs, other, item in zip(cut.user, own, others, asked, strict=True):
        assert 1 <= len(other) <= 5
        rows = [h for u, h in enumerate(histories) if item in h[1:] and h[: h.index(item)][-5:] == other.tolist()]
        assert rows  # somebody chose the item right after these
        assert (
            inputs.tolist() == histories[user][histories[user].index(item) - len(inputs) : histories[user].index(item)]
        )
        found += histories[user] not in rows
    assert found > len(asked) / 2  # most items have another user


def test_ids_are_forgotten_for_a_batch_at_the_rate() -> None:
    few = Sequences.from_lists([[0, 1]])
    part = ForgottenIds(1000, 0.3, seed=5)
    first, second = (part(cut_of(few, epoch))["keep_id"] for epoch in (0, 1))
    assert abs((~first).mean() - 0.3) < 0.05
    assert (first != second).any()


def test_context_stands_beside_its_input(train: Sequences) -> None:
    cut = cut_of(train)
    train.ratings[:] = np.arange(len(train.ratings)) % 5 + 1
    features = EventContext(train, ["rating"])(cut)["features"]
    events = np.concatenate([np.arange(begin, stop - 1) for begin, stop in zip(cut.begin, cut.stop, strict=True)])
    assert features[:, 0].tolist() == (2 * train.ratings[events]).astype(int).tolist()


def test_next_kinds_are_those_of_what_is_asked() -> None:
    log = Sequences.from_lists([[3, 4, 5]])
    kinds = Sequences(**{**vars(log), "event_types": np.array([0, 2, 1])})
    assert NextKinds(kinds)(cut_of(kinds))["asked_kind"].tolist() == [2, 1]
