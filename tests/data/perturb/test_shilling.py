"""Fake users look as the attack prescribes, push the target, and leave the real ones and their questions alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.data import Split, cold_item_split, leave_last_n, leave_one_out, synthetic, temporal_split
from recsys_cl.data.perturb.corruption import add_random
from recsys_cl.data.perturb.shilling import ATTACKS, inject
from recsys_cl.errors import InputError

check = settings(deadline=None, max_examples=40, derandomize=True)

WORLD = synthetic(n_users=60, n_items=64, n_events=700, seed=1)
SPLIT = leave_last_n(WORLD, 3)
TARGET = int(np.argmin(SPLIT.counts))
every_kind = pytest.mark.parametrize("kind", ATTACKS)


def fakes(split: Split, n: int, column: str = "items") -> np.ndarray:
    """A column of the last ``n`` training sequences, which are of equal length: ``(n, profile)``."""
    train, values = split.train, getattr(split.train, column)
    return np.array([values[start:stop] for start, stop in zip(train.start[-n:], train.stop[-n:], strict=True)])


@every_kind
@given(users=st.integers(1, 60), profile=st.integers(2, 25), target=st.integers(0, 63), seed=st.integers(0, 99))
@check
def test_a_profile_has_its_length_no_item_twice_and_the_target_last(kind, users, profile, target, seed):
    attacked, injected = inject(SPLIT, target, kind, users=users, profile=profile, seed=seed)
    items = fakes(attacked, users)
    assert items.shape == (users, profile)
    assert (items[:, -1] == target).all()
    assert all(len(set(row)) == profile for row in items.tolist())
    assert items.min() >= 0
    assert items.max() < SPLIT.n_items
    np.testing.assert_array_equal(injected, [False] * 60 + [True] * users)
    assert attacked.counts.sum() == SPLIT.counts.sum() + users * profile
    assert attacked.counts[target] == SPLIT.counts[target] + users


@every_kind
@pytest.mark.parametrize("protocol", [leave_one_out, temporal_split, cold_item_split])
def test_real_users_their_questions_and_the_data_set_stay(kind, protocol):
    split = protocol(WORLD)
    target = int(np.argmax(split.counts))
    attacked, injected = inject(split, target, kind, users=9, profile=5)
    assert attacked.data is split.data
    np.testing.assert_array_equal(attacked.train.lengths[~injected], split.train.lengths)
    pairs = [(attacked.train[~injected], split.train)]
    for after, before in ((attacked.validation, split.validation), (attacked.test, split.test)):
        np.testing.assert_array_equal(after.user, before.user)
        pairs += [(after.history, before.history), (after.target, before.target)]
    for after, before in pairs:
        for column in ("items", "times", "ratings", "weights", "event_types"):
            np.testing.assert_array_equal(
                getattr(after, column)[after.flat()[1]], getattr(before, column)[before.flat()[1]]
            )
        np.testing.assert_array_equal(after.attributes, before.attributes)


@every_kind
def test_times_ratings_weights_and_types_are_those_of_the_log(kind):
    attacked, _ = inject(SPLIT, TARGET, kind, users=20, profile=8)
    _, positions = SPLIT.train.flat()
    for column in ("times", "ratings", "weights", "event_types"):
        assert np.isin(fakes(attacked, 20, column), getattr(SPLIT.train, column)[positions]).all()
        assert fakes(attacked, 20, column).dtype == getattr(SPLIT.train, column).dtype
    assert (np.diff(fakes(attacked, 20, "times"), axis=1) >= 0).all()
    weight_of = dict(zip(SPLIT.train.event_types, SPLIT.train.weights, strict=True))
    shown = zip(fakes(attacked, 20, "event_types").ravel(), fakes(attacked, 20, "weights").ravel(), strict=True)
    assert all(weight_of[kind] == weight for kind, weight in shown)


def test_no_fake_event_is_in_anybodys_future():
    split = temporal_split(WORLD)
    attacked, _ = inject(split, TARGET, "random", users=60, profile=10)
    assert fakes(attacked, 60, "times").max() <= split.train.times[split.train.flat()[1]].max()


def test_a_fake_user_is_the_average_in_attributes():
    attacked, injected = inject(SPLIT, TARGET, "random", users=3, profile=5)
    assert attacked.train.attributes.shape == (63, SPLIT.train.attributes.shape[1])
    assert not attacked.train.attributes[injected].any()
    assert attacked.train.attributes[~injected].any()


@every_kind
def test_the_target_gets_the_greatest_rating(kind):
    attacked, _ = inject(SPLIT, TARGET, kind, users=20, profile=8)
    assert (fakes(attacked, 20, "ratings")[:, -1] == SPLIT.train.ratings.max()).all()


@pytest.mark.parametrize(("profile", "expected"), [(2, 1), (5, 2), (8, 4)])
def test_bandwagon_puts_the_most_popular_items_before_the_target_the_best_known_last(profile, expected):
    target = int(np.argmax(SPLIT.counts))  # the target itself is not its own company
    attacked, _ = inject(SPLIT, target, "bandwagon", users=20, profile=profile)
    others = np.delete(np.argsort(-SPLIT.counts, kind="stable"), 0)
    company = fakes(attacked, 20)[:, -1 - expected : -1]
    np.testing.assert_array_equal(company, np.tile(others[:expected][::-1], (20, 1)))
    assert (fakes(attacked, 20, "ratings")[:, -1 - expected :] == SPLIT.train.ratings.max()).all()
    assert not np.isin(fakes(attacked, 20)[:, : -1 - expected], others[:expected]).any()


def first_fillers(kind: str, draws: int = 60) -> np.ndarray:
    """How often each item opens a profile, over many seeds."""
    opened = [
        fakes(inject(SPLIT, TARGET, kind, users=60, profile=2 + (kind == "bandwagon"), seed=seed)[0], 60)[:, 0]
        for seed in range(draws)
    ]
    return np.bincount(np.concatenate(opened), minlength=SPLIT.n_items)


@every_kind
def test_the_cover_is_uniform_or_by_popularity(kind):
    weight = (SPLIT.counts if kind == "average" else np.ones(SPLIT.n_items)).astype(float)
    weight[TARGET] = 0
    if kind == "bandwagon":
        weight[np.argmax(SPLIT.counts)] = 0
    found = first_fillers(kind)
    expected = found.sum() * weight / weight.sum()
    assert (found[weight == 0] == 0).all()
    assert (np.abs(found - expected) <= 4 * np.sqrt(np.maximum(expected, 1))).all()


def rated(offset: np.ndarray) -> Split:
    """The split with ratings 1 to 5 that depend on the item alone."""
    return replace(SPLIT, train=replace(SPLIT.train, ratings=offset[SPLIT.train.items].astype(np.float32)))


def test_average_ratings_are_the_items_own_and_random_ones_the_logs():
    """Every item always has the same rating: "about the item's mean" is that very rating."""
    own = 1.0 + np.arange(SPLIT.n_items) % 5
    split = rated(own)
    average, random = (inject(split, TARGET, kind, users=60, profile=20)[0] for kind in ("average", "random"))
    items, ratings = fakes(average, 60)[:, :-1], fakes(average, 60, "ratings")[:, :-1]
    np.testing.assert_array_equal(ratings, own[items])
    drawn = fakes(random, 60, "ratings")[:, :-1]
    everyone = split.train.ratings[split.train.flat()[1]]
    assert abs(np.corrcoef(drawn.ravel(), own[fakes(random, 60)[:, :-1]].ravel())[0, 1]) < 0.1
    assert drawn.mean() == pytest.approx(everyone.mean(), abs=0.15)
    assert len(set(drawn.ravel().tolist())) == 5


def test_a_log_without_ratings_stays_one():
    split = rated(np.ones(SPLIT.n_items))
    for kind in ATTACKS:
        assert (fakes(inject(split, TARGET, kind, users=5, profile=6)[0], 5, "ratings") == 1).all()


@every_kind
def test_a_seed_repeats_another_differs_and_more_fakes_begin_with_the_same(kind):
    def items(users: int, seed: int) -> np.ndarray:
        return fakes(inject(SPLIT, TARGET, kind, users=users, profile=9, seed=seed)[0], users)

    np.testing.assert_array_equal(items(10, 0), items(10, 0))
    assert (items(10, 0) != items(10, 1)).any()
    np.testing.assert_array_equal(items(20, 0)[:10], items(10, 0))


def test_an_attack_upon_a_noisy_log_and_noise_upon_an_attacked_one():
    noisy = add_random(SPLIT, 0.2)
    attacked, injected = inject(noisy, TARGET, "bandwagon", users=6, profile=9)
    assert attacked.counts.sum() == noisy.counts.sum() + 54
    again = add_random(attacked, 0.2)
    n = attacked.train.lengths.sum()
    assert again.train.lengths.sum() == n + round(0.2 * n)
    assert again.train.lengths[injected].sum() > 54


def test_an_attacked_split_is_not_mistaken_for_the_clean_one():
    attacked = [inject(SPLIT, TARGET, kind, users=3, profile=5, seed=seed)[0] for kind in ATTACKS for seed in (0, 1)]
    assert len({str(one.identity) for one in [SPLIT, *attacked]}) == 7


def test_an_unseen_item_of_the_protocol_is_neither_target_nor_cover():
    split = cold_item_split(WORLD)
    unseen = np.concatenate([split.validation.candidates, split.test.candidates])
    for kind in ATTACKS:
        attacked, _ = inject(split, int(np.argmax(split.counts)), kind, users=30, profile=12)
        assert attacked.counts[unseen].sum() == 0
    with pytest.raises(InputError, match=f"target={unseen[0]} must stay unseen under cold-items"):
        inject(split, int(unseen[0]), "random", users=3, profile=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "bandwaggon"}, "no attack 'bandwaggon'; did you mean 'bandwagon'"),
        ({"target": 64}, "target=64 is not an item; items are numbered 0 to 63"),
        ({"target": -1}, "target=-1 is not an item"),
        ({"users": 61}, "users=61 fake users; give 1 to the number of real ones, 60"),
        ({"users": 0}, "users=0 fake users"),
        ({"profile": 1}, "profile=1 leaves the target without fillers; give 2"),
        ({"profile": 65}, "needs 64 filler items, 63 are available"),
    ],
)
def test_bad_input_is_named(change, message):
    settings = {"target": TARGET, "attack": "random", "users": 3, "profile": 5, **change}
    with pytest.raises(InputError, match=message):
        inject(SPLIT, settings.pop("target"), settings.pop("attack"), **settings)


def test_a_profile_of_the_whole_catalogue_is_possible():
    attacked, _ = inject(SPLIT, TARGET, "random", users=2, profile=64)
    assert sorted(fakes(attacked, 2)[0]) == list(range(64))
