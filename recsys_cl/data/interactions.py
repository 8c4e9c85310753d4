"""Who did what with which item and when: validated tables, and ids mapped once to contiguous numbers.

See: chapter 2.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from datasets import Dataset

from recsys_cl.data.sequences import Sequences
from recsys_cl.data.validation import (
    attributes_of,
    described_items,
    event_weights_of,
    ratings_of,
    require_columns,
    require_no_missing,
    require_unique,
    same_type,
    show,
    timestamps_in_seconds,
)
from recsys_cl.errors import InputError

EVENT_WEIGHTS: Mapping[str, float] = {
    "view": 1.0,
    "click": 2.0,
    "save": 3.0,
    "like": 3.0,
    "cart": 4.0,
    "purchase": 5.0,
}
"""Weight of an event type unless the caller gives others: the further down the funnel, the heavier."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """A validated data set; build one with :meth:`Interactions.from_tables` or one of the loaders.

    Attributes:
        name: What tables and cards call the data set.
        items: Arrow table ``item_id, title, text`` and further attributes; its order numbers the items.
        user_ids: ``(n_users,)`` ids as the caller wrote them; their order numbers the users.
        item_ids: ``(n_items,)`` likewise.
        user: ``(n_events,)`` user numbers, in the order of the rows read.
        item: ``(n_events,)`` item numbers.
        rating: ``(n_events,)`` ratings; 1 where the data has none.
        timestamp: ``(n_events,)`` seconds.
        weight: ``(n_events,)`` weight of the event type; 1 where the data has no types.
        event: ``(n_events,)`` event types, or ``None``.
        user_attributes: ``(n_users, features)`` standardised numbers and centred one-hot categories, or ``None``.

    See: chapter 2.
    """

    name: str
    items: Dataset
    user_ids: np.ndarray
    item_ids: np.ndarray
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray
    weight: np.ndarray
    event: np.ndarray | None = None
    user_attributes: np.ndarray | None = None

    @classmethod
    def from_tables(
        cls,
        events: pd.DataFrame,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
        *,
        name: str = "interactions",
        event_weights: Mapping[str, float] = EVENT_WEIGHTS,
    ) -> Interactions:
        """Validate the tables and number users and items.

        Users are numbered by first appearance in ``events``; items by their row in ``items``, or by first
        appearance where there is no such table: renaming ids changes no result.

        Args:
            events: Columns ``user_id``, ``item_id``, ``timestamp`` (seconds; milliseconds and smaller units, which
                their size gives away; or anything that pandas reads as a date), and optionally ``rating`` and
                ``event``. The rows may come in any order.
            items: Columns ``item_id`` and optionally ``title``, ``text`` and attributes. A missing title
                becomes the id; a missing text the title.
            users: Column ``user_id`` and attributes.
            name: Name of the data set.
            event_weights: Weight of each event type.

        Raises:
            InputError: Naming the row, the value and the remedy.

        >>> events = pd.DataFrame({"user_id": ["u", "u", "v"], "item_id": [7, 9, 7], "timestamp": [3, 1, 2]})
        >>> data = Interactions.from_tables(events)
        >>> data.n_users, data.n_items, data.item_ids.tolist()
        (2, 2, [7, 9])
        """
        require_columns(events, ["user_id", "item_id", "timestamp"], "interactions")
        if items is None:
            items = pd.DataFrame({"item_id": events["item_id"].unique()})
        require_columns(items, ["item_id"], "items")
        events, items = same_type(events, items, "item_id")
        if users is not None:
            require_columns(users, ["user_id"], "users")
            events, users = same_type(events, users, "user_id")
        require_no_missing(events, "user_id", "interactions")
        require_no_missing(events, "item_id", "interactions")
        require_no_missing(items, "item_id", "items")
        require_unique(items, "item_id", "items")

        timestamp = timestamps_in_seconds(events["timestamp"])
        rating = ratings_of(events)
        weight = event_weights_of(events, event_weights)
        catalogue = pd.Index(items["item_id"])
        item = catalogue.get_indexer(events["item_id"])
        if (item < 0).any():
            row = int(np.argmax(item < 0))
            raise InputError(
                f"interactions row {row + 1}: item_id {show(events['item_id'].iloc[row])} is not in the items "
                f"table ({int((item < 0).sum())} such rows); add the item or remove these rows"
            )
        user, user_ids = pd.factorize(events["user_id"])
        event = events["event"].to_numpy() if "event" in events else None

        key = pd.DataFrame({"user": user, "item": item, "time": timestamp, "event": 0 if event is None else event})
        again = key.duplicated().to_numpy()
        if again.any():
            warnings.warn(
                f"{int(again.sum())} exact duplicates among the interactions dropped, the first at row "
                f"{int(np.argmax(again)) + 1}",
                stacklevel=2,
            )
        keep = ~again
        return cls(
            name=name,
            items=described_items(items),
            user_ids=np.asarray(user_ids),
            item_ids=catalogue.to_numpy(),
            user=user[keep].astype(np.int64),
            item=item[keep].astype(np.int64),
            rating=rating[keep],
            timestamp=timestamp[keep],
            weight=weight[keep],
            event=None if event is None else event[keep],
            user_attributes=None if users is None else attributes_of(users, user_ids),
        )

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue, those without interactions included."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def fingerprint(self) -> str:
        """Digest of who did what when, and of the catalogue."""
        digest = hashlib.sha256("\n".join(map(str, self.item_ids)).encode())
        for column in (self.user, self.item, self.timestamp, self.weight):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:16]

    @property
    def events(self) -> Dataset:
        """The interactions as an Arrow table ``user_id, item_id, rating, timestamp[, event]``."""
        columns = {
            "user_id": self.user_ids[self.user],
            "item_id": self.item_ids[self.item],
            "rating": self.rating,
            "timestamp": self.timestamp,
        }
        if self.event is not None:
            columns["event"] = self.event
        return Dataset.from_pandas(pd.DataFrame(columns), preserve_index=False)

    @property
    def titles(self) -> list[str]:
        """Title of each item."""
        return list(self.items["title"])

    @property
    def texts(self) -> list[str]:
        """Text of each item, as a language model reads it."""
        return list(self.items["text"])

    @property
    def tied_share(self) -> float:
        """Share of the interactions that have their timestamp in common with another of the same user."""
        if len(self) == 0:
            return 0.0
        tied = pd.DataFrame({"user": self.user, "time": self.timestamp}).duplicated(keep=False)
        return float(tied.mean())

    def filter(
        self,
        *,
        min_rating: float | None = None,
        events: set[str] | None = None,
        min_events: int = 1,
    ) -> Interactions:
        """Keep what counts as a positive, then the users who have enough of it; the catalogue stays whole.

        Args:
            min_rating: Least rating of a positive.
            events: Event types of a positive.
            min_events: Least number of positives of a user; the other users are dropped.

        Raises:
            InputError: If nothing is left, or if there are no event types.
        """
        keep = np.ones(len(self), dtype=bool)
        if min_rating is not None:
            keep &= self.rating >= min_rating
        if events is not None:
            if self.event is None:
                raise InputError(f"event types {sorted(events)} asked of {self.name}, which has no event column")
            keep &= np.isin(self.event.astype(str), list(events))
        counts = np.bincount(self.user[keep], minlength=self.n_users)
        keep &= counts[self.user] >= min_events
        if not keep.any():
            raise InputError(
                f"no interaction of {self.name} is left with min_rating={min_rating}, events={events}, "
                f"min_events={min_events}; lower them"
            )
        left, user = np.unique(self.user[keep], return_inverse=True)
        return replace(
            self,
            user_ids=self.user_ids[left],
            user=user,
            item=self.item[keep],
            rating=self.rating[keep],
            timestamp=self.timestamp[keep],
            weight=self.weight[keep],
            event=None if self.event is None else self.event[keep],
            user_attributes=None if self.user_attributes is None else self.user_attributes[left],
        )

    def sequences(self, *, seed: int) -> Sequences:
        """Each user's items in order of time, ties broken by a seeded shuffle of the rows.

        An item counts once per user, at its first event and with the type of its heaviest: whatever a user
        already had is no discovery. The shuffle depends on the rows' order and the seed, never on ids.

        Args:
            seed: Seed of the shuffle within ties.

        Returns:
            One sequence per user, in the order of ``user_ids``.
        """
        shuffle = np.random.default_rng(seed).permutation(len(self))
        order = np.lexsort((shuffle, self.timestamp, self.user))
        user, item = self.user[order], self.item[order]
        pair = pd.Series(user * self.n_items + item)
        first = ~pair.duplicated().to_numpy()
        heaviest = order
        if not first.all():
            by_pair = pd.Series(self.weight[order]).groupby(pair.to_numpy())
            heaviest = order[by_pair.transform("idxmax").to_numpy()]
        order, heaviest, user = order[first], heaviest[first], user[first]
        stop = np.cumsum(np.bincount(user, minlength=self.n_users))
        return Sequences(
            items=self.item[order],
            times=self.timestamp[order],
            ratings=self.rating[order],
            weights=self.weight[heaviest],
            start=np.concatenate([[0], stop[:-1]]),
            stop=stop,
            attributes=self.user_attributes,
            kinds=None if self.event is None else np.searchsorted(self.event_types, self.event[heaviest].astype(str)),
        )

    @property
    def event_types(self) -> list[str]:
        """Names of the event types in order of their numbers in ``Sequences.kinds``; empty without types."""
        return [] if self.event is None else sorted(set(map(str, self.event)))
