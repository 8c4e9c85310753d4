"""Train/validation/test splits: leave-one-out, leave-last-n, temporal, cold-item and new-user protocols.

See: chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from recsys_cl.data.interactions import Interactions
from recsys_cl.data.sequences import Sequences
from recsys_cl.errors import InputError
from recsys_cl.registry import Registry


@dataclass(frozen=True, eq=False)
class Queries:
    """Evaluation queries: given a history, where does a recommender rank the targets?

    Attributes:
        user: ``(queries,)`` user number of each query; intervals and tests are clustered by user.
        history: Input to the recommender, one sequence per query.
        target: Held-out events to predict, one sequence per query.
        candidates: ``(n,)`` item numbers to rank, or ``None`` for the full catalogue.
    """

    user: np.ndarray
    history: Sequences
    target: Sequences
    candidates: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: slice | np.ndarray) -> Queries:
        return replace(self, user=self.user[rows], history=self.history[rows], target=self.target[rows])

    def sample(self, n: int, *, seed: int) -> Queries:
        """A seeded random sample of at most ``n`` queries, in their original order."""
        if len(self) <= n:
            return self
        return self[np.sort(np.random.default_rng(seed).permutation(len(self))[:n])]


@dataclass(frozen=True, eq=False)
class Split:
    """A data set split by a protocol.

    Attributes:
        protocol: Name of the protocol, printed with every table.
        data: The data set.
        train: Training sequences, one per user; empty for users who appear only in the test.
        validation: Queries for choosing hyperparameters and for early stopping.
        test: Queries for the final evaluation, used once.
        seed: Seed of the order within ties and of the draw of cold items or new users.
    """

    protocol: str
    data: Interactions
    train: Sequences
    validation: Queries
    test: Queries
    seed: int

    @property
    def identity(self) -> dict[str, str | int]:
        """Key of the split: two splits with equal identities hold out the same events."""
        return {"protocol": self.protocol, "seed": self.seed, "data": self.data.fingerprint}

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        return self.data.n_items

    @property
    def counts(self) -> np.ndarray:
        """``(n_items,)`` number of training events of each item; cold items have 0."""
        _, positions = self.train.flat()
        return np.bincount(self.train.items[positions], minlength=self.n_items)


def leave_last_n(data: Interactions, n: int = 10, *, seed: int = 0) -> Split:
    """Hold out each user's last ``n`` events and predict each from all events before it.

    The preceding ``n`` events are for validation. A user with fewer than ``3 n`` events is tested on at most all but
    one of them; half of the remainder, rounded down, is for validation.

    Args:
        data: The data set.
        n: Events held out per user.
        seed: Seed of the order within ties.

    Raises:
        InputError: If a user has a single event.

    See: chapter 2.

    >>> from recsys_cl.data import synthetic
    >>> split = leave_last_n(synthetic(100, 100), n=3)
    >>> split.protocol, len(split.test)
    ('leave-last-3', 300)
    """
    if n < 1:
        raise InputError(f"n={n} events to hold out; give 1 or more")
    full = data.sequences(seed=seed)
    single = np.flatnonzero(full.lengths == 1)
    if len(single):
        raise InputError(
            f"user_id {data.user_ids[single[0]]!r} has one interaction ({len(single)} such users): nothing is left "
            "to predict it from; drop them with --min-events 2, in Python data.filter(min_events=2)"
        )
    n_test = np.minimum(n, full.lengths - 1)
    n_validation = np.minimum(n, (full.lengths - n_test) // 2)
    cut_test = full.stop - n_test
    cut_validation = cut_test - n_validation
    return Split(
        protocol="leave-one-out" if n == 1 else f"leave-last-{n}",
        data=data,
        train=replace(full, stop=cut_validation),
        validation=_rolling(full, cut_validation, cut_test),
        test=_rolling(full, cut_test, full.stop),
        seed=seed,
    )


def leave_one_out(data: Interactions, *, seed: int = 0) -> Split:
    """Test on each user's last event, validate on the one before: :func:`leave_last_n` with ``n=1``.

    >>> from recsys_cl.data import synthetic
    >>> split = leave_one_out(synthetic(100, 100))
    >>> split.protocol, len(split.test), set(split.test.target.lengths.tolist())
    ('leave-one-out', 100, {1})
    """
    return leave_last_n(data, 1, seed=seed)


def temporal_split(data: Interactions, *, test: float = 0.1, validation: float = 0.1, seed: int = 0) -> Split:
    """Split all users at the same points in time: training on one user never sees another user's future.

    There is one query per user with events on both sides of a cut: the events before the cut are the history, those
    after it (up to the next cut) are the targets.

    Args:
        data: The data set.
        test: Fraction of the events after the last cut.
        validation: Fraction of the events between the two cuts.
        seed: Seed of the order within ties.

    Raises:
        InputError: If the fractions leave no training events, or no user has events on both sides of a cut.

    See: chapter 2.

    >>> from recsys_cl.data import synthetic
    >>> split = temporal_split(synthetic(100, 100))
    >>> (_, past), (_, future) = split.train.flat(), split.test.target.flat()
    >>> bool(split.train.times[past].max() < split.test.target.times[future].min())
    True
    """
    if not (test > 0 and validation > 0 and test + validation < 1):
        raise InputError(f"test={test}, validation={validation}: give positive shares with a sum below 1")
    full = data.sequences(seed=seed)
    _, positions = full.flat()
    times = full.times[positions]
    first, second = np.quantile(times, [1 - test - validation, 1 - test])
    rows, _ = full.flat()
    cut_validation = full.start + np.bincount(rows[times < first], minlength=len(full))
    cut_test = full.start + np.bincount(rows[times < second], minlength=len(full))
    split = Split(
        protocol="temporal",
        data=data,
        train=replace(full, stop=cut_validation),
        validation=_whole(full, cut_validation, cut_test),
        test=_whole(full, cut_test, full.stop),
        seed=seed,
    )
    for name in ("validation", "test"):
        if len(getattr(split, name)) == 0:
            raise InputError(f"no user of {data.name} has events on both sides of the {name} cut; use another split")
    return split


def cold_item_split(data: Interactions, *, share: float = 0.1, fold: int = 0, seed: int = 0) -> Split:
    """Cold-start split by item: exclude a random share of the items from training and rank them by content alone.

    A second, disjoint share of unseen items is for validation. There is one query per user with events on unseen
    items: the history is all of the user's warm items, the targets are the unseen ones, and the candidates are all
    unseen items.

    Args:
        data: The data set.
        share: Share of the items with interactions that is excluded, for test and for validation each.
        fold: Number of the share, from 0; the test items of different folds of one seed are disjoint.
        seed: Seed of the draw, and of the order within ties.

    Raises:
        InputError: If the share leaves no unseen or no warm item, or the items have no such fold.

    See: chapter 5.

    >>> from recsys_cl.data import synthetic
    >>> split = cold_item_split(synthetic(100, 100), share=0.1)
    >>> len(split.test.candidates), int(split.counts[split.test.candidates].sum())
    (10, 0)
    """
    full = data.sequences(seed=seed)
    known = np.unique(data.item)
    n_cold = round(share * len(known))
    if not 0 < 2 * n_cold < len(known):
        raise InputError(f"share={share} makes {n_cold} of {len(known)} items cold, twice; give a share in (0, 0.5)")
    if not 0 <= fold < len(known) // n_cold:
        raise InputError(f"fold={fold} of {len(known) // n_cold}; give 0 to {len(known) // n_cold - 1}")
    drawn = np.roll(np.random.default_rng(seed).permutation(known), -fold * n_cold)
    role = np.zeros(data.n_items, dtype=np.int64)  # 0 warm, 1 test, 2 validation
    role[drawn[:n_cold]] = 1
    role[drawn[n_cold : 2 * n_cold]] = 2
    warm = _only(full, role == 0)
    return Split(
        protocol="cold-items",
        data=data,
        train=warm,
        validation=_unseen(warm, _only(full, role == 2), np.flatnonzero(role == 2)),
        test=_unseen(warm, _only(full, role == 1), np.flatnonzero(role == 1)),
        seed=seed,
    )


def new_user_split(
    data: Interactions, n_history: int = 5, *, n_targets: int = 10, share: float = 0.2, seed: int = 0
) -> Split:
    """Cold-start split by user: exclude a random share of the users from training; predict from their first events.

    The last ``n_targets`` events of each remaining user are for validation, each predicted from all events before it
    (of a user with fewer than ``2 n_targets`` events, the second half). The choice of new users does not depend on
    ``n_history``: a recommender that is fitted once can be tested after one event and after twenty.

    Args:
        data: The data set.
        n_history: Number of first events of a new user that form the history.
        n_targets: Number of events after those that are the targets; new users with fewer are left out of the test.
        share: Share of the users that is new.
        seed: Seed of the draw, and of the order within ties.

    Raises:
        InputError: If a number is out of range, or no new user has enough events.

    References:
        Liang et al. (2018), https://doi.org/10.1145/3178876.3186150, call it strong generalisation.
    """
    if n_history < 1 or n_targets < 1:
        raise InputError(f"n_history={n_history}, n_targets={n_targets}: give 1 or more of both")
    full = data.sequences(seed=seed)
    n_new = round(share * len(full))
    if not 0 < n_new < len(full):
        raise InputError(f"share={share} makes {n_new} of {len(full)} users new; leave some of both kinds")
    new = np.random.default_rng(seed).permutation(len(full)) < n_new  # (users,)
    user = np.flatnonzero(new & (full.lengths >= n_history + n_targets))
    if len(user) == 0:
        raise InputError(f"no new user has {n_history} + {n_targets} events; give fewer, or draw a larger share")
    cut = np.where(new, full.start, full.stop - np.minimum(n_targets, full.lengths // 2))
    arrived = full.start + n_history
    return Split(
        protocol="new-users",
        data=data,
        train=replace(full, stop=cut),
        validation=_rolling(full, cut, np.where(new, full.start, full.stop)),
        test=Queries(
            user,
            history=replace(full, stop=arrived)[user],
            target=replace(full, start=arrived, stop=arrived + n_targets)[user],
        ),
        seed=seed,
    )


def validated_on_warm_items(split: Split) -> Split:
    """Validate on each user's last training event instead; the test stays the same.

    Queries for unseen items say nothing about how well a model knows the seen ones. Early stopping that must suit both
    needs queries of this kind.

    Args:
        split: Any split; users with a single training event keep it for training.

    Returns:
        A split with the same test queries.

    See: chapter 11.
    """
    train = split.train
    cut = np.where(train.lengths > 1, train.stop - 1, train.stop)
    return replace(split, train=replace(train, stop=cut), validation=_rolling(train, cut, train.stop))


def _rolling(full: Sequences, first: np.ndarray, stop: np.ndarray) -> Queries:
    """One query per event in ``[first, stop)``, with all events before it as its history."""
    user = np.repeat(np.arange(len(full)), stop - first)
    event = replace(full, start=first, stop=stop).flat()[1]
    users = full[user]
    return Queries(user, history=replace(users, stop=event), target=replace(users, start=event, stop=event + 1))


def _whole(full: Sequences, first: np.ndarray, stop: np.ndarray) -> Queries:
    """One query per user with events on both sides of ``first``."""
    user = np.flatnonzero((first > full.start) & (stop > first))
    history, target = replace(full, stop=first), replace(full, start=first, stop=stop)
    return Queries(user, history=history[user], target=target[user])


def _only(full: Sequences, kept_items: np.ndarray) -> Sequences:
    """The same users with only the events on some items, given as an ``(n_items,)`` boolean mask."""
    rows, positions = full.flat()
    keep = kept_items[full.items[positions]]
    kept = positions[keep]
    stop = np.cumsum(np.bincount(rows[keep], minlength=len(full)))
    return replace(
        full,
        items=full.items[kept],
        times=full.times[kept],
        ratings=full.ratings[kept],
        weights=full.weights[kept],
        event_types=None if full.event_types is None else full.event_types[kept],
        start=np.concatenate([[0], stop[:-1]]),
        stop=stop,
    )


def _unseen(warm: Sequences, cold: Sequences, candidates: np.ndarray) -> Queries:
    user = np.flatnonzero((warm.lengths > 0) & (cold.lengths > 0))
    return Queries(user, history=warm[user], target=cold[user], candidates=candidates)


def _without_n(split: Callable[..., Split]) -> Callable[..., Split]:
    """Give a split that does not take ``n`` the common signature."""
    return lambda data, *, n=10, seed=0: split(data, seed=seed)


SPLITS: Registry[Callable[..., Split]] = Registry("split")
"""Name to a function ``(data, *, n, seed)``; only ``leave-last-n`` uses ``n``."""

SPLITS.add("leave-one-out", _without_n(leave_one_out))
SPLITS.add("leave-last-n", leave_last_n)
SPLITS.add("temporal", _without_n(temporal_split))
SPLITS.add("cold-items", _without_n(cold_item_split))
