"""Metrics of a ranking, one number per query; means and intervals are taken elsewhere.

See: chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.evaluation.ranking import Ranks, rank_of_targets


def _per_query(values: np.ndarray, ranks: Ranks) -> np.ndarray:
    return np.bincount(ranks.query, weights=values, minlength=len(ranks.n_targets))


def hit_rate(ranks: Ranks, k: int) -> np.ndarray:
    """HR@k: 1 if any target is among the first k, else 0."""
    return (_per_query(ranks.rank <= k, ranks) > 0).astype(np.float64)


def recall(ranks: Ranks, k: int) -> np.ndarray:
    """Recall@k: share of the targets among the first k."""
    return _per_query(ranks.rank <= k, ranks) / ranks.n_targets


def precision(ranks: Ranks, k: int) -> np.ndarray:
    """Precision@k: share of the first k that are targets."""
    return _per_query(ranks.rank <= k, ranks) / k


def f1(ranks: Ranks, k: int) -> np.ndarray:
    r"""F1@k: the harmonic mean of precision and recall, :math:`2\,\text{hits} / (k + |T|)`."""
    return 2 * _per_query(ranks.rank <= k, ranks) / (k + ranks.n_targets)


def ndcg(ranks: Ranks, k: int) -> np.ndarray:
    r"""NDCG@k with binary gains (Järvelin and Kekäläinen 2002).

    .. math:: \frac{\sum_{t \in T,\, r_t \le k} 1 / \log_2(1 + r_t)}{\sum_{r=1}^{\min(k, |T|)} 1 / \log_2(1 + r)}

    Returns:
        ``(queries,)``
    """
    gain = np.where(ranks.rank <= k, 1 / np.log2(1 + ranks.rank), 0.0)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(1 + np.arange(1, k + 1)))])
    return _per_query(gain, ranks) / ideal[np.minimum(ranks.n_targets, k)]


def reciprocal_rank(ranks: Ranks, k: int) -> np.ndarray:
    """MRR@k: 1 / rank of the best target if it is among the first k, else 0."""
    best = np.full(len(ranks.n_targets), np.iinfo(np.int64).max)
    np.minimum.at(best, ranks.query, ranks.rank)
    return np.where(best <= k, 1 / best, 0.0)


def average_precision(ranks: Ranks, k: int) -> np.ndarray:
    r"""AP@k: the precision at each target among the first k, summed and divided by all targets.

    The j-th best target at rank :math:`r_j` is found at precision :math:`j / r_j`. The divisor is
    :math:`|T|`, as in TREC's ``map_cut``; other authors divide by :math:`\min(k, |T|)`.
    """
    order = np.lexsort((ranks.rank, ranks.query))
    query, rank = ranks.query[order], ranks.rank[order]
    first = np.searchsorted(query, np.arange(len(ranks.n_targets)))
    place = np.arange(len(query)) - first[query] + 1
    found = np.where(rank <= k, place / rank, 0.0)
    return np.bincount(query, weights=found, minlength=len(ranks.n_targets)) / ranks.n_targets


METRICS: Mapping[str, Callable[[Ranks, int], np.ndarray]] = {
    "ndcg": ndcg,
    "hr": hit_rate,
    "recall": recall,
    "precision": precision,
    "f1": f1,
    "mrr": reciprocal_rank,
    "map": average_precision,
}
"""Ranking metrics by the name that tables use."""


def metrics_of(ranks: Ranks, ks: Sequence[int] = (10,)) -> dict[str, np.ndarray]:
    """Every metric at every cut-off, keyed ``"ndcg@10"``, each ``(queries,)``."""
    if any(k < 1 for k in ks):
        raise InputError(f"cut-offs {list(ks)}; give whole numbers from 1")
    return {f"{name}@{k}": metric(ranks, k) for k in ks for name, metric in METRICS.items()}


def rank_metrics(
    scores: Tensor | np.ndarray, targets: Sequence[Sequence[int]], *, ks: Sequence[int] = (10,)
) -> dict[str, np.ndarray]:
    r"""Every metric of a score matrix that fits in memory.

    Args:
        scores: ``(batch, n_items)``, larger is better; :math:`-\infty` leaves an item out.
        targets: Item numbers that are right for each row, at least one.
        ks: Cut-offs.

    Returns:
        ``"ndcg@10"`` and so on, each ``(batch,)``.

    Raises:
        InputError: If a row has no target, a target is no item, a score is NaN, or the lengths differ.

    See: chapter 2.

    >>> rank_metrics(torch.tensor([[0.1, 0.9, 0.5]]), [[2]], ks=[2])["mrr@2"].tolist()
    [0.5]
    """
    scores = torch.as_tensor(scores)  # (B, N)
    n_targets = np.array([len(row) for row in targets])
    if len(targets) != len(scores):
        raise InputError(f"{len(scores)} rows of scores but {len(targets)} of targets; give one list per row")
    if (n_targets == 0).any():
        raise InputError(f"row {int(np.argmin(n_targets))} has no target; leave such rows out")
    rows = np.repeat(np.arange(len(targets)), n_targets)
    items = np.concatenate([np.asarray(row, dtype=np.int64) for row in targets])
    outside = items[(items < 0) | (items >= scores.shape[1])]
    if len(outside):
        raise InputError(f"target {outside[0]} is no item; items are numbered 0 to {scores.shape[1] - 1}")
    if scores.isnan().any():
        raise InputError("a score is NaN; give finite scores, or -inf to leave an item out")
    rank = rank_of_targets(scores, torch.as_tensor(rows), torch.as_tensor(items)).numpy()
    n_candidates = (scores > -torch.inf).sum(1).numpy()
    return metrics_of(Ranks(rows, rank, n_targets, n_candidates), ks)
