"""Chapter 10 experiments: random, hard-mined, perturbed, GAN-generated and policy-sampled negatives compared."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from ch09_perturbations import COMMON, TRIALS, first_of, fitted, table
from common import Experiment, Parts, Settings, Space, search, world

from recsys_cl.data import Split
from recsys_cl.negatives.strategies import Sampler

SHARES = {"sampler.share": [0.125, 0.25, 0.5]}
MOVES = {"sampler.epsilon": [0.05, 0.1, 0.2]}
GAME = SHARES | {"sampler.hardness": [0.0, 0.3, 1.0]} | MOVES
NEGATIVES: dict[str, tuple[Settings, Space]] = {
    "uniform": ({"sampler": "uniform"}, COMMON | {"dropout": [0.1, 0.2]}),
    "popularity": ({"sampler": "popular"}, COMMON | SHARES | {"log_q": [True, False]}),
    "hard-mined": ({"sampler": "hard"}, COMMON | SHARES),
    "perturbed": ({"sampler": "perturbed"}, COMMON | SHARES | MOVES),
    "policy (REINFORCE)": ({"sampler": "policy"}, COMMON | SHARES),
    "generator": ({"sampler": "generated"}, COMMON | GAME),
    "generator + filter": ({"sampler": "generated"}, COMMON | GAME | {"sampler.threshold": [0.48, 0.5, 0.52]}),
}


def search_negatives(parts: Parts) -> dict[str, Any]:
    """Search each source of negatives by clean validation NDCG@10."""
    split, found = world(0), {}
    for name, (fixed, space) in NEGATIVES.items():
        measure = partial(negatives_trial, fixed, split)
        trials = search(parts, name, space, first_of(fixed, space), measure, trials=TRIALS)
        found[name] = {"fixed": fixed, "space": space, "trials": trials}
    return {"trials": TRIALS, "negatives": Sampler().negatives, "split": split.protocol, "models": found}


def negatives_trial(fixed: Settings, split: Split, settings: Settings) -> dict[str, Any]:
    """Return validation NDCG@10, and the sampler's diagnostics in the last epoch."""
    started = time.perf_counter()
    model = fitted({**fixed, **settings}, split)
    watched = {key: value for key, value in model.report.history[-1].items() if key not in ("epoch", "loss", "ndcg@10")}
    return {"value": model.report.best, "seconds": time.perf_counter() - started, **watched}


RUNS: dict[str, Experiment] = {
    "search-negatives": search_negatives,
    "adversarial-negatives": table("search-negatives", against="uniform"),
}
