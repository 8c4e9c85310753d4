"""Scalability to a million synthetic interactions: time to load and split, time and memory to rank for all users.

python benchmarks/scale.py
"""

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recsys_cl.data import Sequences, leave_one_out, load_files, synthetic
from recsys_cl.evaluation import evaluate, top_items


@dataclass
class Factors:
    """Dot products of mean-pooled factors: the cost of a two-tower model."""

    items: Tensor

    def score(self, histories: Sequences) -> Tensor:
        """Scores ``(batch, n_items)``."""
        users = torch.from_numpy(histories.matrix(len(self.items)) @ self.items.numpy())  # (B, d)
        return users @ self.items.T  # (B, N)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        events, items = Path(folder) / "events.csv", Path(folder) / "items.csv"
        data = synthetic(50_000, 20_000, 1_000_000)
        data.events.to_pandas().to_csv(events, index=False)
        data.items.to_pandas().to_csv(items, index=False)
        started = time.perf_counter()
        split = leave_one_out(load_files(events, items))
        print(f"load CSV, validate, split: {time.perf_counter() - started:.1f} s")
    model = Factors(torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0)))
    for name, work in (
        ("rank all targets, metrics at 100", lambda: evaluate(model, split.test, ks=(100,)).mean("ndcg@100")),
        ("top 100 of every user", lambda: top_items(model, split.test, k=100).shape),
    ):
        started = time.perf_counter()
        result = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name}: {time.perf_counter() - started:.1f} s, peak memory so far {peak:.2f} GiB ({result})")


if __name__ == "__main__":
    main()
