"""Who was pushed, and by whom: the exposure of an item, and fake users told from real ones by their vectors.

See: chapter 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score

from recsys_cl.errors import InputError

BLOCK = 1_024
"""Users whose similarities to all others are in memory at once."""


def exposure(recommended: np.ndarray, item: int) -> float:
    """Share of the lists that show an item: what a seller attacks for.

    Args:
        recommended: ``(queries, k)`` item numbers.
        item: Number of the item.

    Raises:
        InputError: If there are no lists.

    >>> exposure(np.array([[3, 1], [2, 3], [0, 1], [1, 2]]), 3)
    0.5
    """
    if len(recommended) == 0:
        raise InputError("there are no lists to look for the item in; give (queries, k) item numbers")
    return float((recommended == item).any(axis=1).mean())


def detect(vectors: np.ndarray, share: float) -> np.ndarray:
    r"""How alike each user is to the users nearest to them: fake users, made by one recipe, are unusually alike.

    .. math:: a_i = \frac{1}{m} \sum_{j \in \mathcal N_m(i)} \cos(z_i - \bar z,\, z_j - \bar z),
        \qquad m = \max(1, \operatorname{round}(\rho n))

    with the mean vector :math:`\bar z`, which all share and which says nothing about anybody, and the m nearest other
    users :math:`\mathcal N_m`.

    Args:
        vectors: ``(n_users, dim)`` vectors that a recommender gives to users, or any other profile.
        share: :math:`\rho`, the share of fake users to look for, in (0, 1): a group of this size stands out.

    Returns:
        ``(n_users,)`` scores in [-1, 1]; the greater, the more suspicious.

    Raises:
        InputError: If the share is out of range, there are fewer than 2 users, or a value is not finite.

    See: chapter 9.
    """
    if not 0 < share < 1:
        raise InputError(f"share={share} is out of range; give the share of fake users to look for, between 0 and 1")
    if vectors.ndim != 2 or len(vectors) < 2 or not np.isfinite(vectors).all():
        raise InputError(f"vectors of shape {vectors.shape}; give finite (n_users, dim) with 2 users or more")
    m = max(1, round(share * len(vectors)))
    centred = vectors - vectors.mean(0)  # (U, d)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)  # (U, d)
    scores = []
    for start in range(0, len(unit), BLOCK):
        cosine = unit[start : start + BLOCK] @ unit.T  # (B, U)
        own = np.arange(len(cosine))
        cosine[own, start + own] = -np.inf
        scores.append(np.partition(cosine, -m, axis=1)[:, -m:].mean(1))  # (B,)
    return np.concatenate(scores)


@dataclass(frozen=True)
class Detection:
    """How well scores tell injected users from real ones.

    Attributes:
        average_precision: Over all thresholds; the share of injected users is the level of chance.
        precision: Share of the flagged users that were injected.
        recall: Share of the injected users that were flagged.
    """

    average_precision: float
    precision: float
    recall: float


def precision_recall(scores: np.ndarray, injected: np.ndarray, *, flagged: int | None = None) -> Detection:
    """Flag the users with the greatest scores, and count who was injected.

    Args:
        scores: ``(n_users,)`` suspicion, for instance :func:`detect`.
        injected: ``(n_users,)``, true for those who were.
        flagged: Number of users to flag; by default as many as were injected, where precision and recall are equal.
            Between equal scores the count is what a random order gives on average.

    Raises:
        InputError: If the lengths differ, a score is not finite, nobody or everybody was injected, or the number
            flagged is out of range.

    See: chapter 9.

    >>> precision_recall(np.array([0.9, 0.8, 0.1, 0.7]), np.array([True, False, False, True]))
    Detection(average_precision=0.8333333333333333, precision=0.5, recall=0.5)
    """
    if scores.shape != injected.shape or scores.ndim != 1 or not np.isfinite(scores).all():
        raise InputError(f"scores {scores.shape} for {injected.shape} users; give one finite score per user")
    n = int(injected.sum())
    if not 0 < n < len(injected):
        raise InputError(f"{n} of {len(injected)} users were injected; detection needs users of both kinds")
    flagged = n if flagged is None else flagged
    if not 1 <= flagged <= len(scores):
        raise InputError(f"flagged={flagged} users; give 1 to {len(scores)}")
    least = np.sort(scores)[-flagged]
    above, level = scores > least, scores == least
    hits = injected[above].sum() + injected[level].mean() * (flagged - above.sum())
    return Detection(float(average_precision_score(injected, scores)), float(hits / flagged), float(hits / n))
