"""Interaction data: validated event, item and user tables, with ids mapped once to contiguous integers.

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
"""Default weight of each event type: the further down the funnel, the heavier."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """A validated data set; build one with :meth:`Interactions.from_tables` or one of the loaders.

    Attributes:
        name: Name of the data set in tables and model cards.
        items: Arrow table ``item_id, title, text`` and further attributes; row i is item number i.
        user_ids: ``(n_users,)`` original user ids; entry u belongs to user number u.
        item_ids: ``(n_items,)`` original item ids; entry i belongs to item number i.
        user: ``(n_events,)`` user numbers, in the order of the input rows.
        item: ``(n_events,)`` item numbers.
        rating: ``(n_events,)`` ratings; 1 if the data has none.
        timestamp: ``(n_events,)`` timestamps in seconds since 1970.
        weight: ``(n_events,)`` weights of the event types; 1 if the data has no event types.
        event: ``(n_events,)`` names of the event types, or ``None``.
        user_attributes: ``(n_users, features)`` standardised numeric and centred one-hot attributes, or ``None``.

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

        Users are numbered by first appearance in ``events``; items by their row in ``items`` or, without that table,
        by first appearance. Renaming ids therefore changes no result.

        Args:
            events: Columns ``user_id``, ``item_id``, ``timestamp`` (seconds since 1970; milliseconds or smaller
                units, detected from the magnitude; or anything that pandas reads as a date), and optionally
                ``rating`` and ``event``. The rows may come in any order.
            items: Columns ``item_id`` and optionally ``title``, ``text`` and attributes. A missing title
                becomes the id; a missing text becomes the title.
            users: Column ``user_id`` and attributes.
            name: Name of the data set.
            event_weights: Weight of each event type.

        Raises:
            InputError: If a table is not valid; the message names the row, the value and the remedy.

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
        """Number of items in the catalogue, including those without interactions."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def fingerprint(self) -> str:
        """Hash of the events (user, item, time, weight) and of the catalogue."""
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
        """Text of each item, as given to a language model."""
        return list(self.items["text"])

    @property
    def tied_share(self) -> float:
        """Share of the interactions that share their timestamp with another interaction of the same user."""
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
        """Keep the positives, then the users who have enough of them; the catalogue stays complete.

        Args:
            min_rating: Minimum rating of a positive.
            events: Event types that count as positives; ``None`` keeps all.
            min_events: Minimum number of positives per user; users with fewer are dropped.

        Raises:
            InputError: If nothing is left, or ``events`` is given for data without event types.
        """
        keep = np.ones(len(self), dtype=bool)
        if min_rating is not None:
            keep &= self.rating >= min_rating
        if events is not None:
            if self.event is None:
                raise InputError(
                    f"event types {sorted(events)} requested of {self.name}, which has no event column; omit them"
                )
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
        """Each user's items in chronological order, ties broken by a seeded shuffle of the rows.

        An item appears once per user: at its first event, with the type of its heaviest event, because recommending
        an item again is no discovery. The shuffle depends on the order of the rows and the seed, never on ids.

        Args:
            seed: Seed of the order within ties.

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
            event_types=None if self.event is None else self._type_numbers(self.event[heaviest]),
        )

    @property
    def event_types(self) -> list[str]:
        """Names of the event types, ordered by their numbers in ``Sequences.event_types``; empty without types."""
        return [] if self.event is None else sorted(set(map(str, self.event)))

    def _type_numbers(self, event: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.event_types, event.astype(str))
