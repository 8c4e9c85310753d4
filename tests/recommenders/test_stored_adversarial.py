"""Stored runs of adversarial learning: choices follow from the trials, tests from the draws, verdicts from both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_cl.book.results import read_result
from recsys_cl.data import leave_last_n, load_movielens
from recsys_cl.evaluation import evaluate
from recsys_cl.recommenders import create

RESULTS = Path(__file__).parents[2] / "book" / "results"
SEARCHES = {"search-attacks": "adversarial-training", "search-negatives": "adversarial-negatives"}
REFERENCE = {"adversarial-training": "plain", "adversarial-negatives": "uniform"}

CLOSED_FORM = 0.002
"""How far a re-run without training may be from the stored value: other processors round differently."""


def stored(name: str) -> dict[str, Any]:
    return read_result(name, RESULTS)["result"]


def mean(table: dict[str, Any], method: str, *keys: str) -> float:
    """Mean over the draws of a value of each draw's row."""
    values = table["rows"][method]
    for key in keys:
        values = [one[key] for one in values]
    return float(np.mean(values))


@pytest.mark.parametrize("search", SEARCHES)
def test_every_method_had_the_same_budget_and_its_best_trial_went_on(search: str) -> None:
    result, table = stored(search), stored(SEARCHES[search])
    assert result["trials"] >= 12
    for method, found in result["models"].items():
        assert len(found["trials"]) == result["trials"]
        assert len({str(sorted(trial["settings"].items())) for trial in found["trials"]}) == result["trials"]
        for trial in found["trials"]:
            assert all(value in found["space"][name] for name, value in trial["settings"].items())
        best = max(found["trials"], key=lambda trial: trial["value"])
        assert table["settings"][method] == {**found["fixed"], **best["settings"]}


@pytest.mark.parametrize(
    ("model", "search", "method"),
    [
        ("two-tower-adversarial", "adversarial-training", "APR"),
        ("two-tower-gan", "adversarial-negatives", "generator + filter"),
    ],
)
def test_the_best_trial_became_the_default(model: str, search: str, method: str) -> None:
    assert create(model, **stored(search)["settings"][method]) == create(model)


def test_robustness_was_chosen_only_among_settings_that_keep_clean_quality() -> None:
    result = stored("search-attacks")
    floor = result["kept clean"] * max(trial["clean"] for trial in result["models"]["plain"]["trials"])
    for method, found in result["models"].items():
        for trial in found["trials"]:
            enough = trial["clean"] >= floor or method == "plain"
            assert trial["value"] == pytest.approx(trial["attacked"] if enough else trial["clean"] - floor)


@pytest.mark.parametrize("name", REFERENCE)
def test_paired_tests_follow_from_the_draws(name: str) -> None:
    table, reference = stored(name), REFERENCE[name]
    chosen = str(table["epsilon"])
    keys = {"clean": ("clean",), "attacked": ("attacked", chosen)}
    for part, tests in table["paired"].items():
        assert set(tests) == set(table["settings"]) - {reference}
        for method, test in tests.items():
            difference = mean(table, reference, *keys[part]) - mean(table, method, *keys[part])
            assert test["difference"] == pytest.approx(difference, abs=1e-9)
            assert 0 <= test["p_value"] <= 1
    for method in table["settings"]:
        assert len(table["rows"][method]) == table["draws"] == 5
        for part, key in keys.items():
            low, high = table["intervals"][part][method]
            assert low < mean(table, method, *key) < high


@pytest.mark.parametrize("name", REFERENCE)
def test_an_attack_hurts_more_the_longer_it_is_and_more_than_noise(name: str) -> None:
    table = stored(name)
    for method in table["settings"]:
        attacked = [mean(table, method, "attacked", length) for length in ("0.1", "0.3", "0.5")]
        assert mean(table, method, "clean") > attacked[0] > attacked[1] > attacked[2]
        assert mean(table, method, "random", "0.5") > attacked[2]


def test_ease_beside_them_comes_out_again() -> None:
    split = leave_last_n(load_movielens(), seed=0)
    found = evaluate(create("ease-recency").fit(split), split.test).mean()
    for name in REFERENCE:
        assert stored(name)["rows"]["EASE, recency"][0]["clean"] == pytest.approx(found, abs=CLOSED_FORM)


def test_training_takes_no_more_than_the_chapters_say() -> None:
    seconds = {name: float(np.median(times)) for name, times in stored("adversarial-overhead")["seconds"].items()}
    assert seconds["in-batch, APR"] <= 2.2 * seconds["in-batch"]
    assert seconds["generator + filter"] <= 3 * seconds["uniform"]
