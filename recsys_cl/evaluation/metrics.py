"""Ranking metrics: accuracy per query (NDCG, HR, MRR, …), coverage, Gini index, novelty, diversity, popularity lift.

Ties are broken at random, which favours no item. For means and intervals see :mod:`recsys_cl.evaluation.evaluate`.

See: chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys_cl.data import PAD
from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_hash


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of the targets, flat over all queries.

    Attributes:
        query: ``(targets,)`` query number of each target, ascending.
        rank: ``(targets,)`` rank of each target, 1 for the best candidate.
        n_targets: ``(queries,)`` number of targets of each query.
        n_candidates: ``(queries,)`` number of ranked items of each query.
    """

    query: np.ndarray
    rank: np.ndarray
    n_targets: np.ndarray
    n_candidates: np.ndarray


def rank_of_targets(scores: Tensor, rows: Tensor, items: Tensor, *, first_query: int = 0) -> Tensor:
    r"""Rank of each target: :math:`1 + |\{s > s_t\}| + |\{s = s_t\ \text{and before } t \text{ in tie order}\}|`.

    Ties are ordered by a hash of (query, item). Mid-ranks would give a constant scorer HR@10 = 0 in any
    catalogue of 20 items or more; a random order gives it the chance level :math:`k / N` in every metric.

    Args:
        scores: ``(batch, n_items)`` scores; :math:`-\infty` excludes an item from the ranking.
        rows: ``(targets,)`` row of each target in ``scores``.
        items: ``(targets,)`` column of each target in ``scores``.
        first_query: Query number of row 0, the key of the order within ties.

    Returns:
        ``(targets,)`` ranks, starting at 1.

    See: chapter 2.
    """
    own = scores[rows, items][:, None]  # (T, 1)
    theirs = scores[rows]  # (T, N)
    rank = 1 + (theirs > own).sum(1)  # (T,)
    tied = theirs == own  # (T, N)
    target, rival = tied.nonzero(as_tuple=True)  # pairs within a tie, including the target itself
    if len(target) == len(rows):
        return rank
    pairs = (rows[target] + first_query, rival, items[target])
    query, other, item = (column.cpu().numpy() for column in pairs)
    before = torch.from_numpy(counter_hash(query, other) < counter_hash(query, item)).to(rank.device)
    return rank.index_add(0, target, before.to(rank.dtype))


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
"""Ranking metrics by the name used in tables."""


def metrics_of(ranks: Ranks, ks: Sequence[int] = (10,)) -> dict[str, np.ndarray]:
    """Compute every metric at every cut-off: ``"ndcg@10"`` and so on to ``(queries,)`` values."""
    if any(k < 1 for k in ks):
        raise InputError(f"cut-offs {list(ks)}; give whole numbers from 1")
    return {f"{name}@{k}": metric(ranks, k) for k in ks for name, metric in METRICS.items()}


def rank_metrics(
    scores: Tensor | np.ndarray, targets: Sequence[Sequence[int]], *, ks: Sequence[int] = (10,)
) -> dict[str, np.ndarray]:
    r"""Compute every metric from a score matrix in memory.

    Args:
        scores: ``(batch, n_items)``, higher is better; :math:`-\infty` excludes an item.
        targets: Item numbers of the targets of each row, at least one.
        ks: Cut-offs k.

    Returns:
        ``"ndcg@10"`` and so on, each ``(batch,)``.

    Raises:
        InputError: If a row has no target, a target is not an item, a score is NaN, or the lengths differ.

    See: chapter 2.

    >>> rank_metrics(torch.tensor([[0.1, 0.9, 0.5]]), [[2]], ks=[2])["mrr@2"].tolist()
    [0.5]
    """
    scores = torch.as_tensor(scores)  # (B, N)
    n_targets = np.array([len(row) for row in targets])
    if len(targets) != len(scores):
        raise InputError(f"{len(scores)} rows of scores but {len(targets)} of targets; give one list per row")
    if (n_targets == 0).any():
        raise InputError(f"row {int(np.argmin(n_targets))} has no target; omit such rows")
    rows = np.repeat(np.arange(len(targets)), n_targets)
    items = np.concatenate([np.asarray(row, dtype=np.int64) for row in targets])
    outside = items[(items < 0) | (items >= scores.shape[1])]
    if len(outside):
        raise InputError(f"target {outside[0]} is not an item; items are numbered 0 to {scores.shape[1] - 1}")
    if scores.isnan().any():
        raise InputError("a score is NaN; give finite scores, or -inf to exclude an item")
    rank = rank_of_targets(scores, torch.as_tensor(rows), torch.as_tensor(items)).numpy()
    n_candidates = (scores > -torch.inf).sum(1).numpy()
    return metrics_of(Ranks(rows, rank, n_targets, n_candidates), ks)


def _shown(recommended: np.ndarray) -> np.ndarray:
    """Item numbers of all lists, flat, without padding."""
    return recommended[recommended != PAD]


def coverage(recommended: np.ndarray, n_items: int) -> float:
    """Catalogue coverage: share of the items that are recommended to at least one user.

    Args:
        recommended: ``(queries, k)`` item numbers.
        n_items: Size of the catalogue.

    >>> coverage(np.array([[0, 1], [0, 2]]), n_items=6)
    0.5
    """
    return len(np.unique(_shown(recommended))) / n_items


def gini(recommended: np.ndarray, n_items: int) -> float:
    """Gini index of exposure: 0 if all items are shown equally often, near 1 if a few items get all exposure.

    >>> gini(np.array([[0], [1], [2], [3]]), n_items=4)
    0.0
    """
    exposure = np.sort(np.bincount(_shown(recommended), minlength=n_items))
    place = np.arange(1, n_items + 1)
    return float(((2 * place - n_items - 1) * exposure).sum() / (n_items * exposure.sum()))


def novelty(recommended: np.ndarray, counts: np.ndarray) -> float:
    r"""Mean self-information :math:`-\log_2 p_i` of the recommended items, in bits.

    Args:
        recommended: ``(queries, k)`` item numbers.
        counts: ``(n_items,)`` number of training events of each item; an item without events counts as half an event.

    References:
        Vargas and Castells (2011), https://doi.org/10.1145/2043932.2043955.
    """
    share = np.maximum(counts, 0.5) / counts.sum()
    return float(-np.log2(share[_shown(recommended)]).mean())


def intra_list_diversity(recommended: np.ndarray, embeddings: np.ndarray) -> float:
    """Mean cosine distance between two items of the same list (Ziegler et al. 2005).

    Args:
        recommended: ``(queries, k)`` item numbers, ``k`` at least 2.
        embeddings: ``(n_items, dim)`` item vectors that define similarity; need not be normalised.
    """
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)  # (N, d)
    lists = unit[recommended]  # (Q, k, d)
    k = recommended.shape[1]
    summed = (lists.sum(1) ** 2).sum(1)  # (Q,) sum of all k² cosines
    own = (lists**2).sum((1, 2))  # (Q,) the k cosines of an item with itself
    return float((1 - (summed - own) / (k * (k - 1))).mean())


def popularity_lift(recommended: np.ndarray, history_items: np.ndarray, counts: np.ndarray) -> float:
    """Popularity lift: mean popularity of the recommended items over that of the history items; 1 is neutral.

    Args:
        recommended: ``(queries, k)`` item numbers.
        history_items: Item numbers of all histories, flat.
        counts: ``(n_items,)`` number of training events of each item.

    References:
        Abdollahpouri et al. (2020), https://doi.org/10.1145/3383313.3418487.
    """
    return float(counts[_shown(recommended)].mean() / counts[history_items].mean())
