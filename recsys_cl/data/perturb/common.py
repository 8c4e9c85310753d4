"""Log rewriting: replace the events of a split in training and query histories alike, and keep its targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys_cl.data.sequences import Sequences
from recsys_cl.data.splits import Queries, Split
from recsys_cl.errors import InputError

Columns = dict[str, np.ndarray]

NAMES = ("items", "times", "ratings", "weights", "event_types")


def columns_of(split: Split) -> Columns:
    """Columns of the shared log that the training sequences and all query histories are views into.

    Raises:
        InputError: If training and the histories are views into different logs, or there are no training events.
    """
    train = split.train
    if not train.lengths.any():
        raise InputError(f"the split of {split.data.name} has no training events to rewrite; use another split")
    for name, queries in (("validation", split.validation), ("test", split.test)):
        log = queries.history
        if not (np.array_equal(log.items, train.items) and np.array_equal(log.times, train.times)):
            raise InputError(
                f"the {name} histories are views into another log than the training sequences, so a change to one "
                "does not reach the other; build the split with leave_last_n or another protocol"
            )
    return {name: getattr(train, name) for name in NAMES if getattr(train, name) is not None}


def replace_log(
    split: Split, columns: Columns, moved: np.ndarray, *, train: Sequences | None = None, note: str
) -> Split:
    """Put a new log under a split.

    Args:
        split: The split.
        columns: Columns of the new log.
        moved: ``(events + 1,)`` new log position of each boundary between events.
        train: Training sequences over the new log; by default those of the split, moved.
        note: Description of the change. It is appended to the name of the protocol, so neither a table nor a
            checkpoint mistakes the new split for the old one.

    Returns:
        A split with the same targets and data set.
    """

    def view(sequences: Sequences) -> Sequences:
        return replace(sequences, **columns, start=moved[sequences.start], stop=moved[sequences.stop])  # type: ignore[arg-type]

    def rewritten(queries: Queries) -> Queries:
        return replace(queries, history=view(queries.history))

    return replace(
        split,
        protocol=f"{split.protocol} + {note}",
        train=view(split.train) if train is None else train,
        validation=rewritten(split.validation),
        test=rewritten(split.test),
    )


def unseen_candidates(split: Split) -> np.ndarray:
    """Numbers of the cold items that the queries rank, which training must not contain; empty for most protocols."""
    cold = [queries.candidates for queries in (split.validation, split.test) if queries.candidates is not None]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *cold]))
