"""What counts as a negative, and how likely it was drawn."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from recsys_cl.data import Sequences


def in_batch_log_q(counts: Tensor) -> Tensor:
    r"""Log-probability that a random training interaction has item j: :math:`\log (c_j / \sum_k c_k)`.

    Args:
        counts: ``(n_items,)`` training events; an item without any counts as one, so that the log exists.

    Returns:
        ``(n_items,)``

    References:
        Yi et al. (2019), https://doi.org/10.1145/3298689.3346996.

    See: chapter 5.
    """
    counts = counts.clamp(min=1).double()  # (N,)
    return (counts / counts.sum()).log().float()  # (N,)


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
