"""Training overhead of adversarial methods: processor time per epoch, beside that of plain training.

    python benchmarks/adversarial_overhead.py

Contenders take turns, five times each; processor time is measured, which other processes do not disturb. The result is
book/results/adversarial-overhead.json.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from results import store

from recsys_cl.data import leave_last_n, load_movielens
from recsys_cl.recommenders import create

ROUNDS = 5
VALIDATION = 3_000  # queries that are ranked at the end of the epoch
CONTENDERS: dict[str, dict[str, Any]] = {
    "in-batch": {},
    "in-batch, APR": {"attack": {"name": "fgm", "epsilon": 0.1}},
    "in-batch, PGD": {"attack": {"name": "pgd", "epsilon": 0.1}},
    "in-batch, VAT": {"attack": {"name": "vat", "epsilon": 0.1}},
    "uniform": {"sampler": "uniform"},
    "generator + filter": {"sampler": {"name": "generated", "epsilon": 0.1, "threshold": 0.5}},
    "policy (REINFORCE)": {"sampler": "policy"},
}


def overhead() -> dict[str, Any]:
    """Return the seconds of an epoch, by contender and round."""
    split = leave_last_n(load_movielens(), seed=0)
    split = replace(split, validation=split.validation.sample(VALIDATION, seed=0))
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(ROUNDS):
        for name, settings in CONTENDERS.items():
            model = create("two-tower", epochs=1, seed=0, **settings)
            started = time.process_time()
            model.fit(split)
            seconds[name].append(time.process_time() - started)
            print(name, round(seconds[name][-1], 1), flush=True)
    return {"seconds": seconds}


if __name__ == "__main__":
    store("adversarial-overhead", "adversarial_overhead.py", overhead)
