r"""Shilling attacks: inject fake users whose profiles promote a target item.

A profile consists of filler items as camouflage and the target. The three classical attacks differ in the fillers:
*random* uses arbitrary items, *average* imitates the crowd (items by popularity, ratings near each item's own mean),
and *bandwagon* includes the most popular items, so that real users who had those resemble the fake ones.

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

ATTACKS = ("random", "average", "bandwagon")
"""Names of the attacks."""


def inject(
    split: Split, target: int, attack: str, *, users: int, profile: int, seed: int = 0
) -> tuple[Split, np.ndarray]:
    r"""Append fake users to the training sequences, each of whom has the target as the last item.

    Order matters to a sequence model: a profile lists the fillers, then (*bandwagon*) the most popular items, then the
    target, which is thus the next item of the whole profile and directly follows the popular items. Models that read a
    set ignore the order.

    ============  ==========================================  ====================================================
    attack        fillers                                     their ratings
    ============  ==========================================  ====================================================
    random        uniform                                     near the mean of all ratings
    average       :math:`\propto` training events             near the item's own mean
    bandwagon     half (rounded up) the most popular items,   maximum; the others near the mean of all ratings
                  the others uniform
    ============  ==========================================  ====================================================

    "Near" is a normal draw with the standard deviation of the same ratings, rounded to the nearest rating in use. The
    target gets the maximum rating. Times, weights and types are those of random training events, with the times sorted:
    no event lies in a real user's future. User attributes are zeros, the average user.

    Args:
        split: Any split of :mod:`recsys_cl.data.splits`.
        target: Number of the item to promote.
        attack: ``"random"``, ``"average"`` or ``"bandwagon"``.
        users: Number of fake users, at most the number of real ones.
        profile: Number of items per fake user, including the target; 2 or more.
        seed: Seed of items, ratings and times.

    Returns:
        A split whose training sequences end with the fake users, and a ``(n_users + users,)`` mask, true for fake
        users. Queries and data set stay the same: fake users have no queries.

    Raises:
        InputError: If the attack is unknown, the target is not an item or is kept unseen by the protocol, there are
            more fake users than real ones, or the catalogue is too small for the profile.

    See: chapter 9.
    """
    columns = columns_of(split)
    _check(split, target, attack, users, profile)
    _, positions = split.train.flat()
    items = _profiles(split, target, attack, users, profile, seed)  # (F, P)
    fake, place = np.arange(users)[:, None], np.arange(profile)  # (F, 1), (P,)
    chance = counter_uniform(seed, "fake-time", fake, place)  # (F, P)
    like = positions[(chance * len(positions)).astype(np.int64)]  # (F, P) log position of a training event
    added = {name: column[like] for name, column in columns.items()}
    added |= {"items": items, "ratings": _ratings(split, attack, items, seed), "times": np.sort(added["times"], axis=1)}

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
    note = f"{users} {attack} users for item {target} (seed {seed})"
    attacked = replace_log(split, joined, np.arange(n_events + 1), train=train, note=note)
    return attacked, np.arange(len(train)) >= len(split.train)


def _check(split: Split, target: int, attack: str, users: int, profile: int) -> None:
    if attack not in ATTACKS:
        closest = get_close_matches(attack, ATTACKS, n=1, cutoff=0.0)[0]
        raise InputError(f"no attack {attack!r}; did you mean {closest!r}? valid names are {', '.join(ATTACKS)}")
    if not 0 <= target < split.n_items:
        raise InputError(f"target={target} is not an item; items are numbered 0 to {split.n_items - 1}")
    if target in unseen_candidates(split):
        raise InputError(f"target={target} must stay unseen under {split.protocol}; choose one with training events")
    if not 1 <= users <= len(split.train):
        raise InputError(f"users={users} fake users; give 1 to the number of real ones, {len(split.train)}")
    if profile < 2:
        raise InputError(f"profile={profile} leaves the target without fillers; give 2 items or more")


def _profiles(split: Split, target: int, attack: str, users: int, profile: int, seed: int) -> np.ndarray:
    """Items of each fake user, oldest first: ``(users, profile)``."""
    counts = split.counts
    eligible = np.ones(split.n_items, dtype=bool)
    eligible[unseen_candidates(split)] = False
    eligible[target] = False
    n_popular = profile // 2 if attack == "bandwagon" else 0
    popular = np.argsort(-np.where(eligible, counts, -1), kind="stable")[:n_popular][::-1]
    eligible[popular] = False
    weight = np.where(eligible, counts if attack == "average" else 1, 0)  # (N,)
    fillers = _fillers(weight, users, profile - 1 - n_popular, seed)
    return np.column_stack([fillers, np.tile([*popular, target], (users, 1))])  # (F, P)


def _fillers(weight: np.ndarray, users: int, n: int, seed: int) -> np.ndarray:
    r"""Weighted sampling without replacement: the ``n`` items with the smallest :math:`-\log(u_i) / w_i`, in order.

    References:
        Efraimidis and Spirakis (2006), https://doi.org/10.1016/j.ipl.2005.11.003.
    """
    candidates = np.flatnonzero(weight)
    if n > len(candidates):
        raise InputError(f"a profile needs {n} filler items, {len(candidates)} are available; give a shorter profile")
    chosen = np.empty((users, n), dtype=np.int64)
    for fake in range(users):
        wait = -np.log1p(-counter_uniform(seed, "filler-item", fake, candidates)) / weight[candidates]  # (C,)
        chosen[fake] = candidates[np.argsort(wait, kind="stable")[:n]]
    return chosen


def _ratings(split: Split, attack: str, items: np.ndarray, seed: int) -> np.ndarray:
    """Ratings of the profiles, ``(users, profile)``: normal draws, rounded to the nearest rating in use."""
    _, positions = split.train.flat()
    rated, rating = split.train.items[positions], split.train.ratings[positions].astype(np.float64)
    levels = np.unique(rating)
    users, profile = items.shape
    chance = counter_uniform(seed, "fake-rating", np.arange(users)[:, None], np.arange(profile))  # (F, P)
    draw = ndtri(chance)  # (F, P) standard normal
    if attack == "average":
        mean, sd = _moments(rated, rating, split.n_items)  # (N,), (N,)
        drawn = mean[items] + sd[items] * draw
    else:
        drawn = rating.mean() + rating.std() * draw
    ratings = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, drawn)]  # (F, P)
    n_maximum = 1 + (profile // 2 if attack == "bandwagon" else 0)
    ratings[:, -n_maximum:] = levels[-1]
    return ratings


def _moments(item: np.ndarray, rating: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each item's ratings; 0 for an item without ratings."""
    count, total, square = (
        np.bincount(item, weights=values, minlength=n_items) for values in (np.ones_like(rating), rating, rating**2)
    )
    mean = total / np.maximum(count, 1)
    return mean, np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0))
