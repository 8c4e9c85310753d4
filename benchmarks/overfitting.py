"""Does training against an adversary widen or narrow the gap between trained events and later ones?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adversarial import ALONE, chosen, fitted, slug, with_ablation, world
from tables import Runs, against, table, values_of

from recsys_cl.data import Queries, Split, validated_on_warm_items
from recsys_cl.evaluation import Evaluation, evaluate
from recsys_cl.recommenders import TwoTower

DRAWS = 5
ADVERSARY = "APR"
METRICS = ("loss", "ndcg@10")


def overfitting(folder: Path) -> dict[str, Any]:
    """What is lost from each user's last trained event to the ten after it, with the adversary and without."""
    methods = with_ablation(chosen("search-attacks"))
    settings = {name: methods[name] for name in (ADVERSARY, ALONE)}
    runs: Runs = {}
    for draw in range(DRAWS):
        split = world(draw)
        for name, own in settings.items():
            fit = partial(fitted, own, split, draw)
            values = values_of(folder / f"{slug(name)}-{draw}.npz", lambda f=fit, s=split: gap(f(), s))
            runs.setdefault(name, []).append(values)
    return {
        "protocol": {"data": split.data.name, "split": split.protocol, "draws": DRAWS},
        "settings": settings,
        **table(runs, METRICS),
        "paired": against(runs, ADVERSARY, METRICS),
    }


def gap(model: TwoTower, split: Split) -> Evaluation:
    """How much worse each user's later events are found than the last trained one: loss that is added, NDCG lost."""
    trained, later = validated_on_warm_items(split).validation, split.test
    users = np.intersect1d(trained.user, later.user)
    before, after = (
        [by_user(values, queries.user, users) for values in (losses(model, queries), found(model, queries))]
        for queries in (trained, later)
    )
    return Evaluation(users, {"loss": after[0] - before[0], "ndcg@10": before[1] - after[1]})


def by_user(values: np.ndarray, user: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Mean over the queries of each user."""
    return np.array([values[user == one].mean() for one in users])


def found(model: TwoTower, queries: Queries) -> np.ndarray:
    return evaluate(model, queries).metrics["ndcg@10"]


@torch.no_grad()
def losses(model: TwoTower, queries: Queries) -> np.ndarray:
    """Softmax loss of every query in nats, over what its user has not seen: ``(queries,)``."""
    logits = model.logits(queries.history)  # (Q, N)
    rows, positions = queries.history.flat()
    logits[rows, queries.history.items[positions]] = -torch.inf
    target = torch.from_numpy(queries.target.items[queries.target.start])  # (Q,)
    return torch.nn.functional.cross_entropy(logits, target, reduction="none").double().numpy()
