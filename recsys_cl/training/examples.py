"""Training examples: next-item examples, blocks of the catalogue, and pairs within and across users.

See: chapter 5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from recsys_cl.data import PAD, Sequences
from recsys_cl.errors import InputError
from recsys_cl.negatives import NegativeSampler
from recsys_cl.positives import OtherItemOfUser, OtherUserOfItem
from recsys_cl.randomness import counter_uniform

Key = tuple[int, int]
"""Epoch and example: together with the seed, all that an example's random numbers may depend on."""


class EpochShuffle(Sampler[Key]):
    """Shuffle anew every epoch, as a function of (seed, epoch) only.

    Args:
        n_examples: Number of examples.
        seed: Seed of the orders.
    """

    def __init__(self, n_examples: int, *, seed: int) -> None:
        self.n_examples, self.seed, self.epoch = n_examples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the trainer calls this at the start of every epoch, including after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_examples

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_examples)
        return iter((self.epoch, int(example)) for example in order)


class Examples(Dataset[Key], ABC):
    """Data set of keys that builds whole batches at once.

    A subclass defines ``__len__``, :meth:`collate` and :meth:`count`.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Key:
        """The key itself: a batch is built at once, in :meth:`collate`."""
        return key

    @abstractmethod
    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Build a batch: the arguments of the model's ``forward``."""

    @abstractmethod
    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of terms in the mean loss of a batch, its weight under gradient accumulation."""


class NextItemExamples(Examples):
    """Next-item examples: every training event that has a history, with up to ``length`` events of that history.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.
        length: Maximum length of a history, in events.
        id_dropout: Share of the items whose ids are dropped for a batch, as if they were new (DropoutNet,
            Volkovs, Yu and Poutanen 2017).
        event_dropout: Share of the history's events dropped from an example; the latest event always stays.
        seed: Seed of both kinds of dropout.
        negatives: Sampler of each example's own negatives, ``None`` for no negatives.
        k: Number of negatives per example.

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
            raise InputError("no user has two training events, so no event has a history; train on more data")
        self.user, self.event = rows[has_past], positions[has_past]
        self.train, self.n_items, self.length = train, n_items, length
        self.id_dropout, self.event_dropout, self.seed = id_dropout, event_dropout, seed
        self.negatives, self.k = negatives, k

    def __len__(self) -> int:
        return len(self.event)

    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of examples."""
        return len(batch["target"])

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Build a batch.

        Returns:
            ``history`` ``(B, L)`` item numbers or ``PAD``, ``target`` ``(B,)`` item numbers, ``keep_id`` ``(n_items,)``
            false for items whose id is dropped, ``user`` ``(B,)`` user numbers, ``attributes`` ``(B, a)`` if the data
            has them, and ``negative`` ``(B, k)`` item numbers if negatives are drawn.
        """
        epoch, example = np.array(keys).T  # (B,) both
        user, event = self.user[example], self.event[example]
        past = replace(self.train[user], stop=event)
        history = past.recent(self.length)  # (B, L)
        if self.event_dropout:
            places = np.arange(self.length - 1)  # the latest event stays, so no history is empty
            chance = counter_uniform(self.seed, "event-dropout", epoch[:, None], example[:, None], places)  # (B, L - 1)
            history[:, :-1][chance < self.event_dropout] = PAD
        target = self.train.items[event]  # (B,)
        hidden = (
            counter_uniform(self.seed, "id-dropout", epoch[0], example[0], np.arange(self.n_items)) < self.id_dropout
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
    """Pairs for text encoders: the latest items of a history and the next item.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.
        length: Maximum length of a history, in items.
        pairs: Maximum number of pairs, a seeded sample of the events; 0 for all events.
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


class CatalogueBlocks(Examples):
    r"""Catalogue blocks: random blocks of warm items, each with the users who chose at least two of its items.

    The cost of training a text encoder is the number of texts, not the number of events. A batch of pairs encodes two
    texts per event. A block of :math:`n` items encodes :math:`n` texts for all events on them, which in a popular
    catalogue are many more. A random half of each user's events in the block is the target, the other half the context.

    In every pass the warm items are shuffled and split into blocks; the remainder that does not fill a block is left
    out of that pass. A block is a uniform sample of the catalogue, independent of popularity, so a softmax over it
    needs no logQ correction.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.
        block: Number of items per block, at least 2.
        users: Maximum number of users per block, drawn anew for each block.
        passes: Number of passes over the catalogue per epoch.
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
            raise InputError("no user has chosen two different items, so no block has a target; train on more data")
        if block < 2:
            raise InputError(f"block={block} leaves nothing to compare; give 2 or more items")
        self.warm = np.flatnonzero(self.chosen.getnnz(axis=0))
        self.block, self.users, self.passes, self.seed = min(block, len(self.warm)), users, passes, seed

    def __len__(self) -> int:
        return self.passes * (len(self.warm) // self.block)

    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of users, not of items: the loss is a mean over users."""
        return len(batch["context"])

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Build the block of the first key; a batch is one block.

        Returns:
            ``item`` ``(n,)``, the item numbers of the block; ``context`` and ``target``, both ``(B, n)`` boolean, the
            two halves of each user's events on these items, neither of them empty.
        """
        epoch, number = keys[0]
        in_pass, place = divmod(number, len(self) // self.passes)
        order = np.random.default_rng([self.seed, epoch, in_pass]).permutation(self.warm)
        item = np.sort(order[place * self.block : (place + 1) * self.block])  # (n,)
        chosen = self.chosen[:, item].toarray()  # (U, n)
        target = chosen & (
            counter_uniform(self.seed, "block-target", epoch, in_pass, np.arange(len(chosen))[:, None], item) < 0.5
        )  # (U, n)
        context = chosen & ~target  # (U, n)
        both = np.flatnonzero(target.any(1) & context.any(1))
        rank = counter_uniform(self.seed, "block-users", epoch, number, both)
        rows = np.sort(both[np.argsort(rank)[: self.users]])  # (B,)
        batch = {"item": item, "context": context[rows], "target": target[rows]}
        return {name: torch.from_numpy(values) for name, values in batch.items()}


class UserItemExamples(Examples):
    """User–item examples: every training event with a history, another item of its user, and another user of its item.

    A user is represented by the history before the event, so neither of the two compared histories contains the shared
    item. Events whose item no one else chose, or whose user chose nothing else, are left out.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.
        surprise: ``(events,)`` rating minus expected rating of each event in the log.
        length: Maximum length of a history, in events.
        seed: Seed of the pairs and of ``turn``.

    Raises:
        InputError: If no event has both another item and another user.

    See: chapter 5.
    """

    def __init__(self, train: Sequences, n_items: int, *, surprise: np.ndarray, length: int, seed: int = 0) -> None:
        later = replace(train, start=np.minimum(train.start + 1, train.stop))  # events that have a past
        self.train, self.surprise, self.length, self.seed = train, surprise, length, seed
        self.within = OtherItemOfUser(later, seed=seed)
        self.across = OtherUserOfItem(later, n_items, seed=seed)
        rows, positions = later.flat()
        self.user = np.full(len(train.items), -1)  # (events,)
        self.user[positions] = rows
        self.event = positions[self.within.eligible(positions) & self.across.eligible(positions)]
        if len(self.event) == 0:
            raise InputError(
                "no training event has both another item of its user and another user of its item; train on more data"
            )

    def __len__(self) -> int:
        return len(self.event)

    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of events."""
        return len(batch["user"])

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Build a batch.

        Returns:
            ``user``, ``item`` and ``surprise`` of the events, an ``other_user`` for each item and an ``other_item`` for
            each user, all ``(B,)``; ``history``, ``history_surprise`` and ``other_history``, all ``(B, L)``, with
            items padded by ``PAD``; and ``turn``, a scalar uniform in [0, 1) that alternating objectives use.
        """
        epoch, example = np.array(keys).T  # (B,) both
        event = self.event[example]
        other = self.across.sample(epoch, event)
        batch = {
            "user": self.user[event],
            "item": self.train.items[event],
            "surprise": self.surprise[event],
            "other_user": self.user[other],
            "other_item": self.train.items[self.within.sample(epoch, event)],
            "history": self._before(event, self.train),
            "history_surprise": self._before(event, replace(self.train, items=self.surprise)),
            "other_history": self._before(other, self.train),
            "turn": np.float32(counter_uniform(self.seed, "objective-turn", epoch[0], example[0])),
        }
        return {name: torch.as_tensor(values) for name, values in batch.items()}

    def _before(self, event: np.ndarray, column: Sequences) -> np.ndarray:
        return replace(column[self.user[event]], stop=event).recent(self.length)  # (B, L)
