r"""Fake users who want one item recommended: a profile of other items for cover, and the target among them.

The three classical attacks differ in the cover. *random* takes any items, *average* imitates the crowd (items by
popularity, ratings about each item's own mean), *bandwagon* keeps the company of the most popular items, so that
whoever had those resembles the fakes.

References:
    Lam and Riedl (2004), https://doi.org/10.1145/988672.988726;
    Mobasher et al. (2007), https://doi.org/10.1145/1278366.1278372.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

import numpy as np
from scipy.special import ndtri

from recsys_cl.data.perturb.common import columns_of, replace_log, unseen_candidates
from recsys_cl.data.splits import Split
from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform

KINDS = ("random", "average", "bandwagon")
"""Attacks by the name that tables use."""


def inject(
    split: Split, target: int, kind: str, *, users: int, profile: int, seed: int = 0
) -> tuple[Split, np.ndarray]:
    r"""Append fake users to the training sequences, all of whom had the target last.

    A sequence model learns what follows what, so the order matters to it: a profile is fillers, then (*bandwagon*) the
    most popular items, then the target, which is thus the answer to the whole profile and stands right behind the
    popular items. For a model that sees a set any order is the same.

    ============  ==========================================  ====================================================
    kind          cover                                       its ratings
    ============  ==========================================  ====================================================
    random        uniform                                     about the mean of all ratings
    average       :math:`\propto` training events             about the item's own mean
    bandwagon     half (rounded up) the most popular items,   greatest; the others about the mean of all ratings
                  the others uniform
    ============  ==========================================  ====================================================

    "About" is a normal draw with the standard deviation found there, moved to the nearest rating in use. The target
    has the greatest. Times, weights and types are those of random training events, the times in order, so that nobody's
    future is touched; user attributes are zeros, the average user.

    Args:
        split: Any split of :mod:`recsys_cl.data.splits`.
        target: Number of the item to push.
        kind: ``"random"``, ``"average"`` or ``"bandwagon"``.
        users: Number of fake users, at most the number of real ones.
        profile: Items of each, the target included; 2 or more.
        seed: Seed of items, ratings and times.

    Returns:
        A split whose training sequences end with the fake users, and ``(n_users + users,)``, true for those. Queries
        and data set are those of the given split: no fake user is asked anything.

    Raises:
        InputError: If the kind is unknown, the target no item or one that the protocol holds back as unseen, there are
            more fake users than users, or the catalogue is too small for the profile.

    See: chapter 9.
    """
    columns = columns_of(split)
    _check(split, target, kind, users, profile)
    _, positions = split.train.flat()
    items = _profiles(split, target, kind, users, profile, seed)  # (F, P)
    fake, place = np.arange(users)[:, None], np.arange(profile)  # (F, 1), (P,)
    chance = counter_uniform(seed, "fake-time", fake, place)  # (F, P)
    like = positions[(chance * len(positions)).astype(np.int64)]  # (F, P) a training event each
    added = {name: column[like] for name, column in columns.items()}
    added |= {"items": items, "ratings": _ratings(split, kind, items, seed), "times": np.sort(added["times"], axis=1)}

    n_events = len(columns["items"])
    joined = {name: np.concatenate([columns[name], added[name].ravel().astype(columns[name].dtype)]) for name in added}
    start = n_events + profile * np.arange(users)
    attributes = split.train.attributes
    if attributes is not None:
        attributes = np.pad(attributes, ((0, users), (0, 0)))
    train = replace(
        split.train,
        **joined,  # type: ignore[arg-type]
        start=np.concatenate([split.train.start, start]),
        stop=np.concatenate([split.train.stop, start + profile]),
        attributes=attributes,
    )
    note = f"{users} {kind} users for item {target} (seed {seed})"
    attacked = replace_log(split, joined, np.arange(n_events + 1), train=train, note=note)
    return attacked, np.arange(len(train)) >= len(split.train)


def _check(split: Split, target: int, kind: str, users: int, profile: int) -> None:
    if kind not in KINDS:
        closest = get_close_matches(kind, KINDS, n=1, cutoff=0.0)[0]
        raise InputError(f"no attack {kind!r}; did you mean {closest!r}? valid names are {', '.join(KINDS)}")
    if not 0 <= target < split.n_items:
        raise InputError(f"target={target} is no item; items are numbered 0 to {split.n_items - 1}")
    if target in unseen_candidates(split):
        raise InputError(f"target={target} must stay unseen under {split.protocol}; choose one with training events")
    if not 1 <= users <= len(split.train):
        raise InputError(f"users={users} fake users; give 1 to the number of real ones, {len(split.train)}")
    if profile < 2:
        raise InputError(f"profile={profile} leaves the target without cover; give 2 items or more")


def _profiles(split: Split, target: int, kind: str, users: int, profile: int, seed: int) -> np.ndarray:
    """Items of each fake user, oldest first: ``(users, profile)``."""
    counts = split.counts
    eligible = np.ones(split.n_items, dtype=bool)
    eligible[unseen_candidates(split)] = False
    eligible[target] = False
    n_popular = profile // 2 if kind == "bandwagon" else 0
    popular = np.argsort(-np.where(eligible, counts, -1), kind="stable")[:n_popular][::-1]
    eligible[popular] = False
    weight = np.where(eligible, counts if kind == "average" else 1, 0)  # (N,)
    fillers = _fillers(weight, users, profile - 1 - n_popular, seed)
    return np.column_stack([fillers, np.tile([*popular, target], (users, 1))])  # (F, P)


def _fillers(weight: np.ndarray, users: int, n: int, seed: int) -> np.ndarray:
    r"""Items without replacement, :math:`\propto` their weight: the ``n`` least :math:`-\log(u_i) / w_i`, in order.

    References:
        Efraimidis and Spirakis (2006), https://doi.org/10.1016/j.ipl.2005.11.003.
    """
    candidates = np.flatnonzero(weight)
    if n > len(candidates):
        raise InputError(f"a profile needs {n} items for cover, {len(candidates)} can be had; give a shorter profile")
    chosen = np.empty((users, n), dtype=np.int64)
    for fake in range(users):
        wait = -np.log1p(-counter_uniform(seed, "filler-item", fake, candidates)) / weight[candidates]  # (C,)
        chosen[fake] = candidates[np.argsort(wait, kind="stable")[:n]]
    return chosen


def _ratings(split: Split, kind: str, items: np.ndarray, seed: int) -> np.ndarray:
    """Ratings of the profiles, ``(users, profile)``, drawn and moved to the nearest in use."""
    _, positions = split.train.flat()
    rated, rating = split.train.items[positions], split.train.ratings[positions].astype(np.float64)
    levels = np.unique(rating)
    users, profile = items.shape
    chance = counter_uniform(seed, "fake-rating", np.arange(users)[:, None], np.arange(profile))  # (F, P)
    draw = ndtri(chance)  # (F, P) standard normal
    if kind == "average":
        mean, sd = _moments(rated, rating, split.n_items)  # (N,), (N,)
        drawn = mean[items] + sd[items] * draw
    else:
        drawn = rating.mean() + rating.std() * draw
    ratings = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, drawn)]  # (F, P)
    n_greatest = 1 + (profile // 2 if kind == "bandwagon" else 0)
    ratings[:, -n_greatest:] = levels[-1]
    return ratings


def _moments(item: np.ndarray, rating: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each item's ratings; 0 for an item without any."""
    count, total, square = (
        np.bincount(item, weights=values, minlength=n_items) for values in (np.ones_like(rating), rating, rating**2)
    )
    mean = total / np.maximum(count, 1)
    return mean, np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0))
