"""A split over another log: training and the histories of queries rewritten alike, targets left as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys_cl.data.sequences import Sequences
from recsys_cl.data.splits import Queries, Split
from recsys_cl.errors import InputError

Columns = dict[str, np.ndarray]

NAMES = ("items", "times", "ratings", "weights", "kinds")


def columns_of(split: Split) -> Columns:
    """Columns of the one log that training and all histories are views into.

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
                f"the {name} histories are views into another log than the training sequences, so what is rewritten "
                "in one cannot be found in the other; build the split with leave_last_n or another protocol"
            )
    return {name: getattr(train, name) for name in NAMES if getattr(train, name) is not None}


def replace_log(
    split: Split, columns: Columns, moved: np.ndarray, *, train: Sequences | None = None, note: str
) -> Split:
    """The same split over a new log.

    Args:
        split: The split.
        columns: The new log.
        moved: ``(events + 1,)`` where each bound of a sequence has moved to.
        train: Training sequences over the new log, if they are not those of the split.
        note: What was done; it joins the name of the protocol, so that neither a table nor a checkpoint mistakes the
            new split for the old one.

    Returns:
        A split whose targets and data set are those of the given one.
    """

    def view(sequences: Sequences) -> Sequences:
        return replace(sequences, **columns, start=moved[sequences.start], stop=moved[sequences.stop])  # type: ignore[arg-type]

    def asked(queries: Queries) -> Queries:
        return replace(queries, history=view(queries.history))

    return replace(
        split,
        protocol=f"{split.protocol} + {note}",
        train=view(split.train) if train is None else train,
        validation=asked(split.validation),
        test=asked(split.test),
    )


def unseen_candidates(split: Split) -> np.ndarray:
    """Item numbers that a protocol keeps out of training because its queries ask for them; mostly none."""
    asked = [queries.candidates for queries in (split.validation, split.test) if queries.candidates is not None]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *asked]))
