"""Chapter 9 experiment: generalisation gap with and without adversarial training."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from ch09_perturbations import ALONE, DRAWS, chosen, fitted, with_ablation
from common import Experiment, Parts, Runs, Settings, against, table, world

from recsys_cl.data import Queries, Split, validated_on_warm_items
from recsys_cl.evaluation import Evaluation, evaluate
from recsys_cl.recommenders import TwoTower

ADVERSARY = "APR"
METRICS = ("loss", "ndcg@10")


def overfitting(parts: Parts) -> dict[str, Any]:
    """Measure the gap between each user's last trained event and the ten after it, with and without the adversary."""
    methods = with_ablation(chosen("search-attacks"))
    settings = {name: methods[name] for name in (ADVERSARY, ALONE)}
    runs: Runs = {}
    for draw in range(DRAWS):
        split = world(draw)
        for name, own in settings.items():
            values = parts.evaluation(f"{name}-{draw}", partial(fitted_gap, own, split, draw), of=own)
            runs.setdefault(name, []).append(values)
    return {
        "protocol": {"data": split.data.name, "split": split.protocol, "draws": DRAWS},
        "settings": settings,
        **table(runs, METRICS),
        "paired": against(runs, ADVERSARY, METRICS),
    }


def fitted_gap(settings: Settings, split: Split, seed: int) -> Evaluation:
    """Fit, and return the gap."""
    return gap(fitted(settings, split, seed), split)


def gap(model: TwoTower, split: Split) -> Evaluation:
    """Return each user's gap between the last trained event and later ones: increase in loss, decrease in NDCG."""
    trained, later = validated_on_warm_items(split).validation, split.test
    users = np.intersect1d(trained.user, later.user)
    before, after = (
        [by_user(values, queries.user, users) for values in (losses(model, queries), found(model, queries))]
        for queries in (trained, later)
    )
    return Evaluation(users, {"loss": after[0] - before[0], "ndcg@10": before[1] - after[1]})


def by_user(values: np.ndarray, user: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Return the mean over the queries of each user, ``(users,)``."""
    return np.array([values[user == one].mean() for one in users])


def found(model: TwoTower, queries: Queries) -> np.ndarray:
    """Return NDCG@10 of each query."""
    return evaluate(model, queries).metrics["ndcg@10"]


@torch.no_grad()
def losses(model: TwoTower, queries: Queries) -> np.ndarray:
    """Return the softmax loss of each query over unseen items, in nats, ``(queries,)``."""
    logits = model.logits(queries.history)  # (Q, N)
    rows, positions = queries.history.flat()
    logits[rows, queries.history.items[positions]] = -torch.inf
    target = torch.from_numpy(queries.target.items[queries.target.start])  # (Q,)
    return torch.nn.functional.cross_entropy(logits, target, reduction="none").double().numpy()


RUNS: dict[str, Experiment] = {"claims-overfitting": overfitting}
