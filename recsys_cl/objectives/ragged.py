"""Ragged batches: all events of all rows in one flat array, ``lengths`` saying where rows end; and their chance.

See: chapter 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform

Ragged = tuple[np.ndarray, np.ndarray]
"""``items (T,)``, oldest first, row by row, and ``lengths (B,)`` with ``T = lengths.sum()``."""


@dataclass(frozen=True)
class Chance:
    """Random numbers of a batch, a function of what each row is and not of what stands beside it.

    Attributes:
        seed: Seed of all of them.
        epoch: Of all rows, or ``(B,)``.
        example: ``(B,)`` number of each row in its data set.

    See: chapter 7.

    >>> whole, part = Chance(0, 3, np.array([7, 8])), Chance(0, 3, np.array([8]))
    >>> bool(whole.by_row(1)[1] == part.by_row(1)[0])
    True
    """

    seed: int
    epoch: int | np.ndarray
    example: np.ndarray

    def of(self, rows: np.ndarray) -> Chance:
        """The chance of some of the rows, given as ``(B,)`` bool."""
        return Chance(self.seed, np.broadcast_to(self.epoch, self.example.shape)[rows], self.example[rows])

    def by_row(self, purpose: int) -> np.ndarray:
        """A number in [0, 1) for every row, ``(B,)``."""
        return counter_uniform(self.seed, purpose, self.epoch, self.example)

    def by_event(self, purpose: int, lengths: np.ndarray) -> np.ndarray:
        """A number in [0, 1) for every event, by its place in the row, ``(T,)``."""
        row, place = rows_and_places(lengths)
        epoch = np.broadcast_to(self.epoch, lengths.shape)[row]  # (T,)
        return counter_uniform(self.seed, purpose, epoch, self.example[row], place)


def rows_and_places(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of every event, and its place in that row, ``(T,)`` both.

    >>> row, place = rows_and_places(np.array([2, 0, 1]))
    >>> row.tolist(), place.tolist()
    ([0, 0, 2], [0, 1, 0])
    """
    row = np.repeat(np.arange(len(lengths)), lengths)  # (T,)
    return row, np.arange(len(row)) - (np.cumsum(lengths) - lengths)[row]


def check_rows(lengths: np.ndarray, chance: Chance) -> None:
    """Demand one length and one example number for each row.

    Raises:
        InputError: If they are not, or a length is negative.
    """
    if lengths.ndim != 1 or chance.example.shape != lengths.shape:
        raise InputError(f"lengths {lengths.shape} and example {chance.example.shape} do not fit; give (B,) both")
    if len(lengths) and lengths.min() < 0:
        raise InputError(f"a length is {lengths.min()}; give the number of events of each row, 0 or more")


def check_ragged(items: np.ndarray, lengths: np.ndarray, chance: Chance) -> None:
    """Demand a ragged batch with its chance.

    Raises:
        InputError: If the lengths do not add up to the items, or there is not one example number for each row.
    """
    check_rows(lengths, chance)
    if items.shape != (lengths.sum(),):
        raise InputError(
            f"items {items.shape} and lengths of {lengths.sum()} in all do not fit; give (T,) items, T the sum"
        )
