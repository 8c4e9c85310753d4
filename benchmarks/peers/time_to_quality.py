"""Time to quality: seconds of training until validation NDCG@10 reaches a goal, beside RecTools and RecBole.

    python benchmarks/peers/time_to_quality.py

Every contender trains on the same leave-one-out split of MovieLens-100K, is validated after every epoch by the same
code, and stops once the mean NDCG@10 of three consecutive validations reaches the goal, or after a limit. What counts
is the time inside the library's fit, without the validations. A peer that stays below the goal is compared at the best
mean that it reached. RecTools runs at its defaults and at a learning rate that suits it better; RecBole, whose epoch is
long, runs for one epoch. The result is book/results/time-to-quality.json.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import splits
import torch
from exchange import BLOCKS, DIM, LENGTH
from torch import Tensor

from recsys_cl.book.results import write_result
from recsys_cl.data import Queries, Sequences
from recsys_cl.evaluation import evaluate

RESULTS = Path(__file__).parents[2] / "book" / "results"

GOAL, CONSECUTIVE = 0.11, 3
LIMIT = 75.0  # seconds of training

OURS = "recsys_cl sasrec"
RECTOOLS = ("RecTools SASRec", "RecTools SASRec, learning rate .004")


class Dumped:
    """A scorer of the queries that a contender has scored already."""

    def __init__(self, queries: Queries, scores: np.ndarray) -> None:
        places = zip(queries.history.start, queries.history.stop, strict=True)
        self.row = {place: row for row, place in enumerate(places)}
        self.scores = torch.from_numpy(scores)

    def score(self, histories: Sequences) -> Tensor:
        """``(batch, n_items)``."""
        rows = [self.row[place] for place in zip(histories.start, histories.stop, strict=True)]
        return self.scores[rows]


def means(ndcg: list[float]) -> list[float]:
    """Mean of each validation and the two before it, from the third on."""
    return [statistics.fmean(ndcg[end - CONSECUTIVE : end]) for end in range(CONSECUTIVE, len(ndcg) + 1)]


def seconds_to(goal: float, seconds: list[float], ndcg: list[float]) -> float | None:
    """Training time at the first validation at which :func:`means` is at the goal, or ``None``.

    >>> seconds_to(0.11, [1.0, 2.0, 3.0, 4.0], [0.08, 0.10, 0.11, 0.12])
    4.0
    """
    times = zip(seconds[CONSECUTIVE - 1 :], means(ndcg), strict=True) if len(ndcg) >= CONSECUTIVE else ()
    return next((time for time, mean in times if mean >= goal), None)


def trial(command: list[str], queries: Queries, folder: Path, *, epochs: float, threads: int) -> dict[str, Any]:
    """Seconds and NDCG@10 after each epoch, until the goal, the limit, or the last epoch."""
    ndcg: list[float] = []
    seconds: list[float] = []

    def go_on(report: contenders.Report) -> bool:
        seconds.append(report["seconds"])
        ndcg.append(evaluate(Dumped(queries, np.load(folder / "scores.npy")), queries).mean("ndcg@10"))
        return seconds_to(GOAL, seconds, ndcg) is None and seconds[-1] < LIMIT and len(ndcg) < epochs

    reports = contenders.run(command, folder, threads=threads, go_on=go_on)
    return {
        "seconds": seconds,
        "ndcg@10": ndcg,
        "seconds_to_goal": seconds_to(GOAL, seconds, ndcg),
        "seconds_per_epoch": seconds[-1] / len(seconds),
        "peak_bytes": reports[-1]["peak_bytes"],
    }


def race(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, float | None]:
    """How much sooner we are where the peer is at its best, or at the goal if it gets there."""
    level = min(GOAL, max(means(peer["ndcg@10"]), default=0.0))
    mine, theirs = (seconds_to(level, run["seconds"], run["ndcg@10"]) for run in (ours, peer))
    ratio = None if mine is None or theirs is None else theirs / mine
    return {"ndcg@10": level, "ours": mine, "peer": theirs, "ratio": ratio}


def median(values: list[float | None]) -> float | None:
    """The median, in which runs that did not get there count as the slowest; ``None`` if it is one of those."""
    middle = statistics.median_high([np.inf if value is None else value for value in values])
    return None if middle == np.inf else middle


def main() -> None:
    parser = contenders.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each contender (%(default)s)")
    options = parser.parse_args()
    call = contenders.commands(options)
    lineup: dict[str, tuple[list[str], float]] = {
        OURS: ([*call["recsys_cl"], "--model", "sasrec"], np.inf),
        "recsys_cl two-tower-id": ([*call["recsys_cl"], "--model", "two-tower-id"], np.inf),
        RECTOOLS[0]: (call["rectools"], np.inf),
        RECTOOLS[1]: ([*call["rectools"], "--learning-rate", "4e-3"], np.inf),
        "RecBole SASRec": (call["recbole"], 1),
    }
    started = time.perf_counter()
    split = splits.real()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in lineup}
    for seed in range(options.seeds):
        for name, (command, epochs) in lineup.items():
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                splits.histories(split.train, split.n_items).write(folder / "train.npz")
                splits.histories(split.validation.history, split.n_items).write(folder / "validation.npz")
                seeded = [*command, "--seed", str(seed)]
                found = trial(seeded, split.validation, folder, epochs=epochs, threads=options.threads)
            runs[name].append(found)
            print(name, {key: value for key, value in found.items() if not isinstance(value, list)}, flush=True)
    result = {
        "protocol": {"data": split.data.name, "split": split.protocol, "users": len(split.validation)},
        "goal": GOAL,
        "consecutive": CONSECUTIVE,
        "limit": LIMIT,
        "size": {"dim": DIM, "blocks": BLOCKS, "length": LENGTH},
        "median_seconds_to_goal": {name: median([run["seconds_to_goal"] for run in of]) for name, of in runs.items()},
        "races": {
            name: [race(ours, peer) for ours, peer in zip(runs[OURS], runs[name], strict=True)] for name in RECTOOLS
        },
        "runs": runs,
    }
    seconds = time.perf_counter() - started
    command_line = "python benchmarks/peers/time_to_quality.py"
    write_result("time-to-quality", result, command=command_line, seconds=seconds, folder=RESULTS)


if __name__ == "__main__":
    main()
