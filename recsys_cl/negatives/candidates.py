"""Candidate negatives of a training step: drawn by chance, or moved towards the query.

All that is here replaces a share of the negatives that were drawn by chance, so that their number is the same
whatever they are, and a loss sees ``(batch, k, dim)`` vectors of which it need not know the origin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import check_positive, unit
from recsys_cl.losses.perturbations import steepest
from recsys_cl.negatives.samplers import NegativeSample

Known = Callable[[slice, Tensor], Tensor]
"""Known positives: from rows of the batch and items ``(n,)`` or ``(rows, k)`` to what must not count."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """What negatives are made from.

    Attributes:
        query: ``(batch, dim)``.
        table: ``(n_items, dim)`` vectors of the catalogue.
        target: ``(batch,)`` number of each query's positive.
        drawn: ``(batch, k)`` items drawn by chance, and their log q.
        known: What is no negative.
        temperature: Of the scores.
    """

    query: Tensor
    table: Tensor
    target: Tensor
    drawn: NegativeSample
    known: Known
    temperature: Tensor


@dataclass(frozen=True, eq=False)
class Negatives:
    """Negatives of each query's own, as :func:`~recsys_cl.losses.sampled_softmax_loss` takes them.

    Attributes:
        vectors: ``(batch, k, dim)``.
        mask: ``(batch, k)`` true where one is not to count.
        log_q: ``(batch, k)``.
        loss: What else is to be minimised: losses of those who make the negatives.
    """

    vectors: Tensor
    mask: Tensor
    log_q: Tensor
    loss: Tensor | float = 0.0


class DrawnNegatives(nn.Module):
    """Negatives as they were drawn.

    See: chapter 10.
    """

    def forward(self, given: Candidates) -> Negatives:
        """Look their vectors up."""
        drawn = given.drawn
        mask = given.known(slice(None), drawn.items)  # (B, K)
        return Negatives(given.table[drawn.items], mask, drawn.log_q)

    def diagnostics(self, n_items: int) -> dict[str, float]:
        """What is worth watching since the last call: nothing."""
        return {}


class PerturbedNegatives(DrawnNegatives):
    r"""A share of the drawn items moved so that the loss grows most: towards the query.

    In :math:`L = \log \sum_j e^{u^\top v_j / \tau} - u^\top v^+ / \tau` the gradient with respect to a negative is
    :math:`p_j u / \tau`: whatever the weights, its direction is the query's, and the worst move of length
    :math:`\epsilon` is known without a backward pass,

    .. math:: \hat v_j = v_j + \epsilon\, \lVert v_j \rVert\, \frac{u}{\lVert u \rVert},

    brought back to the length of :math:`v_j`. The move is no part of the gradient, the item is.

    Args:
        share: Share of the negatives that are moved, in (0, 1].
        epsilon: :math:`\epsilon > 0`, in units of each vector's norm.

    Raises:
        InputError: If the share or :math:`\epsilon` is out of range.

    References:
        Kalantidis et al. (2020), https://arxiv.org/abs/2010.01028 (negatives mixed with the query).

    See: chapter 10.
    """

    def __init__(self, share: float, *, epsilon: float) -> None:
        super().__init__()
        check_share(share)
        check_positive("epsilon", epsilon)
        self.share, self.epsilon = share, epsilon

    def forward(self, given: Candidates) -> Negatives:
        """Move, and keep the rest as drawn."""
        plain = super().forward(given)
        k = chosen_of(self.share, plain.mask.shape[1])
        return replace(
            plain, vectors=torch.cat([self.moved(given.query, plain.vectors[:, :k]), plain.vectors[:, k:]], dim=1)
        )

    def moved(self, query: Tensor, vectors: Tensor) -> Tensor:
        """Vectors ``(batch, k, dim)`` moved towards the query ``(batch, dim)``, as long as before."""
        length = vectors.detach().norm(dim=-1, keepdim=True)  # (B, K, 1)
        worst = steepest(query.detach(), self.epsilon)[:, None]  # (B, 1, d)
        return length * unit(vectors + length * worst)  # (B, K, d)


def chosen_of(share: float, k: int) -> int:
    """How many of k negatives are a share of them; at least one."""
    return max(1, round(share * k))


def check_share(share: float) -> None:
    """Demand a share in (0, 1].

    Raises:
        InputError: If it is not.
    """
    if not 0 < share <= 1:
        raise InputError(f"hard_share={share} is out of range; give a share above 0 and up to 1 of the negatives")
