"""Baselines are the closed forms and counts that their formulas say, for newcomers as for anybody."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from recsys_cl.data import (
    Interactions,
    Sequences,
    Split,
    cold_item_split,
    leave_last_n,
    leave_one_out,
    load_movielens,
    synthetic,
)
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate, pool
from recsys_cl.recommenders import EASE, IALS, ItemKNN, Popularity, Random, baselines, create, load_recommender

NAMES = ["random", "popularity", "item-knn", "ease", "ease-recency", "ials", "markov", "session-knn"]
NEWCOMERS = Sequences.from_lists([[3, 1, 4], [], [7], [5, 9, 2, 6]])


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthetic(120, 64, 1_800, seed=3)


@pytest.fixture(scope="module")
def split(data) -> Split:
    """Event weights between 1 and 5, and two items in ten without a training event."""
    return cold_item_split(data)


@pytest.fixture(scope="module")
def fitted(split):
    return {name: create(name).fit(split) for name in NAMES}


def matrix(sequences: Sequences, n_items: int = 64, decay: float = 1.0) -> np.ndarray:
    """Users by items, in float64 and by loop."""
    users = np.zeros((len(sequences), n_items))
    for row in range(len(sequences)):
        for age, place in enumerate(range(sequences.stop[row] - 1, sequences.start[row] - 1, -1)):
            users[row, sequences.items[place]] += sequences.weights[place] * decay**age
    return users


# each one's formula


def test_popularity_is_the_weight_of_the_training_events(split):
    scores = Popularity().fit(split).score(split.test.history[:3])
    expected = matrix(split.train).sum(0)
    assert expected.max() > split.counts.max()  # the weights matter
    for row in scores:
        np.testing.assert_allclose(row, expected)


def test_chance_scores_everything_the_same(split):
    assert Random().fit(split).score(NEWCOMERS).unique().tolist() == [0]


@pytest.mark.parametrize("l2", [1.0, 50.0])
def test_ease_is_a_ridge_regression_of_each_item_on_the_others(split, l2):
    users = matrix(split.train)
    weights = EASE(l2=l2).fit(split).state["weights"].numpy()
    for item in (0, 13, 63, int(np.argmax(split.counts)), int(np.argmin(split.counts))):
        others = np.delete(np.arange(64), item)
        stacked = np.concatenate([users[:, others], np.sqrt(l2) * np.eye(63)])
        solution = np.linalg.lstsq(stacked, np.concatenate([users[:, item], np.zeros(63)]), rcond=None)[0]
        np.testing.assert_allclose(weights[others, item], solution, atol=1e-5)
        assert weights[item, item] == 0


def test_ease_cannot_be_improved_by_moving_its_weights(split):
    """500 random directions with a zero diagonal: the loss rises in every one, and by the quadratic term alone."""
    users, l2 = matrix(split.train), 20.0
    weights = EASE(l2=l2).fit(split).state["weights"].numpy().astype(np.float64)

    def loss(candidate: np.ndarray) -> float:
        return ((users - users @ candidate) ** 2).sum() + l2 * (candidate**2).sum()

    rng = np.random.default_rng(0)
    best = loss(weights)
    for _ in range(500):
        step = rng.normal(size=weights.shape)
        np.fill_diagonal(step, 0)
        step *= 0.1 / np.linalg.norm(step)
        rise = loss(weights + step) - best
        assert rise > 0
        assert rise == pytest.approx(((users @ step) ** 2).sum() + l2 * 0.01, rel=1e-2)


@pytest.mark.parametrize("decay", [1.0, 0.7])
@pytest.mark.parametrize("model", [EASE, ItemKNN])
def test_linear_models_weigh_the_history_by_recency(model, decay, split):
    recommender = model(decay=decay).fit(split)
    (weights,) = recommender.state.values()
    histories = split.test.history
    expected = matrix(histories, decay=decay) @ weights.numpy()
    np.testing.assert_allclose(recommender.score(histories), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("neighbours", "shrink"), [(5, 10.0), (64, 0.5), (200, 3.0)])
def test_item_knn_keeps_each_items_nearest(neighbours, shrink, split):
    users = matrix(split.train)
    expected = np.zeros((64, 64))
    for i in range(64):
        for j in range(64):
            if i != j:
                norms = np.linalg.norm(users[:, i]) * np.linalg.norm(users[:, j])
                expected[i, j] = users[:, i] @ users[:, j] / (norms + shrink)
    for j in range(64):
        least = np.sort(expected[:, j])[::-1][: min(neighbours, 64)][-1]
        expected[expected[:, j] < least, j] = 0
    found = ItemKNN(neighbours=neighbours, shrink=shrink).fit(split).state["similarity"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_item_knn_without_shrinkage_is_finite_for_items_that_nobody_had(split):
    assert (split.counts == 0).any()
    assert ItemKNN(shrink=0.0).fit(split).score(split.test.history).isfinite().all()


def test_ials_folds_a_history_in_by_weighted_least_squares(split):
    """Confidence alpha w of an event against 1 of everything else, as `implicit` has it."""
    recommender = IALS(factors=8, alpha=5.0, l2=0.1).fit(split)
    factors = recommender.state["item_factors"].numpy().astype(np.float64)
    histories = split.test.history[:20]
    users = matrix(histories)
    for row, found in enumerate(recommender.score(histories).numpy()):
        confidence = np.where(users[row] > 0, 5.0 * users[row], 1.0)
        gram = (factors.T * confidence) @ factors + 0.1 * np.eye(8)
        user = np.linalg.solve(gram, factors.T @ (confidence * (users[row] > 0)))
        np.testing.assert_allclose(found, factors @ user, atol=1e-4)


def test_ials_scores_training_users_like_implicit_itself(split):
    recommender = IALS(factors=16)
    recommender.fit(split)
    solver = recommender._solver()
    log = split.train.matrix(64)
    solver.fit(log, show_progress=False)
    scores = recommender.score(split.train).numpy()
    for user in range(0, 120, 7):
        items, theirs = solver.recommend(user, log[user], N=64, filter_already_liked_items=False, recalculate_user=True)
        np.testing.assert_allclose(scores[user, items], theirs, atol=1e-4)
    stored = solver.user_factors @ solver.item_factors.T  # half an iteration older than the item factors
    assert np.corrcoef(stored.ravel(), scores.ravel())[0, 1] > 0.99


def test_ials_is_a_function_of_its_seed(split):
    first, second, other = (IALS(factors=8, seed=seed).fit(split).score(NEWCOMERS) for seed in (0, 0, 1))
    assert_close(first, second, rtol=0, atol=0)
    assert not torch.allclose(first, other, atol=1e-3)


# what all of them keep to


@pytest.mark.parametrize("name", NAMES)
def test_newcomers_are_scored_and_an_empty_history_is_no_exception(name, fitted):
    scores = fitted[name].score(NEWCOMERS)
    assert scores.shape == (4, 64)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_a_function_of_the_history_alone(name, fitted, split):
    """Neither the neighbours in the batch nor the log behind the view change it."""
    histories = split.test.history[:12]
    together = fitted[name].score(histories)
    alone = torch.cat([fitted[name].score(histories[row : row + 1]) for row in range(12)])
    assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_scores_the_same_when_it_is_loaded(name, fitted, tmp_path):
    fitted[name].save(tmp_path / "model")
    for loaded in (type(fitted[name]).load(tmp_path / "model"), load_recommender(tmp_path / "model")):
        assert loaded == fitted[name]  # the hyperparameters
        assert_close(loaded.score(NEWCOMERS), fitted[name].score(NEWCOMERS), rtol=0, atol=0)
        assert loaded.items.to_dict() == fitted[name].items.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_the_test_set_is_not_looked_at(name, data, fitted):
    """Two data sets that differ after the training cut alone give one model."""
    split = cold_item_split(data)
    blind = Split(split.protocol, data, split.train, split.validation[:1], split.test[:1], split.seed)
    assert_close(create(name).fit(blind).score(NEWCOMERS), fitted[name].score(NEWCOMERS), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_read_text_says_so(name, fitted):
    with pytest.raises(InputError, match="does not read text"):
        fitted[name].score_text("a film about toys")


@pytest.mark.parametrize("name", ["ease", "item-knn"])
def test_an_item_matrix_that_does_not_fit_is_refused_before_it_is_made(name, split, monkeypatch):
    monkeypatch.setattr(baselines, "DENSE_ITEMS", 63)
    with pytest.raises(InputError, match=r"over 64 items .* use ials or two-tower"):
        create(name).fit(split)


def test_learning_beats_popularity_and_popularity_beats_chance():
    split = leave_last_n(synthetic(400, 200, 8_000, drift=0), 3)
    means = [evaluate(create(name).fit(split), split.test).mean() for name in ("random", "popularity", "ease")]
    assert means == sorted(means)
    assert means[2] > 1.3 * means[1]


def test_movielens_figures_are_those_of_the_design():
    """NDCG@10 under leave-one-out, two tie orders: standard deviation of an order about .003."""
    data = load_movielens()
    means = {}
    for name in ("popularity", "ease"):
        splits = [leave_one_out(data, seed=seed) for seed in range(2)]
        means[name] = pool([evaluate(create(name).fit(split), split.test) for split in splits]).mean()
    assert means["popularity"] == pytest.approx(0.040, abs=0.006)
    assert means["ease"] == pytest.approx(0.076, abs=0.010)
