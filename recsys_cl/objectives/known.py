"""What must not count as a negative: the items that a user is known to like."""

from __future__ import annotations

import numpy as np

from recsys_cl.data import Sequences


class KnownPositives:
    """Which items each user is known to like, looked up for a whole batch at once.

    Args:
        sequences: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.
    """

    def __init__(self, sequences: Sequences, n_items: int) -> None:
        rows, positions = sequences.flat()
        self.n_items = n_items
        self.keys = np.sort(rows * n_items + sequences.items[positions])

    def mask(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """True where the user of a row is known to like the item of a column.

        Args:
            users: ``(batch,)`` user numbers.
            items: ``(n,)`` item numbers.

        Returns:
            ``(batch, n)``; in-batch duplicates of a row's own positive are among them.
        """
        wanted = users[:, None] * self.n_items + items  # (B, N)
        if len(self.keys) == 0:
            return np.zeros(wanted.shape, dtype=bool)
        place = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        return self.keys[place] == wanted
