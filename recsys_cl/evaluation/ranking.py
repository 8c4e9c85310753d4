"""Where the targets rank among all candidates: computed block by block, neutral between ties.

See: chapter 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from recsys_cl.data import PAD, Queries, Sequences
from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_hash

SLOW = 5.0
"""Seconds after which a progress bar appears."""


class Scorer(Protocol):
    """Anything that scores the whole catalogue for a batch of histories."""

    def score(self, histories: Sequences) -> Tensor:
        """Scores ``(batch, n_items)``, larger is better."""
        ...


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of the targets, flat over all queries.

    Attributes:
        query: ``(targets,)`` which query a target belongs to, ascending.
        rank: ``(targets,)`` its rank, 1 for the best of the candidates.
        n_targets: ``(queries,)`` number of targets.
        n_candidates: ``(queries,)`` number of ranked items.
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
        scores: ``(batch, n_items)``; :math:`-\infty` marks what is not ranked.
        rows: ``(targets,)`` row of each target.
        items: ``(targets,)`` column of each target.
        first_query: Query number of row 0; it keys the order within ties.

    Returns:
        ``(targets,)`` ranks, from 1.

    See: chapter 2.
    """
    own = scores[rows, items][:, None]  # (T, 1)
    theirs = scores[rows]  # (T, N)
    rank = 1 + (theirs > own).sum(1)  # (T,)
    tied = theirs == own  # (T, N)
    target, rival = tied.nonzero(as_tuple=True)  # pairs within a tie, the target itself among them
    if len(target) == len(rows):
        return rank
    pairs = (rows[target] + first_query, rival, items[target])
    query, other, item = (column.cpu().numpy() for column in pairs)
    before = torch.from_numpy(counter_hash(query, other) < counter_hash(query, item)).to(rank.device)
    return rank.index_add(0, target, before.to(rank.dtype))


def blocks(n_queries: int, n_items: int, *, entries: int = 16_000_000) -> Iterator[slice]:
    """Slices of queries whose score matrices have at most ``entries`` entries, with a bar on long work."""
    size = max(1, entries // max(1, n_items))
    starts = range(0, n_queries, size)
    for start in tqdm(starts, desc="ranking", delay=SLOW, leave=False):
        yield slice(start, min(start + size, n_queries))


def masked_scores(scorer: Scorer, queries: Queries, *, mask_seen: bool = True) -> Tensor:
    r"""Scores with everything that is not to be ranked at :math:`-\infty`.

    Returns:
        ``(queries, n_items)`` in float32.

    Raises:
        InputError: If a score is NaN.
    """
    scores = scorer.score(queries.history).float()  # (B, N)
    if scores.isnan().any():
        raise InputError(
            f"{type(scorer).__name__} gave NaN as a score; check its hyperparameters, first its learning rate"
        )
    scores = scores.clamp(min=torch.finfo(torch.float32).min)  # a scorer's own -inf still ranks, last
    if queries.candidates is not None:
        outside = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)  # (N,)
        outside[torch.as_tensor(queries.candidates, device=scores.device)] = False
        scores[:, outside] = -torch.inf
    if mask_seen:
        rows, positions = queries.history.flat()
        scores[rows, queries.history.items[positions]] = -torch.inf
    return scores


def rank_targets(scorer: Scorer, queries: Queries) -> Ranks:
    """Rank every query's targets among its candidates, seen items left out, in bounded memory.

    Args:
        scorer: What is evaluated.
        queries: What it is asked.

    Raises:
        InputError: If a score is NaN, or a target was seen before or is no candidate.
    """
    query, rank, n_candidates = [], [], []
    for block in blocks(len(queries), _width(scorer, queries)):
        part = queries[block]
        scores = masked_scores(scorer, part)  # (B, N)
        rows, positions = part.target.flat()
        items = part.target.items[positions]
        for few in np.array_split(np.arange(len(rows)), max(1, len(rows) // max(1, len(part)))):
            row, item = (
                torch.as_tensor(rows[few]).to(scores.device),
                torch.as_tensor(items[few]).to(scores.device),
            )
            if (scores[row, item] == -torch.inf).any():
                raise InputError("a target is among the seen items or not among the candidates; rebuild the split")
            rank.append(rank_of_targets(scores, row, item, first_query=block.start).cpu().numpy())
        query.append(rows + block.start)
        n_candidates.append((scores > -torch.inf).sum(1).cpu().numpy())
    return Ranks(
        query=np.concatenate(query),
        rank=np.concatenate(rank),
        n_targets=queries.target.lengths,
        n_candidates=np.concatenate(n_candidates),
    )


def top_items(scorer: Scorer, queries: Queries, k: int = 10) -> np.ndarray:
    """The ``k`` best unseen candidates of each query, best first: ``(queries, k)`` item numbers.

    Where fewer than ``k`` candidates are left, the row ends in :data:`~recsys_cl.data.PAD`.

    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> from recsys_cl.recommenders import Popularity
    >>> split = leave_one_out(synthetic(100, 100))
    >>> top_items(Popularity().fit(split), split.test, k=3).shape
    (100, 3)
    """
    best = []
    for block in blocks(len(queries), _width(scorer, queries)):
        scores = masked_scores(scorer, queries[block])  # (B, N)
        top = scores.topk(min(k, scores.shape[1]), dim=1)  # (B, k)
        best.append(top.indices.masked_fill(top.values == -torch.inf, PAD).cpu().numpy())  # (B, k)
    return np.concatenate(best)


def _width(scorer: Scorer, queries: Queries) -> int:
    return scorer.score(queries.history[:1]).shape[1]
