"""Classical baselines, not trained by gradient descent: random, popularity, item-KNN, EASE and iALS.

See: chapter 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import scipy.sparse as sp
import torch
from implicit.cpu.als import AlternatingLeastSquares
from torch import Tensor

from recsys_cl.data import Sequences, Split
from recsys_cl.errors import InputError
from recsys_cl.recommenders.base import Recommender
from recsys_cl.settings import Range

DENSE_ITEMS = 40_000
"""Maximum number of items for a dense item-to-item matrix."""


@dataclass
class Random(Recommender):
    """Random baseline: the same score for every item; ties are resolved neutrally, so this is chance level."""

    def fit(self, split: Split) -> Self:
        """Store the catalogue."""
        self.items, self.state = split.data.items, {"scores": torch.zeros(split.n_items)}
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Zeros, ``(batch, n_items)``."""
        return self.state["scores"].repeat(len(histories), 1)


@dataclass
class Popularity(Recommender):
    """Popularity baseline: items ranked by the total weight of their training events, the same for all users."""

    def fit(self, split: Split) -> Self:
        """Sum the event weights of each item."""
        counts = split.train.matrix(split.n_items).sum(0)
        self.items, self.state = (
            split.data.items,
            {"scores": torch.as_tensor(np.asarray(counts).ravel()).float()},
        )
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Popularity, ``(batch, n_items)``."""
        return self.state["scores"].repeat(len(histories), 1)


def _linear(histories: Sequences, weights: Tensor, decay: float) -> Tensor:
    r"""Scores :math:`x B` of a linear item-to-item model, with history entries weighted :math:`\gamma^k` by recency."""
    history = histories.matrix(len(weights), decay=decay)  # (B, N) sparse
    return torch.from_numpy(history @ weights.numpy())  # (B, N)


@dataclass
class ItemKNN(Recommender):
    r"""Item-KNN: cosine similarity between the users of two items, restricted to the nearest ``neighbours``.

    .. math:: s_{ij} = \frac{x_i^\top x_j}{\lVert x_i \rVert \lVert x_j \rVert + \text{shrink}}

    Attributes:
        neighbours: Number of neighbours kept per item.
        shrink: Shrinkage of similarities that are based on few users.
        decay: Weight of the k-th latest history item is ``decay ** k``.

    References:
        Sarwar et al. (2001), https://doi.org/10.1145/371920.372071.
    """

    neighbours: Annotated[int, Range(1)] = 400
    shrink: float = 50.0
    decay: Annotated[float, Range(0, 1)] = 1.0

    def fit(self, split: Split) -> Self:
        """Count co-occurrences and keep the nearest items."""
        _fits_in_memory(split.n_items)
        users = split.train.matrix(split.n_items)  # (U, N) sparse
        together = torch.from_numpy((users.T @ users).toarray())  # (N, N)
        norm = together.diagonal().sqrt()  # (N,)
        similarity = together / (norm[:, None] * norm + self.shrink).clamp(min=1e-12)  # (N, N)
        similarity.fill_diagonal_(0)
        minimum = similarity.topk(min(self.neighbours, split.n_items), dim=0).values[-1]  # (N,) per target item
        similarity[similarity < minimum] = 0
        self.items, self.state = split.data.items, {"similarity": similarity}
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Summed similarity to the history, ``(batch, n_items)``."""
        return _linear(histories, self.state["similarity"], self.decay)


@dataclass
class EASE(Recommender):
    r"""EASE (embarrassingly shallow autoencoder): the linear item-to-item model in closed form.

    .. math:: \min_B \lVert X - X B \rVert_F^2 + \lambda \lVert B \rVert_F^2,\ \operatorname{diag} B = 0
        \;\Rightarrow\; B_{ij} = -P_{ij} / P_{jj},\ P = (X^\top X + \lambda I)^{-1}

    Attributes:
        l2: L2 regularisation, :math:`\lambda`.
        decay: Weight of the k-th latest history item at prediction is ``decay ** k``; 1 ignores the order.

    References:
        Steck (2019), https://doi.org/10.1145/3308558.3313710.

    See: chapter 2.

    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> ease = EASE(l2=100.0).fit(leave_one_out(synthetic(100, 100)))
    >>> ease.score(Sequences.from_lists([[3, 1, 4], []])).shape
    torch.Size([2, 100])
    """

    l2: float = 100.0
    decay: Annotated[float, Range(0, 1)] = 1.0

    def fit(self, split: Split) -> Self:
        """Invert the regularised co-occurrence matrix."""
        _fits_in_memory(split.n_items)
        users = split.train.matrix(split.n_items)  # (U, N) sparse
        gram = torch.from_numpy((users.T @ users).toarray()).double()  # (N, N)
        gram.diagonal().add_(self.l2)
        inverse = torch.linalg.inv(gram)  # (N, N)
        weights = -inverse / inverse.diagonal()  # (N, N)
        weights.fill_diagonal_(0)
        self.items, self.state = split.data.items, {"weights": weights.float()}
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Linear reconstruction of the history, ``(batch, n_items)``."""
        return _linear(histories, self.state["weights"], self.decay)


@dataclass
class IALS(Recommender):
    r"""iALS: implicit-feedback matrix factorisation; factors of new users are computed by least squares, not trained.

    .. math:: \min_{p, q} \sum_{u,i} c_{ui} (x_{ui} - p_u^\top q_i)^2 + \lambda (\lVert p \rVert^2 + \lVert q \rVert^2),
        \quad c_{ui} = \begin{cases} \alpha w_{ui} & x_{ui} = 1 \\ 1 & x_{ui} = 0 \end{cases}

    Attributes:
        factors: Dimension of the factors.
        alpha: Confidence of an event, :math:`\alpha`.
        l2: L2 regularisation, :math:`\lambda`.
        iterations: Number of alternating updates.
        seed: Seed of the initial factors.

    References:
        Hu, Koren and Volinsky (2008), https://doi.org/10.1109/ICDM.2008.22.
    """

    factors: Annotated[int, Range(1)] = 32
    alpha: float = 1.0
    l2: float = 0.01
    iterations: Annotated[int, Range(1)] = 15
    seed: int = 0

    def fit(self, split: Split) -> Self:
        """Fit by alternating least squares with ``implicit``."""
        solver = self._solver()
        solver.fit(split.train.matrix(split.n_items), show_progress=False)
        self.items, self.state = split.data.items, {"item_factors": torch.from_numpy(solver.item_factors)}
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Dot products of the folded-in histories and the item factors, ``(batch, n_items)``."""
        solver = self._solver()
        solver.item_factors = self.state["item_factors"].numpy()
        history = sp.csr_matrix(histories.matrix(len(solver.item_factors)))  # (B, N) sparse
        users = solver.recalculate_user(np.arange(len(histories)), history)  # (B, d)
        return torch.from_numpy(users @ solver.item_factors.T)  # (B, N)

    def _solver(self) -> AlternatingLeastSquares:
        return AlternatingLeastSquares(
            factors=self.factors,
            alpha=self.alpha,
            regularization=self.l2,
            iterations=self.iterations,
            random_state=self.seed,
        )


def _fits_in_memory(n_items: int) -> None:
    if n_items > DENSE_ITEMS:
        raise InputError(
            f"an item-to-item matrix over {n_items} items needs {n_items**2 * 4 / 2**30:.0f} GiB; use ials or two-tower"
        )
