"""Training examples: next items, blocks of a catalogue, and events to contrast within and across users.

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
"""Epoch and example: all that an example's randomness may depend on, beside the seed."""


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


class Examples(Dataset[Key], ABC):
    """A data set of keys that cuts whole batches.

    A subclass defines ``__len__``, :meth:`collate` and :meth:`count`.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Key:
        """The key itself: a batch is cut at once, in :meth:`collate`."""
        return key

    @abstractmethod
    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """The batch that the model's ``forward`` takes."""

    @abstractmethod
    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of terms that the loss of a batch is a mean of, by which accumulation weighs it."""


class NextItemExamples(Examples):
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

    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of examples."""
        return len(batch["target"])

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


class CatalogueBlocks(Examples):
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

    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of users, not of items: the loss is a mean over users."""
        return len(batch["given"])

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
            counter_uniform(self.seed, "block-target", epoch, in_pass, np.arange(len(chosen))[:, None], item) < 0.5
        )  # (U, n)
        given = chosen & ~asked  # (U, n)
        both = np.flatnonzero(asked.any(1) & given.any(1))
        rank = counter_uniform(self.seed, "block-users", epoch, number, both)
        rows = np.sort(both[np.argsort(rank)[: self.users]])  # (B,)
        batch = {"item": item, "given": given[rows], "asked": asked[rows]}
        return {name: torch.from_numpy(values) for name, values in batch.items()}


class UserItemExamples(Examples):
    """Every training event with a past, paired with another item of its user and another user of its item.

    A user is the history before the event, so that the shared item is in neither of the two histories that are
    compared. Events whose item nobody else chose, or whose user chose nothing else, have no pair and are left out.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        n_items: Size of the catalogue.
        surprise: ``(events,)`` how far each rating in the log was from expected.
        length: Longest history.
        seed: Seed of the pairs and of the turns.

    Raises:
        InputError: If no event has both partners.

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
            ``user``, ``item`` and ``surprise`` of the events, an ``other_user`` of each item and an ``other_item`` of
            each user, all ``(B,)``; ``history``, ``history_surprise`` and ``other_history``, ``(B, L)``, the items
            ``PAD`` in empty places; and ``turn``, a scalar uniform in [0, 1) for objectives that take turns.
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
