"""Tables of stored runs: evaluations kept on disk, figures over draws, and paired tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys_cl.evaluation import Evaluation, compare, holm, pool

Runs = dict[str, list[Evaluation]]
"""Name of a model to its evaluation in every draw."""


def values_of(file: Path, make: Callable[[], Evaluation]) -> Evaluation:
    """The evaluation in ``file``, made and written if it is not there yet."""
    if not file.exists():
        make().save(file)
        print(f"{file.stem}: {Evaluation.load(file).mean(next(iter(Evaluation.load(file).metrics))):.4f}", flush=True)
    return Evaluation.load(file)


def table(runs: Runs, metrics: Sequence[str]) -> dict[str, Any]:
    """Every model's mean over the draws, its deviation, its interval over users, and the mean of each draw."""
    rows = []
    for name, draws in runs.items():
        row: dict[str, Any] = {"model": name, "seeds": len(draws), "metrics": {}}
        for metric in metrics:
            means = [one.mean(metric) for one in draws]
            low, high = pool(draws).interval(metric)
            spread = float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
            row["metrics"][metric] = {"mean": float(np.mean(means)), "sd": spread, "low": low, "high": high}
        rows.append(row)
    means = {metric: {name: [one.mean(metric) for one in draws] for name, draws in runs.items()} for metric in metrics}
    return {"rows": rows, "runs": means}


def against(runs: Runs, reference: str, metrics: Sequence[str]) -> dict[str, Any]:
    """The reference minus every other model, by metric; p-values corrected by Holm within a metric."""
    pooled = {name: pool(draws) for name, draws in runs.items()}
    return {
        metric: {name: vars(test) for name, test in compare(pooled, metric=metric, against=reference).items()}
        for metric in metrics
    }


def corrected(tests: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The tests with Holm's p-values."""
    p_values = holm(np.array([test["p_value"] for test in tests.values()]))
    return {name: test | {"p_value": float(p)} for (name, test), p in zip(tests.items(), p_values, strict=True)}
