"""What every sampler of positives shares: whose an event is, and numbers that belong to it."""

from __future__ import annotations

import numpy as np

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform

OTHER_ITEM, OTHER_USER, NEIGHBOUR = 16, 17, 18  # what a random number is for; training/examples.py has 0 and up


def rows_by_event(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Row of every event of the log, −1 where it is in none, ``(log,)``, and the positions that are in one.

    Raises:
        InputError: If there are none, or one is in two rows.
    """
    rows, positions = sequences.flat()
    if len(positions) == 0:
        raise InputError(f"{len(sequences)} sequences without any event have no positives; give training sequences")
    row = np.full(len(sequences.items), -1)
    row[positions] = rows
    if (row >= 0).sum() < len(positions):
        raise InputError("an event is in two sequences, so whose it is cannot be told; give each user one sequence")
    return row, positions


def check_items(items: np.ndarray, n_items: int) -> None:
    """Demand item numbers of the catalogue.

    Raises:
        InputError: If one is not.
    """
    if items.min() < 0 or items.max() >= n_items:
        raise InputError(f"items are {items.min()} to {items.max()}; give 0 to n_items - 1 = {n_items - 1}")


def checked_events(event: np.ndarray, n_events: int) -> np.ndarray:
    """The events, if they are positions in the log.

    Raises:
        InputError: If they are not.
    """
    if event.ndim != 1 or event.dtype.kind not in "iu":
        raise InputError(f"event has shape {event.shape} and dtype {event.dtype}; give (batch,) positions in the log")
    if len(event) and not 0 <= event.min() <= event.max() < n_events:
        raise InputError(f"events are {event.min()} to {event.max()}; give positions in the log, 0 to {n_events - 1}")
    return event


def below(n: np.ndarray, *counters: int | np.ndarray) -> np.ndarray:
    """A whole number from 0 to n − 1 for each n; 0 for 0."""
    return (counter_uniform(*counters) * n).astype(np.int64)
