"""Benchmark protocol between referee (driver) and contender (library): histories in files, progress as JSON lines.

A contender is a process of its own, with the interpreter and the packages that its library wants, so that this file
needs numpy alone. It reads histories from a folder, trains, and reports at the end of every epoch how long it has
trained; the referee answers whether to go on. The clock stands while a report is made and judged.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DIM, BLOCKS, LENGTH = 64, 2, 50  # the size of every SASRec in the comparison


@dataclass(frozen=True)
class Histories:
    """Events row by row, within a row the oldest first.

    Attributes:
        row: ``(events,)`` number of the history that an event belongs to, ascending.
        item: ``(events,)`` item numbers.
        n_rows: Number of histories.
        n_items: Size of the catalogue.
    """

    row: np.ndarray
    item: np.ndarray
    n_rows: int
    n_items: int

    @property
    def position(self) -> np.ndarray:
        """``(events,)`` place of each event in its row, 0 for the oldest."""
        return np.arange(len(self.row)) - np.searchsorted(self.row, self.row)

    def write(self, file: Path) -> None:
        """Store them for :meth:`read`."""
        np.savez(file, **vars(self))

    @classmethod
    def read(cls, file: Path) -> "Histories":
        """What :meth:`write` stored."""
        with np.load(file) as arrays:
            return cls(arrays["row"], arrays["item"], int(arrays["n_rows"]), int(arrays["n_items"]))


class Enough(Exception):
    """The referee has seen enough: training ends here."""


class Referee:
    """The referee as a contender sees it.

    Args:
        folder: Where the histories are and the scores go.
        limit: Seconds of training after which a contender that counts steps reports without waiting for the epoch.

    Attributes:
        train: What to train on.
        validation: The histories to score after each epoch, ``None`` where speed alone is measured.
    """

    def __init__(self, folder: Path, *, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self.train = Histories.read(folder / "train.npz")
        file = folder / "validation.npz"
        self.validation = Histories.read(file) if file.exists() else None
        self.channel = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print must not come between the lines of JSON
        self.seconds = self.epochs = 0.0
        self.sequences = self.predictions = 0

    def start(self) -> None:
        """Start the clock; the peak of memory counts from here, with everything that is held already."""
        Path("/proc/self/clear_refs").write_text("5")
        self.started = time.perf_counter()

    def count(self, sequences: int, predictions: int) -> None:
        """Count what a step trained on: rows of the batch, and items predicted from what came before them."""
        self.sequences += sequences
        self.predictions += predictions

    def step(self, sequences: int, predictions: int, *, share: float) -> None:
        """Count a step that was this share of an epoch, and report if time is up.

        Raises:
            Enough: If time is up.
        """
        self.count(sequences, predictions)
        if self.seconds + time.perf_counter() - self.started > self.limit:
            self.seconds += time.perf_counter() - self.started
            self.epochs += share
            self._tell()
            raise Enough

    def epoch(self, score: Callable[[Histories], np.ndarray]) -> None:
        """Report an epoch.

        Args:
            score: Scores of histories, ``(n_rows, n_items)``.

        Raises:
            Enough: If the referee wants no further epoch.
        """
        self.seconds += time.perf_counter() - self.started
        self.epochs += 1
        if self.validation is not None:
            np.save(self.folder / "scores.npy", score(self.validation).astype(np.float32))
        if self._tell() != "go on":
            raise Enough
        self.started = time.perf_counter()

    def _tell(self) -> str:
        report = {
            "epochs": self.epochs,
            "seconds": self.seconds,
            "sequences": self.sequences,
            "predictions": self.predictions,
            "peak_bytes": _peak(),
        }
        print(json.dumps(report), file=self.channel, flush=True)
        return sys.stdin.readline().strip()


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """What every contender is told on its command line."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("folder", type=Path, help="where train.npz lies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds of training")
    return parser


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
