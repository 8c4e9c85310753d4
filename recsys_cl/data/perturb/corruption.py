r"""A log as it is in practice: interactions nobody meant, interactions nobody wrote down.

Noise changes :math:`\operatorname{round}(\rho n)` of the :math:`n` training events. A history is a log too, so the
histories of validation and test queries show the same changed events; what is held out, as a target or by then as a
part of a history, stays clean: the questions and their right answers are those of the clean split. What is changed at
one rate is changed at every higher rate of the same seed.

A ranking leaves out what the log says was seen, so noise acts twice: on what a model learns and reads, and on what it
may recommend. A dropped or swapped item is recommended to someone who had it, and takes a place in the list; an added
one, which a model may have learnt by heart, is hidden. For the first effect alone, ask the noisy model the queries of
the clean split.

See: chapter 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from recsys_cl.data.perturb.common import Columns, columns_of, replace_log, unseen_candidates
from recsys_cl.data.splits import Split
from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform

LEAST = 2
"""Training events that dropping leaves a user, unless there were fewer before."""


class Corruption(Protocol):
    """A split, a rate and a seed in; a noisy split out."""

    def __call__(self, split: Split, rate: float, *, seed: int = 0) -> Split:
        """The split with a share ``rate`` of its training events changed."""
        ...


def add_random(split: Split, rate: float, *, seed: int = 0) -> Split:
    r"""Clicks by accident: :math:`\operatorname{round}(\rho n)` events with random items join the log.

    An added event follows a random one of the user's own, at a time between that and the next (after the last: at the
    same time), and takes over its rating, weight and type. Its item is new to the user, none that the protocol holds
    back as unseen, and none of their targets: hidden as seen, it could not be found. (Noise that knows no targets would
    hide a share of them, about the number of events added to a user over the size of the catalogue.)

    Args:
        split: Any split of :mod:`recsys_cl.data.splits`.
        rate: :math:`\rho`, added events as a share of the training events, in (0, 1).
        seed: Seed of places, items and times.

    Returns:
        A new split; users, targets and data set are those of the given one.

    Raises:
        InputError: If the rate is out of range or changes nothing, or a user has had nearly every item.

    See: chapter 9.
    """
    columns, event = columns_of(split), _drawn(split, rate, seed, "added-event")
    user, position = _events(split, event)
    following = np.minimum(position + 1, split.train.stop[user] - 1)
    passed = counter_uniform(seed, "added-time", user, position - split.train.start[user])
    times = columns["times"][position] + passed * (columns["times"][following] - columns["times"][position])
    copies = np.ones(len(columns["items"]), dtype=np.int64)
    copies[position] = 2
    columns, moved = _repeated(columns, copies)
    added = moved[position + 1] - 1  # the second copy of each
    columns["items"][added], columns["times"][added] = _strange_items(split, user, seed), times
    return replace_log(split, columns, moved, note=f"add {rate:g} (seed {seed})")


def drop_random(split: Split, rate: float, *, seed: int = 0) -> Split:
    r"""Events that were never logged: :math:`\operatorname{round}(\rho n)` of them go.

    Two events of every user are exempt, so that a next item remains to be predicted; the others are equally likely.

    Args:
        split: Any split of :mod:`recsys_cl.data.splits`.
        rate: :math:`\rho`, dropped events as a share of the training events, in (0, 1).
        seed: Seed of the choice.

    Returns:
        A new split; users, targets and data set are those of the given one.

    Raises:
        InputError: If the rate is out of range or changes nothing, or there are too few events to drop.

    See: chapter 9.
    """
    columns, event = columns_of(split), _drawn(split, rate, seed, "dropped-event", exempt=LEAST)
    copies = np.ones(len(columns["items"]), dtype=np.int64)
    copies[_events(split, event)[1]] = 0
    columns, moved = _repeated(columns, copies)
    return replace_log(split, columns, moved, note=f"drop {rate:g} (seed {seed})")


def swap_items(split: Split, rate: float, *, seed: int = 0) -> Split:
    r"""The wrong item on the record: :math:`\operatorname{round}(\rho n)` events get a random one.

    Time, rating, weight and type stay. The new item obeys the rules of :func:`add_random`; the old one is, as far as
    anyone can tell, unseen.

    Args:
        split: Any split of :mod:`recsys_cl.data.splits`.
        rate: :math:`\rho`, swapped events as a share of the training events, in (0, 1).
        seed: Seed of places and items.

    Returns:
        A new split; users, targets and data set are those of the given one.

    Raises:
        InputError: If the rate is out of range or changes nothing, or a user has had nearly every item.

    See: chapter 9.
    """
    columns, event = columns_of(split), _drawn(split, rate, seed, "swapped-event")
    user, position = _events(split, event)
    items = columns["items"].copy()
    items[position] = _strange_items(split, user, seed)
    bounds = np.arange(len(items) + 1)
    return replace_log(split, {**columns, "items": items}, bounds, note=f"swap {rate:g} (seed {seed})")


CORRUPTIONS: Mapping[str, Corruption] = {"add": add_random, "drop": drop_random, "swap": swap_items}
"""Kinds of noise by the name that tables use."""


def _drawn(split: Split, rate: float, seed: int, purpose: str, *, exempt: int = 0) -> np.ndarray:
    """Numbers of the training events to change, the likeliest first, ``exempt`` events of each user left out."""
    if not 0 < rate < 1:
        raise InputError(f"rate={rate} is out of range; give a share of the training events above 0 and below 1")
    rows, positions = split.train.flat()
    chance = counter_uniform(seed, purpose, rows, positions - split.train.start[rows])
    latest = np.lexsort((-chance, rows))  # by user, those who would go last in front
    lengths = split.train.lengths
    rank = np.arange(len(rows)) - (np.cumsum(lengths) - lengths)[rows]
    open_to_change = latest[rank >= exempt]
    n = round(rate * len(rows))
    if n == 0:
        raise InputError(f"rate={rate} of {len(rows)} training events is none; give at least {1 / len(rows):.2g}")
    if n > len(open_to_change):
        raise InputError(
            f"rate={rate} would change {n} of {len(rows)} training events, but {exempt} of every user are kept; "
            f"give at most {len(open_to_change) / len(rows):.2g}"
        )
    return open_to_change[np.argsort(chance[open_to_change], kind="stable")[:n]]


def _events(split: Split, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """User and position in the log of training events."""
    rows, positions = split.train.flat()
    return rows[event], positions[event]


def _repeated(columns: Columns, copies: np.ndarray) -> tuple[Columns, np.ndarray]:
    """A log with each event as often as said, and where each bound between events has moved to."""
    moved = np.concatenate([[0], np.cumsum(copies)])
    return {name: np.repeat(column, copies) for name, column in columns.items()}, moved


def _strange_items(split: Split, user: np.ndarray, seed: int) -> np.ndarray:
    """One item for each entry of ``user``, unlike all that this user had, will have or is given here."""
    items = np.empty(len(user), dtype=split.train.items.dtype)
    known, held_back = _known_pairs(split), unseen_candidates(split)
    order = np.argsort(user, kind="stable")
    who, first = np.unique(user[order], return_index=True)
    for one, places in zip(who, np.split(order, first[1:]), strict=True):
        low, high = np.searchsorted(known, [one * split.n_items, (one + 1) * split.n_items])
        chance = counter_uniform(seed, "random-item", one, np.arange(split.n_items))  # (N,)
        chance[known[low:high] - one * split.n_items] = np.inf
        chance[held_back] = np.inf
        if np.isfinite(chance).sum() < len(places):
            raise InputError(
                f"user {one} knows all but {np.isfinite(chance).sum()} of {split.n_items} items, too few for "
                f"{len(places)} random ones; lower the rate or leave out this user"
            )
        items[places] = np.argsort(chance, kind="stable")[: len(places)]
    return items


def _known_pairs(split: Split) -> np.ndarray:
    """``user * n_items + item``, ascending, of everything that is in a user's history or among their targets."""
    stop, pairs = split.train.stop.copy(), []
    for queries in (split.validation, split.test):
        np.maximum.at(stop, queries.user, queries.history.stop)
        rows, positions = queries.target.flat()
        pairs.append(queries.user[rows] * split.n_items + queries.target.items[positions])
    rows, positions = replace(split.train, stop=stop).flat()
    return np.unique(np.concatenate([*pairs, rows * split.n_items + split.train.items[positions]]))
