"""Training examples of models that read sequences: histories cut into windows, a fresh cut every epoch."""

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
        window: ``(W,)`` its number.
        user: ``(W,)`` whose it is.
        begin: ``(W,)`` its first event in the log.
        stop: ``(W,)`` one past its last event: the last that is asked for, and no input.
    """

    epoch: np.ndarray
    window: np.ndarray
    user: np.ndarray
    begin: np.ndarray
    stop: np.ndarray


Part = Callable[[Cut], dict[str, np.ndarray]]
"""What an objective needs of a batch beside its windows, by the name that the model's ``forward`` gives it."""


class Windows(Examples):
    r"""Windows of up to ``length + 1`` events, in which each event but a user's first is asked for once an epoch.

    A history of up to ``length + 1`` events stays whole. A longer one is cut after its first :math:`o + 1` events and
    then every ``length``, with a fresh :math:`o \in \{1, \dots, \text{length}\}` every epoch; neighbours share one
    event, the last input of one and the first input of the next. So an epoch costs one place in the network per
    event, whatever the lengths, and over the epochs an event is asked for after contexts of every length. The price: an
    event right after a cut is asked for after a single one.

    Args:
        train: Training sequences; row ``u`` is user ``u``.
        length: Longest input of the network.
        since: Ask only for the events from this time on and for up to half a window before them, so that what is new
            is learned after what came before it: what an update needs. Users without a new event are left out.
        parts: What else a batch holds.
        seed: Seed of the cuts.

    Raises:
        InputError: If no user has two training events, or none since then.

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
        self.first = train.start + 1  # (U,) the first event that is asked for
        if since is not None:
            rows, positions = train.flat()
            before = np.bincount(rows[train.times[positions] < since], minlength=len(train))
            context = np.where(before < train.lengths, length // 2, 0)
            self.first = np.maximum(self.first, train.start + before - context)
        asked = np.maximum(train.stop - self.first, 0)  # (U,)
        if not asked.any():
            later = "" if since is None else f", one of them since {since}"
            raise InputError(f"no user has two training events{later}: nothing to predict; train on more data")
        count = np.where(asked > length, 1 - (1 - asked) // length, (asked > 0).astype(np.int64))  # (U,)
        self.user = np.repeat(np.arange(len(train)), count)  # (W,)
        self.number = np.arange(len(self.user)) - np.repeat(np.cumsum(count) - count, count)  # (W,) of its user's

    def __len__(self) -> int:
        return len(self.user)

    def cut(self, keys: Sequence[Key]) -> Cut:
        """Cut the windows of a batch out of the log; those that the cut leaves empty are not among them."""
        epoch, window = np.array(keys).T  # (B,) both
        user = self.user[window]  # (B,)
        first, stop = self.first[user], self.train.stop[user]  # (B,) both
        chance = counter_uniform(self.seed, "window-offset", epoch, user)  # (B,)
        drawn = 1 + np.floor(self.length * chance).astype(np.int64)  # (B,)
        offset = np.where(stop - first > self.length, drawn, self.length)  # (B,)
        number = self.number[window]  # (B,)
        begin = np.where(number == 0, first, first + offset + (number - 1) * self.length)  # (B,)
        if (begin >= stop).all():  # a small batch of empty windows: ask for their users' first events once more
            number, begin = np.zeros_like(number), first
        end = np.minimum(first + offset + number * self.length, stop)  # (B,)
        there = begin < end  # (B,)
        return Cut(epoch[there], window[there], user[there], begin[there] - 1, end[there])

    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of predictions that the loss of a batch is a mean over."""
        return len(batch["target"])

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Build a batch.

        Returns:
            ``lengths`` ``(W,)`` inputs of each window, ``items`` and ``target`` ``(T,)`` the item of every input and
            the one after it, and what the parts add or put in their place.
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
    """The numbers of all ranges ``[start, stop)`` one after the other.

    >>> ragged(np.array([3, 7]), np.array([5, 8])).tolist()
    [3, 4, 7]
    """
    lengths = stop - start
    return np.arange(lengths.sum()) + np.repeat(start - (np.cumsum(lengths) - lengths), lengths)


@dataclass(frozen=True, eq=False)
class EventContext:
    """What surrounds the inputs of a batch, for :class:`~recsys_cl.encoders.context.Context`.

    Attributes:
        train: Training sequences.
        names: Features.
    """

    train: Sequences
    names: Sequence[str]

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``features`` ``(T, F)`` and, where the data has them, ``attributes`` ``(W, a)``."""
        rows = np.repeat(cut.user, cut.stop - 1 - cut.begin)  # (T,)
        batch = {"features": event_features(self.train, rows, ragged(cut.begin, cut.stop - 1), self.names)}
        if self.train.attributes is not None:
            batch["attributes"] = self.train.attributes[cut.user]
        return batch
