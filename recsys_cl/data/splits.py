"""Who is asked what: training sequences, and the questions that validation and test put to a recommender.

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
    """Questions to a recommender: given this history, where do the targets rank?

    Attributes:
        user: ``(queries,)`` the user who asks; intervals and tests are clustered by it.
        history: What the recommender sees, one sequence per query.
        target: What happened next, one sequence per query.
        candidates: ``(n,)`` the items to rank, or ``None`` for the full catalogue.
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
        """At most ``n`` of the queries, a seeded sample in their order."""
        if len(self) <= n:
            return self
        return self[np.sort(np.random.default_rng(seed).permutation(len(self))[:n])]


@dataclass(frozen=True, eq=False)
class Split:
    """A protocol applied to a data set.

    Attributes:
        protocol: Its name, printed with every table.
        data: The data set.
        train: One sequence per user, empty for those who only test.
        validation: Queries that choose hyperparameters and the epoch to stop at.
        test: Queries that are looked at once.
        seed: Seed of the tie order, and of the draw of cold items.
    """

    protocol: str
    data: Interactions
    train: Sequences
    validation: Queries
    test: Queries
    seed: int

    @property
    def identity(self) -> dict[str, str | int]:
        """What tells this split from another: two splits with the same identity hold out the same events."""
        return {"protocol": self.protocol, "seed": self.seed, "data": self.data.fingerprint}

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        return self.data.n_items

    @property
    def counts(self) -> np.ndarray:
        """``(n_items,)`` number of training events of each item; 0 marks an item that is cold."""
        _, positions = self.train.flat()
        return np.bincount(self.train.items[positions], minlength=self.n_items)


def leave_last_n(data: Interactions, n: int = 10, *, seed: int = 0) -> Split:
    """Hold out each user's last ``n`` events and predict each from everything before it.

    The ``n`` events before those validate. A user with fewer than ``3 n`` events tests on at most all but
    one of them, and half of the remainder, rounded down, validates.

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
        raise InputError(f"n={n} events to leave out; give 1 or more")
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
    """The last event of each user tests, the last but one validates: :func:`leave_last_n` with ``n=1``.

    >>> from recsys_cl.data import synthetic
    >>> split = leave_one_out(synthetic(100, 100))
    >>> split.protocol, len(split.test), set(split.test.target.lengths.tolist())
    ('leave-one-out', 100, {1})
    """
    return leave_last_n(data, 1, seed=seed)


def temporal_split(data: Interactions, *, test: float = 0.1, validation: float = 0.1, seed: int = 0) -> Split:
    """Cut time once for everybody: no user's training sees another user's future.

    A query is a user with events on both sides of a cut: everything before it is the history, everything
    after it (up to the next cut) the targets.

    Args:
        data: The data set.
        test: Share of the events after the last cut.
        validation: Share of the events between the two cuts.
        seed: Seed of the order within ties.

    Raises:
        InputError: If the shares leave nothing to train on, or nobody has events on both sides of a cut.

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


def cold_item_split(data: Interactions, *, share: float = 0.1, seed: int = 0) -> Split:
    """Keep a seeded share of the items out of training, and ask for them by content alone.

    A second share, equally unseen, validates. A query is a user with events on unseen items: the history
    is all of the user's warm items, the targets the unseen ones, the candidates all unseen items.

    Args:
        data: The data set.
        share: Share of the items that have interactions, for test and for validation each.
        seed: Seed of the draw, and of the order within ties.

    Raises:
        InputError: If the share leaves no unseen or no warm item.

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
    drawn = np.random.default_rng(seed).permutation(known)
    kind = np.zeros(data.n_items, dtype=np.int64)  # 0 warm, 1 test, 2 validation
    kind[drawn[:n_cold]] = 1
    kind[drawn[n_cold : 2 * n_cold]] = 2
    warm = _only(full, kind == 0)
    return Split(
        protocol="cold-items",
        data=data,
        train=warm,
        validation=_unseen(warm, _only(full, kind == 2), np.flatnonzero(kind == 2)),
        test=_unseen(warm, _only(full, kind == 1), np.flatnonzero(kind == 1)),
        seed=seed,
    )


def new_user_split(data: Interactions, given: int = 5, *, asked: int = 10, share: float = 0.2, seed: int = 0) -> Split:
    """Keep a seeded share of the users out of training; they come with their first events and are asked for the next.

    The last ``asked`` events of each of the others validate, each predicted from everything before it (of a user with
    fewer than ``2 asked`` events, the second half). Who is new does not depend on ``given``: fitted once, a recommender
    can be asked after one event and after twenty.

    Args:
        data: The data set.
        given: Events that a new user brings.
        asked: Events after those, which are to be found; users with fewer are not asked.
        share: Share of the users that is new.
        seed: Seed of the draw, and of the order within ties.

    Raises:
        InputError: If a number is out of range, or no new user has enough events.

    References:
        Liang et al. (2018), https://doi.org/10.1145/3178876.3186150, call it strong generalisation.
    """
    if given < 1 or asked < 1:
        raise InputError(f"given={given}, asked={asked}: give 1 or more of both")
    full = data.sequences(seed=seed)
    n_new = round(share * len(full))
    if not 0 < n_new < len(full):
        raise InputError(f"share={share} makes {n_new} of {len(full)} users new; leave some of both kinds")
    new = np.random.default_rng(seed).permutation(len(full)) < n_new  # (users,)
    user = np.flatnonzero(new & (full.lengths >= given + asked))
    if len(user) == 0:
        raise InputError(f"no new user has {given} + {asked} events; give fewer, or draw a larger share")
    cut = np.where(new, full.start, full.stop - np.minimum(asked, full.lengths // 2))
    arrived = full.start + given
    return Split(
        protocol="new-users",
        data=data,
        train=replace(full, stop=cut),
        validation=_rolling(full, cut, np.where(new, full.start, full.stop)),
        test=Queries(
            user,
            history=replace(full, stop=arrived)[user],
            target=replace(full, start=arrived, stop=arrived + asked)[user],
        ),
        seed=seed,
    )


def validated_on_warm_items(split: Split) -> Split:
    """The same tests, with each user's last training event held out to validate.

    Queries for unseen items say nothing about a model's knowledge of seen ones; what has to stop at the right epoch
    for both needs queries of this kind.

    Args:
        split: Any split; users with a single training event keep it.

    Returns:
        A split with the test queries of the given one.

    See: chapter 11.
    """
    train = split.train
    cut = np.where(train.lengths > 1, train.stop - 1, train.stop)
    return replace(split, train=replace(train, stop=cut), validation=_rolling(train, cut, train.stop))


def _rolling(full: Sequences, first: np.ndarray, stop: np.ndarray) -> Queries:
    """One query per event in ``[first, stop)``, with everything before the event as its history."""
    user = np.repeat(np.arange(len(full)), stop - first)
    event = replace(full, start=first, stop=stop).flat()[1]
    users = full[user]
    return Queries(user, history=replace(users, stop=event), target=replace(users, start=event, stop=event + 1))


def _whole(full: Sequences, first: np.ndarray, stop: np.ndarray) -> Queries:
    """One query per user who has events on both sides of ``first``."""
    user = np.flatnonzero((first > full.start) & (stop > first))
    history, target = replace(full, stop=first), replace(full, start=first, stop=stop)
    return Queries(user, history=history[user], target=target[user])


def _only(full: Sequences, wanted: np.ndarray) -> Sequences:
    """The same users with those events whose item is wanted."""
    rows, positions = full.flat()
    keep = wanted[full.items[positions]]
    kept = positions[keep]
    stop = np.cumsum(np.bincount(rows[keep], minlength=len(full)))
    return replace(
        full,
        items=full.items[kept],
        times=full.times[kept],
        ratings=full.ratings[kept],
        weights=full.weights[kept],
        kinds=None if full.kinds is None else full.kinds[kept],
        start=np.concatenate([[0], stop[:-1]]),
        stop=stop,
    )


def _unseen(warm: Sequences, cold: Sequences, candidates: np.ndarray) -> Queries:
    user = np.flatnonzero((warm.lengths > 0) & (cold.lengths > 0))
    return Queries(user, history=warm[user], target=cold[user], candidates=candidates)


def _without_n(split: Callable[..., Split]) -> Callable[..., Split]:
    """Let a split that holds out no fixed number of events be called like the others."""
    return lambda data, *, n=10, seed=0: split(data, seed=seed)


SPLITS: Registry[Callable[..., Split]] = Registry("split")
"""Name to a function ``(data, *, n, seed)``; only ``leave-last-n`` reads ``n``."""

SPLITS.add("leave-one-out", _without_n(leave_one_out))
SPLITS.add("leave-last-n", leave_last_n)
SPLITS.add("temporal", _without_n(temporal_split))
SPLITS.add("cold-items", _without_n(cold_item_split))
