"""Chapter 11 experiments: full comparison of sequential models, and scaling with more users and a wider model."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from ch07_sequences import ALIGNED, BCE, BUDGET, DROPPED, table, tuned
from common import Experiment, Parts, figures, paired, with_settings, with_users

from recsys_cl.data import Split, leave_last_n, load_movielens
from recsys_cl.evaluation import Evaluation, evaluate
from recsys_cl.recommenders import Sequential, create

SHARES = (0.1, 0.25, 0.5, 1.0)
"""Shares of users in training, at the width of the search."""
WIDTHS = (16, 32, 64, 128)
"""Widths of models trained on all users."""
WIDTH = 64
"""Width in the search."""


def best_models() -> dict[str, str]:
    """Return baselines, and sequential models at their best settings."""
    sasrec, hybrid = tuned("sasrec"), tuned("sasrec-hybrid")
    return {
        "ease-recency": "ease-recency",
        "two-tower": "two-tower",
        "sasrec": sasrec,
        "sasrec, known positives spared": with_settings(sasrec, **{"loss.exclude_known": "true"}),
        "sasrec-hybrid": hybrid,
    }


def warm_and_cold_models() -> dict[str, str]:
    """Return the models that show what serving unseen items, too, costs on seen items."""
    sasrec, hybrid = tuned("sasrec"), tuned("sasrec-hybrid")
    return {
        "sasrec": sasrec,
        "sasrec-hybrid": hybrid,
        "sasrec-cold": hybrid.replace("sasrec-hybrid", "sasrec-cold"),
    }


def later_models() -> dict[str, str]:
    """Return the models whose order the temporal split is to confirm."""
    return {name: best_models()[name] for name in ("ease-recency", "sasrec", "sasrec-hybrid")}


def loss_models() -> dict[str, str]:
    """Return the models that differ in their loss: softmax, binary cross-entropy, masked items."""
    sasrec = tuned("sasrec")
    return {
        "sasrec": sasrec,
        "sasrec, BCE with one negative": with_settings(sasrec, **BCE),
        "bert4rec": "bert4rec:epochs=30",
    }


def cold_models() -> dict[str, str]:
    """Return the attempts at one model for seen and unseen items, and their baselines."""
    hybrid = with_settings(tuned("sasrec-hybrid"), epochs=6)
    return {
        "minilm": "minilm",
        "ridge": "ridge",
        "ids dropped in training": with_settings(hybrid, **{ALIGNED: 0.0, DROPPED: 0.5}),
        "ids dropped, text aligned with ids": with_settings(hybrid, **{ALIGNED: 0.5, DROPPED: 0.5}),
        "sasrec-cold": hybrid.replace("sasrec-hybrid", "sasrec-cold"),
    }


def scaling(parts: Parts) -> dict[str, Any]:
    """Measure the gain of more users and of wider models, on the same test queries of all users."""
    split = leave_last_n(load_movielens(), seed=0)
    whole = (SHARES[-1], WIDTH)
    sizes = dict.fromkeys([*((share, whole[1]) for share in SHARES), *((whole[0], width) for width in WIDTHS)])
    rows: list[dict[str, Any]] = []
    values: dict[str, Evaluation] = {}
    for share, width in sizes:
        name = f"{share:.0%} of the users, {width} wide"
        part = parts.keep(name, partial(one_size, split, share, width))
        values[name] = part["test"]
        low, high = values[name].interval()
        rows.append(figures(part) | {"name": name, "ndcg@10": values[name].mean(), "low": low, "high": high})
    tests = paired(values, f"{whole[0]:.0%} of the users, {whole[1]} wide")
    protocol = {"data": split.data.name, "split": split.protocol, "events": len(split.test), "seed": split.seed}
    return {"protocol": protocol, "rows": rows, "against the whole": tests}


def one_size(split: Split, share: float, width: int) -> dict[str, Any]:
    """Train a model of the given width on a share of the users, and test it.

    Fewer users make fewer steps an epoch, so epochs and patience grow as the share falls.
    """
    part = with_users(split, share)
    started = time.perf_counter()
    budget = {name: round(value / share) for name, value in BUDGET.items()}
    model = create(with_settings(tuned("sasrec"), dim=width), **budget)
    assert isinstance(model, Sequential)
    model.fit(part)
    seconds = time.perf_counter() - started
    return {
        "share": share,
        "width": width,
        "users": int((part.train.lengths > 0).sum()),
        "events": int(part.train.lengths.sum()),
        "parameters": sum(weight.numel() for weight in model.network.parameters()),
        "epochs": model.report.epochs,
        "seconds": seconds,
        "test": evaluate(model, split.test),
    }


RUNS: dict[str, Experiment] = {
    "sequence-leave-last-n": table("leave-last-n", best_models, draws=5),
    "sequence-leave-one-out": table("leave-one-out", loss_models, draws=5),
    "sequence-warm-and-cold": table("leave-last-n", warm_and_cold_models, draws=2),
    "sequence-temporal": table("temporal", later_models, draws=3),
    "sequence-cold-items": table("cold-items", cold_models, draws=5),
    "scaling": scaling,
}
