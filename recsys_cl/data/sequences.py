"""Interaction sequences: user histories as slices of one flat event log, and ragged batches of them.

Every recommender receives users in this form. A ragged batch holds all events of all rows in one flat array, and
``lengths`` says where each row ends; random numbers are keyed by row, not by position in the batch.

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
"""Padding: the item number of an empty position in a padded history."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """A batch of histories, oldest event first, stored as views into one flat log.

    Sequence ``b`` is ``items[start[b]:stop[b]]`` and likewise for the other columns (Arrow's list-view
    layout), so selecting, truncating and rolling histories copies no events.

    Attributes:
        items: ``(events,)`` item numbers.
        times: ``(events,)`` timestamps in seconds since 1970.
        ratings: ``(events,)`` ratings; 1 if the data has none.
        weights: ``(events,)`` weights of the event types; 1 if the data has no event types.
        start: ``(batch,)`` position of the first event of each sequence.
        stop: ``(batch,)`` position one past the last event of each sequence.
        attributes: ``(batch, features)`` user attributes, or ``None``.
        event_types: ``(events,)`` numbers of the event types, or ``None``.
        logged: Whether times and ratings were observed; false for histories given as lists of items.

    See: chapter 2.
    """

    items: np.ndarray
    times: np.ndarray
    ratings: np.ndarray
    weights: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    attributes: np.ndarray | None = None
    event_types: np.ndarray | None = None
    logged: bool = True

    @classmethod
    def from_lists(cls, histories: Sequence[Sequence[int]]) -> Sequences:
        """Histories given as lists of item numbers, oldest first, such as those of new users.

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
        """The same users, each with only the ``n`` latest events."""
        return replace(self, start=np.maximum(self.start, self.stop - n))

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and log position of every event: ``(rows, positions)``, each ``(sum of lengths,)``.

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
        """The ``length`` latest items of each user, oldest first, padded on the left.

        Returns:
            ``(batch, length)`` item numbers; :data:`PAD` in empty positions.

        >>> Sequences.from_lists([[3, 1, 4], [5]]).recent(2).tolist()
        [[1, 4], [-1, 5]]
        """
        if len(self.items) == 0:
            return np.full((len(self), length), PAD, dtype=np.int64)
        positions = self.stop[:, None] - np.arange(length, 0, -1)  # (B, L)
        inside = positions >= self.start[:, None]  # (B, L)
        return np.where(inside, self.items[np.where(inside, positions, 0)], PAD)  # (B, L)

    def matrix(self, n_items: int, *, decay: float = 1.0) -> sp.csr_matrix:
        r"""Histories as a sparse matrix of recency-weighted counts :math:`w\,\gamma^{k}`.

        Args:
            n_items: Number of columns.
            decay: :math:`\gamma`, weight of an event relative to the next one; the latest event has :math:`k = 0`.

        Returns:
            ``(batch, n_items)``; repeated events of an item add up.
        """
        rows, positions = self.flat()
        age = self.stop[rows] - 1 - positions
        values = self.weights[positions] * decay**age
        shape = (len(self), n_items)
        return sp.csr_matrix((values, (rows, self.items[positions])), shape=shape, dtype=np.float32)


Ragged = tuple[np.ndarray, np.ndarray]
"""A ragged batch: ``items (T,)``, row by row, oldest first, and ``lengths (B,)`` with ``T = lengths.sum()``."""


@dataclass(frozen=True)
class RowRandom:
    """Random numbers of a batch, keyed by each row's example number: the rest of the batch has no influence.

    Attributes:
        seed: Seed.
        epoch: Epoch number, one for all rows or ``(B,)``.
        example: ``(B,)`` example number of each row in its data set.

    See: chapter 7.

    >>> whole, part = RowRandom(0, 3, np.array([7, 8])), RowRandom(0, 3, np.array([8]))
    >>> bool(whole.by_row("view")[1] == part.by_row("view")[0])
    True
    """

    seed: int
    epoch: int | np.ndarray
    example: np.ndarray

    def of(self, rows: np.ndarray) -> RowRandom:
        """Random numbers of the rows selected by a ``(B,)`` boolean mask."""
        return RowRandom(self.seed, np.broadcast_to(self.epoch, self.example.shape)[rows], self.example[rows])

    def by_row(self, purpose: str) -> np.ndarray:
        """Uniform numbers in [0, 1), one per row, ``(B,)``."""
        return counter_uniform(self.seed, purpose, self.epoch, self.example)

    def by_event(self, purpose: str, lengths: np.ndarray) -> np.ndarray:
        """Uniform numbers in [0, 1), one per event, keyed by its position in the row, ``(T,)``."""
        row, place = rows_and_places(lengths)
        epoch = np.broadcast_to(self.epoch, lengths.shape)[row]  # (T,)
        return counter_uniform(self.seed, purpose, epoch, self.example[row], place)


def rows_and_places(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of every event and its position within that row, both ``(T,)``.

    >>> row, place = rows_and_places(np.array([2, 0, 1]))
    >>> row.tolist(), place.tolist()
    ([0, 0, 2], [0, 1, 0])
    """
    row = np.repeat(np.arange(len(lengths)), lengths)  # (T,)
    return row, np.arange(len(row)) - (np.cumsum(lengths) - lengths)[row]


def check_rows(lengths: np.ndarray, chance: RowRandom) -> None:
    """Check that there is one length and one example number per row.

    Raises:
        InputError: If the shapes differ, or a length is negative.
    """
    if lengths.ndim != 1 or chance.example.shape != lengths.shape:
        raise InputError(f"lengths {lengths.shape} and example {chance.example.shape} do not fit; give both as (B,)")
    if len(lengths) and lengths.min() < 0:
        raise InputError(f"a length is {lengths.min()}; give the number of events of each row, 0 or more")


def check_ragged(items: np.ndarray, lengths: np.ndarray, chance: RowRandom) -> None:
    """Check a ragged batch and its random numbers.

    Raises:
        InputError: If the lengths do not sum to the number of items, or there is not one example number per row.
    """
    check_rows(lengths, chance)
    if items.shape != (lengths.sum(),):
        raise InputError(
            f"items {items.shape} and lengths with sum {lengths.sum()} do not fit; give one item per event"
        )
