"""Model comparison: fit and test several models under one protocol, and keep finished runs on disk.

See: chapter 11.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from recsys_cl.config import create_seeded
from recsys_cl.data import Interactions, Split
from recsys_cl.data.splits import SPLITS
from recsys_cl.errors import InputError
from recsys_cl.evaluation import Evaluation, PairedTest, evaluate, evaluate_unseen, pool
from recsys_cl.evaluation import compare as paired_tests
from recsys_cl.evaluation.evaluate import SLOW
from recsys_cl.recommenders import MODELS, Recommender


@dataclass
class Row:
    """One model of a comparison.

    Attributes:
        model: Name of the model.
        evaluations: Test metrics of each run, by the seed of split and training.
        seconds: Mean wall time of one fit, in seconds.
    """

    model: str
    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    seconds: float = 0.0

    def metrics(self) -> dict[str, dict[str, float]]:
        """Per metric: mean and standard deviation over runs, and the 95 % interval over users."""
        runs = list(self.evaluations.values())
        pooled = pool(runs)
        table = {}
        for name in pooled.metrics:
            means = np.array([run.mean(name) for run in runs])
            low, high = pooled.interval(name)
            sd = float(means.std(ddof=1)) if len(means) > 1 else 0.0
            table[name] = {"mean": float(means.mean()), "sd": sd, "low": low, "high": high}
        return table


@dataclass
class Comparison:
    """Several models under one protocol.

    Attributes:
        protocol: Data set, split, numbers of test users and test events, and further facts that a command reports.
        rows: One row per model.
    """

    protocol: dict[str, Any]
    rows: list[Row]

    def tests(self, metric: str = "ndcg@10") -> dict[str, PairedTest]:
        """Paired test of every model against the best one, on the seeds that all models have in common."""
        best = max(self.rows, key=lambda row: row.metrics()[metric]["mean"])
        common = sorted(set.intersection(*(set(row.evaluations) for row in self.rows)))
        pooled = {row.model: pool([row.evaluations[seed] for seed in common]) for row in self.rows}
        return paired_tests(pooled, metric=metric, against=best.model)

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain data, ready for JSON."""
        rows = [
            {"model": row.model, "seeds": len(row.evaluations), "seconds": row.seconds, "metrics": row.metrics()}
            for row in self.rows
        ]
        return {"protocol": self.protocol, "rows": rows}


def split_data(data: Interactions, split: str = "leave-one-out", *, n: int = 10, seed: int = 0) -> Split:
    """Apply a split by name.

    Args:
        data: The data set.
        split: A key of :data:`~recsys_cl.data.splits.SPLITS`.
        n: Events held out per user by ``leave-last-n``.
        seed: Seed of the order within ties, and of the draw of cold items.

    Raises:
        InputError: If the name is unknown or the data is too small.

    >>> from recsys_cl.data import synthetic
    >>> split_data(synthetic(100, 100), "leave-last-n", n=3).protocol
    'leave-last-3'
    """
    return SPLITS[split](data, n=n, seed=seed)


def evaluate_split(recommender: Recommender, split: Split) -> Evaluation:
    """Compute the test metrics; under ``cold-items`` among the unseen items and in the full catalogue."""
    measured = evaluate_unseen if split.protocol == "cold-items" else evaluate
    return measured(recommender, split.test)


def protocol_of(split: Split) -> dict[str, Any]:
    """Description of a split for a table: data set, protocol, numbers of test users and test events."""
    return {
        "data": split.data.name,
        "split": split.protocol,
        "users": len(np.unique(split.test.user)),
        "events": int(split.test.target.lengths.sum()),
    }


def compare(
    data: Interactions,
    models: Sequence[str] = tuple(MODELS),
    *,
    split: str = "leave-one-out",
    n: int = 10,
    seeds: int = 3,
    draws: int = 5,
    folder: str | Path | None = None,
) -> Comparison:
    """Fit and test several models under one protocol.

    A draw is a seeded order within ties and, under ``cold-items``, a seeded choice of the cold items. Models trained
    by gradient run on the draws ``0`` to ``seeds - 1``, the others on all draws. The number of a draw is also the seed
    of every model that has one.

    Args:
        data: The data set.
        models: Names of the models; ``NAME:FIELD=VALUE,...`` sets hyperparameters.
        split: Name of the split.
        n: Events held out per user by ``leave-last-n``.
        seeds: Runs of each model trained by gradient.
        draws: Runs of each other model; one run if nothing is drawn.
        folder: Folder for finished runs, from which an interrupted comparison continues.

    Raises:
        InputError: If a name is unknown or the data is too small; before anything is fitted.
    """
    untrained = {model: create_seeded(model, 0) for model in models}
    if seeds < 1 or draws < 1:
        raise InputError(f"seeds={seeds}, draws={draws}; give 1 or more")
    if split != "cold-items" and data.tied_share == 0:
        draws = 1
    rows = {model: Row(model) for model in models}
    runs = {model: seeds if recommender.trained else draws for model, recommender in untrained.items()}
    protocol = {**protocol_of(split_data(data, split, n=n, seed=0)), "draws": draws}
    with tqdm(total=sum(runs.values()), desc="comparing", delay=SLOW, leave=False) as bar:
        for draw in range(max(runs.values())):
            held_out = split_data(data, split, n=n, seed=draw)
            for model in (model for model in models if draw < runs[model]):
                evaluation, seconds = _kept_run(model, held_out, None if folder is None else Path(folder))
                rows[model].evaluations[draw] = evaluation
                rows[model].seconds += seconds / runs[model]
                bar.update(1)
    return Comparison(protocol, list(rows.values()))


def _kept_run(model: str, held_out: Split, folder: Path | None) -> tuple[Evaluation, float]:
    """Fit and test one model on one draw, or read that run from ``folder`` if it is there."""
    file = None if folder is None else folder / f"{_run_key(model, held_out)}.npz"
    if file is not None and file.exists():
        stored = Evaluation.load(file)
        metrics = dict(stored.metrics)
        seconds = float(metrics.pop("seconds"))
        return Evaluation(stored.user, metrics), seconds
    started = time.perf_counter()
    recommender = create_seeded(model, held_out.seed).fit(held_out)
    seconds = time.perf_counter() - started
    evaluation = evaluate_split(recommender, held_out)
    if file is not None:
        Evaluation(evaluation.user, {**evaluation.metrics, "seconds": np.array(seconds)}).save(file)
    return evaluation, seconds


def _run_key(model: str, held_out: Split) -> str:
    """File name of a run: readable, and different whenever the model, its settings, the data or the split differ."""
    settings = vars(create_seeded(model, held_out.seed))
    depends_on = [model, sorted(settings.items()), sorted(held_out.identity.items())]
    digest = hashlib.sha256(repr(depends_on).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', model)}-{held_out.seed}-{digest}"
