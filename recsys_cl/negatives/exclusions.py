"""False-negative masking: exclude a user's known positives from their negatives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recsys_cl.data import Sequences


class KnownPositives(nn.Module):
    """Look up which items each user is known to like, for a whole batch at once.

    It has neither parameters nor saved state; it is a module so that it moves to the device of the model.

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
        last = np.iinfo(np.int64).max  # a sentinel, so every search returns a valid index
        self.n_items = n_items
        self.register_buffer("keys", torch.from_numpy(np.append(found, last)), persistent=False)

    def mask(self, users: Tensor, items: Tensor) -> Tensor:
        """True where the row's user is known to like the column's item.

        Args:
            users: ``(batch,)`` user numbers.
            items: Item numbers: ``(n,)``, the same columns for all rows, or ``(batch, n)``, one set per row.

        Returns:
            ``(batch, n)``; also true for in-batch duplicates of a row's own positive.
        """
        if items.ndim == 2:
            return self._among_keys(users[:, None], items)  # (B, N)
        distinct_users, row = users.unique(return_inverse=True)  # many repeat within a batch, and the search dominates
        distinct_items, column = items.unique(return_inverse=True)
        return self._among_keys(distinct_users[:, None], distinct_items)[row[:, None], column]  # (B, N)

    def _among_keys(self, users: Tensor, items: Tensor) -> Tensor:
        wanted = users * self.n_items + items  # (…)
        return self.keys[torch.searchsorted(self.keys, wanted)] == wanted  # (…)
