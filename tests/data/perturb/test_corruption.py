"""Noise changes the training events it says, everywhere they are seen, and never a question's answer."""

from dataclasses import replace
from itertools import pairwise

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
    synthetic,
    temporal_split,
    validated_on_warm_items,
)
from recsys_cl.data.perturb.corruption import CORRUPTIONS, add_random, drop_random, swap_items
from recsys_cl.errors import InputError

check = settings(deadline=None, max_examples=40, derandomize=True)

PROTOCOLS = {
    "leave-one-out": leave_one_out,
    "leave-last-3": lambda data: leave_last_n(data, 3),
    "temporal": temporal_split,
    "cold-items": cold_item_split,
    "cold-items, validated on warm": lambda data: validated_on_warm_items(cold_item_split(data)),
}
WORLD = synthetic(n_users=60, n_items=64, n_events=700, seed=1)
SPLITS = {name: protocol(WORLD) for name, protocol in PROTOCOLS.items()}
every_split = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
every_kind = pytest.mark.parametrize("kind", CORRUPTIONS)
seeds, rates = st.integers(0, 99), st.floats(0.05, 0.4)

Row = list[tuple[int, float, float, float, int]]


def rows(sequences: Sequences) -> list[Row]:
    """Item, time, rating, weight and type of every event of each sequence."""
    assert sequences.event_types is not None
    columns = (sequences.items, sequences.times, sequences.ratings, sequences.weights, sequences.event_types)
    return [
        list(zip(*(column[start:stop].tolist() for column in columns), strict=True))
        for start, stop in zip(sequences.start, sequences.stop, strict=True)
    ]


def n_events(split: Split) -> int:
    return int(split.train.lengths.sum())


def held_out(split: Split) -> list[list[Row]]:
    return [rows(queries.target) for queries in (split.validation, split.test)]


def asked(split: Split) -> tuple[Queries, Queries]:
    return split.validation, split.test


@every_split
@every_kind
def test_targets_users_candidates_and_data_set_stay(kind, split):
    noisy = CORRUPTIONS[kind](split, 0.3)
    assert held_out(noisy) == held_out(split)
    assert noisy.data is split.data
    for after, before in zip(asked(noisy), asked(split), strict=True):
        np.testing.assert_array_equal(after.user, before.user)
        assert after.candidates is before.candidates


@every_split
@every_kind
def test_every_history_is_the_noisy_training_sequence_and_then_what_it_was(kind, split):
    noisy = CORRUPTIONS[kind](split, 0.3)
    before, after = rows(split.train), rows(noisy.train)
    for old, new in zip(asked(split), asked(noisy), strict=True):
        for user, was, now in zip(old.user, rows(old.history), rows(new.history), strict=True):
            assert now == after[user] + was[len(before[user]) :]


@every_split
@every_kind
def test_no_history_knows_its_answer_nor_an_item_twice(kind, split):
    for queries in asked(CORRUPTIONS[kind](split, 0.4, seed=3)):
        for history, target in zip(rows(queries.history), rows(queries.target), strict=True):
            seen = [item for item, *_ in history]
            assert len(set(seen)) == len(seen)
            assert not set(seen) & {item for item, *_ in target}


@every_kind
@given(rates, seeds)
@check
def test_the_number_of_changes_is_the_rate_of_the_training_events(kind, rate, seed):
    split = SPLITS["leave-last-3"]
    noisy = CORRUPTIONS[kind](split, rate, seed=seed)
    changes = round(rate * n_events(split))
    expected = {"add": changes, "drop": -changes, "swap": 0}[kind]
    assert n_events(noisy) - n_events(split) == expected
    assert noisy.counts.sum() == n_events(noisy)
    if kind == "swap":
        assert (noisy.train.items != split.train.items).sum() == changes


@given(rates, seeds)
@check
def test_adding_keeps_every_event_and_the_order_of_time(rate, seed):
    split = SPLITS["leave-last-3"]
    noisy = add_random(split, rate, seed=seed)
    for before, after in zip(rows(split.train), rows(noisy.train), strict=True):
        new = [event for event in after if event not in before]
        assert [event for event in after if event in before] == before
        assert not {item for item, *_ in new} & {item for item, *_ in before}
        times = [time for _, time, *_ in after]
        assert times == sorted(times)
        assert (times[0], times[-1]) == (before[0][1], before[-1][1])


def test_an_added_event_is_like_the_one_it_follows():
    split = SPLITS["leave-last-3"]
    noisy = add_random(split, 0.4)
    copied = 0
    for before, after in zip(rows(split.train), rows(noisy.train), strict=True):
        for previous, event in pairwise(after):
            if event not in before:
                copied += 1
                assert event[2:] == previous[2:]
    assert copied == round(0.4 * n_events(split))


@given(rates, seeds)
@check
def test_dropping_leaves_a_part_in_order_and_two_events_of_every_user(rate, seed):
    split = SPLITS["leave-last-3"]
    for before, after in zip(rows(split.train), rows(drop_random(split, rate, seed=seed).train), strict=True):
        remaining = iter(before)
        assert all(event in remaining for event in after)
        assert len(after) >= min(2, len(before))


def test_swapping_changes_items_alone():
    split = SPLITS["leave-last-3"]
    noisy = swap_items(split, 0.4)
    for before, after in zip(rows(split.train), rows(noisy.train), strict=True):
        assert [event[1:] for event in after] == [event[1:] for event in before]
        strange = [new[0] for old, new in zip(before, after, strict=True) if new != old]
        assert not set(strange) & {item for item, *_ in before}


@every_kind
def test_noise_at_a_lower_rate_is_a_part_of_that_at_a_higher(kind):
    split = SPLITS["leave-last-3"]
    clean, little, much = (
        {(user, event) for user, row in enumerate(rows(one.train)) for event in row}
        for one in (split, CORRUPTIONS[kind](split, 0.1, seed=5), CORRUPTIONS[kind](split, 0.4, seed=5))
    )
    assert little - clean <= much - clean
    assert clean - little <= clean - much
    assert len(much ^ clean) > len(little ^ clean) > 0


@every_kind
def test_a_seed_repeats_and_another_differs(kind):
    split = SPLITS["leave-last-3"]
    first, again, other = (rows(CORRUPTIONS[kind](split, 0.2, seed=seed).train) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("noise", [add_random, swap_items])
def test_random_items_are_uniform_over_the_catalogue(noise):
    """A count over a hundred seeds is Poisson or narrower: none of 64 is four deviations off."""
    split = SPLITS["leave-last-3"]
    free = np.ones((60, 64), dtype=bool)
    free[WORLD.user, WORLD.item] = False
    expected, found = np.zeros(64), np.zeros(64)
    for seed in range(100):
        noisy = noise(split, 0.05, seed=seed)
        for user, (before, after) in enumerate(zip(rows(split.train), rows(noisy.train), strict=True)):
            strange = [event[0] for event in after if event[0] not in {item for item, *_ in before}]
            np.add.at(found, strange, 1)
            expected += len(strange) * free[user] / free[user].sum()
    assert found.sum() == 100 * round(0.05 * n_events(split))
    assert (np.abs(found - expected) < 4 * np.sqrt(expected)).all()


@pytest.mark.parametrize("noise", [add_random, swap_items])
def test_what_must_stay_unseen_stays_unseen(noise):
    split = SPLITS["cold-items"]
    noisy = noise(split, 0.4)
    for queries in asked(split):
        assert noisy.counts[queries.candidates].sum() == 0


@pytest.mark.parametrize("noise", [add_random, swap_items])
def test_what_a_history_shows_is_not_added_a_second_time_though_no_query_asks_for_it(noise):
    full = SPLITS["leave-last-3"]
    last = np.append(np.diff(full.test.user) > 0, True)
    split = replace(full, validation=full.validation[:0], test=full.test[last])
    for history in rows(noise(split, 0.9).test.history):
        seen = [item for item, *_ in history]
        assert len(set(seen)) == len(seen)


def test_noise_upon_noise():
    split = SPLITS["leave-last-3"]
    noisy = drop_random(add_random(split, 0.3), 0.2)
    n = n_events(split) + round(0.3 * n_events(split))
    assert n_events(noisy) == n - round(0.2 * n)
    assert held_out(noisy) == held_out(split)


@every_kind
def test_a_noisy_split_is_not_mistaken_for_the_clean_one(kind):
    split = SPLITS["leave-last-3"]
    noisy = [CORRUPTIONS[kind](split, rate, seed=seed) for rate, seed in [(0.1, 0), (0.2, 0), (0.1, 1)]]
    assert len({str(one.identity) for one in [split, *noisy]}) == 4


@every_kind
@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(kind, rate):
    with pytest.raises(InputError, match=rf"rate={rate} is out of range"):
        CORRUPTIONS[kind](SPLITS["leave-last-3"], rate)


def small(*histories: list[int], n_items: int = 8) -> Split:
    """Leave-one-out of users with these items in this order."""
    table = [(user, item, time) for user, items in enumerate(histories) for time, item in enumerate(items)]
    events = pd.DataFrame(table, columns=["user_id", "item_id", "timestamp"])
    return leave_one_out(Interactions.from_tables(events, pd.DataFrame({"item_id": range(n_items)})))


@every_kind
def test_a_rate_that_changes_nothing_is_refused(kind):
    with pytest.raises(InputError, match=r"rate=0.1 of 3 training events is none; give at least 0.33"):
        CORRUPTIONS[kind](small([0, 1, 2, 3, 4]), 0.1)


def test_dropping_more_than_there_is_names_the_greatest_rate():
    split = small([0, 1, 2, 3, 4, 5, 6], [0, 1, 2])  # 5 and 1 training events
    assert drop_random(split, 0.5).train.lengths.tolist() == [2, 1]
    with pytest.raises(InputError, match=r"rate=0.7 would change 4 of 6 training events, .* give at most 0.5"):
        drop_random(split, 0.7)


@pytest.mark.parametrize("noise", [add_random, swap_items])
def test_a_user_who_knows_nearly_everything_is_named(noise):
    assert noise(small([0, 1, 2, 3, 4, 5]), 0.4).n_items == 8  # 2 of the 8 items are strange, 2 are needed
    with pytest.raises(InputError, match=r"user 0 knows all but 1 of 7 items, too few for 2"):
        noise(small([0, 1, 2, 3, 4, 5], n_items=7), 0.4)


def test_histories_in_another_log_are_refused():
    split = SPLITS["leave-last-3"]
    other = replace(split.test, history=Sequences.from_lists([[1, 2]] * len(split.test)))
    with pytest.raises(InputError, match="the test histories are views into another log"):
        swap_items(replace(split, test=other), 0.2)


def test_a_split_without_training_events_is_refused():
    split = SPLITS["leave-last-3"]
    with pytest.raises(InputError, match="no training events"):
        drop_random(replace(split, train=replace(split.train, stop=split.train.start)), 0.2)


@every_kind
@given(st.lists(st.permutations(range(6)), min_size=1, max_size=4), st.floats(0.05, 0.6), seeds)
@check
def test_any_log_keeps_its_targets_and_its_counts(kind, histories, rate, seed):
    split = small(*map(list, histories), n_items=10)
    assume(round(rate * n_events(split)) > 0)
    assume(kind != "drop" or round(rate * n_events(split)) <= n_events(split) - 2 * len(histories))
    noisy = CORRUPTIONS[kind](split, rate, seed=seed)
    sign = {"add": 1, "drop": -1, "swap": 0}[kind]
    assert n_events(noisy) == n_events(split) + sign * round(rate * n_events(split))
    np.testing.assert_array_equal(noisy.test.target.items, split.test.target.items)
    assert (noisy.test.history.lengths - noisy.train.lengths == split.test.history.lengths - split.train.lengths).all()
