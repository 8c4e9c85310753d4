"""Positive pairs from observed events: another item of the same user, or another user of the same item."""

from __future__ import annotations

import numpy as np

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform


class OtherItemOfUser:
    r"""Another item of the same user, at most ``window`` events away.

    .. math:: P(e' \mid e) = 1 / |W_e|, \qquad
        W_e = \{e' : u_{e'} = u_e,\; |e' - e| \le w,\; i_{e'} \ne i_e\}

    Args:
        sequences: Training sequences; row ``u`` is user ``u``, and no event is in two rows.
        window: :math:`w`, in events of the user; ``None`` for the whole history.
        seed: Seed of the draws.

    Raises:
        InputError: If there are no events, one is in two rows, or the window is below 1.

    See: chapter 4.

    >>> sampler = OtherItemOfUser(Sequences.from_lists([[5, 5, 7], [9]]), window=1)
    >>> sampler.eligible(np.arange(4)).tolist()  # the first 5 has only the other 5 next to it
    [False, True, True, False]
    >>> sampler.sample(0, np.arange(4)).tolist()
    [-1, 2, 1, -1]
    """

    def __init__(self, sequences: Sequences, window: int | None = None, seed: int = 0) -> None:
        if window is not None and window < 1:
            raise InputError(f"window={window} reaches no other event; give 1 or more, or None for the whole history")
        self.sequences, self.window, self.seed = sequences, window, seed
        self.row, positions = rows_by_event(sequences)
        order = positions[np.lexsort((positions, sequences.items[positions], self.row[positions]))]
        pair = np.cumsum(_starts(self.row[order], sequences.items[order])) - 1  # (E,) number of its (user, item)
        opening = np.searchsorted(pair, pair)  # (E,) index of the pair's first event in this order
        self.pair, self.opening = np.zeros((2, len(self.row)), dtype=np.int64)
        self.pair[order], self.opening[order] = pair, opening
        self.where = pair * len(self.row) + order  # (E,) sorted by pair, then by position
        self.where_unskipped = self.where - (
            np.arange(len(order)) - opening
        )  # (E,) sorted, minus the number of predecessors in the pair

    def eligible(self, event: np.ndarray) -> np.ndarray:
        """True where an event has a positive, ``(batch,)``."""
        low, high, first, last = self._window(event)
        return high - low > last - first

    def sample(self, epoch: int | np.ndarray, event: np.ndarray) -> np.ndarray:
        """Draw a positive for each event.

        Args:
            epoch: One epoch, or ``(batch,)``.
            event: ``(batch,)`` positions in the log.

        Returns:
            ``(batch,)`` positions in the log; −1 where there is no positive.

        Raises:
            InputError: If an event is not a position in the log.
        """
        low, high, first, last = self._window(event)
        choices = high - low - (last - first)  # (B,)
        draw = below(choices, self.seed, "other-item", epoch, event)  # (B,) counts those that are not skipped
        reach = self.pair[event] * len(self.row) + low + draw - (first - self.opening[event])  # (B,)
        skipped = np.searchsorted(self.where_unskipped, reach, side="right") - first  # (B,)
        return np.where(choices > 0, low + draw + skipped, -1)

    def _window(self, event: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The window ``[low, high)`` of the log, and the part ``[first, last)`` of ``where`` with the same item."""
        row = self.row[checked_events(event, len(self.row))]
        low = np.where(row >= 0, self.sequences.start[row], event)
        high = np.where(row >= 0, self.sequences.stop[row], event)
        if self.window is not None:
            low, high = np.maximum(low, event - self.window), np.minimum(high, event + self.window + 1)
        base = self.pair[event] * len(self.row)
        return low, high, np.searchsorted(self.where, base + low), np.searchsorted(self.where, base + high)


class OtherUserOfItem:
    r"""Another user of the same item: an event of another user with the same item.

    .. math:: P(e' \mid e) = 1 / |\{e' : i_{e'} = i_e,\; u_{e'} \ne u_e\}|

    Args:
        sequences: Training sequences; row ``u`` is user ``u``, and no event is in two rows.
        n_items: Size of the catalogue.
        seed: Seed of the draws.

    Raises:
        InputError: If there are no events, one is in two rows, or an item is not in the catalogue.

    See: chapter 4.

    >>> sampler = OtherUserOfItem(Sequences.from_lists([[5, 7], [5], [6]]), n_items=8)
    >>> sampler.sample(0, np.arange(4)).tolist()
    [2, -1, 0, -1]
    """

    def __init__(self, sequences: Sequences, n_items: int, seed: int = 0) -> None:
        self.seed = seed
        self.row, positions = rows_by_event(sequences)
        check_items(sequences.items[positions], n_items)
        item = sequences.items[positions]
        self.order = positions[np.lexsort((positions, self.row[positions], item))]
        row, item = self.row[self.order], sequences.items[self.order]
        self.part_of_item = self._parts(_starts(item))
        self.part_of_pair = self._parts(_starts(item, row))

    def eligible(self, event: np.ndarray) -> np.ndarray:
        """True where an event has a positive, ``(batch,)``."""
        return self._choices(event) > 0

    def sample(self, epoch: int | np.ndarray, event: np.ndarray) -> np.ndarray:
        """Draw a positive for each event.

        Args:
            epoch: One epoch, or ``(batch,)``.
            event: ``(batch,)`` positions in the log.

        Returns:
            ``(batch,)`` positions in the log; −1 where there is no positive.

        Raises:
            InputError: If an event is not a position in the log.
        """
        choices = self._choices(event)
        place = self.part_of_item[0, event] + below(choices, self.seed, "other-user", epoch, event)  # (B,)
        first, last = self.part_of_pair[:, event]
        place = np.where(place < first, place, place + last - first)  # skip the user's own events
        return np.where(choices > 0, self.order[np.where(choices > 0, place, 0)], -1)

    def _choices(self, event: np.ndarray) -> np.ndarray:
        event = checked_events(event, len(self.row))
        return np.diff(self.part_of_item[:, event], axis=0)[0] - np.diff(self.part_of_pair[:, event], axis=0)[0]

    def _parts(self, starts: np.ndarray) -> np.ndarray:
        """Range ``[first, last)`` of each event's group in the sorted order, ``(2, events)``; (0, 0) if it has none."""
        bounds = np.append(np.flatnonzero(starts), len(starts))
        group = np.cumsum(starts) - 1
        parts = np.zeros((2, len(self.row)), dtype=np.int64)
        parts[:, self.order] = bounds[group], bounds[group + 1]
        return parts


def _starts(*sorted_columns: np.ndarray) -> np.ndarray:
    """True where a new group of equal values starts."""
    return np.append(True, np.any([np.diff(column) != 0 for column in sorted_columns], axis=0))


def rows_by_event(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Row of each event of the log ``(log,)``, −1 if it is in no row, and the positions of the events in a row.

    Raises:
        InputError: If there are no events, or one is in two rows.
    """
    rows, positions = sequences.flat()
    if len(positions) == 0:
        raise InputError(f"{len(sequences)} sequences without any event have no positives; give training sequences")
    row = np.full(len(sequences.items), -1)
    row[positions] = rows
    if (row >= 0).sum() < len(positions):
        raise InputError("an event is in two sequences, so its user is ambiguous; give each user one sequence")
    return row, positions


def check_items(items: np.ndarray, n_items: int) -> None:
    """Check that item numbers are in the catalogue.

    Raises:
        InputError: If one is not.
    """
    if items.min() < 0 or items.max() >= n_items:
        raise InputError(f"items are {items.min()} to {items.max()}; give 0 to n_items - 1 = {n_items - 1}")


def checked_events(event: np.ndarray, n_events: int) -> np.ndarray:
    """Return the events after checking that they are positions in the log.

    Raises:
        InputError: If they are not.
    """
    if event.ndim != 1 or event.dtype.kind not in "iu":
        raise InputError(f"event has shape {event.shape} and dtype {event.dtype}; give (batch,) positions in the log")
    if len(event) and not 0 <= event.min() <= event.max() < n_events:
        raise InputError(f"events are {event.min()} to {event.max()}; give positions in the log, 0 to {n_events - 1}")
    return event


def below(n: np.ndarray, *counters: int | str | np.ndarray) -> np.ndarray:
    """Random integers from 0 to n − 1, one for each n; 0 where n is 0."""
    return (counter_uniform(*counters) * n).astype(np.int64)
