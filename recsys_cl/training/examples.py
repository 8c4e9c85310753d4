"""Training examples of next-item models: what came before, and what came next.

See: chapter 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from recsys_cl.data import PAD, Sequences
from recsys_cl.errors import InputError
from recsys_cl.objectives.negatives import NegativeSampler
from recsys_cl.randomness import counter_uniform

Key = tuple[int, int]
"""Epoch and example: all that an example's randomness may depend on, beside the seed."""


EVENTS, IDS = 0, 1  # what a random number is for, so that no two purposes share one


class EpochShuffle(Sampler[Key]):
    """A fresh order every epoch, a function of (seed, epoch) and nothing else.

    Args:
        n_examples: Size of the data set.
        seed: Seed of the orders.
    """

    def __init__(self, n_examples: int, *, seed: int) -> None:
        self.n_examples, self.seed, self.epoch = n_examples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of every epoch, after a resume too."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_examples

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_examples)
        return iter((self.epoch, int(example)) for example in order)


class NextItemExamples(Dataset[Key]):
    """Every training event that has a past, with up to ``length`` events of it.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.
        length: Longest history.
        id_dropout: Share of the items whose ids a batch does not see, as if they were new (DropoutNet,
            Volkovs, Yu and Poutanen 2017).
        event_dropout: Share of the history's events left out of an example; the latest always stays.
        seed: Seed of both.
        negatives: Draws negatives of each example's own.
        k: Number of them.

    Raises:
        InputError: If no user has two training events.

    See: chapter 5.
    """

    def __init__(
        self,
        train: Sequences,
        n_items: int,
        *,
        length: int,
        id_dropout: float = 0.0,
        event_dropout: float = 0.0,
        seed: int = 0,
        negatives: NegativeSampler | None = None,
        k: int = 0,
    ) -> None:
        rows, positions = train.flat()
        has_past = positions > train.start[rows]
        if not has_past.any():
            raise InputError("no user has two training events, so nothing precedes anything; train on more data")
        self.user, self.event = rows[has_past], positions[has_past]
        self.train, self.n_items, self.length = train, n_items, length
        self.id_dropout, self.event_dropout, self.seed = id_dropout, event_dropout, seed
        self.negatives, self.k = negatives, k

    def __len__(self) -> int:
        return len(self.event)

    def __getitem__(self, key: Key) -> Key:
        """The key itself: a batch is cut out of the log at once, in :meth:`collate`."""
        return key

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Build a batch.

        Returns:
            ``history`` ``(B, L)`` item numbers or ``PAD``, ``target`` ``(B,)``, ``keep_id`` ``(n_items,)`` false
            for items whose id is hidden from the batch, ``user`` ``(B,)`` whose example it is, ``attributes``
            ``(B, a)`` where the data has them, and ``negative`` ``(B, k)`` item numbers where they are drawn.
        """
        epoch, example = np.array(keys).T  # (B,) both
        user, event = self.user[example], self.event[example]
        past = replace(self.train[user], stop=event)
        history = past.recent(self.length)  # (B, L)
        if self.event_dropout:
            places = np.arange(self.length - 1)  # the latest event stays, so that no history is empty
            chance = counter_uniform(self.seed, EVENTS, epoch[:, None], example[:, None], places)  # (B, L - 1)
            history[:, :-1][chance < self.event_dropout] = PAD
        target = self.train.items[event]  # (B,)
        hidden = (
            counter_uniform(self.seed, IDS, epoch[0], example[0], np.arange(self.n_items)) < self.id_dropout
        )  # (N,)
        batch = {
            "history": torch.from_numpy(history),
            "target": torch.from_numpy(target),
            "keep_id": torch.from_numpy(~hidden),
            "user": torch.from_numpy(user),
        }
        if past.attributes is not None:
            batch["attributes"] = torch.from_numpy(past.attributes)
        if self.negatives is not None:
            batch["negative"] = self.negatives.sample(epoch, example, self.k).items  # (B, k)
        return batch


class HistoryPairs(NextItemExamples):
    """Pairs for encoders of text: the latest items of a history, and the item that came next.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.
        length: Items of the history that are kept.
        pairs: At most this many pairs, a seeded sample of the events; 0 for all.
        seed: Seed of the sample.

    Raises:
        InputError: If no user has two training events.

    See: chapter 6.
    """

    def __init__(self, train: Sequences, n_items: int, *, length: int, pairs: int = 0, seed: int = 0) -> None:
        super().__init__(train, n_items, length=length, seed=seed)
        if 0 < pairs < len(self.event):
            kept = np.sort(np.random.default_rng(seed).permutation(len(self.event))[:pairs])
            self.user, self.event = self.user[kept], self.event[kept]

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """``history`` ``(B, L)`` item numbers or ``PAD``, ``target`` and ``user`` ``(B,)``."""
        batch = super().collate(keys)
        return {name: batch[name] for name in ("history", "target", "user")}
