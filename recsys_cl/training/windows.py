"""Training windows for sequence models: histories cut into windows, at new positions every epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys_cl.data import Sequences
from recsys_cl.encoders.context import event_features
from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform
from recsys_cl.training.examples import Examples, Key


@dataclass(frozen=True, eq=False)
class Cut:
    """The windows of one batch.

    Attributes:
        epoch: ``(W,)`` epoch of each window.
        window: ``(W,)`` number of each window.
        user: ``(W,)`` user of each window.
        begin: ``(W,)`` position in the log of the first event.
        stop: ``(W,)`` position after the last event, which is a target only, not an input.
    """

    epoch: np.ndarray
    window: np.ndarray
    user: np.ndarray
    begin: np.ndarray
    stop: np.ndarray


Part = Callable[[Cut], dict[str, np.ndarray]]
"""Batch part that an objective needs in addition to the windows: arrays by argument name of the model's ``forward``."""


class Windows(Examples):
    r"""Windows of up to ``length + 1`` events; each event except a user's first is a target once per epoch.

    A history of up to ``length + 1`` events stays whole. A longer one is cut after its first :math:`o + 1` events and
    then every ``length`` events, with a new :math:`o \in \{1, \dots, \text{length}\}` every epoch. Adjacent windows
    share one event: the last target of one is the first input of the next. An epoch therefore costs one position in
    the network per event, whatever the lengths, and over the epochs an event is predicted from contexts of every
    length. The drawback: an event right after a cut is predicted from a single event.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        length: Maximum input length of the network, in events.
        since: For an update: restrict targets to events from this time on and up to half a window before them, so new
            events are learned in context. Users without a new event are left out.
        parts: Further parts of a batch.
        seed: Seed of the cuts.

    Raises:
        InputError: If no user has two training events, or no event is at or after ``since``.

    See: chapter 7.
    """

    def __init__(
        self,
        train: Sequences,
        *,
        length: int,
        since: float | None = None,
        parts: Sequence[Part] = (),
        seed: int = 0,
    ) -> None:
        self.train, self.length, self.parts, self.seed = train, length, parts, seed
        self.first = train.start + 1  # (U,) position of the first target
        if since is not None:
            rows, positions = train.flat()
            before = np.bincount(rows[train.times[positions] < since], minlength=len(train))
            context = np.where(before < train.lengths, length // 2, 0)
            self.first = np.maximum(self.first, train.start + before - context)
        targets = np.maximum(train.stop - self.first, 0)  # (U,)
        if not targets.any():
            later = "" if since is None else f", one of them since {since}"
            raise InputError(f"no user has two training events{later}: nothing to predict; train on more data")
        count = np.where(targets > length, 1 - (1 - targets) // length, (targets > 0).astype(np.int64))  # (U,)
        self.user = np.repeat(np.arange(len(train)), count)  # (W,)
        self.number = np.arange(len(self.user)) - np.repeat(np.cumsum(count) - count, count)  # (W,) within its user

    def __len__(self) -> int:
        return len(self.user)

    def cut(self, keys: Sequence[Key]) -> Cut:
        """Cut the windows of a batch from the log; windows that the cut leaves empty are dropped."""
        epoch, window = np.array(keys).T  # (B,) both
        user = self.user[window]  # (B,)
        first, stop = self.first[user], self.train.stop[user]  # (B,) both
        chance = counter_uniform(self.seed, "window-offset", epoch, user)  # (B,)
        drawn = 1 + np.floor(self.length * chance).astype(np.int64)  # (B,)
        offset = np.where(stop - first > self.length, drawn, self.length)  # (B,)
        number = self.number[window]  # (B,)
        begin = np.where(number == 0, first, first + offset + (number - 1) * self.length)  # (B,)
        if (begin >= stop).all():  # a small batch of empty windows: use their users' first targets again
            number, begin = np.zeros_like(number), first
        end = np.minimum(first + offset + number * self.length, stop)  # (B,)
        there = begin < end  # (B,)
        return Cut(epoch[there], window[there], user[there], begin[there] - 1, end[there])

    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of predictions in the mean loss of a batch."""
        return len(batch["target"])

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Build a batch.

        Returns:
            ``lengths`` ``(W,)``, the number of inputs of each window; ``items`` and ``target``, both ``(T,)``, the item
            of each input and the item after it; and what the parts add or replace.
        """
        cut = self.cut(keys)
        event = ragged(cut.begin, cut.stop - 1)  # (T,)
        batch = {
            "lengths": cut.stop - 1 - cut.begin,
            "items": self.train.items[event],
            "target": self.train.items[event + 1],
        }
        for part in self.parts:
            batch |= part(cut)
        return {name: torch.from_numpy(values) for name, values in batch.items()}


def ragged(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Concatenate the integers of all ranges ``[start, stop)``.

    >>> ragged(np.array([3, 7]), np.array([5, 8])).tolist()
    [3, 4, 7]
    """
    lengths = stop - start
    return np.arange(lengths.sum()) + np.repeat(start - (np.cumsum(lengths) - lengths), lengths)


@dataclass(frozen=True, eq=False)
class EventContext:
    """Context features of a batch's inputs, for :class:`~recsys_cl.encoders.context.Context`.

    Attributes:
        train: Training sequences.
        names: Names of the features.
    """

    train: Sequences
    names: Sequence[str]

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``features`` ``(T, F)`` and, if the data has them, ``attributes`` ``(W, a)``."""
        rows = np.repeat(cut.user, cut.stop - 1 - cut.begin)  # (T,)
        batch = {"features": event_features(self.train, rows, ragged(cut.begin, cut.stop - 1), self.names)}
        if self.train.attributes is not None:
            batch["attributes"] = self.train.attributes[cut.user]
        return batch
