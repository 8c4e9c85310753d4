"""Stored runs: tables follow from the values of the runs, defaults from the search, and a quick re-run agrees."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_cl import workflow
from recsys_cl.book.results import comparison_table, ledger, read_result, search_table, user_item_table
from recsys_cl.data import Interactions, load_movielens
from recsys_cl.errors import InputError
from recsys_cl.evaluation import holm
from recsys_cl.recommenders import MODELS, create

RESULTS = Path(__file__).parents[1] / "book" / "results"
OWN_SCRIPT = {
    "time-to-quality": "peers/time_to_quality.py",
    "throughput": "peers/throughput.py",
    "foreign": "multilingual.py",
    "losses": "losses.py",
    "encode": "encode.py",
    "finetune-speed": "finetune_speed.py",
    "claims-latency": "latency.py",
    "adversarial-overhead": "adversarial_overhead.py",
}
STORED = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
COMPARISONS = [name for name, run in STORED.items() if "tests" in run["result"]]

BUSY = {"contrastive-losses-cold"}
"""Runs made beside other work, whose wall time is far above that of a quiet machine."""

TOLERANCE = 0.002
"""How far a re-run of an untrained model may be from the stored mean: other processors round differently."""


@pytest.fixture(scope="module")
def data() -> Interactions:
    return load_movielens()


def test_every_run_says_where_it_comes_from() -> None:
    assert {"search", "compare-leave-one-out", "compare-cold-items", "compare-leave-last-n"} <= set(STORED)
    for name, run in STORED.items():
        made_by = f"benchmarks/{OWN_SCRIPT[name]}" if name in OWN_SCRIPT else f"experiments/run.py {name}"
        assert run["command"] == f"python {made_by}"
        assert {"versions", "device", "threads", "commit", "date", "seconds"} <= set(run)
        assert run["seconds"] < 3600 or name in BUSY
    assert len(ledger(RESULTS)) == len(STORED)


@pytest.mark.parametrize("name", COMPARISONS)
def test_tables_follow_from_the_runs(name: str) -> None:
    result = STORED[name]["result"]
    for row in result["rows"]:
        runs, metric = result["runs"][row["model"]], row["metrics"]["ndcg@10"]
        assert len(runs) == row["seeds"]
        assert metric["mean"] == pytest.approx(np.mean(runs))
        assert metric["sd"] == pytest.approx(np.std(runs, ddof=1) if len(runs) > 1 else 0.0)
        assert metric["low"] <= metric["mean"] <= metric["high"]
    best = max(result["rows"], key=lambda row: row["metrics"]["ndcg@10"]["mean"])["model"]
    assert set(result["tests"]) == set(result["runs"]) - {best}
    p_values = np.array([test["p_value"] for test in result["tests"].values()])
    assert (holm(p_values) >= p_values).all()
    table = comparison_table(STORED[name])
    assert table.index[0] == best
    assert table.loc[best, "p against the top row"] == ""


def test_rating_errors_follow_from_the_runs() -> None:
    result = STORED["user-item"]["result"]
    alone = "user-item:objective=rating"
    for row in result["rows"]:
        runs, metric = result["rating"]["runs"][row["model"]], row["metrics"]["rmse"]
        assert len(runs) == row["seeds"]
        assert metric["mean"] == pytest.approx(np.mean(runs))
        assert metric["sd"] == pytest.approx(np.std(runs, ddof=1))
        assert metric["low"] <= metric["mean"] <= metric["high"]
        if row["model"] != alone:
            gain = result["rating"]["tests"][row["model"]]["difference"]
            runs_alone = result["rating"]["runs"][alone]
            assert gain == pytest.approx(np.mean(np.square(runs_alone)) - np.mean(np.square(runs)))
    ranking = result["runs"]
    for test in result["mix against"]["ndcg@10"]:
        mix, other = (f"user-item:objective={name},alpha={test['alpha']}" for name in ("mix", test["mix against"]))
        assert test["difference"] == pytest.approx(np.mean(ranking[mix]) - np.mean(ranking[other]))
    table = user_item_table(STORED["user-item"])
    assert len(table) == len(result["rows"])
    assert table.loc[("rating", ""), "p against ratings alone"] == ""


def test_losses_took_the_time_and_memory_that_the_chapter_says() -> None:
    result = STORED["losses"]["result"]
    for row in result["rows"]:
        if row["loss"] == "recsys_cl InfoNCE" and row["batch"] >= 256:
            # at 4,096 pairs of 256 dimensions three matrix products alone take two thirds of the fastest peer's time
            limit = 1.05 if row["batch"] < 4096 else 0.8 if (row["batch"], row["dim"]) == (4096, 256) else 0.7
            assert row["ratio"] <= limit, row
        if row["loss"] == "recsys_cl NT-Xent" and row["batch"] == 256:
            assert row["ratio"] <= 0.01
        if row["loss"].endswith("NTXentLoss") and row["batch"] == 1024:
            assert row["milliseconds"] is None
    memory = {(row["loss"], row["batch"]): row for row in result["memory"]}
    for (name, batch), row in memory.items():
        dense = memory.get((f"{name}: dense", batch))
        assert row["mebibytes"] >= 2500 if name.endswith("dense") else row["mebibytes"] <= 160, row
        if dense is not None and "mask" in name:
            assert row["seconds"] <= 0.7 * dense["seconds"]
    assert {batch for _, batch in memory} == {16384, 65536}


@pytest.mark.parametrize("name", ["compare-leave-one-out", "compare-temporal", "compare-cold-items"])
def test_a_quick_rerun_agrees(name: str, data: Interactions) -> None:
    result = STORED[name]["result"]
    models = ("tfidf", "ridge") if name == "compare-cold-items" else ("popularity", "ease", "ease-recency")
    split = name.removeprefix("compare-")
    table = workflow.compare(data, models, split=split, draws=result["protocol"]["draws"])
    for row in table.rows:
        stored = next(one for one in result["rows"] if one["model"] == row.model)["metrics"]["ndcg@10"]
        found = row.metrics()["ndcg@10"]
        for value in ("mean", "low", "high"):
            assert found[value] == pytest.approx(stored[value], abs=TOLERANCE), (row.model, value)


def test_every_model_had_the_same_budget_and_the_best_trial_became_the_default() -> None:
    result = STORED["search"]["result"]
    for model, search in result["models"].items():
        assert len(search["trials"]) == result["trials"]
        best: dict[str, Any] = max(search["trials"], key=lambda trial: trial["validation"])["settings"]
        default = create(model)
        for field, value in best.items():
            assert getattr(default, field) == value, (model, field)
    assert set(search_table(STORED["search"]).index) <= set(MODELS)


def test_fine_tuning_was_chosen_by_validation_from_equal_budgets() -> None:
    search, table = STORED["fine-tune-search"]["result"]["models"], STORED["fine-tune"]["result"]
    assert len({len(entry["trials"]) for entry in search.values()}) == 1
    for model, entry in search.items():
        for trial in entry["trials"]:
            assert trial["validation"] == pytest.approx(np.mean(trial["validations"]))
            assert trial["validations"] == [curve[-1] for curve in trial["curves"]]
        best = max(entry["trials"], key=lambda trial: trial["validation"])
        assert table["settings"][model] == best["settings"]
        fits = [fit for fit in table["fits"] if fit["model"] == model]
        assert [fit["draw"] for fit in fits] == list(range(table["protocol"]["draws"]))
        assert all(fit["settings"] == best["settings"] for fit in fits)
    for model, default in {"lora": create("minilm-tuned"), "projection": create("minilm-projection")}.items():
        for field, value in table["settings"][model].items():
            assert field == "precision" or getattr(default, field) == value, (model, field)


def test_adapters_train_few_parameters() -> None:
    for fit in STORED["fine-tune"]["result"]["fits"]:
        trained, total = fit["parameters"]
        if fit["model"] in {"lora", "adalora", "ia3", "prefix"}:
            assert trained <= 0.025 * total, fit["model"]
        if fit["model"] == "full":
            assert trained == total


def test_encoding_and_training_keep_up_with_sentence_transformers() -> None:
    assert all(ratio >= 1 for ratio in STORED["finetune-speed"]["result"]["ratio"].values())
    for case, least in (("items", 1.0), ("histories", 1.3)):
        rows = STORED["encode"]["result"]["cases"][case]["rows"]
        assert min(row["least cosine"] for row in rows) >= 0.9999
        assert next(row["speed"] for row in rows if row["contender"].startswith("recsys_cl")) >= least


def test_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no stored run 'nothing'.*experiments/run.py"):
        read_result("nothing", tmp_path)
