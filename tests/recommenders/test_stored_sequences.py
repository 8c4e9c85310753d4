"""Stored runs of the sequence models: their tables follow from their parts, and a small part comes out again."""

from collections import Counter
from math import ceil
from pathlib import Path
from statistics import fmean, median, median_high
from typing import Any

import numpy as np
import pytest

from recsys_cl.book.results import read_result, search_table
from recsys_cl.data import Interactions, load_movielens
from recsys_cl.recommenders import create
from recsys_cl.workflow import evaluate_split, split_data

RESULTS = Path(__file__).parents[2] / "book" / "results"

SEARCHES = ("sasrec", "sasrec-hybrid")
TABLES = {
    "sequence-leave-last-n": "leave-last-n",
    "sequence-leave-one-out": "leave-one-out",
    "sequence-temporal": "temporal",
    "sequence-warm-and-cold": "leave-last-n",
    "sequence-cold-items": "cold-items",
    "sequence-ablation": "leave-last-n",
}

CLOSED_FORM = 0.002
"""How far a re-run without training may be from the stored value: other processors round differently."""


def stored(name: str) -> dict[str, Any]:
    return read_result(name, RESULTS)["result"]


def means(table: dict[str, Any]) -> dict[str, float]:
    return {row["model"]: row["metrics"]["ndcg@10"]["mean"] for row in table["rows"]}


@pytest.fixture(scope="module")
def data() -> Interactions:
    return load_movielens()


@pytest.mark.parametrize("model", SEARCHES)
def test_the_search_kept_every_trial_of_its_space(model: str) -> None:
    result = stored(f"search-{model}")
    found = result["models"][model]
    assert len(found["trials"]) == result["trials"] >= 20
    for trial in found["trials"]:
        assert set(trial["settings"]) == set(found["space"])
        assert all(value in found["space"][name] for name, value in trial["settings"].items())
    table = search_table(read_result(f"search-{model}", RESULTS))
    assert table.loc[model, "best"] == round(max(trial["validation"] for trial in found["trials"]), 4)


def test_both_searches_had_the_same_budget_and_validation() -> None:
    first, second = (stored(f"search-{model}") for model in SEARCHES)
    assert first["trials"] == second["trials"]
    assert first["models"]["sasrec"]["split"] == second["models"]["sasrec-hybrid"]["split"]


@pytest.mark.parametrize("model", SEARCHES)
@pytest.mark.parametrize("name", TABLES)
def test_tables_were_made_with_the_best_settings_of_the_search(name: str, model: str) -> None:
    trials = stored(f"search-{model}")["models"][model]["trials"]
    best = max(trials, key=lambda trial: trial["validation"])["settings"]
    specs = stored(name)["specs"]
    if model in specs:
        assert create(specs[model], **best) == create(specs[model])


@pytest.mark.parametrize("name", TABLES)
def test_differences_are_those_of_the_means(name: str) -> None:
    """Every draw has the same events, so that the mean over all is the mean of the draws."""
    result = stored(name)
    mean = means(result)
    best = max(mean, key=lambda model: mean[model])
    for reference, tests in ({best: result["tests"]} | result["tests against"]).items():
        assert set(tests) == set(mean) - {reference}
        for model, test in tests.items():
            assert test["low"] <= test["difference"] <= test["high"]
            if name == "sequence-cold-items":  # draws differ in events
                assert np.sign(test["difference"]) == np.sign(mean[reference] - mean[model])
            else:
                assert test["difference"] == pytest.approx(mean[reference] - mean[model], abs=1e-9)


def test_groups_part_the_test_events() -> None:
    result = stored("sequence-leave-last-n")
    events = result["protocol"]["events"] * result["protocol"]["draws"]
    for kind in ("users", "items"):
        groups = [group for part, group in result["groups"].items() if part.startswith(kind)]
        assert sum(group["queries"] for group in groups) == events
        for model, mean in means(result).items():
            together = sum(group["queries"] * group["means"][model] for group in groups) / events
            assert together == pytest.approx(mean)
            for group in groups:
                if model != "sasrec":
                    expected = group["means"]["sasrec"] - group["means"][model]
                    assert group["tests"][model]["difference"] == pytest.approx(expected)


def test_an_ablation_changes_one_thing() -> None:
    """But for what has no meaning without it, or another: ``text alone`` drops what is about ids as well."""
    specs = stored("sequence-ablation")["specs"]
    together = {"temperature", "auxiliary"}  # what has no meaning, or another, without the change
    bases = {"ids: dot product and gBCE, 32 negatives": "ids: dot product"}
    for name, spec in specs.items():
        base = bases.get(name, "sasrec" if name == "sasrec" or name.startswith("ids: ") else "sasrec-hybrid")
        before, after = vars(create(specs[base])), vars(create(spec))
        changed = {field for field in before if before[field] != after[field]}
        assert len(changed - together) <= 1, name
        assert bool(changed) == (name not in ("sasrec", "sasrec-hybrid")), name


def test_feedback_compares_the_same_three_models_in_every_run() -> None:
    runs = stored("feedback")["seeds"]
    assert len(runs) == 3
    for run in runs:
        assert set(run) == {"left as it is", "updated", "fitted anew"}
        assert run["updated"]["seconds"] < run["fitted anew"]["seconds"]
    for metric in ("new", "old"):
        values = [row[metric] for run in runs for row in run.values()]
        assert max(Counter(values).values()) == 1, "an update that changes nothing is no update"


def test_time_to_quality_follows_from_the_curves() -> None:
    result = stored("time-to-quality")

    def reached(run: dict[str, Any]) -> float | None:
        ends = range(result["consecutive"], len(run["ndcg@10"]) + 1)
        good = [end for end in ends if fmean(run["ndcg@10"][end - result["consecutive"] : end]) >= result["goal"]]
        return run["seconds"][good[0] - 1] if good else None

    for name, runs in result["runs"].items():
        times = [reached(run) for run in runs]
        assert times == [run["seconds_to_goal"] for run in runs]
        middle = median_high([np.inf if time is None else time for time in times])
        assert result["median_seconds_to_goal"][name] == (None if middle == np.inf else middle)
    for duels in result["races"].values():
        for duel in duels:
            if duel["ratio"] is not None:
                assert duel["ratio"] == pytest.approx(duel["peer"] / duel["ours"])


def test_a_good_model_is_there_soon_and_sooner_than_elsewhere() -> None:
    result = stored("time-to-quality")
    assert result["median_seconds_to_goal"]["recsys_cl sasrec"] <= 75
    assert result["median_seconds_to_goal"]["recsys_cl two-tower-id"] <= 30
    for duels in result["races"].values():
        assert median([duel["ratio"] for duel in duels]) >= 2


def test_a_million_events_train_fast_in_little_memory_and_at_a_cost_that_grows_as_they_do() -> None:
    rows = stored("throughput")["rows"]
    sizes = {row["users"]: row for row in rows if row["contender"] == "recsys_cl sasrec"}
    ours = sizes[max(sizes)]
    assert ours["events"] == 1_000_000
    assert ours["peak_bytes"] <= 4 * 2**30
    for row in rows:
        assert row["predictions_per_second"] == pytest.approx(row["predictions"] / row["seconds"])
        assert row["seconds_per_epoch"] == pytest.approx(row["seconds"] / row["epochs"])
        if row["contender"] not in ("recsys_cl sasrec", "RecTools SASRec"):
            assert ours["predictions_per_second"] >= 3 * row["predictions_per_second"]
            assert ours["sequences_per_second"] >= row["sequences_per_second"], "though ours are whole windows"
    assert len(sizes) == 3
    costs = [row["seconds_per_epoch"] / row["events"] for row in sizes.values()]
    assert max(costs) <= 1.25 * min(costs)


def test_a_foreign_data_set_trains_in_half_an_hour() -> None:
    run = read_result("foreign", RESULTS)
    result = run["result"]
    assert (result["users"], result["items"]) == (20_000, 10_000)
    assert result["events"] >= 199_000
    assert run["seconds"] == result["wall seconds"] <= 30 * 60
    assert result["epochs"] < create("sasrec").epochs, "training stopped by itself"


def test_sizes_differ_in_one_thing_from_the_whole() -> None:
    result = stored("scaling")
    rows, tests = {row["name"]: row for row in result["rows"]}, result["against the whole"]
    (whole,) = (row for name, row in rows.items() if name not in tests)
    assert (whole["share"], whole["width"]) == (1.0, create("sasrec").dim)
    for name, test in tests.items():
        row = rows[name]
        assert (row["share"] == whole["share"]) != (row["width"] == whole["width"])
        assert test["difference"] == pytest.approx(whole["ndcg@10"] - row["ndcg@10"])
    for row in rows.values():
        assert row["users"] == ceil(row["share"] * whole["users"])
        assert row["low"] <= row["ndcg@10"] <= row["high"]


@pytest.mark.parametrize("name", ["sequence-leave-last-n", "sequence-temporal"])
def test_a_quick_rerun_of_the_baseline_agrees(name: str, data: Interactions) -> None:
    result = stored(name)
    split = split_data(data, TABLES[name], n=10, seed=0)
    found = evaluate_split(create(result["specs"]["ease-recency"]).fit(split), split).mean()
    assert found == pytest.approx(result["runs"]["ease-recency"][0], abs=CLOSED_FORM)
