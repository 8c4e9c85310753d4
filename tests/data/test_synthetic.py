"""The synthetic world has the properties that it is asked for."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys_cl.data import Interactions, leave_last_n, synthetic
from recsys_cl.errors import InputError


def topics(data: Interactions) -> np.ndarray:
    return np.asarray(data.items["topic"][:])


def test_a_seed_makes_a_world():
    first, second, other = synthetic(100, 80, seed=1), synthetic(100, 80, seed=1), synthetic(100, 80, seed=2)
    for name in ("user", "item", "rating", "timestamp", "event", "user_attributes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.texts == second.texts
    assert first.texts != other.texts
    assert first.item.tolist() != other.item.tolist()


@pytest.mark.parametrize(
    ("n_users", "n_items", "n_events"),
    [(100, 32, 500), (100, 32, 800), (137, 211, 4_001), (1_000, 500, None), (20, 2_000, 9_999)],
)
def test_sizes_are_exact_and_every_user_has_five_items_never_twice(n_users, n_items, n_events):
    data = synthetic(n_users, n_items, n_events, seed=3)
    assert (data.n_users, data.n_items, len(data)) == (n_users, n_items, n_events or 20 * n_users)
    assert np.bincount(data.user, minlength=n_users).min() >= 5
    assert len(np.unique(data.user * n_items + data.item)) == len(data)
    assert set(data.rating.tolist()) <= {1, 2, 3, 4, 5}
    assert np.isfinite(data.user_attributes).all()


@pytest.mark.parametrize("sizes", [(100, 31, 600), (100, 64, 499), (100, 64, 1_601)])
def test_sizes_that_do_not_fit_together_are_refused(sizes):
    with pytest.raises(InputError, match=r"^n_(items|events)=\d+; give"):
        synthetic(*sizes)


def head_share(data: Interactions) -> float:
    """Share of the events that fall on the most popular twentieth of the items."""
    counts = np.sort(np.bincount(data.item, minlength=data.n_items))[::-1]
    return counts[: data.n_items // 20].sum() / counts.sum()


def test_popularity_grows_more_unequal_with_the_skew():
    shares = [head_share(synthetic(1_000, 500, skew=skew)) for skew in (0.0, 0.5, 1.0, 1.5)]
    assert shares == sorted(shares)
    assert shares[0] < 0.09  # even, up to noise and the topics' unequal followings
    assert shares[-1] > 0.25


def test_texts_tell_the_topic():
    """Of an item's five TF-IDF neighbours 90 % share its topic; by chance a sixteenth would."""
    data = synthetic(100, 320)
    vectors = TfidfVectorizer().fit_transform(data.texts)
    likeness = (vectors @ vectors.T).toarray()
    np.fill_diagonal(likeness, -1)
    near = np.argsort(-likeness, axis=1)[:, :5]
    assert (topics(data)[near] == topics(data)[:, None]).mean() > 0.9


def test_users_keep_to_few_topics():
    data = synthetic(500, 500, 20_000, drift=0)
    table = np.zeros((500, 16))
    np.add.at(table, (data.user, topics(data)[data.item]), 1)
    share = np.sort(table / table.sum(1, keepdims=True), axis=1)[:, ::-1]
    assert share[:, 0].mean() > 0.45  # asked: 60 %, less what the same item cannot be had twice costs
    assert share[:, :2].sum(1).mean() > 0.7


def change(data: Interactions) -> float:
    """Share of the users whose favourite topic of the first third is not that of the last third."""
    sequences, topic = data.sequences(seed=0), topics(data)
    changed = []
    for start, stop in zip(sequences.start, sequences.stop, strict=True):
        mine = topic[sequences.items[start:stop]]
        third = len(mine) // 3
        early, late = (np.bincount(part, minlength=16).argmax() for part in (mine[:third], mine[-third:]))
        changed.append(early != late)
    return float(np.mean(changed))


def test_drift_makes_late_taste_differ_from_early_taste():
    still, moving = (change(synthetic(500, 1_600, 20_000, drift=drift)) for drift in (0.0, 1.0))
    assert still < 0.35
    assert moving > still + 0.2


@pytest.mark.parametrize("ties", [0.0, 0.3, 0.8])
def test_as_many_events_share_the_previous_time_as_asked(ties):
    data = synthetic(500, 500, 20_000, ties=ties)
    order = np.lexsort((data.timestamp, data.user))
    user, time = data.user[order], data.timestamp[order]
    follows = user[1:] == user[:-1]
    tied = (time[1:] == time[:-1])[follows].mean()
    assert tied == pytest.approx(ties, abs=0.02)


def test_fewer_go_further_down_the_funnel():
    data = synthetic(500, 500, 20_000)
    share = {stage: (data.event == stage).mean() for stage in ("view", "click", "purchase")}
    assert sum(share.values()) == 1
    assert 1 > share["click"] + share["purchase"] > share["purchase"] > 0.1
    assert share["view"] > share["click"]


def test_what_fits_the_taste_is_rated_higher_and_bought_more_often():
    data = synthetic(500, 500, 20_000, drift=0)
    topic = topics(data)[data.item]
    table = np.zeros((500, 16))
    np.add.at(table, (data.user, topic), 1)
    fits = table.argmax(1)[data.user] == topic
    assert data.rating[fits].mean() > data.rating[~fits].mean() + 0.5
    bought = data.event == "purchase"
    assert bought[fits].mean() > 1.5 * bought[~fits].mean()


def test_the_users_age_leans_on_their_taste():
    data = synthetic(1_000, 500, drift=0)
    main = np.zeros((1_000, 16))
    np.add.at(main, (data.user, topics(data)[data.item]), 1)
    assert np.corrcoef(main.argmax(1), data.user_attributes[:, 0])[0, 1] > 0.7


@pytest.mark.slow
def test_a_million_events_are_generated_and_split():
    data = synthetic(50_000, 20_000, 1_000_000)
    assert len(data) == 1_000_000
    split = leave_last_n(data, 5)
    assert split.train.lengths.sum() + len(split.validation) + len(split.test) == 1_000_000
