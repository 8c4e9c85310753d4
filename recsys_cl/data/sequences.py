"""Users as slices of one flat event log: the form in which every recommender sees a user.

See: chapter 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

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
