"""Training batches of a text encoder: a block of the catalogue, and what everybody did with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform
from recsys_cl.training.examples import Key

ASKED, USERS = 48, 49  # what a random number is for, so that no two purposes share one


class CatalogueBlocks(Dataset[Key]):
    r"""Blocks of the warm items, each with the users who chose at least two of its items.

    What costs in training a text encoder is the number of texts, not of events. A batch of pairs encodes two texts for
    each event; a block of :math:`n` items encodes :math:`n` texts for all events on them, which for a popular
    catalogue are many more. Of each user's events in the block a random half is asked for, given the other half.

    The warm items are shuffled and cut into blocks, anew in every pass; what does not fill a block waits for another
    pass. A block is a uniform sample of the catalogue, without regard to popularity, so that a softmax over it needs no
    logQ correction.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.
        block: Items in a block, at least 2.
        users: At most this many users per block, drawn anew each time.
        passes: Passes over the catalogue in an epoch.
        seed: Seed of blocks, users and halves.

    Raises:
        InputError: If no user chose two different items.

    See: chapter 6.
    """

    def __init__(
        self, train: Sequences, n_items: int, *, block: int = 256, users: int = 1024, passes: int = 1, seed: int = 0
    ) -> None:
        self.chosen = train.matrix(n_items).tocsc().astype(bool)  # (U, N)
        if self.chosen.sum(1).max() < 2:
            raise InputError("no user has chosen two different items, so nothing can be asked of anybody; add data")
        if block < 2:
            raise InputError(f"block={block} leaves nothing to compare; give 2 or more items")
        self.warm = np.flatnonzero(self.chosen.getnnz(axis=0))
        self.block, self.users, self.passes, self.seed = min(block, len(self.warm)), users, passes, seed

    def __len__(self) -> int:
        return self.passes * (len(self.warm) // self.block)

    def __getitem__(self, key: Key) -> Key:
        """The key itself: the block is cut in :meth:`collate`."""
        return key

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """The block of the first key: one is a batch.

        Returns:
            ``item`` ``(n,)`` the block's item numbers; ``given`` and ``asked``, ``(B, n)`` boolean, the two halves of
            each user's events on them, neither of them empty.
        """
        epoch, number = keys[0]
        in_pass, place = divmod(number, len(self) // self.passes)
        order = np.random.default_rng([self.seed, epoch, in_pass]).permutation(self.warm)
        item = np.sort(order[place * self.block : (place + 1) * self.block])  # (n,)
        chosen = self.chosen[:, item].toarray()  # (U, n)
        asked = chosen & (
            counter_uniform(self.seed, ASKED, epoch, in_pass, np.arange(len(chosen))[:, None], item) < 0.5
        )  # (U, n)
        given = chosen & ~asked  # (U, n)
        both = np.flatnonzero(asked.any(1) & given.any(1))
        rank = counter_uniform(self.seed, USERS, epoch, number, both)
        rows = np.sort(both[np.argsort(rank)[: self.users]])  # (B,)
        batch = {"item": item, "given": given[rows], "asked": asked[rows]}
        return {name: torch.from_numpy(values) for name, values in batch.items()}
