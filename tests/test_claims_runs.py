"""Stored runs for claims: every figure follows from its parts, and what needs no training is found again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_cl.data import cold_item_split, leave_last_n, load_movielens, new_user_split
from recsys_cl.data.perturb.corruption import swap_items
from recsys_cl.evaluation import evaluate, top_items
from recsys_cl.evaluation.metrics import coverage, gini
from recsys_cl.recommenders import create

RESULTS = Path(__file__).parents[1] / "book" / "results"
RUNS = {path.stem: json.loads(path.read_text())["result"] for path in RESULTS.glob("claims-*.json")}

TOLERANCE = 0.002
"""How far an untrained model may be from what is stored: other processors round differently."""


def tables(node: Any, *path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every table of a result with its place: rows of models beside their runs."""
    if isinstance(node, dict):
        if {"rows", "runs"} <= set(node):
            yield "/".join(path), node
        for key, value in node.items():
            yield from tables(value, *path, key)


def comparisons(node: Any, *path: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Every stored test with its place."""
    if isinstance(node, dict):
        if "p_value" in node:
            yield "/".join(path), node
        for key, value in node.items():
            yield from comparisons(value, *path, key)


TABLES = {place: table for name, result in RUNS.items() for place, table in tables(result, name)}
TESTS = {place: test for name, result in RUNS.items() for place, test in comparisons(result, name)}


def mean(table: dict[str, Any], model: str, metric: str = "ndcg@10") -> float:
    return next(row for row in table["rows"] if row["model"] == model)["metrics"][metric]["mean"]


def test_every_run_is_there() -> None:
    wanted = {"diversity", "new-users", "small-data", "noise", "related", "cleaning", "latency", "overfitting"}
    assert {f"claims-{name}" for name in wanted} == set(RUNS)
    assert len(TABLES) >= 20
    assert len(TESTS) >= 60


@pytest.mark.parametrize("place", TABLES)
def test_figures_follow_from_the_draws(place: str) -> None:
    table = TABLES[place]
    for row in table["rows"]:
        for metric, figure in row["metrics"].items():
            draws = table["runs"][metric][row["model"]]
            assert len(draws) == row["seeds"]
            assert figure["mean"] == pytest.approx(np.mean(draws))
            assert figure["sd"] == pytest.approx(np.std(draws, ddof=1))
            assert figure["low"] <= figure["mean"] + 1e-3
            assert figure["mean"] <= figure["high"] + 1e-3


@pytest.mark.parametrize("place", TESTS)
def test_a_difference_lies_in_its_interval(place: str) -> None:
    test = TESTS[place]
    assert test["low"] <= test["difference"] <= test["high"]
    assert 0 < test["p_value"] <= 1


@pytest.mark.parametrize(
    ("name", "part", "reference"),
    [
        ("claims-small-data", "shares", "two-tower"),
        ("claims-related", "relations", "two-tower"),
        ("claims-cleaning", "models", "as written"),
    ],
)
def test_paired_differences_are_those_of_the_means(name: str, part: str, reference: str) -> None:
    for key, table in RUNS[name][part].items():
        metric = next(iter(table["runs"]))
        assert set(RUNS[name]["paired"][key]) == set(table["runs"][metric]) - {reference}
        for other, test in RUNS[name]["paired"][key].items():
            difference = mean(table, reference, metric) - mean(table, other, metric)
            assert test["difference"] == pytest.approx(difference, abs=5e-4), (key, other)


def test_twins_differ_by_what_their_draws_differ() -> None:
    result = RUNS["claims-diversity"]
    values = result["runs"] | result["lists"]
    assert set(result["paired"]) == set(values)
    for metric, tests in result["paired"].items():
        for pair, test in tests.items():
            first, second = (np.mean(values[metric][name]) for name in pair.split(" minus "))
            assert test["difference"] == pytest.approx(first - second), (metric, pair)


def test_newcomers_are_compared_with_weights_of_their_number() -> None:
    result = RUNS["claims-new-users"]
    weights = result["protocol"]["new users"]
    for reference, by_given in result["paired"].items():
        for given, tests in by_given.items():
            runs = result["given"][given]["runs"]["ndcg@10"]
            assert set(tests) == set(runs) - {reference}
            for other, test in tests.items():
                difference = np.average(np.subtract(runs[reference], runs[other]), weights=weights)
                assert test["difference"] == pytest.approx(difference), (reference, given, other)


def test_shares_kept_follow_from_clean_and_noisy_figures() -> None:
    result = RUNS["claims-noise"]
    for histories, by_rate in result["kept"].items():
        tables_of = result["rates"][histories]
        for rate, kept in by_rate.items():
            for model, share in kept.items():
                assert share["value"] == pytest.approx(mean(tables_of[rate], model) / mean(tables_of["0%"], model))
            for other, test in result["kept more"][histories][rate].items():
                assert test["difference"] == pytest.approx(kept["two-tower"]["value"] - kept[other]["value"])


def test_the_gain_of_text_is_compared_with_that_of_all_users() -> None:
    result = RUNS["claims-small-data"]
    gain = {share: tests["two-tower-id"]["difference"] for share, tests in result["paired"].items()}
    for share, test in result["gain of text minus that with all users"].items():
        assert test["difference"] == pytest.approx(gain[share] - gain["100%"])


def test_gaps_follow_from_both_trainings() -> None:
    result = RUNS["claims-overfitting"]
    adversary, alone = (row["model"] for row in result["rows"])
    for metric, tests in result["paired"].items():
        difference = mean(result, adversary, metric) - mean(result, alone, metric)
        assert tests[alone]["difference"] == pytest.approx(difference)


def test_percentiles_are_in_order_and_only_the_chat_model_takes_long() -> None:
    result = RUNS["claims-latency"]
    for row in result["rows"].values():
        assert 0 < row["p50"] <= row["p95"] <= row["p99"]
    late = {name for name, row in result["rows"].items() if row["p99"] > result["instant"]}
    assert late == {"smollm2, 20 candidates"}
    assert result["rows"]["smollm2, 20 candidates"]["p50"] > 3 * result["instant"]


def test_untrained_newcomers_are_found_again() -> None:
    result = RUNS["claims-new-users"]
    data = load_movielens()
    longest = new_user_split(data, 20, n_targets=result["protocol"]["asked"], seed=0)
    for given in ("1", "20"):
        test = new_user_split(data, int(given), n_targets=result["protocol"]["asked"], seed=0).test
        queries = test[np.isin(test.user, longest.test.user)]
        assert len(queries) == result["protocol"]["new users"][0]
        for model in ("popularity", "ease-recency"):
            stored = result["given"][given]["runs"]["ndcg@10"][model][0]
            assert evaluate(create(model).fit(longest), queries).mean() == pytest.approx(stored, abs=TOLERANCE)


def test_untrained_models_are_found_again_clean_and_noisy() -> None:
    clean = leave_last_n(load_movielens(), seed=0)
    ease = create("ease").fit(clean)
    latest = clean.test[np.searchsorted(clean.test.user, np.unique(clean.test.user), side="right") - 1]
    lists, stored = top_items(ease, latest), RUNS["claims-diversity"]["lists"]
    assert coverage(lists, clean.n_items) == pytest.approx(stored["coverage"]["ease"][0], abs=0.005)
    assert gini(lists, clean.n_items) == pytest.approx(stored["gini"]["ease"][0], abs=0.005)
    rates = RUNS["claims-noise"]["rates"]["noisy histories"]
    noisy = swap_items(clean, 0.4, seed=0)
    for rate, split in {"0%": clean, "40%": noisy}.items():
        found = evaluate(create("ease").fit(split), split.test).mean()
        assert found == pytest.approx(rates[rate]["runs"]["ndcg@10"]["ease"][0], abs=TOLERANCE)


def test_texts_as_written_are_found_again() -> None:
    split = cold_item_split(load_movielens(), seed=0)
    stored = RUNS["claims-cleaning"]["models"]["tfidf"]["runs"]["ndcg@10"]["as written"][0]
    assert evaluate(create("tfidf").fit(split), split.test).mean() == pytest.approx(stored, abs=TOLERANCE)
