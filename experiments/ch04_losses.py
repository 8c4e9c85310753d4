"""Chapter 4 experiment: every contrastive loss, tuned and tested on two-tower models for warm and cold items."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from common import Experiment, Parts, Runs, Settings, against, table

from recsys_cl.data import Interactions, Split, cold_item_split, leave_last_n, load_movielens
from recsys_cl.evaluation import Evaluation, evaluate, evaluate_unseen
from recsys_cl.losses.contrastive import LOSSES
from recsys_cl.recommenders import TwoTower, create

REFERENCE = "info-nce"
SEEDS = 3
METRICS = ("ndcg@10", "hr@10")

MARGINS: dict[str, list[float]] = {"triplet": [0.2, 0.1, 0.5, 1.0], "pairwise": [1.0, 0.5, 1.4, 1.8]}
"""Margins to try, in units of a distance between unit vectors; the default first."""


@dataclass(frozen=True)
class Protocol:
    """One half of the experiment.

    Attributes:
        model: Model that is trained.
        epochs: Maximum of a final fit; a trial has half of them.
        temperatures: Temperatures to try, the model's default first.
        split: Data and number of the draw to split.
        measure: Recommender and test queries to metrics.
    """

    model: str
    epochs: int
    temperatures: tuple[float, ...]
    split: Callable[[Interactions, int], Split]
    measure: Callable[..., Evaluation]


PROTOCOLS = {
    "warm": Protocol(
        "two-tower", 10, (0.1, 0.05, 0.2, 0.4), lambda data, draw: leave_last_n(data, 10, seed=draw), evaluate
    ),
    "cold": Protocol(
        "two-tower-cold", 4, (0.4, 0.1, 0.2, 0.8), lambda data, draw: cold_item_split(data, seed=draw), evaluate_unseen
    ),
}


def contrastive_losses(parts: Parts, name: str) -> dict[str, Any]:
    """Return the trials of each loss under one protocol, and the table of the chosen ones."""
    protocol, data = PROTOCOLS[name], load_movielens()
    first = protocol.split(data, 0)
    trials: dict[str, list[dict[str, Any]]] = {}
    runs: Runs = {}
    for loss in LOSSES:
        trials[loss] = [
            parts.keep(f"{name}-{loss}-trial-{number}", partial(trial, protocol, loss, settings, first), of=settings)
            for number, settings in enumerate(tried(loss, protocol.temperatures))
        ]
        best = max(trials[loss], key=lambda one: one["validation"])["settings"]
        runs[loss] = [
            parts.evaluation(f"{name}-{loss}-{seed}", partial(tested, protocol, loss, best, data, seed), of=best)
            for seed in range(SEEDS)
        ]
    about = {
        "model": protocol.model,
        "data": data.name,
        "split": first.protocol,
        "users": len(set(first.test.user.tolist())),
        "events": int(first.test.target.lengths.sum()),
        "draws": SEEDS,
        "epochs": protocol.epochs,
        "trial epochs": protocol.epochs // 2,
    }
    return {"protocol": about, "trials": trials, **table(runs, METRICS), "against": against(runs, REFERENCE, METRICS)}


def tried(loss: str, temperatures: tuple[float, ...]) -> list[Settings]:
    """Return the settings to try: four temperatures or four margins; a soft triplet has neither, and one trial."""
    if LOSSES[loss]().has_temperature:
        return [{"temperature": value} for value in temperatures]
    return [{"loss.margin": value} for value in MARGINS[loss]] if loss in MARGINS else [{}]


def trial(protocol: Protocol, loss: str, settings: Settings, split: Split) -> dict[str, Any]:
    """Return the best validation NDCG@10 of a short fit, and seconds."""
    started = time.perf_counter()
    model = fitted(protocol, loss, settings, split, epochs=protocol.epochs // 2, seed=0)
    return {"settings": settings, "validation": model.report.best, "seconds": time.perf_counter() - started}


def tested(protocol: Protocol, loss: str, settings: Settings, data: Interactions, seed: int) -> Evaluation:
    """Fit on a draw, and test."""
    split = protocol.split(data, seed)
    return protocol.measure(fitted(protocol, loss, settings, split, epochs=protocol.epochs, seed=seed), split.test)


def fitted(protocol: Protocol, loss: str, settings: Settings, split: Split, *, epochs: int, seed: int) -> TwoTower:
    """Return a fitted model."""
    if not LOSSES[loss]().has_temperature:
        settings = {"temperature": TwoTower.temperature, **settings}  # such a loss takes no other
    model = create(protocol.model, loss=loss, epochs=epochs, seed=seed, **settings)
    assert isinstance(model, TwoTower)
    return model.fit(split)


RUNS: dict[str, Experiment] = {
    f"contrastive-losses-{name}": partial(contrastive_losses, name=name) for name in PROTOCOLS
}
