"""Robustness metrics: retention under attack, robustness index, decision-boundary distance, shilling detection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.evaluation.evaluate import Evaluation

BLOCK = 1_024
"""Users whose distances to all items, or similarities to all users, are in memory at once."""


@dataclass(frozen=True)
class Retention:
    """Retention: the share of a metric that is left under attack.

    Attributes:
        value: Mean under attack divided by the clean mean.
        low: Lower end of the 95 % bootstrap interval of ``value``.
        high: Upper end of that interval.
    """

    value: float
    low: float
    high: float


def retention(
    clean: Evaluation, attacked: Evaluation, *, metric: str = "ndcg@10", samples: int = 2_000, seed: int = 0
) -> Retention:
    r"""Retention: the share :math:`\bar m_{\text{attacked}} / \bar m_{\text{clean}}` of a metric left under attack.

    The bootstrap resamples users and takes both means over the same users. Users who are hard to predict under attack
    mostly were before, so the interval is narrower than for two independent means. A sample with a clean metric of 0
    has no ratio and is left out.

    Args:
        clean: Evaluation without the attack.
        attacked: Evaluation of the same queries under attack.
        metric: Metric to compare.
        samples: Number of bootstrap samples.
        seed: Seed of the resampling.

    Raises:
        InputError: If the queries differ, the metric was not computed, or the clean metric is 0.

    See: chapter 9.
    """
    before, _ = clean.mean(metric), attacked.mean(metric)
    if not np.array_equal(clean.user, attacked.user):
        raise InputError("clean and attacked were evaluated on different queries; use those of one split for both")
    if before <= 0:
        raise InputError(f"the clean {metric} is {before}, so retention is undefined; attack a better recommender")
    _, user = np.unique(clean.user, return_inverse=True)
    whole, left = (np.bincount(user, weights=one.metrics[metric]) for one in (clean, attacked))  # (U,)
    rng = np.random.default_rng(seed)
    sums = np.empty((samples, 2))
    for sample in range(samples):
        drawn = rng.integers(len(whole), size=len(whole))
        sums[sample] = left[drawn].sum(), whole[drawn].sum()
    sums = sums[sums[:, 1] > 0]
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return Retention(float(left.sum() / whole.sum()), float(low), float(high))


def robustness_index(clean: float, attacked: Mapping[str, Mapping[float, float]]) -> float:
    r"""Robustness index: mean area under the retention curve over families of attacks.

    .. math:: R = \frac{1}{|F|} \sum_{f \in F} \int_0^1 r_f(x)\,dx, \qquad
        r_f\!\left(\frac{s}{s_f^{\max}}\right) = \frac{m_f(s)}{m_{\text{clean}}}, \quad r_f(0) = 1

    with the metric :math:`m_f(s)` under attack :math:`f` at strength :math:`s`, and :math:`r_f` linear between the
    strengths measured. 1 means that nothing is lost; 1/2 that retention falls linearly to zero (or stays at a half);
    above 1, attacks help. Values are comparable only for the same families and strengths.

    Args:
        clean: Metric without an attack.
        attacked: Family to strength to metric; strengths are above 0.

    Raises:
        InputError: If the clean metric or a strength is not above 0, a metric is negative or not finite, or a family
            has no attacks.

    See: chapter 9.

    >>> robustness_index(0.1, {"swap": {0.2: 0.05, 0.4: 0.05}, "add": {0.4: 0.1}})  # areas 0.625 and 1
    0.8125
    """
    if not (np.isfinite(clean) and clean > 0):
        raise InputError(f"the clean metric is {clean}; give a number above 0")
    if not attacked or not all(attacked.values()):
        raise InputError(
            "a family without attacks has no area under the curve; give each family a strength and its metric"
        )
    areas = []
    for family, values in attacked.items():
        strength, metric = (np.array(column, dtype=np.float64) for column in zip(*sorted(values.items()), strict=True))
        if not (np.isfinite(strength).all() and strength[0] > 0):
            raise InputError(f"strengths of {family!r} are {strength.tolist()}; give numbers above 0")
        if not (np.isfinite(metric).all() and metric.min() >= 0):
            raise InputError(f"metrics of {family!r} are {metric.tolist()}; give finite ones of at least 0")
        x = np.concatenate([[0.0], strength / strength[-1]])
        areas.append(np.trapezoid(np.concatenate([[1.0], metric / clean]), x))
    return float(np.mean(areas))


def boundary_distance(
    users: Tensor, items: Tensor, target: Tensor, *, k: int = 10, exclude: Tensor | None = None
) -> Tensor:
    r"""Distance, relative to the norm, that a user's vector must move for a target to enter or leave the top k.

    With scores :math:`s_j = u^\top v_j` the competitor :math:`j` passes the target :math:`t` on a hyperplane whose
    signed distance from :math:`u` is

    .. math:: m_j = \frac{s_t - s_j}{\lVert v_t - v_j \rVert},

    positive while the target is ahead. The target is among the first k if fewer than k competitors are ahead, that is,
    if the k-th smallest distance :math:`m_{(k)}` is positive. A move :math:`\delta` changes the side of no competitor
    with :math:`|m_j| > \lVert\delta\rVert`. To leave, the target must fall behind k competitors, so at least k have
    :math:`m_j \le \lVert\delta\rVert`; to enter, it must be ahead of all but k − 1, so at most k − 1 have
    :math:`m_j < -\lVert\delta\rVert`. Both say

    .. math:: \lVert\delta\rVert \ge |m_{(k)}| .

    The bound is tight for k = 1 and a target that leads: a move along :math:`v_j - v_t` of the nearest competitor is
    enough. Otherwise several hyperplanes must be crossed at once, which may take a longer move.

    Args:
        users: ``(queries, dim)`` user vectors.
        items: ``(n_items, dim)`` item vectors.
        target: ``(queries,)`` item number of each target.
        k: Length of the list, at most ``n_items - 1``.
        exclude: ``(queries, n_items)`` mask, true for items that are not ranked, such as seen items. Targets are always
            ranked.

    Returns:
        ``(queries,)`` :math:`m_{(k)} / \lVert u \rVert` in double precision: positive for a target in the top k,
        negative otherwise. An item with the same vector as the target can never pass it; infinite if fewer than k
        competitors can.

    Raises:
        InputError: If shapes do not match, a user's vector is zero, a value is not finite, or k or a target is out of
            range.

    See: chapter 9.

    >>> users, items = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    >>> [boundary_distance(users, items, torch.tensor([t]), k=1).item() for t in (0, 1)]
    [0.7071067811865475, -1.0]
    """
    _check_geometry(users, items, target, k, exclude)
    users, items = users.detach().double(), items.detach().double()  # (Q, d), (N, d)
    bounds = []
    for rows in torch.arange(len(users), device=users.device).split(BLOCK):
        u, t = users[rows], items[target[rows]]  # (B, d), (B, d)
        lead = (u * t).sum(1, keepdim=True) - u @ items.T  # (B, N)
        apart = torch.cdist(t, items, compute_mode="donot_use_mm_for_euclid_dist")  # (B, N)
        distance = torch.where(apart > 0, lead / apart, torch.inf)  # (B, N)
        if exclude is not None:
            distance = distance.masked_fill(exclude[rows], torch.inf)  # (B, N)
        bounds.append(distance.kthvalue(k, dim=1).values / u.norm(dim=1))  # (B,)
    return torch.cat(bounds)


def _check_geometry(users: Tensor, items: Tensor, target: Tensor, k: int, exclude: Tensor | None) -> None:
    if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1] or len(users) == 0:
        raise InputError(f"users {tuple(users.shape)} and items {tuple(items.shape)}; give (queries, dim), (n, dim)")
    if target.shape != users.shape[:1] or target.is_floating_point():
        raise InputError(
            f"target has shape {tuple(target.shape)} and type {target.dtype}; give ({len(users)},) numbers"
        )
    if target.min() < 0 or target.max() >= len(items):
        raise InputError(f"targets are {target.min()} to {target.max()}; items are numbered 0 to {len(items) - 1}")
    if not 1 <= k < len(items):
        raise InputError(f"k={k} of {len(items)} items; give 1 to {len(items) - 1}")
    if exclude is not None and (exclude.shape != (len(users), len(items)) or exclude.dtype != torch.bool):
        raise InputError(
            f"exclude is {tuple(exclude.shape)} {exclude.dtype}; give ({len(users)}, {len(items)}) booleans"
        )
    if not (users.isfinite().all() and items.isfinite().all()):
        raise InputError("a vector is not finite; check the recommender, first its learning rate")
    if not users.any(1).all():
        row = int((~users.any(1)).nonzero()[0])
        raise InputError(f"the vector of user {row} is zero, so no move is relative to its norm; leave out such users")


def exposure(recommended: np.ndarray, item: int) -> float:
    """Exposure of an item: share of the lists that show it, which shilling attacks try to raise.

    Args:
        recommended: ``(queries, k)`` item numbers.
        item: Item number.

    Raises:
        InputError: If there are no lists.

    >>> exposure(np.array([[3, 1], [2, 3], [0, 1], [1, 2]]), 3)
    0.5

    See: chapter 9.
    """
    if len(recommended) == 0:
        raise InputError("there are no lists to look for the item in; give (queries, k) item numbers")
    return float((recommended == item).any(axis=1).mean())


def detect(vectors: np.ndarray, share: float) -> np.ndarray:
    r"""Shilling detection: score users by their similarity to their nearest users, because fake profiles are alike.

    .. math:: a_i = \frac{1}{m} \sum_{j \in \mathcal N_m(i)} \cos(z_i - \bar z,\, z_j - \bar z),
        \qquad m = \max(1, \operatorname{round}(\rho n))

    with the mean vector :math:`\bar z`, which carries no information about individual users, and the m nearest other
    users :math:`\mathcal N_m`.

    Args:
        vectors: ``(n_users, dim)`` user vectors of a recommender, or any other profiles.
        share: :math:`\rho`, expected share of fake users, in (0, 1).

    Returns:
        ``(n_users,)`` scores in [-1, 1]; higher is more suspicious.

    Raises:
        InputError: If the share is out of range, there are fewer than 2 users, or a value is not finite.

    See: chapter 9.
    """
    if not 0 < share < 1:
        raise InputError(f"share={share} is out of range; give the expected share of fake users, between 0 and 1")
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
    """Quality of shilling detection.

    Attributes:
        average_precision: Average precision over all thresholds; at chance it equals the share of injected users.
        precision: Share of the flagged users that were injected.
        recall: Share of the injected users that were flagged.
    """

    average_precision: float
    precision: float
    recall: float


def precision_recall(scores: np.ndarray, injected: np.ndarray, *, flagged: int | None = None) -> Detection:
    """Precision and recall of detection: flag the users with the highest scores, and count the injected ones.

    Args:
        scores: ``(n_users,)`` suspicion scores, for instance from :func:`detect`.
        injected: ``(n_users,)`` mask, true for injected users.
        flagged: Number of users to flag; by default the number injected, which makes precision and recall equal. Ties
            count as the average over random orders.

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
        raise InputError(f"{n} of {len(injected)} users were injected; detection needs both injected and real users")
    flagged = n if flagged is None else flagged
    if not 1 <= flagged <= len(scores):
        raise InputError(f"flagged={flagged} users; give 1 to {len(scores)}")
    threshold = np.sort(scores)[-flagged]
    above, level = scores > threshold, scores == threshold
    hits = injected[above].sum() + injected[level].mean() * (flagged - above.sum())
    return Detection(float(average_precision_score(injected, scores)), float(hits / flagged), float(hits / n))
