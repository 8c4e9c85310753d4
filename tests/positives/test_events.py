"""What counts as a positive: every draw is one of those that a loop finds, and each of them as often as said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.data import PAD, Sequences, leave_one_out, synthetic
from recsys_cl.errors import InputError
from recsys_cl.positives import LikedByNeighbours, OtherItemOfUser, OtherUserOfItem, neighbours

check = settings(deadline=None, max_examples=60, derandomize=True)
N_ITEMS = 6
HISTORIES = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=6), min_size=1, max_size=6).filter(any)
EPOCHS = np.arange(200)


def owners(histories: list[list[int]]) -> list[int]:
    return [user for user, history in enumerate(histories) for _ in history]


def drawn(sampler, event: int) -> set[int]:
    """What an event got in 200 epochs."""
    return set(sampler.sample(EPOCHS, np.full(len(EPOCHS), event)).tolist())


def check_against(sampler, expected: list[list[int]]) -> None:
    """Everything expected is drawn and nothing else (36 choices at most: one is missed with chance .996²⁰⁰·36)."""
    events = np.arange(len(expected))
    assert sampler.eligible(events).tolist() == [bool(choices) for choices in expected]
    for event, choices in enumerate(expected):
        assert drawn(sampler, event) <= (set(choices) or {-1})
        if len(set(choices)) <= 5:
            assert drawn(sampler, event) == (set(choices) or {-1})


@given(HISTORIES, st.sampled_from([None, 1, 2, 3, 10]))
@check
def test_another_item_of_the_user_is_what_a_loop_finds(histories, window):
    sequences = Sequences.from_lists(histories)
    owner, items = owners(histories), sequences.items
    reach = len(items) if window is None else window
    expected = [
        [e for e in range(len(items)) if owner[e] == owner[a] and items[e] != items[a] and abs(e - a) <= reach]
        for a in range(len(items))
    ]
    check_against(OtherItemOfUser(sequences, window), expected)


@given(HISTORIES)
@check
def test_another_user_of_the_item_is_what_a_loop_finds(histories):
    sequences = Sequences.from_lists(histories)
    owner, items = owners(histories), sequences.items
    expected = [
        [e for e in range(len(items)) if owner[e] != owner[a] and items[e] == items[a]] for a in range(len(items))
    ]
    check_against(OtherUserOfItem(sequences, N_ITEMS), expected)


def nearest_by_loop(sets: list[set[int]], user: int, k: int) -> list[int]:
    """The definition: by squared cosine, a ratio of whole numbers, then by number."""
    overlap = {v: len(sets[user] & sets[v]) for v in range(len(sets)) if v != user and sets[user] & sets[v]}
    return sorted(overlap, key=lambda v: (-(overlap[v] ** 2) / len(sets[v]), v))[:k]


@given(HISTORIES, st.integers(1, 4))
@check
def test_what_neighbours_like_is_what_a_loop_finds(histories, k):
    sets = [set(history) for history in histories]
    sampler = LikedByNeighbours(Sequences.from_lists(histories), N_ITEMS, neighbours=k)
    for user in range(len(sets)):
        assert sampler.nearest[[user]].indices.tolist() == sorted(nearest_by_loop(sets, user, k))
    expected = [
        [i for v in nearest_by_loop(sets, user, k) for i in sorted(sets[v] - sets[user])] for user in owners(histories)
    ]
    check_against(sampler, expected)


def test_every_choice_of_another_item_is_equally_likely():
    """Item 1 stands among the choices of the first event twice; 4,000 draws, five standard errors."""
    sequences = Sequences.from_lists([[0, 1, 0, 2, 1, 0, 3]])
    n = 4_000
    draws = OtherItemOfUser(sequences).sample(np.arange(n), np.zeros(n, dtype=int))
    share = np.bincount(draws, minlength=7) / n
    expected = np.array([0, 1, 0, 1, 1, 0, 1]) / 4
    assert np.abs(share - expected).max() < 5 * np.sqrt(0.25 * 0.75 / n)


def test_neighbours_vote():
    """User 0's two neighbours both have item 2, one of them item 3: 2 is drawn twice as often."""
    sequences = Sequences.from_lists([[0, 1], [0, 1, 2], [0, 1, 2, 3]])
    n = 4_000
    draws = LikedByNeighbours(sequences, 4).sample(np.arange(n), np.zeros(n, dtype=int))
    assert set(draws) == {2, 3}
    assert abs((draws == 2).mean() - 2 / 3) < 5 * np.sqrt(2 / 9 / n)


def test_equally_similar_users_come_in_the_order_of_their_numbers():
    sequences = Sequences.from_lists([[0, 1], [0, 2], [0, 3], [0, 4], [5]])
    nearest = LikedByNeighbours(sequences, N_ITEMS, neighbours=2).nearest
    assert [nearest[[user]].indices.tolist() for user in range(5)] == [[1, 2], [0, 2], [0, 1], [0, 1], []]


def test_neighbours_do_not_depend_on_the_size_of_the_blocks(monkeypatch):
    split = leave_one_out(synthetic(100, 80, 1_500))
    events = split.train.flat()[1]
    whole = LikedByNeighbours(split.train, split.n_items, 5)
    monkeypatch.setattr(neighbours, "BLOCK", 700)
    in_blocks = LikedByNeighbours(split.train, split.n_items, 5)
    assert len(list(neighbours._blocks(100, 100))) == 15
    assert (whole.nearest != in_blocks.nearest).nnz == 0
    assert (whole.sample(3, events) == in_blocks.sample(3, events)).all()


@pytest.fixture(scope="module")
def split():
    return leave_one_out(synthetic(100, 80, 1_500))


@pytest.fixture(params=["item", "user", "neighbours"])
def sampler(request, split):
    match request.param:
        case "item":
            return OtherItemOfUser(split.train, window=5, seed=3)
        case "user":
            return OtherUserOfItem(split.train, split.n_items, seed=3)
        case _:
            return LikedByNeighbours(split.train, split.n_items, seed=3)


def test_a_draw_depends_on_the_epoch_and_the_event_and_not_on_the_batch(sampler, split):
    events = split.train.flat()[1]
    together = sampler.sample(2, events)
    order = np.random.default_rng(0).permutation(len(events))
    assert (sampler.sample(2, events[order]) == together[order]).all()
    assert [int(sampler.sample(2, events[[place]])[0]) for place in range(20)] == together[:20].tolist()
    epochs = np.where(np.arange(len(events)) % 2, 2, 7)
    assert (sampler.sample(epochs, events) == np.where(epochs == 2, together, sampler.sample(7, events))).all()
    assert (sampler.sample(7, events) != together).mean() > 0.5


def test_another_seed_draws_otherwise(split):
    events = split.train.flat()[1]
    first, second = (OtherItemOfUser(split.train, seed=seed).sample(0, events) for seed in (0, 1))
    assert (first != second).mean() > 0.5


def test_held_out_events_are_neither_anchors_nor_positives(sampler, split):
    """The log holds the test events too, beyond the end of the training sequences."""
    inside = split.train.flat()[1]
    outside = np.setdiff1d(np.arange(len(split.train.items)), inside)
    assert len(outside) > 0
    assert not sampler.eligible(outside).any()
    assert (sampler.sample(0, outside) == -1).all()
    if not isinstance(sampler, LikedByNeighbours):
        assert np.isin(sampler.sample(0, inside), [-1, *inside]).all()


def test_events_that_were_cut_off_a_sequence_are_in_no_window():
    sequences = Sequences.from_lists([[4, 4], [1, 2, 3]])
    later = replace(sequences, start=np.minimum(sequences.start + 1, sequences.stop))
    sampler = OtherItemOfUser(later, window=1)
    assert sampler.eligible(np.arange(5)).tolist() == [False, False, False, True, True]
    assert sampler.sample(0, np.arange(5)).tolist() == [-1, -1, -1, 4, 3]


def test_a_user_with_one_event_has_no_other_item_and_may_have_neighbours():
    sequences = Sequences.from_lists([[2], [2, 3]])
    event = np.array([0])
    assert OtherItemOfUser(sequences).sample(0, event).tolist() == [-1]
    assert OtherUserOfItem(sequences, 4).sample(0, event).tolist() == [1]
    assert LikedByNeighbours(sequences, 4).sample(0, event).tolist() == [3]


def test_nobody_learns_from_a_twin():
    sampler = LikedByNeighbours(Sequences.from_lists([[0, 1], [1, 0]]), 2)
    assert sampler.sample(0, np.arange(4)).tolist() == [PAD] * 4


def test_a_batch_may_be_empty(sampler):
    assert sampler.sample(0, np.array([], dtype=int)).shape == (0,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: OtherItemOfUser(s, window=0), "window=0"),
        (lambda s: LikedByNeighbours(s, N_ITEMS, neighbours=0), "neighbours=0"),
        (lambda s: OtherUserOfItem(s, 3), "n_items - 1 = 2"),
        (lambda s: LikedByNeighbours(s, 3), "n_items - 1 = 2"),
        (lambda s: OtherItemOfUser(s[np.array([], dtype=int)]), "without any event"),
        (lambda s: OtherItemOfUser(Sequences.from_lists([[], []])), "2 sequences without any event"),
        (lambda s: OtherUserOfItem(s[np.array([0, 1, 0])], N_ITEMS), "in two sequences"),
    ],
)
def test_what_cannot_be_sampled_from_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make(Sequences.from_lists([[1, 2], [3, 1]]))


@pytest.mark.parametrize("event", [np.array([4]), np.array([-1]), np.array([0.0]), np.array([[0]])])
def test_events_that_are_not_in_the_log_are_refused(event):
    with pytest.raises(InputError, match="positions in the log"):
        OtherItemOfUser(Sequences.from_lists([[1, 2], [3, 1]])).sample(0, event)
