"""What must not count as a negative: the items that a user is known to like."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recsys_cl.data import Sequences


class KnownPositives(nn.Module):
    """Which items each user is known to like, looked up for a whole batch at once.

    It has nothing to learn and nothing to save, but as a module it follows the model to its device.

    Args:
        sequences: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.

    See: chapter 5.

    >>> known = KnownPositives(Sequences.from_lists([[0, 2], [1]]), n_items=3)
    >>> known.mask(torch.tensor([0, 1]), torch.tensor([2, 1])).tolist()
    [[True, False], [False, True]]
    """

    keys: Tensor

    def __init__(self, sequences: Sequences, n_items: int) -> None:
        super().__init__()
        rows, positions = sequences.flat()
        found = np.unique(rows * n_items + sequences.items[positions])
        last = np.iinfo(np.int64).max  # equal to no key, so that every search ends at a place that exists
        self.n_items = n_items
        self.register_buffer("keys", torch.from_numpy(np.append(found, last)), persistent=False)

    def mask(self, users: Tensor, items: Tensor) -> Tensor:
        """True where the user of a row is known to like the item of a column.

        Args:
            users: ``(batch,)`` user numbers.
            items: ``(n,)`` item numbers, the same columns for all rows, or ``(batch, n)`` of each row's own.

        Returns:
            ``(batch, n)``; in-batch duplicates of a row's own positive are among them.
        """
        if items.ndim == 2:
            return self._among_keys(users[:, None], items)  # (B, N)
        people, row = users.unique(return_inverse=True)  # in a batch many repeat, and a search costs most
        things, column = items.unique(return_inverse=True)
        return self._among_keys(people[:, None], things)[row[:, None], column]  # (B, N)

    def _among_keys(self, users: Tensor, items: Tensor) -> Tensor:
        wanted = users * self.n_items + items  # (…)
        return self.keys[torch.searchsorted(self.keys, wanted)] == wanted  # (…)
