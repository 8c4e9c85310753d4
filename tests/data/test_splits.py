"""Splits never let a query see its answer, nor anything that its protocol calls the future."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recsys_cl.data import (
    Interactions,
    Queries,
    Sequences,
    Split,
    cold_item_split,
    leave_last_n,
    leave_one_out,
    load_movielens,
    new_user_split,
    synthetic,
    temporal_split,
    validated_on_warm_items,
)
from recsys_cl.errors import InputError

check = settings(deadline=None, max_examples=60, derandomize=True)


@st.composite
def logs(draw: st.DrawFn) -> Interactions:
    """Users with two or more items, ties and repeats among them, rows in any order."""
    event = st.tuples(st.integers(0, 7), st.integers(0, 5))
    histories = st.lists(event, min_size=2, max_size=9, unique=True).filter(lambda rows: len({i for i, _ in rows}) > 1)
    people = draw(st.lists(histories, min_size=1, max_size=5))
    rows = [(user, *event) for user, history in enumerate(people) for event in history]
    order = np.random.default_rng(draw(st.integers(0, 9))).permutation(len(rows))
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).iloc[order]
    return Interactions.from_tables(table.reset_index(drop=True), pd.DataFrame({"item_id": range(8)}))


def items_of(sequences: Sequences) -> Iterator[np.ndarray]:
    for start, stop in zip(sequences.start, sequences.stop, strict=True):
        yield sequences.items[start:stop]


def pairs(users: np.ndarray, sequences: Sequences) -> list[tuple[int, int]]:
    """Every (user, item) of some sequences, as often as it occurs."""
    return [(int(u), int(i)) for u, items in zip(users, items_of(sequences), strict=True) for i in items]


def everything(data: Interactions) -> set[tuple[int, int]]:
    return set(zip(data.user.tolist(), data.item.tolist(), strict=True))


def parts(split: Split) -> list[list[tuple[int, int]]]:
    """What trains, what is asked in validation, what is asked in the test."""
    return [
        pairs(np.arange(len(split.train)), split.train),
        pairs(split.validation.user, split.validation.target),
        pairs(split.test.user, split.test.target),
    ]


def assert_no_query_knows_its_answer(queries: Queries) -> None:
    for seen, wanted in zip(items_of(queries.history), items_of(queries.target), strict=True):
        assert len(wanted)
        assert not set(seen) & set(wanted)


def assert_disjoint(split: Split) -> set[tuple[int, int]]:
    train, validation, test = parts(split)
    union = {*train, *validation, *test}
    assert len(union) == len(train) + len(validation) + len(test)
    return union


# leave-one-out and leave-last-n


@given(logs(), st.integers(1, 4), st.integers(0, 3))
@check
def test_leave_last_n_divides_every_event_and_hides_every_answer(data, n, seed):
    split = leave_last_n(data, n, seed=seed)
    assert assert_disjoint(split) == everything(data)
    assert_no_query_knows_its_answer(split.validation)
    assert_no_query_knows_its_answer(split.test)


@given(logs(), st.integers(1, 4), st.integers(0, 3))
@check
def test_leave_last_n_predicts_each_event_from_everything_before_it(data, n, seed):
    split = leave_last_n(data, n, seed=seed)
    full = [items.tolist() for items in items_of(data.sequences(seed=seed))]
    train = [items.tolist() for items in items_of(split.train)]
    for user, history in enumerate(full):
        n_test = min(n, len(history) - 1)
        n_validation = min(n, (len(history) - n_test) // 2)
        first = len(history) - n_test
        expected = {
            "test": [(history[:t], [history[t]]) for t in range(first, len(history))],
            "validation": [(history[:t], [history[t]]) for t in range(first - n_validation, first)],
        }
        assert train[user] == history[: first - n_validation]
        assert train[user]
        for name, wanted in expected.items():
            queries = getattr(split, name)
            queries = queries[queries.user == user]
            asked = zip(items_of(queries.history), items_of(queries.target), strict=True)
            assert [(seen.tolist(), target.tolist()) for seen, target in asked] == wanted


@given(logs(), st.integers(0, 3))
@check
def test_leave_one_out_tests_the_last_item_and_validates_the_last_but_one(data, seed):
    split = leave_one_out(data, seed=seed)
    full = list(items_of(data.sequences(seed=seed)))
    assert split.test.user.tolist() == list(range(data.n_users))
    assert [target.tolist() for target in items_of(split.test.target)] == [[items[-1]] for items in full]
    longer = [items for items in full if len(items) > 2]
    assert [target.tolist() for target in items_of(split.validation.target)] == [[items[-2]] for items in longer]
    assert split.protocol == "leave-one-out"


def test_a_user_with_one_interaction_is_refused_with_the_remedy():
    table = pd.DataFrame({"user_id": ["a", "a", "solo"], "item_id": [1, 2, 1], "timestamp": [1, 2, 3]})
    data = Interactions.from_tables(table)
    for split in (leave_one_out, leave_last_n):
        with pytest.raises(InputError, match=r"^user_id 'solo' has one interaction \(1 such users\).*min_events=2\)$"):
            split(data)
    assert len(leave_one_out(data.filter(min_events=2)).test) == 1


def test_a_user_who_had_one_item_twice_is_refused_too():
    table = pd.DataFrame({"user_id": ["a", "a", "b", "b"], "item_id": [1, 2, 1, 1], "timestamp": [1, 2, 3, 4]})
    with pytest.raises(InputError, match="user_id 'b' has one interaction"):
        leave_one_out(Interactions.from_tables(table))


@pytest.mark.parametrize("n", [0, -3])
def test_leaving_out_less_than_one_event_is_refused(n):
    with pytest.raises(InputError, match=rf"n={n} .*1 or more"):
        leave_last_n(synthetic(20, 40, 100), n)


@pytest.mark.parametrize(("n", "protocol", "asked"), [(1, "leave-one-out", 943), (10, "leave-last-10", 9430)])
def test_movielens_asks_as_many_queries_as_every_user_allows(n, protocol, asked):
    split = leave_last_n(load_movielens(), n)
    assert split.protocol == protocol
    assert len(split.test) == asked
    events = np.bincount(split.data.user)
    assert len(split.validation) == np.minimum(n, (events - n) // 2).sum()
    assert split.train.lengths.sum() + len(split.validation) + len(split.test) == 100_000
    assert split.counts.sum() == split.train.lengths.sum()


def test_tie_seed_changes_the_questions_of_tied_data_only():
    tied, distinct = synthetic(200, 64, 2000, ties=0.6), synthetic(200, 64, 2000, ties=0)
    answers = [
        [next(items_of(leave_one_out(data, seed=seed).test.target[user : user + 1])).tolist() for user in range(200)]
        for data in (tied, distinct)
        for seed in (0, 0, 1)
    ]
    assert answers[0] == answers[1] != answers[2]
    assert answers[3] == answers[4] == answers[5]


# temporal


def times_of(sequences: Sequences) -> np.ndarray:
    return sequences.times[sequences.flat()[1]]


def town(seed: int = 0) -> Interactions:
    """A hundred users, active all the time, with many ties."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"user_id": rng.integers(100, size=2500), "item_id": rng.integers(200, size=2500)})
    table = table.drop_duplicates(ignore_index=True)
    return Interactions.from_tables(table.assign(timestamp=rng.integers(300, size=len(table))))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("test", "validation"), [(0.1, 0.1), (0.3, 0.2)])
def test_temporal_split_cuts_time_once_for_everybody(seed, test, validation):
    data = town(seed)
    split = temporal_split(data, test=test, validation=validation, seed=seed)
    train, middle, late = (times_of(part) for part in (split.train, split.validation.target, split.test.target))
    assert train.max() < middle.min()
    assert middle.max() < late.min()
    assert times_of(split.validation.history).max() <= train.max()
    assert times_of(split.test.history).max() < late.min()
    assert len(train) / len(data) == pytest.approx(1 - test - validation, abs=0.02)
    assert split.protocol == "temporal"


@given(logs(), st.sampled_from([(0.1, 0.1), (0.3, 0.3), (0.2, 0.5)]))
@check
def test_temporal_split_loses_only_users_who_have_no_past(data, shares):
    try:
        split = temporal_split(data, test=shares[0], validation=shares[1])
    except InputError:  # everybody's events are on one side of a cut
        assume(False)
    union = assert_disjoint(split)
    assert_no_query_knows_its_answer(split.validation)
    assert_no_query_knows_its_answer(split.test)
    assert all(split.train.lengths[user] == 0 for user, _ in everything(data) - union)
    for queries in (split.validation, split.test):  # one query a user, with all of the past as its history
        assert len(set(queries.user.tolist())) == len(queries)
        assert (queries.history.lengths > 0).all()


def test_the_test_history_holds_everything_before_the_cut_validation_included():
    table = pd.DataFrame({"user_id": ["a"] * 10, "item_id": range(10), "timestamp": range(10)})
    split = temporal_split(Interactions.from_tables(table), test=0.2, validation=0.3)
    assert [items.tolist() for items in items_of(split.train)] == [[0, 1, 2, 3, 4]]
    assert [items.tolist() for items in items_of(split.validation.target)] == [[5, 6, 7]]
    assert [items.tolist() for items in items_of(split.test.history)] == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert [items.tolist() for items in items_of(split.test.target)] == [[8, 9]]


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.1, 0.0), (0.6, 0.4), (-0.1, 0.5), (float("nan"), 0.1)])
def test_temporal_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(InputError, match=r"test=.*validation=.*sum below 1"):
        temporal_split(synthetic(20, 40, 100), test=shares[0], validation=shares[1])


def test_data_without_a_past_and_a_future_is_refused():
    table = pd.DataFrame({"user_id": list("aabb"), "item_id": [1, 2, 1, 2], "timestamp": 7})
    with pytest.raises(InputError, match="both sides of the validation cut; use another split"):
        temporal_split(Interactions.from_tables(table))


# cold items


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cold_items_are_in_no_training_sequence_and_no_history(seed):
    data = synthetic(150, 80, 2500, seed=seed)
    split = cold_item_split(data, share=0.15, seed=seed)
    n_cold = round(0.15 * len(np.unique(data.item)))
    cold = {"validation": set(split.validation.candidates), "test": set(split.test.candidates)}
    assert len(cold["validation"]) == len(cold["test"]) == n_cold
    assert not cold["validation"] & cold["test"]
    unseen = cold["validation"] | cold["test"]
    for sequences in (split.train, split.validation.history, split.test.history):
        assert not unseen & set(sequences.items[sequences.flat()[1]])
    for name in ("validation", "test"):
        queries = getattr(split, name)
        assert set(queries.target.items[queries.target.flat()[1]]) <= cold[name]
        assert_no_query_knows_its_answer(queries)
    assert set(np.flatnonzero(split.counts == 0)) >= unseen
    assert split.protocol == "cold-items"


@given(logs(), st.sampled_from([0.2, 0.3]), st.integers(0, 5))
@check
def test_cold_item_queries_are_the_users_with_warm_and_cold_items(data, share, seed):
    try:
        split = cold_item_split(data, share=share, seed=seed)
    except InputError:
        assume(False)
    everyone = everything(data)
    for queries in (split.validation, split.test):
        cold = set(queries.candidates.tolist())
        warm = {
            user: {item for who, item in everyone if who == user}
            - set(split.validation.candidates.tolist())
            - set(split.test.candidates.tolist())
            for user in range(data.n_users)
        }
        wanted = {user: {item for who, item in everyone if who == user and item in cold} for user in warm}
        assert queries.user.tolist() == [user for user in warm if warm[user] and wanted[user]]
        asked = zip(queries.user, items_of(queries.history), items_of(queries.target), strict=True)
        for user, history, target in asked:
            assert set(history) == warm[user]
            assert set(target) == wanted[user]
    assert_disjoint(split)


def test_cold_draws_follow_the_seed():
    data = synthetic(100, 80, 1500)
    draws = [cold_item_split(data, seed=seed).test.candidates.tolist() for seed in (4, 4, 5)]
    assert draws[0] == draws[1] != draws[2]


def test_histories_stay_in_the_order_of_time():
    split = cold_item_split(synthetic(100, 80, 1500, ties=0.4), share=0.2)
    for sequences in (split.train, split.test.history, split.test.target):
        for start, stop in zip(sequences.start, sequences.stop, strict=True):
            assert (np.diff(sequences.times[start:stop]) >= 0).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, -0.1, 0.001])
def test_a_share_without_cold_or_without_warm_items_is_refused(share):
    with pytest.raises(InputError, match=rf"share={share} .*\(0, 0\.5\)"):
        cold_item_split(synthetic(50, 40, 400), share=share)


# new users


@given(logs(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
@check
def test_new_users_train_nothing_and_their_targets_follow_their_first_events(data, n_history, n_targets, seed):
    try:
        split = new_user_split(data, n_history, n_targets=n_targets, share=0.5, seed=seed)
    except InputError:  # too few users, or none with so many events
        assume(False)
    full = [items.tolist() for items in items_of(data.sequences(seed=seed))]
    new = np.flatnonzero(split.train.lengths == 0)
    assert len(new) == round(0.5 * data.n_users)
    assert split.test.user.tolist() == [user for user in new if len(full[user]) >= n_history + n_targets]
    for user, history, target in zip(
        split.test.user, items_of(split.test.history), items_of(split.test.target), strict=True
    ):
        assert history.tolist() == full[user][:n_history]
        assert target.tolist() == full[user][n_history : n_history + n_targets]
    assert not set(split.validation.user.tolist()) & set(new.tolist())
    assert_disjoint(split)


def test_new_users_are_the_same_however_much_they_bring():
    splits = [new_user_split(town(), n_history) for n_history in (1, 8)]
    assert splits[0].train.lengths.tolist() == splits[1].train.lengths.tolist()
    assert set(splits[1].test.user.tolist()) <= set(splits[0].test.user.tolist())


def test_the_last_events_of_the_others_validate_one_by_one():
    table = pd.DataFrame({"user_id": list("aaaaaaabb"), "item_id": [*range(7), 7, 8], "timestamp": range(9)})
    drawn = (new_user_split(Interactions.from_tables(table), 1, n_targets=1, share=0.5, seed=seed) for seed in range(9))
    split = next(split for split in drawn if split.test.user.tolist() == [1])  # b is new
    assert [items.tolist() for items in items_of(split.train)] == [[0, 1, 2, 3, 4, 5], []]
    assert [items.tolist() for items in items_of(split.validation.target)] == [[6]]
    assert [items.tolist() for items in items_of(split.validation.history)] == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_history": 0}, r"n_history=0, n_targets=10: give 1 or more of both"),
        ({"n_targets": 0}, r"n_history=5, n_targets=0: give 1 or more of both"),
        ({"share": 0.0}, r"share=0\.0 makes 0 of 100 users new; leave some of both kinds"),
        ({"share": 1.0}, r"share=1\.0 makes 100 of 100 users new"),
        ({"n_history": 90}, r"no new user has 90 \+ 10 events; give fewer"),
    ],
)
def test_new_users_who_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        new_user_split(town(), **settings)


# all of them

SPLITS = [leave_one_out, leave_last_n, new_user_split, temporal_split, cold_item_split]


@pytest.mark.parametrize("split", SPLITS[:-1])
def test_targets_follow_their_histories(split):
    made = split(town())
    for queries in (made.validation, made.test):
        before = queries.history.times[queries.history.stop - 1]
        after = queries.target.times[queries.target.start]
        assert (before <= after).all()


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_a_function_of_the_data_and_the_seed(split):
    data = town()
    first, second = split(data, seed=7), split(data, seed=7)
    assert parts(first) == parts(second)
    assert first.seed == 7


@pytest.mark.parametrize("split", SPLITS)
def test_rows_of_queries_can_be_selected(split):
    queries = split(town()).test
    some = queries[np.array([3, 1])]
    assert some.user.tolist() == queries.user[[3, 1]].tolist()
    assert [i.tolist() for i in items_of(some.target)] == [list(items_of(queries.target))[r].tolist() for r in (3, 1)]
    assert some.candidates is queries.candidates


def test_validation_on_warm_items_asks_for_the_last_training_event_and_leaves_the_tests_alone() -> None:
    split = cold_item_split(synthetic(200, 64, 2400, seed=0), seed=1)
    warm = validated_on_warm_items(split)
    assert warm.test is split.test
    asked = warm.validation.user
    assert (split.train.lengths[asked] > 1).all()
    np.testing.assert_array_equal(
        warm.validation.target.items[warm.validation.target.start], split.train.items[split.train.stop[asked] - 1]
    )
    np.testing.assert_array_equal(warm.train.stop[asked], split.train.stop[asked] - 1)
    assert warm.validation.candidates is None


def test_folds_of_cold_items_are_disjoint_and_the_first_is_the_default() -> None:
    data = synthetic(100, 80, 1_500)
    folds = [cold_item_split(data, fold=fold, seed=3) for fold in range(10)]
    tested = [split.test.candidates for split in folds]
    assert tested[0].tolist() == cold_item_split(data, seed=3).test.candidates.tolist()
    assert len(np.unique(np.concatenate(tested))) == sum(map(len, tested)) >= 0.95 * len(np.unique(data.item))
    assert all(not np.intersect1d(split.validation.candidates, split.test.candidates).size for split in folds)
    with pytest.raises(InputError, match="fold=10 of 10; give 0 to 9"):
        cold_item_split(data, fold=10)
