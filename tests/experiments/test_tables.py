"""Tables: means, deviations, intervals and tests are those of the package."""

import numpy as np
import pytest
from common import against, corrected, mean_with_interval, paired, pooled, settings_of, table, with_settings

from recsys_cl.evaluation import Evaluation, bootstrap_interval, compare, holm, pool
from recsys_cl.recommenders import create


def runs() -> dict[str, list[Evaluation]]:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(10), 3)
    return {
        name: [Evaluation(user, {"ndcg@10": rng.random(30) * scale, "unused": np.zeros(30)}) for _ in range(draws)]
        for name, scale, draws in (("good", 1.0, 3), ("bad", 0.5, 3))
    }


def test_a_table_has_mean_deviation_and_interval_of_each_model() -> None:
    made = table(runs(), ["ndcg@10"])
    for row, (name, draws) in zip(made["rows"], runs().items(), strict=True):
        means = [one.metrics["ndcg@10"].mean() for one in draws]
        metric = row["metrics"].pop("ndcg@10")
        low, high = pool(draws).interval()
        assert (row["model"], row["seeds"], row["metrics"]) == (name, 3, {})
        assert metric == pytest.approx({"mean": np.mean(means), "sd": np.std(means, ddof=1), "low": low, "high": high})
        assert made["runs"]["ndcg@10"][name] == pytest.approx(means)


def test_one_draw_has_no_deviation() -> None:
    made = table({name: draws[:1] for name, draws in runs().items()}, ["ndcg@10"])
    assert [row["metrics"]["ndcg@10"]["sd"] for row in made["rows"]] == [0.0, 0.0]


def test_tests_are_those_of_the_package() -> None:
    everything = pooled(runs())
    expected = {"bad": vars(compare(everything, against="good")["bad"])}
    assert paired(everything, "good") == expected
    assert against(runs(), "good", ["ndcg@10"]) == {"ndcg@10": expected}


def test_p_values_are_corrected_together() -> None:
    tests = corrected({"a": {"p_value": 0.01, "low": 1.0}, "b": {"p_value": 0.04, "low": 2.0}})
    assert [test["p_value"] for test in tests.values()] == holm(np.array([0.01, 0.04])).tolist() == [0.02, 0.04]
    assert [test["low"] for test in tests.values()] == [1.0, 2.0]


def test_the_interval_of_a_mean_is_that_of_the_package() -> None:
    values = np.random.default_rng(0).random(40)
    low, high = bootstrap_interval(values, np.arange(40))
    assert mean_with_interval(values) == {"mean": values.mean(), "low": low, "high": high, "n": 40}


def test_settings_are_added_to_a_model_or_replaced() -> None:
    assert with_settings("sasrec") == "sasrec:"
    assert with_settings("sasrec:dim=64,length=50", dim=32, seed=1) == "sasrec:dim=32,length=50,seed=1"


def test_a_component_loses_its_settings_when_it_is_replaced() -> None:
    model = "sasrec:loss=bce,loss.negatives=1,dim=64"
    assert with_settings(model, loss="softmax") == "sasrec:loss=softmax,dim=64"
    assert with_settings(model, loss="gbce", **{"loss.negatives": 2}) == "sasrec:loss=gbce,dim=64,loss.negatives=2"
    assert with_settings(model, **{"loss.negatives": 2}) == "sasrec:loss=bce,loss.negatives=2,dim=64"


def test_settings_of_a_model_include_those_of_its_components() -> None:
    settings = settings_of(create("two-tower-gan"))
    assert settings["sampler"] == "generated"
    assert settings["sampler.share"] == 0.25
    assert settings["loss"] == "info-nce"
    assert settings["attack"] is None
