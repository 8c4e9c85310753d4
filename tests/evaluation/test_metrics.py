"""Metrics agree with ranx, with hand computations, and with what chance and perfection must give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.errors import InputError
from recsys_cl.evaluation import METRICS, rank_metrics

check = settings(deadline=None, max_examples=60, derandomize=True)


def random_task(seed: int, batch: int = 60, n_items: int = 50) -> tuple[np.ndarray, list[list[int]]]:
    """Scores without ties, and one to eight targets a row."""
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(n_items, dtype=np.float64), (batch, 1)), axis=1)
    return scores, [rng.choice(n_items, rng.integers(1, 9), replace=False).tolist() for _ in range(batch)]


@pytest.fixture
def ranx(monkeypatch):
    """Ranx without its compiler: 20 seconds of numba for a second of work."""
    import numba

    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    return pytest.importorskip("ranx")


NAMES = {
    "ndcg": "ndcg",
    "hr": "hit_rate",
    "recall": "recall",
    "precision": "precision",
    "f1": "f1",
    "mrr": "mrr",
    "map": "map",  # divides by |T|, like ours
}


@pytest.mark.filterwarnings("ignore")  # of numba, about ranx's own code
@pytest.mark.parametrize("k", [1, 5, 10, 50])
def test_every_metric_agrees_with_ranx(ranx, k):
    scores, targets = random_task(seed=k)
    rows = range(len(scores))
    qrels = ranx.Qrels({f"q{row:03}": {f"i{item}": 1 for item in targets[row]} for row in rows})
    run = ranx.Run({f"q{row:03}": {f"i{item}": scores[row, item] for item in range(scores.shape[1])} for row in rows})
    names = [f"{name}@{k}" for name in NAMES.values()]
    theirs = ranx.evaluate(qrels, run, names, return_mean=False)
    ours = rank_metrics(scores, targets, ks=[k])
    assert set(NAMES) == set(METRICS)
    for mine, name in zip(NAMES, names, strict=True):
        np.testing.assert_allclose(ours[f"{mine}@{k}"], theirs[name], atol=1e-9, err_msg=name)


def by_loop(scores: np.ndarray, wanted: list[int], k: int) -> dict[str, float]:
    """Every metric from its definition, walking down one sorted list."""
    ranked = np.argsort(-scores, kind="stable").tolist()
    hits, gain, reciprocal, precisions = 0, 0.0, 0.0, 0.0
    for rank, item in enumerate(ranked[:k], start=1):
        if item in wanted:
            hits += 1
            gain += 1 / np.log2(1 + rank)
            reciprocal = reciprocal or 1 / rank
            precisions += hits / rank
    ideal = sum(1 / np.log2(1 + rank) for rank in range(1, min(k, len(wanted)) + 1))
    precision, recall = hits / k, hits / len(wanted)
    return {
        "ndcg": gain / ideal,
        "hr": float(hits > 0),
        "recall": recall,
        "precision": precision,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "mrr": reciprocal,
        "map": precisions / len(wanted),
    }


@given(st.integers(0, 1000), st.sampled_from([1, 3, 10, 20]))
@check
def test_every_metric_agrees_with_a_walk_down_the_list(seed, k):
    scores, targets = random_task(seed, batch=4, n_items=15)
    ours = rank_metrics(scores, targets, ks=[k])
    for row in range(4):
        expected = by_loop(scores[row], targets[row], k)
        for name in METRICS:
            assert ours[f"{name}@{k}"][row] == pytest.approx(expected[name], abs=1e-12)


def test_five_items_by_hand():
    """Order 3, 0, 4, 1, 2; targets 0 and 1 stand at ranks 2 and 4."""
    found = rank_metrics(np.array([[0.8, 0.2, 0.1, 0.9, 0.5]]), [[1, 0]], ks=[3, 5])
    expected = {
        "ndcg@3": (1 / np.log2(3)) / (1 + 1 / np.log2(3)),
        "hr@3": 1,
        "recall@3": 1 / 2,
        "precision@3": 1 / 3,
        "f1@3": 2 / 5,
        "mrr@3": 1 / 2,
        "map@3": (1 / 2) / 2,
        "ndcg@5": (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3)),
        "precision@5": 2 / 5,
        "map@5": (1 / 2 + 2 / 4) / 2,
    }
    for name, value in expected.items():
        assert found[name].tolist() == pytest.approx([value]), name


@pytest.mark.parametrize("k", [8, 10, 40])
def test_who_knows_the_answer_gets_one(k):
    scores, targets = random_task(seed=0)
    for row, wanted in enumerate(targets):
        scores[row, wanted] += 1000
    found = rank_metrics(scores, targets, ks=[k])
    for name in ("ndcg", "hr", "recall", "mrr", "map"):
        np.testing.assert_allclose(found[f"{name}@{k}"], 1)
    sizes = np.array([len(wanted) for wanted in targets])
    np.testing.assert_allclose(found[f"precision@{k}"], sizes / k)


def test_who_is_always_wrong_gets_zero():
    scores, targets = random_task(seed=0)
    for row, wanted in enumerate(targets):
        scores[row, wanted] -= 1000
    for name, values in rank_metrics(scores, targets, ks=[10]).items():
        assert values.tolist() == [0] * len(targets), name


def test_equal_scores_get_the_level_of_chance():
    """Means over 4,000 queries within four standard errors of the expectations for a uniform rank."""
    n_items, k, queries = 40, 10, 4_000
    rng = np.random.default_rng(0)
    found = rank_metrics(np.zeros((queries, n_items)), rng.integers(n_items, size=(queries, 1)).tolist(), ks=[k])
    rank = np.arange(1, n_items + 1)
    expected = {"hr": (rank <= k).mean(), "ndcg": ((rank <= k) / np.log2(1 + rank)).mean()}
    expected |= {"mrr": ((rank <= k) / rank).mean(), "recall": k / n_items, "precision": 1 / n_items}
    for name, mean in expected.items():
        values = found[f"{name}@{k}"]
        assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(queries), name


TRANSFORMATIONS = {
    "affine": lambda scores: 3 * scores - 70,
    "cubic": lambda scores: (scores - 20) ** 3,
    "exponential": lambda scores: np.exp(scores / 5),
    "logistic": lambda scores: 1 / (1 + np.exp(-scores / 20)),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_monotone_transformation_changes_nothing(name, tied):
    scores, targets = random_task(seed=1)
    scores = scores // 7 if tied else scores
    before, after = (rank_metrics(table, targets, ks=[1, 10]) for table in (scores, TRANSFORMATIONS[name](scores)))
    for metric in before:
        np.testing.assert_array_equal(before[metric], after[metric])


@given(st.integers(0, 1000))
@check
def test_renumbering_the_items_changes_nothing(seed):
    scores, targets = random_task(seed, batch=5, n_items=20)
    order = np.random.default_rng(seed).permutation(20)
    place = np.argsort(order)
    moved = rank_metrics(scores[:, order], [[int(place[item]) for item in wanted] for wanted in targets], ks=[5])
    for name, values in rank_metrics(scores, targets, ks=[5]).items():
        np.testing.assert_array_equal(moved[name], values)


def test_the_order_of_the_targets_changes_nothing():
    scores, targets = random_task(seed=2)
    turned = rank_metrics(scores, [wanted[::-1] for wanted in targets])
    for name, values in rank_metrics(scores, targets).items():
        np.testing.assert_allclose(turned[name], values, rtol=1e-12)


def test_minus_infinity_leaves_an_item_out():
    found = rank_metrics(np.array([[5.0, -np.inf, 1.0], [-np.inf, -np.inf, 1.0]]), [[2], [2]], ks=[1])
    assert found["hr@1"].tolist() == [0, 1]


def test_several_cut_offs_at_once_are_each_what_they_are_alone():
    scores, targets = random_task(seed=3)
    both = rank_metrics(scores, targets, ks=[2, 9])
    assert set(both) == {f"{name}@{k}" for name in METRICS for k in (2, 9)}
    for k in (2, 9):
        for name, values in rank_metrics(scores, targets, ks=[k]).items():
            np.testing.assert_array_equal(both[name], values)


def test_tensors_and_arrays_give_the_same():
    scores, targets = random_task(seed=4)
    for name, values in rank_metrics(torch.from_numpy(scores), targets).items():
        np.testing.assert_array_equal(rank_metrics(scores, targets)[name], values)


@pytest.mark.parametrize(
    ("scores", "targets", "expected"),
    [
        ([[1.0, 2.0]], [[0], [1]], "1 rows of scores but 2 of targets"),
        ([[1.0, 2.0], [1.0, 2.0]], [[0], []], "row 1 has no target"),
        ([[1.0, np.nan, 0.0]], [[1]], "NaN"),
        ([[1.0, np.nan, 0.0]], [[0]], "NaN"),
        ([[1.0, 2.0]], [[2]], "2"),
        ([[1.0, 2.0]], [[-1]], "-1"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, targets, expected):
    with pytest.raises(InputError, match=expected):
        rank_metrics(np.array(scores), targets)


@pytest.mark.parametrize("ks", [[0], [10, -1]])
def test_cut_offs_below_one_are_refused(ks):
    with pytest.raises(InputError, match=r"cut-offs \["):
        rank_metrics(np.eye(2), [[0], [1]], ks=ks)


def test_the_table_of_metrics_is_what_is_computed():
    scores, targets = random_task(seed=5)
    assert list(rank_metrics(scores, targets, ks=[7])) == [f"{name}@7" for name in METRICS]
