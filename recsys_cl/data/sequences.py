"""Sequences: users as slices of one flat event log, and ragged batches of them.

The log is the form in which every recommender sees a user. A ragged batch has all events of all rows in one flat
array, and ``lengths`` that say where rows end; its random numbers belong to its rows.

See: chapter 2, chapter 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform

PAD = -1
"""Item number that marks an empty place in a padded history."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """A batch of histories, oldest event first, stored as views into one flat log.

    Sequence ``b`` is ``items[start[b]:stop[b]]`` and likewise for the other columns (Arrow's list-view
    layout), so that selecting, shortening and rolling histories copies no events.

    Attributes:
        items: ``(events,)`` item numbers.
        times: ``(events,)`` seconds.
        ratings: ``(events,)``; 1 where the data has no ratings.
        weights: ``(events,)`` weight of the event type; 1 where the data has no types.
        start: ``(batch,)`` first event of each sequence.
        stop: ``(batch,)`` one past its last event.
        attributes: ``(batch, features)`` user attributes, or ``None``.
        kinds: ``(events,)`` number of the event type, or ``None``.
        logged: Whether times and ratings were observed; false for histories that are lists of items.

    See: chapter 2.
    """

    items: np.ndarray
    times: np.ndarray
    ratings: np.ndarray
    weights: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    attributes: np.ndarray | None = None
    kinds: np.ndarray | None = None
    logged: bool = True

    @classmethod
    def from_lists(cls, histories: Sequence[Sequence[int]]) -> Sequences:
        """Histories of people who are in no file: item numbers alone, oldest first.

        >>> newcomers = Sequences.from_lists([[3, 1, 4], []])
        >>> newcomers.lengths.tolist()
        [3, 0]
        """
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        items = np.array([item for history in histories for item in history], dtype=np.int64)
        stop = np.cumsum(lengths)
        ones = np.ones(len(items), dtype=np.float32)
        return cls(items, np.zeros(len(items)), ones, ones, stop - lengths, stop, logged=False)

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: slice | np.ndarray) -> Sequences:
        attributes = None if self.attributes is None else self.attributes[rows]
        return replace(self, start=self.start[rows], stop=self.stop[rows], attributes=attributes)

    @property
    def lengths(self) -> np.ndarray:
        """``(batch,)`` number of events in each sequence."""
        return self.stop - self.start

    def last(self, n: int) -> Sequences:
        """The same users with their ``n`` latest events."""
        return replace(self, start=np.maximum(self.start, self.stop - n))

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and position in the log of every event, ``(rows, positions)``, each ``(sum of lengths,)``.

        >>> rows, positions = Sequences.from_lists([[3, 1], [4]]).flat()
        >>> rows.tolist(), positions.tolist()
        ([0, 0, 1], [0, 1, 2])
        """
        lengths = self.lengths
        rows = np.repeat(np.arange(len(self)), lengths)
        before = np.cumsum(lengths) - lengths
        positions = np.arange(len(rows)) - before[rows] + self.start[rows]
        return rows, positions

    def recent(self, length: int) -> np.ndarray:
        """The ``length`` latest items of each user, oldest first, empty places on the left.

        Returns:
            ``(batch, length)`` item numbers, :data:`PAD` where a history is shorter.

        >>> Sequences.from_lists([[3, 1, 4], [5]]).recent(2).tolist()
        [[1, 4], [-1, 5]]
        """
        if len(self.items) == 0:
            return np.full((len(self), length), PAD, dtype=np.int64)
        positions = self.stop[:, None] - np.arange(length, 0, -1)  # (B, L)
        inside = positions >= self.start[:, None]  # (B, L)
        return np.where(inside, self.items[np.where(inside, positions, 0)], PAD)  # (B, L)

    def matrix(self, n_items: int, *, decay: float = 1.0) -> sp.csr_matrix:
        r"""Histories as a sparse matrix with entries :math:`w\,\gamma^{k}`.

        Args:
            n_items: Number of columns.
            decay: :math:`\gamma`; the latest event has :math:`k = 0`, the one before it :math:`k = 1`.

        Returns:
            ``(batch, n_items)``; an item that occurs twice in a history adds up.
        """
        rows, positions = self.flat()
        age = self.stop[rows] - 1 - positions
        values = self.weights[positions] * decay**age
        shape = (len(self), n_items)
        return sp.csr_matrix((values, (rows, self.items[positions])), shape=shape, dtype=np.float32)


Ragged = tuple[np.ndarray, np.ndarray]
"""``items (T,)``, oldest first, row by row, and ``lengths (B,)`` with ``T = lengths.sum()``."""


@dataclass(frozen=True)
class RowRandom:
    """Random numbers of a batch, a function of what each row is and not of what stands beside it.

    Attributes:
        seed: Seed of all of them.
        epoch: Of all rows, or ``(B,)``.
        example: ``(B,)`` number of each row in its data set.

    See: chapter 7.

    >>> whole, part = RowRandom(0, 3, np.array([7, 8])), RowRandom(0, 3, np.array([8]))
    >>> bool(whole.by_row("view")[1] == part.by_row("view")[0])
    True
    """

    seed: int
    epoch: int | np.ndarray
    example: np.ndarray

    def of(self, rows: np.ndarray) -> RowRandom:
        """The chance of some of the rows, given as ``(B,)`` bool."""
        return RowRandom(self.seed, np.broadcast_to(self.epoch, self.example.shape)[rows], self.example[rows])

    def by_row(self, purpose: str) -> np.ndarray:
        """A number in [0, 1) for every row, ``(B,)``."""
        return counter_uniform(self.seed, purpose, self.epoch, self.example)

    def by_event(self, purpose: str, lengths: np.ndarray) -> np.ndarray:
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


def check_rows(lengths: np.ndarray, chance: RowRandom) -> None:
    """Demand one length and one example number for each row.

    Raises:
        InputError: If they are not, or a length is negative.
    """
    if lengths.ndim != 1 or chance.example.shape != lengths.shape:
        raise InputError(f"lengths {lengths.shape} and example {chance.example.shape} do not fit; give (B,) both")
    if len(lengths) and lengths.min() < 0:
        raise InputError(f"a length is {lengths.min()}; give the number of events of each row, 0 or more")


def check_ragged(items: np.ndarray, lengths: np.ndarray, chance: RowRandom) -> None:
    """Demand a ragged batch with its chance.

    Raises:
        InputError: If the lengths do not add up to the items, or there is not one example number for each row.
    """
    check_rows(lengths, chance)
    if items.shape != (lengths.sum(),):
        raise InputError(
            f"items {items.shape} and lengths of {lengths.sum()} in all do not fit; give (T,) items, T the sum"
        )
