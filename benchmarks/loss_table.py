"""Every contrastive loss as the argument of one model: the same search for each, then three seeds, warm and cold."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from parts import kept
from tables import Runs, against, table, values_of

from recsys_cl.data import Interactions, Split, cold_item_split, leave_last_n, load_movielens
from recsys_cl.evaluation import Evaluation, evaluate, evaluate_unseen
from recsys_cl.objectives.contrastive.loss import LOSSES
from recsys_cl.recommenders import create

REFERENCE = "info-nce"
SEEDS = 3
METRICS = ("ndcg@10", "hr@10")

MARGINS: dict[str, list[float]] = {"triplet": [0.2, 0.1, 0.5, 1.0], "pairwise": [1.0, 0.5, 1.4, 1.8]}
"""Margins to try of the losses that have one, in units of a distance between unit vectors; the default first."""


@dataclass(frozen=True)
class Protocol:
    """One side of the table.

    Attributes:
        model: What is trained.
        epochs: Of a final fit, at most; a trial has half of them.
        temperatures: To try, the model's default first.
        split: Draw to split.
        measure: Recommender and test queries to metrics.
    """

    model: str
    epochs: int
    temperatures: tuple[float, ...]
    split: Callable[[Interactions, int], Split]
    measure: Callable[..., Evaluation]


def warm(data: Interactions, draw: int) -> Split:
    return leave_last_n(data, 10, seed=draw)


def cold(data: Interactions, draw: int) -> Split:
    return cold_item_split(data, seed=draw)


PROTOCOLS = {
    "warm": Protocol("two-tower", 10, (0.1, 0.05, 0.2, 0.4), warm, evaluate),
    "cold": Protocol("two-tower-cold", 4, (0.4, 0.1, 0.2, 0.8), cold, evaluate_unseen),
}


def settings_of(loss: str, temperatures: tuple[float, ...]) -> list[dict[str, float]]:
    """What is tried for a loss: four temperatures, or four margins; a soft triplet has neither, and one trial."""
    if LOSSES[loss]().has_temperature:
        return [{"temperature": value} for value in temperatures]
    return [{"loss.margin": value} for value in MARGINS[loss]] if loss in MARGINS else [{}]


def fitted(protocol: Protocol, loss: str, settings: dict[str, float], split: Split, epochs: int, seed: int) -> Any:
    if not LOSSES[loss]().has_temperature:
        settings = {"temperature": 0.1, **settings}  # the default, which such a loss must have
    return create(protocol.model, loss=loss, epochs=epochs, seed=seed, **settings).fit(split)


def trial(protocol: Protocol, loss: str, settings: dict[str, float], split: Split) -> dict[str, Any]:
    started = time.perf_counter()
    model = fitted(protocol, loss, settings, split, protocol.epochs // 2, 0)
    return {"settings": settings, "validation": model.report.best, "seconds": time.perf_counter() - started}


def side(name: str, folder: Path) -> dict[str, Any]:
    """One protocol: the trials of every loss, and the table of the chosen ones."""
    protocol, data = PROTOCOLS[name], load_movielens()
    first = protocol.split(data, 0)
    trials: dict[str, list[dict[str, Any]]] = {}
    runs: Runs = {}
    for loss in LOSSES:
        trials[loss] = [
            kept(folder / f"{name}-{loss}-{number}.json", partial(trial, protocol, loss, settings, first))
            for number, settings in enumerate(settings_of(loss, protocol.temperatures))
        ]
        best = max(trials[loss], key=lambda one: one["validation"])["settings"]

        def test(seed: int, loss: str = loss, best: dict[str, float] = best) -> Evaluation:
            split = protocol.split(data, seed)
            return protocol.measure(fitted(protocol, loss, best, split, protocol.epochs, seed), split.test)

        runs[loss] = [values_of(folder / f"{name}-{loss}-{seed}.npz", partial(test, seed)) for seed in range(SEEDS)]
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


def contrastive_losses(folder: Path) -> dict[str, Any]:
    """Both protocols."""
    return {name: side(name, folder) for name in PROTOCOLS}


RUNS = {"contrastive-losses": contrastive_losses}
