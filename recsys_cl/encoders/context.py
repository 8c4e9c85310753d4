"""What surrounds an event, as vectors: time since the last one, hour, rating, event type, who acts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError

GAPS, HOURS, RATINGS = 32, 24, 21


def gap_numbers(seconds: np.ndarray) -> np.ndarray:
    """Time since the event before, on a scale of powers of 2: 0 within the same second, 17 for a day.

    >>> gap_numbers(np.array([0, 1, 3, 86_400])).tolist()
    [0, 1, 2, 17]
    """
    return np.clip(np.ceil(np.log2(np.maximum(seconds, 0) + 1)), 0, GAPS - 1).astype(np.int64)


def _gap(log: Sequences, rows: np.ndarray, event: np.ndarray) -> np.ndarray:
    before = np.maximum(event - 1, log.start[rows])  # (T,), the first event of a history has no gap
    return gap_numbers(log.times[event] - log.times[before])


def _hour(log: Sequences, rows: np.ndarray, event: np.ndarray) -> np.ndarray:
    return (log.times[event] // 3600 % HOURS).astype(np.int64)


def _rating(log: Sequences, rows: np.ndarray, event: np.ndarray) -> np.ndarray:
    return np.clip(np.round(2 * log.ratings[event]), 0, RATINGS - 1).astype(np.int64)


def _kind(log: Sequences, rows: np.ndarray, event: np.ndarray) -> np.ndarray:
    return np.zeros(len(event), dtype=np.int64) if log.kinds is None else log.kinds[event]


FEATURES: Mapping[str, Callable[[Sequences, np.ndarray, np.ndarray], np.ndarray]] = {
    "gap": _gap,
    "hour": _hour,
    "rating": _rating,
    "kind": _kind,
}
"""Features of events by name: log, row and place of each event to whole numbers ``(T,)``."""


def feature_names(text: str) -> list[str]:
    """The features of a config, such as ``"gap+hour"``; ``"user"`` stands for the user's attributes.

    Raises:
        InputError: If one is unknown.
    """
    names = [name.strip() for name in text.split("+") if name.strip()]
    for name in names:
        if name not in (*FEATURES, "user"):
            raise InputError(f"no context feature {name!r}; valid names are {', '.join([*FEATURES, 'user'])}")
    return names


def event_features(log: Sequences, rows: np.ndarray, event: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Whole numbers of events.

    Args:
        log: Histories.
        rows: ``(T,)`` history of each event.
        event: ``(T,)`` its place in the log.
        names: Features out of :data:`FEATURES`, in the order of the columns; others are passed over.

    Returns:
        ``(T, features)``.
    """
    columns = [FEATURES[name](log, rows, event) for name in names if name in FEATURES]
    return np.stack(columns, axis=1) if columns else np.zeros((len(event), 0), dtype=np.int64)  # (T, F)


class Context(nn.Module):
    r"""Vectors to add to the events' items: :math:`c_t = \sum_f E_f[x_{tf}] + A a_u`, zero before training.

    Args:
        names: Features, as :func:`feature_names` gives them.
        n_kinds: Number of event types.
        n_attributes: Width of the user attributes.
        dim: Width of the vectors.

    Raises:
        InputError: If event types or user attributes are asked for and the data has none.

    See: chapter 7.
    """

    def __init__(self, names: Sequence[str], *, n_kinds: int, n_attributes: int, dim: int) -> None:
        super().__init__()
        if ("kind" in names and n_kinds == 0) or ("user" in names and n_attributes == 0):
            raise InputError(
                f"context={'+'.join(names)!r} on data with {n_kinds} event types and {n_attributes} user attributes; "
                "leave out what is not there"
            )
        sizes = {"gap": GAPS, "hour": HOURS, "rating": RATINGS, "kind": n_kinds}
        self.tables = nn.ModuleList(nn.Embedding(sizes[name], dim) for name in names if name in FEATURES)
        self.attributes = nn.Linear(n_attributes, dim, bias=False) if "user" in names else None
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, features: Tensor, attributes: Tensor | None, lengths: Tensor) -> Tensor:
        """Vectors of the events of a ragged batch.

        Args:
            features: ``(T, F)`` of :func:`event_features`.
            attributes: ``(B, a)``, or ``None`` for people of whom nothing is known: all at the mean.
            lengths: ``(B,)``.

        Returns:
            ``(T, dim)``.
        """
        parts = [table(column) for table, column in zip(self.tables, features.T, strict=True)]  # (T, d) each
        if self.attributes is not None and attributes is not None:
            parts.append(self.attributes(attributes).repeat_interleave(lengths, dim=0))  # (T, d)
        return torch.stack(parts).sum(0) if parts else features.new_zeros(len(features), 1, dtype=torch.float32)
