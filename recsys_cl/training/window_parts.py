"""What objectives need of a batch beside its windows: negatives, hidden events, second views, ids to forget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from recsys_cl.data import Sequences
from recsys_cl.data.sequences import RowRandom
from recsys_cl.encoders.context import event_features
from recsys_cl.negatives import NegativeSampler, UniformNegatives
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.positives import OtherUserOfItem
from recsys_cl.positives.view_pairs import View, two_views
from recsys_cl.randomness import counter_uniform
from recsys_cl.training.masking import cloze
from recsys_cl.training.windows import Cut, ragged

TRIES = 8
"""Draws of which the first that the user never chose is the negative; of half a catalogue, 1 in 256 finds none."""

FORGOTTEN = 97  # what a random number is for, so that no two purposes share one


@dataclass(frozen=True, eq=False)
class SharedNegatives:
    """Negatives that all events of a batch share, for the sampled softmax.

    Attributes:
        sampler: Draws them.
        k: How many.
    """

    sampler: NegativeSampler
    k: int

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``negative`` and ``log_q``, ``(k,)`` both."""
        sample = self.sampler.sample(int(cut.epoch[0]), int(cut.window[0]), self.k)
        return {"negative": sample.items.numpy(), "log_q": sample.log_q.numpy()}


@dataclass(frozen=True, eq=False)
class OwnNegatives:
    """Negatives of each event's own, uniform over all items but the one that came next, for binary losses.

    Attributes:
        train: The log.
        n_items: Size of the catalogue.
        k: How many an event.
        known: Draw from what the user of the event never chose in training, as SASRec did; ``None`` for no such care.
        seed: Seed of the draws.
    """

    train: Sequences
    n_items: int
    k: int
    known: KnownPositives | None = None
    seed: int = 0

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``negative`` ``(T, k)``."""
        event = ragged(cut.begin, cut.stop - 1)  # (T,)
        rows = np.repeat(np.arange(len(cut.user)), cut.stop - 1 - cut.begin)  # (T,)
        tries = 1 if self.known is None else TRIES
        other = UniformNegatives(self.n_items - 1, seed=self.seed).sample(cut.epoch[rows], event, self.k * tries)
        drawn = other.items.numpy()  # (T, k tries)
        drawn = drawn + (drawn >= self.train.items[event + 1][:, None])  # (T, k tries)
        if self.known is None:
            return {"negative": drawn}
        user = torch.from_numpy(cut.user[rows])  # (T,)
        chosen = self.known.mask(user, torch.from_numpy(drawn)).numpy()  # (T, k tries)
        first = (~chosen).reshape(len(event), self.k, tries).argmax(2)[..., None]  # (T, k, 1)
        return {"negative": np.take_along_axis(drawn.reshape(len(event), self.k, tries), first, 2)[..., 0]}


@dataclass(frozen=True, eq=False)
class KnownItems:
    """All that the user of each window chose in training, before and after: what is no negative.

    Attributes:
        train: The log.
    """

    train: Sequences

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``known_row`` and ``known_item`` ``(K,)``: window and item."""
        start, stop = self.train.start[cut.user], self.train.stop[cut.user]  # (W,) both
        return {
            "known_row": np.repeat(np.arange(len(cut.user)), stop - start),
            "known_item": self.train.items[ragged(start, stop)],
        }


@dataclass(frozen=True, eq=False)
class HiddenEvents:
    """Windows as a cloze: all their events, some hidden, to be told from those before and after.

    Attributes:
        train: The log.
        n_items: Size of the catalogue; one past it stands for a hidden item.
        share: Share of the events that are hidden.
        last: Chance that a window hides its last event alone.
        seed: Seed of the choice.
    """

    train: Sequences
    n_items: int
    share: float
    last: float
    seed: int = 0

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``lengths``, ``items`` with hidden ones, ``hidden`` their places, ``asked`` what was there."""
        lengths = cut.stop - cut.begin  # (W,)
        items = self.train.items[ragged(cut.begin, cut.stop)]  # (T,)
        hidden = cloze(lengths, RowRandom(self.seed, cut.epoch, cut.window), share=self.share, last=self.last)  # (T,)
        return {
            "lengths": lengths,
            "items": np.where(hidden, self.n_items, items),
            "hidden": np.flatnonzero(hidden),
            "asked": items[hidden],
        }


@dataclass(frozen=True, eq=False)
class TwoViews:
    """Two changed copies of every window, the first views' rows before the second's.

    Attributes:
        train: The log.
        views: What changes them.
        length: Longest view.
        seed: Seed of the changes.
    """

    train: Sequences
    views: Sequence[View]
    length: int
    seed: int = 0

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``view_items`` ``(T',)`` and ``view_lengths`` ``(2W,)``."""
        first, second = two_views(
            self.train.items[ragged(cut.begin, cut.stop)],
            cut.stop - cut.begin,
            RowRandom(self.seed, cut.epoch, cut.window),
            views=self.views,
            longest=self.length,
        )
        return {
            "view_items": np.concatenate([first[0], second[0]]),
            "view_lengths": np.concatenate([first[1], second[1]]),
        }


class SameTarget:
    """Every window beside another user's history with the same next item (DuoRec); its own where there is none.

    Args:
        train: The log.
        n_items: Size of the catalogue.
        length: Longest history.
        seed: Seed of the draws.

    References:
        Qiu et al. (2022), https://arxiv.org/abs/2110.05730.
    """

    def __init__(self, train: Sequences, n_items: int, length: int, seed: int = 0) -> None:
        self.train, self.length = train, length
        with_past = replace(train, start=np.minimum(train.start + 1, train.stop))
        self.others = OtherUserOfItem(with_past, n_items, seed)
        rows, positions = train.flat()
        self.first = np.zeros(len(train.items), dtype=np.int64)
        self.first[positions] = train.start[rows]  # (events,) where the history of each begins

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``view_items`` ``(T',)`` and ``view_lengths`` ``(2W,)``: the windows' inputs, then the others' histories."""
        asked = cut.stop - 1  # (W,)
        drawn = self.others.sample(cut.epoch, asked)  # (W,)
        other = np.where(drawn < 0, asked, drawn)  # (W,)
        begin = np.concatenate([cut.begin, np.maximum(other - self.length, self.first[other])])  # (2W,)
        stop = np.concatenate([asked, other])  # (2W,)
        return {"view_items": self.train.items[ragged(begin, stop)], "view_lengths": stop - begin}


@dataclass(frozen=True, eq=False)
class ForgottenIds:
    """Items whose ids a batch does not see, as if they were new.

    Attributes:
        n_items: Size of the catalogue.
        share: Share of the items.
        seed: Seed of the draws.

    References:
        Volkovs, Yu and Poutanen (2017), DropoutNet, NeurIPS.
    """

    n_items: int
    share: float
    seed: int = 0

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``keep_id`` ``(n_items,)``, false where an id is to be ignored."""
        drawn = counter_uniform(self.seed, FORGOTTEN, cut.epoch[0], cut.window[0], np.arange(self.n_items))  # (N,)
        return {"keep_id": drawn >= self.share}


@dataclass(frozen=True, eq=False)
class EventContext:
    """What surrounds the inputs, for :class:`~recsys_cl.encoders.context.Context`.

    Attributes:
        train: The log.
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


@dataclass(frozen=True, eq=False)
class NextKinds:
    """Types of the events asked for.

    Attributes:
        train: The log, with event types.
    """

    train: Sequences

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``asked_kind`` ``(T,)``."""
        assert self.train.kinds is not None
        return {"asked_kind": self.train.kinds[ragged(cut.begin, cut.stop - 1) + 1]}
