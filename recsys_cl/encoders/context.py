"""Context embeddings of events: time since the previous event, hour, rating, event type and user attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError

GAPS, HOURS, RATINGS = 32, 24, 21


def gap_numbers(seconds: np.ndarray) -> np.ndarray:
    """Bin the time since the previous event by powers of 2: 0 within the same second, 17 for a day.

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


def _event_type(log: Sequences, rows: np.ndarray, event: np.ndarray) -> np.ndarray:
    return np.zeros(len(event), dtype=np.int64) if log.event_types is None else log.event_types[event]


FEATURES: Mapping[str, Callable[[Sequences, np.ndarray, np.ndarray], np.ndarray]] = {
    "gap": _gap,
    "hour": _hour,
    "rating": _rating,
    "event_type": _event_type,
}
"""Event features by name: functions from the log, row and log position of each event to bin numbers ``(T,)``."""


def feature_names(text: str) -> list[str]:
    """Parse the features of a config, such as ``"gap+hour"``; ``"user"`` stands for the user attributes.

    Raises:
        InputError: If a feature is unknown.
    """
    names = [name.strip() for name in text.split("+") if name.strip()]
    for name in names:
        if name not in (*FEATURES, "user"):
            raise InputError(f"no context feature {name!r}; valid names are {', '.join([*FEATURES, 'user'])}")
    return names


def event_features(log: Sequences, rows: np.ndarray, event: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Bin numbers of the features of events.

    Args:
        log: Histories.
        rows: ``(T,)`` row of each event in ``log``.
        event: ``(T,)`` log position of each event.
        names: Features in the order of the columns; names that are not in :data:`FEATURES` are skipped.

    Returns:
        ``(T, features)`` integers.
    """
    columns = [FEATURES[name](log, rows, event) for name in names if name in FEATURES]
    return np.stack(columns, axis=1) if columns else np.zeros((len(event), 0), dtype=np.int64)  # (T, F)


class Context(nn.Module):
    r"""Context embedding, added to the item vectors: :math:`c_t = \sum_f E_f[x_{tf}] + A a_u`, zero before training.

    Args:
        names: Feature names, as returned by :func:`feature_names`.
        n_event_types: Number of event types.
        n_attributes: Number of user attributes.
        dim: Width of the vectors.

    Raises:
        InputError: If ``names`` contains event types or user attributes that the data lacks.

    See: chapter 7.
    """

    def __init__(self, names: Sequence[str], *, n_event_types: int, n_attributes: int, dim: int) -> None:
        super().__init__()
        if ("event_type" in names and n_event_types == 0) or ("user" in names and n_attributes == 0):
            raise InputError(
                f"context={'+'.join(names)!r} on data with {n_event_types} event types and {n_attributes} user "
                "attributes; leave out what the data lacks"
            )
        sizes = {"gap": GAPS, "hour": HOURS, "rating": RATINGS, "event_type": n_event_types}
        self.tables = nn.ModuleList(nn.Embedding(sizes[name], dim) for name in names if name in FEATURES)
        self.attributes = nn.Linear(n_attributes, dim, bias=False) if "user" in names else None
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, features: Tensor, attributes: Tensor | None, lengths: Tensor) -> Tensor:
        """Context vectors of the events of a ragged batch.

        Args:
            features: ``(T, F)`` bin numbers from :func:`event_features`.
            attributes: ``(B, a)`` user attributes, or ``None`` if unknown, which stands for the average user.
            lengths: ``(B,)`` number of events of each row.

        Returns:
            ``(T, dim)``.
        """
        parts = [table(column) for table, column in zip(self.tables, features.T, strict=True)]  # (T, d) each
        if self.attributes is not None and attributes is not None:
            parts.append(self.attributes(attributes).repeat_interleave(lengths, dim=0))  # (T, d)
        return torch.stack(parts).sum(0) if parts else features.new_zeros(len(features), 1, dtype=torch.float32)
