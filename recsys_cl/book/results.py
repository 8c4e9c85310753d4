"""Stored results: read and write runs, format them as tables, and style the book's figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler

from recsys_cl.errors import InputError
from recsys_cl.evaluation import holm
from recsys_cl.provenance import provenance


def read_result(name: str, folder: str | Path = "results") -> dict[str, Any]:
    """Read a stored run with its provenance.

    Raises:
        InputError: If there is no such run.
    """
    file = Path(folder) / f"{name}.json"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in Path(folder).glob("*.json"))) or "none"
        raise InputError(
            f"no stored run {name!r} in {str(folder)!r} (there are: {there}); make it with experiments/run.py"
        )
    return json.loads(file.read_text())


def write_result(name: str, result: dict[str, Any], *, command: str, seconds: float, folder: str | Path) -> None:
    """Store the result of a run with its command, wall time and provenance, for :func:`read_result`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    stored = {"command": command, "seconds": seconds, **provenance(), "result": result}
    (Path(folder) / f"{name}.json").write_text(json.dumps(stored, indent=1) + "\n")


def comparison_table(result: dict[str, Any], metrics: tuple[str, ...] = ("ndcg@10", "hr@10")) -> pd.DataFrame:
    """Table of a stored comparison, best model first.

    Args:
        result: A comparison, as returned by ``read_result``.
        metrics: Metrics to show; the first determines the order.

    Returns:
        One row per model with runs, mean and standard deviation over runs, 95 % interval over users, p-value
        against the best model (Holm's correction), and seconds per fit.
    """
    table = result["result"]
    rows = []
    for row in sorted(table["rows"], key=lambda row: -row["metrics"][metrics[0]]["mean"]):
        first = row["metrics"][metrics[0]]
        test = table["tests"].get(row["model"])
        rows.append(
            {"model": row["model"], "runs": row["seeds"]}
            | {name: f"{row['metrics'][name]['mean']:.3f} ± {row['metrics'][name]['sd']:.3f}" for name in metrics}
            | {f"{metrics[0]}, 95 % interval": f"{first['low']:.3f} to {first['high']:.3f}"}
            | {
                "p against the top row": "" if test is None else f"{test['p_value']:.4f}",
                "seconds": f"{row['seconds']:.1f}",
            }
        )
    return pd.DataFrame(rows).set_index("model")


def losses_table(result: dict[str, Any]) -> pd.DataFrame:
    """Table of a stored run in which every loss trains one model: best loss first.

    Returns:
        One row per loss with the setting chosen on validation events, mean and standard deviation of NDCG@10 over
        seeds, its 95 % interval over users, the difference from InfoNCE and its p-value (Holm's correction).
    """
    table, rows = result["result"], []
    for row in sorted(table["rows"], key=lambda row: -row["metrics"]["ndcg@10"]["mean"]):
        loss, value = row["model"], row["metrics"]["ndcg@10"]
        chosen = max(table["trials"][loss], key=lambda trial: trial["validation"])["settings"]
        test = table["against"]["ndcg@10"].get(loss)  # InfoNCE minus the loss
        rows.append(
            {
                "loss": loss,
                "setting": ", ".join(f"{name.removeprefix('loss.')} {number:g}" for name, number in chosen.items()),
                "NDCG@10": f"{value['mean']:.4f} ± {value['sd']:.4f}",
                "95 % interval": f"{value['low']:.4f} to {value['high']:.4f}",
                "minus InfoNCE": "" if test is None else f"{-test['difference']:+.4f}",
                "p": "" if test is None else f"{test['p_value']:.4f}",
            }
        )
    return pd.DataFrame(rows).set_index("loss")


def arms_table(result: dict[str, Any], pairs: Sequence[tuple[str, str]], metric: str = "ndcg@10") -> pd.DataFrame:
    """Table of comparisons in a stored run of the ledger: one row per pair of arms.

    Returns:
        The mean of both arms over draws or folds, their difference with its 95 % interval over the run's unit of chance
        (users, or folds of items), and its p-value (Holm's correction over the rows).

    Raises:
        InputError: If the run has no such comparison.
    """
    stored = result["result"]
    keys = [f"{first} minus {second}; {metric}" for first, second in pairs]
    missing = [key for key in keys if key not in stored["comparisons"]]
    if missing:
        raise InputError(f"the run has no {missing[0]!r}; it compares {', '.join(stored['comparisons'])}")
    tests = [stored["comparisons"][key] for key in keys]
    means = {name: float(np.mean(stored["arms"][name]["runs"][metric])) for pair in pairs for name in pair}
    rows = [
        {
            "first": first,
            "second": second,
            "NDCG@10": f"{means[first]:.4f}",
            "of the second": f"{means[second]:.4f}",
            "difference": f"{test['difference']:+.4f}",
            "95 % interval": f"{test['low']:+.4f} to {test['high']:+.4f}",
            "p": f"{p_value:.4f}",
        }
        for (first, second), test, p_value in zip(
            pairs, tests, holm(np.array([test["p_value"] for test in tests])), strict=True
        )
    ]
    return pd.DataFrame(rows).set_index("first")


def user_item_table(result: dict[str, Any]) -> pd.DataFrame:
    """Table of a stored user–item run: ranking and rating metrics of every setting.

    Returns:
        One row per objective and alpha with NDCG@10 and RMSE: mean and standard deviation over runs, 95 % interval over
        users, and p-value (Holm's correction), against the best setting for NDCG@10 and against ratings alone for the
        squared error. The epoch was selected by validation NDCG@10, for ratings alone by validation RMSE; the last
        column has the lowest validation RMSE of any epoch, for comparison.
    """
    table = result["result"]
    tests = {"ndcg@10": table["tests"], "rmse": table["rating"]["tests"]}
    against = {"ndcg@10": "p against the top row", "rmse": "p against ratings alone"}
    rows = []
    for row in table["rows"]:
        fields = dict(field.split("=") for field in row["model"].partition(":")[2].split(","))
        entry = {"objective": fields["objective"], "alpha": fields.get("alpha", "")}
        for name, test in tests.items():
            value, p_value = row["metrics"][name], test.get(row["model"], {}).get("p_value")
            entry[name] = f"{value['mean']:.3f} ± {value['sd']:.3f}"
            entry[f"{name}, 95 % interval"] = f"{value['low']:.3f} to {value['high']:.3f}"
            entry[against[name]] = "" if p_value is None else f"{p_value:.4f}"
        lowest = [min(epochs) for epochs in table["rating"]["validation"][row["model"]]]
        rows.append(entry | {"lowest validation rmse": f"{sum(lowest) / len(lowest):.3f}"})
    return pd.DataFrame(rows).set_index(["objective", "alpha"])


def search_table(result: dict[str, Any]) -> pd.DataFrame:
    """Table of a stored search: validation metric of each model's worst and best trial, and the best settings."""
    rows = []
    for model, search in result["result"]["models"].items():
        best = max(search["trials"], key=lambda trial: trial["validation"])
        rows.append(
            {
                "model": model,
                "split": search["split"],
                "trials": len(search["trials"]),
                "worst": round(min(trial["validation"] for trial in search["trials"]), 4),
                "best": round(best["validation"], 4),
                "best settings": ", ".join(f"{key}={value:g}" for key, value in best["settings"].items()),
            }
        )
    return pd.DataFrame(rows).set_index("model")


def ledger(folder: str | Path = "results") -> pd.DataFrame:
    """Table of all stored runs: command, minutes of fitting, hardware, commit, date."""
    rows = []
    for file in sorted(Path(folder).glob("*.json")):
        run = json.loads(file.read_text())
        rows.append(
            {
                "run": file.stem,
                "command": run["command"],
                "minutes of fitting": round(_fitting(run) / 60, 1),
                "hardware": f"{run['device']}, {run['threads']} of {run['cores']} cores",
                "commit": run["commit"],
                "date": run["date"],
            }
        )
    return pd.DataFrame(rows).set_index("run")


def _fitting(run: dict[str, Any]) -> float:
    """Seconds of fitting; the wall time of an interrupted run would cover only its last part."""
    result = run["result"]
    searches = [model["trials"] for model in result.get("models", {}).values() if "trials" in model]
    if searches:
        return sum(trial["seconds"] for trials in searches for trial in trials)
    if "comparisons" in result:
        return sum(arm["seconds"] * len(next(iter(arm["runs"].values()))) for arm in result["arms"].values())
    if "tests" in result:
        return sum(row["seconds"] * row["seeds"] for row in result["rows"])
    return run["seconds"]


PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, which colour-blind readers can tell apart: blue, vermilion, green, purple, orange, sky."""

STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "legend.frameon": False,
    "image.cmap": "cividis",
}
"""Differences from Matplotlib's defaults. The background is white in dark mode too; the page puts a card under it.

Colours alone are lost in grey print: a figure sets dashes, markers or hatches itself. They are not in the cycle, where
Matplotlib would also apply them to lines that set only a colour.
"""


def use_book_style() -> None:
    """Use the book's style for all subsequent figures.

    References:
        Okabe and Ito (2008), Color Universal Design, https://jfly.uni-koeln.de/color/.

    >>> use_book_style()
    >>> plt.rcParams["axes.spines.top"]
    False
    """
    plt.style.use(STYLE)
