"""Rating and click prediction metrics: RMSE, MAE, AUC, log loss and calibration error; evaluation of rating predictors.

See: chapter 2.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from recsys_cl.data import Queries, Sequences
from recsys_cl.errors import InputError
from recsys_cl.evaluation.evaluate import Evaluation, blocks


def rmse(prediction: np.ndarray, rating: np.ndarray) -> float:
    """Root mean squared error, in units of the rating.

    >>> rmse(np.array([3.0, 5.0]), np.array([4.0, 4.0]))
    1.0
    """
    return float(np.sqrt(np.mean((prediction - rating) ** 2)))


def mae(prediction: np.ndarray, rating: np.ndarray) -> float:
    """Mean absolute error, in units of the rating."""
    return float(np.mean(np.abs(prediction - rating)))


def accuracy(probability: np.ndarray, click: np.ndarray, *, threshold: float = 0.5) -> float:
    """Accuracy: share of clicks and non-clicks on the correct side of the threshold."""
    return float(np.mean((probability >= threshold) == (click == 1)))


def auc(score: np.ndarray, click: np.ndarray) -> float:
    r"""AUC: probability that a click scores higher than a non-click, ties counting half.

    .. math:: \frac{\sum_{i: y_i = 1} r_i - n_1 (n_1 + 1) / 2}{n_1\, n_0}

    with mid-ranks :math:`r_i` (Mann and Whitney 1947).

    Raises:
        InputError: If there are only clicks or only non-clicks.

    >>> auc(np.array([0.9, 0.4, 0.4]), np.array([1, 1, 0]))
    0.75
    """
    positive = click == 1
    n_1, n_0 = int(positive.sum()), int((~positive).sum())
    if n_1 == 0 or n_0 == 0:
        raise InputError(f"AUC of {n_1} clicks and {n_0} non-clicks is undefined; give at least one of each")
    return float((rankdata(score)[positive].sum() - n_1 * (n_1 + 1) / 2) / (n_1 * n_0))


def log_loss(logit: np.ndarray, click: np.ndarray) -> float:
    r"""Mean negative log-likelihood in nats, from logits: :math:`\text{softplus}(x) - y x`.

    >>> round(log_loss(np.array([0.0]), np.array([1])), 4)
    0.6931
    """
    return float(np.mean(np.logaddexp(0, logit) - click * logit))


def calibration_error(probability: np.ndarray, click: np.ndarray, *, bins: int = 10) -> float:
    """Expected calibration error: mean gap between predicted and observed click rate over equal-width bins.

    See:
        Naeini, Cooper and Hauskrecht (2015), https://doi.org/10.1609/aaai.v29i1.9602.
    """
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=probability - click, minlength=bins)
    return float(np.abs(gap).sum() / len(probability))


SQUARED_ERROR = "squared error"
"""Name of the metric that :func:`evaluate_ratings` computes."""


class RatingPredictor(Protocol):
    """Anything that predicts ratings."""

    def predict_ratings(self, histories: Sequences) -> Tensor:
        """Expected rating of every item, ``(batch, n_items)``."""
        ...


def evaluate_ratings(predictor: RatingPredictor, queries: Queries) -> Evaluation:
    """Squared error of the predicted rating of every target.

    Args:
        predictor: Anything with ``predict_ratings(histories) -> (batch, n_items)``.
        queries: Evaluation queries: ``split.validation`` or ``split.test``.

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
