"""Order-aware baselines without training: first-order Markov chain and session-kNN (V-SkNN).

See: chapter 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from recsys_cl.data import Sequences, Split
from recsys_cl.data.sequences import PAD
from recsys_cl.recommenders.base import Recommender
from recsys_cl.settings import Range


@dataclass
class MarkovChain(Recommender):
    r"""First-order Markov chain: the next item given the last one, smoothed towards popularity.

    .. math:: P(j \mid i) = \frac{n_{ij} + \mu\, p_j}{n_i + \mu}

    :math:`n_{ij}` counts how often item j directly follows item i, :math:`n_i = \sum_j n_{ij}`, and :math:`p_j` is the
    share of item j among all events. After an empty history the score is :math:`p_j`.

    Attributes:
        smoothing: Number of pseudo-counts, :math:`\mu`.

    References:
        Rendle, Freudenthaler and Schmidt-Thieme (2010), https://doi.org/10.1145/1772690.1772773, without the
        factorisation.

    See: chapter 2.

    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> chain = MarkovChain().fit(leave_one_out(synthetic(100, 100)))
    >>> torch.allclose(chain.score(Sequences.from_lists([[3, 1, 4], []])).sum(1), torch.ones(2))
    True
    """

    smoothing: Annotated[float, Range(1e-6)] = 10.0

    def fit(self, split: Split) -> Self:
        """Count transitions between consecutive events."""
        train, n = split.train, split.n_items
        rows, positions = train.flat()  # (T,) each
        consecutive = rows[1:] == rows[:-1]  # (T - 1,)
        before, after = (train.items[part][consecutive] for part in (positions[:-1], positions[1:]))
        follows = sp.csr_matrix((np.ones(len(before), np.float32), (before, after)), (n, n))  # (N, N) sparse
        popularity = np.bincount(train.items[positions], minlength=n).astype(np.float32)  # (N,)
        self.items = split.data.items
        self.state = {"popularity": torch.from_numpy(popularity / popularity.sum()), **_saved(follows)}
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Probability of each next item, ``(batch, n_items)``."""
        popularity = self.state["popularity"]  # (N,)
        follows = _loaded(self.state, len(popularity))  # (N, N) sparse
        last = histories.recent(1)[:, 0]  # (B,) PAD if there is none
        counts = torch.from_numpy(follows[last].toarray() * (last != PAD)[:, None])  # (B, N)
        return (counts + self.smoothing * popularity) / (counts.sum(1, keepdim=True) + self.smoothing)


@dataclass
class SessionKNN(Recommender):
    r"""Session-kNN (V-SkNN): items of the users whose histories share the most recent events.

    .. math:: s_j = \sum_{v \in \mathcal{N}_k} r_v\, \frac{\sum_{e \in v} w_e}{\sqrt{|v|}}\, \mathbb{1}[j \in v],
        \qquad r_v = \max_{e \in v} w_e

    The sum and the maximum are over the events e of the history whose item is in the training history v. :math:`w_e`
    falls linearly from 1 for the last event to 0 before the last ``length`` events, :math:`\mathcal{N}_k` are the k
    training histories with the largest similarity (the fraction), and :math:`r_v` weighs each by the most recent event
    that it shares.

    Attributes:
        neighbours: Number of neighbouring histories, k.
        length: Number of events of the history that are matched.

    References:
        Ludewig and Jannach (2018), https://doi.org/10.1007/s11257-018-9209-6.

    See: chapter 2.

    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> knn = SessionKNN(neighbours=10).fit(leave_one_out(synthetic(100, 100)))
    >>> knn.score(Sequences.from_lists([[3, 1, 4], []])).shape
    torch.Size([2, 100])
    """

    neighbours: Annotated[int, Range(1)] = 100
    length: Annotated[int, Range(1)] = 50

    def fit(self, split: Split) -> Self:
        """Store the training histories."""
        members = split.train.matrix(split.n_items)  # (U, N) sparse
        self.items = split.data.items
        self.state = _saved(sp.csr_matrix((np.ones_like(members.data), members.indices, members.indptr), members.shape))
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Summed similarity of the neighbours that have each item, ``(batch, n_items)``."""
        members = _loaded(self.state, len(self.items))  # (U, N) sparse
        having = members.T.tocsr()  # (N, U) sparse
        latest = histories.recent(self.length)[:, ::-1]  # (B, L), the last event first
        shared = np.zeros((len(histories), members.shape[0]), np.float32)  # (B, U) summed weights of shared events
        recent = np.zeros_like(shared)  # (B, U) weight of the latest shared event
        for back, items in enumerate(latest.T):
            weight = (1 - back / self.length) * having[items].toarray() * (items != PAD)[:, None]  # (B, U)
            shared += weight
            np.maximum(recent, weight, out=recent)
        size = np.maximum(np.diff(members.indptr), 1)  # (U,)
        similarity = torch.from_numpy(shared / np.sqrt(size, dtype=np.float32))  # (B, U)
        nearest = similarity.topk(min(self.neighbours, similarity.shape[1])).indices  # (B, k)
        weights = torch.zeros_like(similarity).scatter(1, nearest, similarity.gather(1, nearest))  # (B, U)
        return torch.from_numpy((sp.csr_matrix(weights.numpy() * recent) @ members).toarray())  # (B, N)


def _saved(matrix: sp.csr_matrix) -> dict[str, Tensor]:
    """A sparse matrix as tensors, which a file can hold."""
    starts, columns = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
    parts = {"starts": starts, "columns": columns, "counts": matrix.data.astype(np.float32)}
    return {name: torch.from_numpy(values) for name, values in parts.items()}


def _loaded(state: dict[str, Tensor], n_columns: int) -> sp.csr_matrix:
    values, columns, starts = (state[name].numpy() for name in ("counts", "columns", "starts"))
    return sp.csr_matrix((values, columns, starts), (len(starts) - 1, n_columns))
