"""Views of histories: what a loop over the rows would accept, as often as said, and the same in any batch."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.data import PAD, RowRandom, Sequences
from recsys_cl.errors import InputError
from recsys_cl.positives import VIEWS, similar_items, two_views, views_named
from recsys_cl.positives.sequence_views import crop, insert, mask, reorder, substitute

check = settings(deadline=None, max_examples=60, derandomize=True)
N_ITEMS, MASK = 6, 6
SIMILAR = np.array([[1, 2], [3, PAD], [4, 5], [PAD, PAD], [0, 1], [2, PAD]])
HISTORIES = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=7), min_size=1, max_size=6)
RATIOS = st.sampled_from([0.1, 0.3, 0.5, 0.6, 1.0])
ALL = "crop:0.5+mask:0.5+reorder+substitute+insert"

Rows = list[list[int]]


def ragged(histories: Rows) -> tuple[np.ndarray, np.ndarray]:
    sequences = Sequences.from_lists(histories)
    return sequences.items, sequences.lengths


def rows(items: np.ndarray, lengths: np.ndarray) -> Rows:
    assert items.shape == (lengths.sum(),)
    assert items.dtype.kind == lengths.dtype.kind == "i"
    return [row.tolist() for row in np.split(items, np.cumsum(lengths)[:-1])]


def chance(histories: Rows, epoch: int = 0, seed: int = 0) -> RowRandom:
    return RowRandom(seed, epoch, np.arange(len(histories)) + 10)


def whole(ratio: float, n: int) -> int:
    """The share of n rounded down, in whole tenths."""
    return round(10 * ratio) * n // 10


@given(HISTORIES, RATIOS)
@check
def test_a_crop_is_a_contiguous_part(histories, ratio):
    for row, part in zip(histories, rows(*crop(*ragged(histories), chance(histories), ratio=ratio)), strict=True):
        size = min(len(row), max(1, whole(ratio, len(row))))
        assert part in [row[start : start + size] for start in range(len(row) - size + 1)]


@given(HISTORIES, RATIOS)
@check
def test_a_mask_stands_for_a_share_of_the_events(histories, ratio):
    masked = rows(*mask(*ragged(histories), chance(histories), mask_id=MASK, ratio=ratio))
    for row, view in zip(histories, masked, strict=True):
        assert view.count(MASK) == whole(ratio, len(row))
        assert all(new in (old, MASK) for old, new in zip(row, view, strict=True))


@given(HISTORIES, RATIOS)
@check
def test_only_a_contiguous_part_is_reordered(histories, ratio):
    for row, view in zip(histories, rows(*reorder(*ragged(histories), chance(histories), ratio=ratio)), strict=True):
        assert sorted(view) == sorted(row)
        moved = [place for place in range(len(row)) if row[place] != view[place]]
        assert not moved or moved[-1] - moved[0] < whole(ratio, len(row))


@given(HISTORIES, RATIOS)
@check
def test_items_are_replaced_by_similar_ones(histories, ratio):
    views = rows(*substitute(*ragged(histories), chance(histories), similar=SIMILAR, ratio=ratio))
    for row, view in zip(histories, views, strict=True):
        changed = [(old, new) for old, new in zip(row, view, strict=True) if old != new]
        assert all(new != PAD and new in SIMILAR[old] for old, new in changed)
        chosen, alone = max(1, whole(ratio, len(row))), row.count(3)  # nothing is similar to item 3
        assert min(chosen, len(row)) - alone <= len(changed) <= chosen


@given(HISTORIES, RATIOS)
@check
def test_similar_items_are_put_before(histories, ratio):
    views = rows(*insert(*ragged(histories), chance(histories), similar=SIMILAR, ratio=ratio))
    for row, view in zip(histories, views, strict=True):
        assert view[-1:] == row[-1:]
        chosen, grown = max(1, whole(ratio, len(row))), len(view) - len(row)
        assert min(chosen, len(row)) - row.count(3) <= grown <= chosen
        assert is_thinned(view, row)


def is_thinned(view: list[int], row: list[int]) -> bool:
    """Whether ``view`` is ``row`` with items put in, each of them similar to the one that follows."""
    if not view or not row:
        return view == row
    kept = view[0] == row[0] and is_thinned(view[1:], row[1:])
    put = len(view) > 1 and view[0] in SIMILAR[row[0]] and view[1] == row[0] and is_thinned(view[2:], row[1:])
    return kept or put


def test_a_share_is_of_whole_events_whatever_floating_point_says():
    assert 0.29 * 100 < 29
    assert crop(*ragged([[0] * 100]), chance([[]]), ratio=0.29)[1].tolist() == [29]


def test_every_start_and_every_order_is_equally_likely():
    """4,000 epochs, five standard errors."""
    n = 4_000
    items, lengths = np.tile(np.arange(4), n), np.full(n, 4)
    epochs = RowRandom(0, np.arange(n), np.zeros(n, dtype=int))
    starts = crop(items, lengths, epochs, ratio=0.5)[0].reshape(n, 2)[:, 0]
    assert np.abs(np.bincount(starts) / n - 1 / 3).max() < 5 * np.sqrt(2 / 9 / n)
    _, orders = np.unique(reorder(items, lengths, epochs, ratio=1.0)[0].reshape(n, 4), axis=0, return_counts=True)
    assert len(orders) == 24
    assert np.abs(orders / n - 1 / 24).max() < 5 * np.sqrt(23 / 24**2 / n)


def test_every_event_and_every_similar_item_is_equally_likely():
    n = 4_000
    items, lengths = np.tile([0, 2, 4], n), np.full(n, 3)
    epochs = RowRandom(0, np.arange(n), np.zeros(n, dtype=int))
    hidden = mask(items, lengths, epochs, mask_id=MASK, ratio=0.4)[0].reshape(n, 3) == MASK
    assert np.abs(hidden.mean(0) - 1 / 3).max() < 5 * np.sqrt(2 / 9 / n)
    replaced = substitute(items, lengths, epochs, similar=SIMILAR, ratio=1.0)[0].reshape(n, 3)
    for place, (one, other) in enumerate([(1, 2), (4, 5), (0, 1)]):
        assert set(replaced[:, place]) == {one, other}
        assert abs((replaced[:, place] == one).mean() - 0.5) < 5 * np.sqrt(0.25 / n)


class TestChance:
    @pytest.mark.parametrize("name", VIEWS)
    @given(histories=HISTORIES)
    @check
    def test_a_view_depends_on_the_example_and_not_on_the_batch(self, name, histories):
        (view,) = views_named(name, mask_id=MASK, similar=SIMILAR)
        numbers = chance(histories)
        together = rows(*view(*ragged(histories), numbers))
        for b, history in enumerate(histories):
            assert rows(*view(*ragged([history]), RowRandom(0, 0, numbers.example[[b]]))) == [together[b]]

    @pytest.mark.parametrize("name", VIEWS)
    def test_another_epoch_and_another_seed_give_another_view(self, name):
        histories = [[0, 1, 2, 4, 5, 0, 1, 2, 4, 5]] * 40
        (view,) = views_named(name, mask_id=MASK, similar=SIMILAR)
        first = rows(*view(*ragged(histories), chance(histories)))
        for other in (chance(histories, epoch=1), chance(histories, seed=1)):
            changed = rows(*view(*ragged(histories), other))
            assert sum(one != another for one, another in zip(first, changed, strict=True)) > 25

    @pytest.mark.parametrize("name", VIEWS)
    def test_the_history_itself_stays_as_it_is(self, name):
        items, lengths = ragged([[0, 1, 2, 4], [5, 0]])
        before = items.copy(), lengths.copy()
        (view,) = views_named(name, mask_id=MASK, similar=SIMILAR)
        view(items, lengths, chance([[], []]))
        assert (items == before[0]).all()
        assert (lengths == before[1]).all()


class TestPairs:
    @given(HISTORIES, st.integers(1, 8))
    @check
    def test_both_views_depend_on_the_example_and_not_on_the_batch(self, histories, longest):
        options = {"views": views_named(ALL, mask_id=MASK, similar=SIMILAR), "longest": longest}
        numbers = chance(histories)
        together = [rows(*view) for view in two_views(*ragged(histories), numbers, **options)]
        assert all(len(row) <= longest for view in together for row in view)
        for b, history in enumerate(histories):
            alone = two_views(*ragged([history]), RowRandom(0, 0, numbers.example[[b]]), **options)
            assert [rows(*view) for view in alone] == [[view[b]] for view in together]

    def test_each_row_has_its_own_epoch(self):
        histories = [[0, 1, 2, 4, 5]] * 6
        options = {"views": views_named(ALL, mask_id=MASK, similar=SIMILAR), "longest": 9}
        early, late, mixed = (
            rows(*two_views(*ragged(histories), RowRandom(0, epoch, np.arange(6)), **options)[0])
            for epoch in (1, 2, np.array([1, 2, 2, 2, 1, 1]))
        )
        assert mixed == [early[0], *late[1:4], *early[4:]]
        assert early != late

    def test_each_row_has_one_of_the_views_and_all_equally_often(self):
        """Crops are shorter, insertions longer, masks show: 3,000 rows, five standard errors."""
        histories = [[0, 1, 2, 4]] * 3_000
        views = views_named("crop+mask:0.5+insert", mask_id=MASK, similar=SIMILAR)
        for view in two_views(*ragged(histories), chance(histories), views, longest=9):
            shown = rows(*view)
            kinds = [sum(len(row) < 4 for row in shown), sum(MASK in row for row in shown)]
            kinds.append(sum(len(row) > 4 for row in shown))
            assert sum(kinds) == 3_000
            assert np.abs(np.array(kinds) / 3_000 - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 3_000)

    def test_the_two_views_of_a_row_and_those_of_the_next_differ(self):
        histories = [[0, 1, 2, 4, 5, 0, 1, 2, 4, 5]] * 100
        views = views_named("reorder:1", mask_id=MASK)
        first, second = (rows(*view) for view in two_views(*ragged(histories), chance(histories), views, longest=10))
        assert sum(one == other for one, other in zip(first, second, strict=True)) < 3
        assert sum(one == other for one, other in pairwise(first)) < 3
        assert sum(one == other for one, other in zip(first[1:], second, strict=False)) < 3

    def test_what_has_grown_too_long_loses_its_oldest_events(self):
        items, lengths = ragged([[0, 1, 2]])
        views = views_named("insert:1.0", mask_id=MASK, similar=SIMILAR[:, :1])
        for part, size in two_views(items, lengths, chance([[]]), views, longest=3):
            assert part.tolist() == [1, 4, 2]  # of 1 0 3 1 4 2
            assert size.tolist() == [3]


class TestNames:
    def test_a_ratio_behind_the_name_overrides_the_default(self):
        items, lengths = ragged([list(range(6)) * 5])
        default, half = views_named(" crop + crop : 0.5", mask_id=MASK)
        assert default(items, lengths, chance([[]]))[1].tolist() == [18]
        assert half(items, lengths, chance([[]]))[1].tolist() == [15]

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ("crop+maks", "did you mean 'mask'"),
            ("flip", "choose from crop, mask, reorder, substitute, insert"),
            ("", "no view ''"),
            ("crop:much", "'crop:much' needs a ratio"),
            ("crop:0", "above 0 and at most 1"),
            ("crop:1.5", "above 0 and at most 1"),
            ("insert", "give similar="),
            ("substitute:0.2", "give similar="),
        ],
    )
    def test_what_is_wrong_is_named(self, names, message):
        with pytest.raises(InputError, match=message):
            views_named(names, mask_id=MASK)


@given(HISTORIES.filter(any), st.integers(1, 4))
@check
def test_similar_items_share_users(histories, k):
    users = [{user for user, history in enumerate(histories) if item in history} for item in range(N_ITEMS)]
    table = similar_items(Sequences.from_lists(histories), N_ITEMS, k)
    assert table.shape == (N_ITEMS, k)
    for item, others in enumerate(table.tolist()):
        shared = {j: len(users[item] & users[j]) for j in range(N_ITEMS) if j != item and users[item] & users[j]}
        nearest = sorted(shared, key=lambda j: (-(shared[j] ** 2) / len(users[j]), j))[:k]
        assert others == sorted(nearest) + [PAD] * (k - len(nearest))


class TestBadInput:
    @pytest.mark.parametrize("name", VIEWS)
    @pytest.mark.parametrize(
        ("items", "lengths", "example", "message"),
        [
            ([0, 1], [3], [0], "do not fit"),
            ([0, 1], [2], [0, 1], "do not fit"),
            ([0, 1], [3, -1], [0, 1], "a length is -1"),
        ],
    )
    def test_of_the_batch(self, name, items, lengths, example, message):
        views = views_named(name, mask_id=MASK, similar=SIMILAR)
        given = np.array(items), np.array(lengths), RowRandom(0, 0, np.array(example))
        with pytest.raises(InputError, match=message):
            views[0](*given)
        with pytest.raises(InputError, match=message):
            two_views(*given, views, longest=5)

    @pytest.mark.parametrize("ratio", [0.0, -1.0, 1.1, float("nan")])
    def test_of_the_ratio(self, ratio):
        with pytest.raises(InputError, match="ratio="):
            crop(*ragged([[1, 2]]), chance([[]]), ratio=ratio)

    @pytest.mark.parametrize("view", [substitute, insert])
    @pytest.mark.parametrize("item", [PAD, N_ITEMS])
    def test_of_an_item_that_is_not_in_the_catalogue(self, view, item):
        with pytest.raises(InputError, match="items are"):
            view(*ragged([[item]]), chance([[]]), similar=SIMILAR)

    def test_of_pairs(self):
        with pytest.raises(InputError, match="0 views"):
            two_views(*ragged([[1]]), chance([[]]), [], longest=5)
        with pytest.raises(InputError, match="at most 0 events"):
            two_views(*ragged([[1]]), chance([[]]), [crop], longest=0)

    def test_of_similar_items(self):
        with pytest.raises(InputError, match="k=0"):
            similar_items(Sequences.from_lists([[1]]), 2, 0)
        with pytest.raises(InputError, match="2 sequences without any event"):
            similar_items(Sequences.from_lists([[], []]), 2, 1)
        with pytest.raises(InputError, match="n_items - 1 = 1"):
            similar_items(Sequences.from_lists([[2]]), 2, 1)
