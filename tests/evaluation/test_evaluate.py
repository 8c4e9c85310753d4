"""One path from scorer to table: means, intervals, pooling and corrected comparisons."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_cl.data import Queries, Sequences, cold_item_split, leave_last_n, leave_one_out, synthetic
from recsys_cl.errors import InputError
from recsys_cl.evaluation import (
    METRICS,
    Evaluation,
    bootstrap_interval,
    compare,
    evaluate,
    evaluate_unseen,
    holm,
    metrics_of,
    paired_test,
    pool,
    rank_targets,
)


class Noise:
    """Random scores, a function of the history."""

    def __init__(self, seed: int, n_items: int = 80) -> None:
        self.scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(n_items, n_items)))

    def score(self, histories: Sequences) -> Tensor:
        return self.scores[torch.from_numpy(histories.recent(1)[:, 0])]


@pytest.fixture(scope="module")
def data():
    return synthetic(100, 80, 1_500)


def made(seed: int, mean: float, users: int = 40) -> Evaluation:
    user = np.repeat(np.arange(users), 3)
    values = np.random.default_rng(seed).normal(mean, 0.2, len(user))
    return Evaluation(user, {"ndcg@10": values, "hr@10": -values})


def test_an_evaluation_holds_every_metric_of_every_query(data):
    queries = leave_last_n(data, 3).test
    found = evaluate(Noise(0), queries, ks=(1, 5))
    assert set(found.metrics) == {f"{name}@{k}" for name in METRICS for k in (1, 5)}
    np.testing.assert_array_equal(found.user, queries.user)
    for name, values in metrics_of(rank_targets(Noise(0), queries), (1, 5)).items():
        np.testing.assert_array_equal(found.metrics[name], values)
    assert found.mean("hr@5") == pytest.approx(found.metrics["hr@5"].mean())


def test_the_interval_is_over_users(data):
    queries = leave_last_n(data, 3).test
    found = evaluate(Noise(0), queries)
    assert found.interval("hr@10") == bootstrap_interval(found.metrics["hr@10"], queries.user)
    low, high = found.interval()
    assert low < found.mean() < high


@pytest.mark.parametrize("ask", [Evaluation.mean, Evaluation.interval])
def test_a_metric_that_was_not_computed_is_named_with_those_that_were(ask):
    with pytest.raises(InputError, match=r"'ndcg@20'; computed were ndcg@10, hr@10"):
        ask(made(0, 0.5), "ndcg@20")


def test_no_queries_are_refused(data):
    with pytest.raises(InputError, match="no queries to evaluate"):
        evaluate(Noise(0), leave_one_out(data).test[:0])


def test_cold_items_are_ranked_among_themselves_and_in_the_catalogue(data):
    queries = cold_item_split(data, share=0.2).test
    both = evaluate_unseen(Noise(0), queries)
    among = evaluate(Noise(0), queries)
    full = evaluate(Noise(0), Queries(queries.user, queries.history, queries.target))
    np.testing.assert_array_equal(both.metrics["ndcg@10"], among.metrics["ndcg@10"])
    np.testing.assert_array_equal(both.metrics["ndcg@10/all"], full.metrics["ndcg@10"])
    assert both.mean("hr@10/all") < both.mean("hr@10")


def test_a_pool_is_the_mean_of_the_runs_with_users_kept_whole():
    runs = [made(seed, 0.5) for seed in range(3)]
    together = pool(runs)
    assert together.mean() == pytest.approx(np.mean([run.mean() for run in runs]))
    assert len(together.user) == 3 * len(runs[0].user)
    copies = pool([runs[0]] * 3)
    assert copies.interval() == pytest.approx(runs[0].interval())


def test_everybody_is_compared_with_the_best_after_holm():
    evaluations = {"weak": made(1, 0.3), "best": made(2, 0.6), "close": made(3, 0.58)}
    tests = compare(evaluations)
    assert set(tests) == {"weak", "close"}
    raw = {
        name: paired_test(evaluations["best"].metrics["ndcg@10"], evaluations[name].metrics["ndcg@10"], made(0, 0).user)
        for name in tests
    }
    corrected = holm(np.array([raw[name].p_value for name in tests]))
    assert [test.p_value for test in tests.values()] == pytest.approx(corrected.tolist())
    for name, test in tests.items():
        assert (test.difference, test.low, test.high) == (raw[name].difference, raw[name].low, raw[name].high)
    assert tests["weak"].difference > 0
    assert tests["weak"].p_value < 0.01


def test_the_reference_and_the_metric_can_be_chosen():
    evaluations = {"a": made(1, 0.3), "b": made(2, 0.6)}
    assert set(compare(evaluations, against="a")) == {"b"}
    assert compare(evaluations, against="a")["b"].difference < 0
    assert set(compare(evaluations, metric="hr@10")) == {"b"}  # by this metric a is the best


def test_one_recommender_has_nobody_to_be_compared_with():
    assert compare({"alone": made(0, 0.5)}) == {}


def test_comparisons_that_make_no_sense_are_refused():
    evaluations = {"a": made(1, 0.3), "b": made(2, 0.6)}
    with pytest.raises(InputError, match=r"no recommender 'c' .* a, b"):
        compare(evaluations, against="c")
    with pytest.raises(InputError, match="different queries; use one split"):
        compare({"a": made(1, 0.3), "b": made(2, 0.6, users=39)})


@pytest.mark.parametrize("against", [None, "a"])
def test_comparing_by_a_metric_that_was_not_computed_is_refused(against):
    with pytest.raises(InputError, match=r"'auc'; computed were ndcg@10, hr@10"):
        compare({"a": made(1, 0.3), "b": made(2, 0.6)}, metric="auc", against=against)
