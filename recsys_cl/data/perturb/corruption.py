r"""Interaction noise: randomly add, drop or swap events, simulating accidental clicks and missing records.

Noise changes :math:`\operatorname{round}(\rho n)` of the :math:`n` training events. The histories of validation and
test queries show the same changes. Held-out events stay clean, both as targets and in the histories of later queries,
so the queries and their correct answers are those of the clean split. An event that changes at one rate changes at
every higher rate with the same seed.

A ranking leaves out the items that the log marks as seen, so noise acts twice: on the model's input and on its
candidates. A dropped or swapped item may be recommended to a user who had it, which wastes a place in the list; an
added item, which a model may have memorised, is hidden. To measure the first effect alone, evaluate the noisy model on
the queries of the clean split.

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

MINIMUM_EVENTS = 2
"""Minimum number of training events that dropping leaves each user who had that many."""


class Corruption(Protocol):
    """A function from a split, a rate and a seed to a noisy split."""

    def __call__(self, split: Split, rate: float, *, seed: int = 0) -> Split:
        """Change a share ``rate`` of the training events of a split."""
        ...


def add_random(split: Split, rate: float, *, seed: int = 0) -> Split:
    r"""Accidental clicks: add :math:`\operatorname{round}(\rho n)` events with random items.

    An added event follows a random event of the same user, at a time between that and the next (after the last: at the
    same time), and copies its rating, weight and type. Its item is new to the user, not one that the protocol keeps
    unseen, and not a target of the user, which would be hidden as seen and could not be found. (Noise that ignored the
    targets would hide a share of them: about the number of events added per user over the size of the catalogue.)

    Args:
        split: Any split of :mod:`recsys_cl.data.splits`.
        rate: :math:`\rho`, added events as a share of the training events, in (0, 1).
        seed: Seed of the positions, items and times.

    Returns:
        A new split with the same users, targets and data set.

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
    r"""Missing records: drop :math:`\operatorname{round}(\rho n)` events.

    Two events of every user are exempt, so a next item remains to be predicted; the others are equally likely to go.

    Args:
        split: Any split of :mod:`recsys_cl.data.splits`.
        rate: :math:`\rho`, dropped events as a share of the training events, in (0, 1).
        seed: Seed of the choice of events.

    Returns:
        A new split with the same users, targets and data set.

    Raises:
        InputError: If the rate is out of range or changes nothing, or too few events can be dropped.

    See: chapter 9.
    """
    columns, event = columns_of(split), _drawn(split, rate, seed, "dropped-event", exempt=MINIMUM_EVENTS)
    copies = np.ones(len(columns["items"]), dtype=np.int64)
    copies[_events(split, event)[1]] = 0
    columns, moved = _repeated(columns, copies)
    return replace_log(split, columns, moved, note=f"drop {rate:g} (seed {seed})")


def swap_items(split: Split, rate: float, *, seed: int = 0) -> Split:
    r"""Wrong items: replace the items of :math:`\operatorname{round}(\rho n)` events by random ones.

    Time, rating, weight and type stay. The new item obeys the rules of :func:`add_random`; the old item counts as
    unseen.

    Args:
        split: Any split of :mod:`recsys_cl.data.splits`.
        rate: :math:`\rho`, swapped events as a share of the training events, in (0, 1).
        seed: Seed of the positions and items.

    Returns:
        A new split with the same users, targets and data set.

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
"""Corruptions by the name used in tables."""


def _drawn(split: Split, rate: float, seed: int, purpose: str, *, exempt: int = 0) -> np.ndarray:
    """Numbers of the training events to change in order of their draws, sparing ``exempt`` events per user."""
    if not 0 < rate < 1:
        raise InputError(f"rate={rate} is out of range; give a share of the training events above 0 and below 1")
    rows, positions = split.train.flat()
    chance = counter_uniform(seed, purpose, rows, positions - split.train.start[rows])
    latest = np.lexsort((-chance, rows))  # by user, the largest draws first: those are the exempt ones
    lengths = split.train.lengths
    rank = np.arange(len(rows)) - (np.cumsum(lengths) - lengths)[rows]
    open_to_change = latest[rank >= exempt]
    n = round(rate * len(rows))
    if n == 0:
        raise InputError(f"rate={rate} of {len(rows)} training events is none; give at least {1 / len(rows):.2g}")
    if n > len(open_to_change):
        raise InputError(
            f"rate={rate} would change {n} of {len(rows)} training events, but {exempt} per user are kept; "
            f"give at most {len(open_to_change) / len(rows):.2g}"
        )
    return open_to_change[np.argsort(chance[open_to_change], kind="stable")[:n]]


def _events(split: Split, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """User number and log position of training events."""
    rows, positions = split.train.flat()
    return rows[event], positions[event]


def _repeated(columns: Columns, copies: np.ndarray) -> tuple[Columns, np.ndarray]:
    """Repeat each event ``copies`` times; also return the new position of each boundary between events."""
    moved = np.concatenate([[0], np.cumsum(copies)])
    return {name: np.repeat(column, copies) for name, column in columns.items()}, moved


def _strange_items(split: Split, user: np.ndarray, seed: int) -> np.ndarray:
    """A random item for each entry of ``user``: new to the user, not a target of theirs, and drawn only once."""
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
                f"{len(places)} random ones; lower the rate or remove this user"
            )
        items[places] = np.argsort(chance, kind="stable")[: len(places)]
    return items


def _known_pairs(split: Split) -> np.ndarray:
    """``user * n_items + item``, ascending, of every item in a user's history or among their targets."""
    stop, pairs = split.train.stop.copy(), []
    for queries in (split.validation, split.test):
        np.maximum.at(stop, queries.user, queries.history.stop)
        rows, positions = queries.target.flat()
        pairs.append(queries.user[rows] * split.n_items + queries.target.items[positions])
    rows, positions = replace(split.train, stop=stop).flat()
    return np.unique(np.concatenate([*pairs, rows * split.n_items + split.train.items[positions]]))
