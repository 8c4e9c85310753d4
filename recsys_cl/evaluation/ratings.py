"""How far predicted ratings are from the ratings that were given."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor

from recsys_cl.data import Queries, Sequences
from recsys_cl.errors import InputError
from recsys_cl.evaluation.evaluate import Evaluation
from recsys_cl.evaluation.ranking import blocks

SQUARED_ERROR = "squared error"
"""Name of the metric of predicted ratings."""


class RatingPredictor(Protocol):
    """Whatever predicts ratings."""

    def predict_ratings(self, histories: Sequences) -> Tensor:
        """Expected rating of every item, ``(batch, n_items)``."""
        ...


def evaluate_ratings(predictor: RatingPredictor, queries: Queries) -> Evaluation:
    """Squared error of the predicted rating of every target.

    Args:
        predictor: Anything with ``predict_ratings(histories) -> (batch, n_items)``.
        queries: ``split.validation`` or ``split.test``.

    Returns:
        One row per target, in the order of the queries; the metric is :data:`SQUARED_ERROR`.

    Raises:
        InputError: If there are no queries.

    See: chapter 5.
    """
    if len(queries) == 0:
        raise InputError("there are no queries to evaluate; the users have too few events for this split")
    width = predictor.predict_ratings(queries.history[:1]).shape[1]
    errors = []
    for block in blocks(len(queries), width):
        target = queries[block].target
        rows, positions = target.flat()
        predicted = predictor.predict_ratings(queries[block].history)  # (B, N)
        errors.append(predicted.cpu().numpy()[rows, target.items[positions]] - target.ratings[positions])
    user = queries.user[queries.target.flat()[0]]
    return Evaluation(user, {SQUARED_ERROR: np.concatenate(errors).astype(np.float64) ** 2})


def root_mean_square(evaluation: Evaluation) -> tuple[float, float, float]:
    r"""RMSE and its 95 % interval over users: :math:`\sqrt{\cdot}` of the mean squared error and its interval.

    >>> errors = Evaluation(np.array([0, 1]), {SQUARED_ERROR: np.array([4.0, 4.0])})
    >>> root_mean_square(errors)
    (2.0, 2.0, 2.0)
    """
    low, high = np.sqrt(evaluation.interval(SQUARED_ERROR))
    return float(np.sqrt(evaluation.mean(SQUARED_ERROR))), float(low), float(high)
