"""Training examples for contrast within and across users: an event, and two events to compare it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError
from recsys_cl.objectives.positives import OtherItemOfUser, OtherUserOfItem
from recsys_cl.randomness import counter_uniform
from recsys_cl.training.examples import Key

TURN = 2  # what a random number is for; 0 and 1 are taken by the examples of next-item models


class UserItemExamples(Dataset[Key]):
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

    def __getitem__(self, key: Key) -> Key:
        """The key itself: a batch is cut out of the log at once, in :meth:`collate`."""
        return key

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
            "turn": np.float32(counter_uniform(self.seed, TURN, epoch[0], example[0])),
        }
        return {name: torch.as_tensor(values) for name, values in batch.items()}

    def _before(self, event: np.ndarray, column: Sequences) -> np.ndarray:
        return replace(column[self.user[event]], stop=event).recent(self.length)  # (B, L)
