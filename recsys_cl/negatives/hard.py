r"""Own negatives: as drawn, hard-mined by the model's scores, or perturbed towards the query.

Everything here replaces a share of the negatives that were drawn by chance, so their number is the same whatever they
are, and a loss sees ``(batch, k, dim)`` vectors of which it need not know the origin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import check_positive, comparable, unit
from recsys_cl.losses.next_item import NegativeSample
from recsys_cl.losses.partition import Mask, rows_of
from recsys_cl.losses.perturbations import steepest

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

    See: chapter 10.
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

    See: chapter 10.
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
        raise InputError(f"share={share} is out of range; give a share above 0 and up to 1 of the negatives")


BLOCK = 2**22
"""Scores in a block: 16 MiB in single precision."""


@torch.no_grad()
def hard_negatives(
    query: Tensor,
    item: Tensor,
    positive: Tensor,
    k: int,
    *,
    mask: Mask | None = None,
    margin: float | None = None,
    share: float | None = None,
) -> tuple[NegativeSample, Tensor]:
    r"""The k items of highest score that are not known to be positives, and do not look like ones.

    .. math:: \operatorname*{top\,k}_{j \notin M_b} s_{bj}, \qquad
        s_{bj} \le s_b^+ - m, \qquad s_{bj} \le s_b^+ - (1 - \rho)\, |s_b^+|

    Among the highest scores are the positives that nobody has told: a negative that comes too close to the positive
    is left out, by an absolute margin m, by a share :math:`\rho` of the positive's score, or by both. The bounds are
    the model's opinion: early in training they mean little, and k random negatives serve better.

    The choice is certain given the model, so that ``log_q`` is :math:`\log 1 = 0`. A logQ correction undoes the bias
    of *sampling*; the bias of training on what is hard is meant, and nothing undoes it. As further terms of a sum over
    n sampled negatives, which weighs each by :math:`1 / n q_j`, chosen ones have weight 1: their log q is then
    :math:`-\log n`.

    Scores are computed in blocks of rows, so that memory does not grow with the number of queries times items.

    Args:
        query: ``(batch, dim)``; normalise both for cosines.
        item: ``(n_items, dim)``.
        positive: ``(batch,)`` number of each query's positive, which is never its negative.
        k: Number of negatives.
        mask: ``(batch, n_items)``, true where an item must not be chosen, or a function from a slice of rows to
            theirs: ``lambda rows: known.mask(user[rows], torch.arange(n_items))``.
        margin: :math:`m \ge 0`, in units of the score.
        share: :math:`\rho` in (0, 1]; 0.95 leaves out what reaches 95 % of the positive's score.

    Returns:
        Items and log-probabilities ``(batch, k)``, hardest first, and their mask ``(batch, k)`` as the losses take it:
        true where fewer than k were left, in which place the positive's number stands.

    Raises:
        InputError: If shapes do not fit, a vector is not finite, or k, the margin or the share is out of range.

    References:
        Xiong et al. (2021), https://arxiv.org/abs/2007.00808 (by the model's own scores);
        Moreira et al. (2024), https://arxiv.org/abs/2407.15831 (bounds by the positive's score).

    See: chapter 4.

    >>> items = torch.tensor([[1.0], [0.9], [0.5], [0.1]])
    >>> sample, mask = hard_negatives(torch.ones(1, 1), items, torch.tensor([0]), k=3, margin=0.2)
    >>> sample.items.tolist(), mask.tolist()  # item 1 comes within .2 of the positive; one place stays empty
    ([[2, 3, 0]], [[False, False, True]])
    """
    query, item = comparable(query=query, item=item)
    _check(query, item, positive, k, margin, share)
    height = max(1, BLOCK // len(item))
    blocks = [slice(start, min(start + height, len(query))) for start in range(0, len(query), height)]
    found = [_hardest(query, item, positive, k, rows, mask, margin, share) for rows in blocks]
    chosen = torch.cat([items for items, _ in found])  # (B, K)
    empty = torch.cat([none for _, none in found])  # (B, K)
    return NegativeSample(chosen, torch.zeros_like(chosen, dtype=torch.float32)), empty


def _hardest(
    query: Tensor,
    item: Tensor,
    positive: Tensor,
    k: int,
    rows: slice,
    mask: Mask | None,
    margin: float | None,
    share: float | None,
) -> tuple[Tensor, Tensor]:
    """Items of some rows, and where there is none."""
    scores, own = query[rows] @ item.T, positive[rows, None]  # (R, N), (R, 1)
    best = scores.gather(1, own)  # (R, 1)
    excluded = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, own, True)  # (R, N)
    if mask is not None:
        excluded |= rows_of(mask, rows, (len(query), len(item)), scores.device)
    if margin is not None:
        excluded |= scores > best - margin
    if share is not None:
        excluded |= scores > best - (1 - share) * best.abs()
    top = scores.masked_fill_(excluded, -torch.inf).topk(min(k, len(item)), dim=1)  # (R, ≤ K)
    empty = own.new_ones(len(own), k, dtype=torch.bool)  # (R, K)
    empty[:, : top.values.shape[1]] = top.values == -torch.inf
    chosen = own.repeat(1, k)  # (R, K)
    chosen[:, : top.indices.shape[1]] = top.indices
    return torch.where(empty, own, chosen), empty


def _check(query: Tensor, item: Tensor, positive: Tensor, k: int, margin: float | None, share: float | None) -> None:
    if query.ndim != 2 or item.ndim != 2 or query.shape[1] != item.shape[1] or positive.shape != query.shape[:1]:
        raise InputError(
            f"query {tuple(query.shape)}, item {tuple(item.shape)} and positive {tuple(positive.shape)} do not fit; "
            "give (batch, dim), (n_items, dim) and (batch,)"
        )
    if len(query) == 0 or len(item) == 0:
        raise InputError(f"{len(query)} queries and {len(item)} items leave nothing to choose; give at least one each")
    if k < 1:
        raise InputError(f"k={k} chooses nothing; give 1 or more")
    if margin is not None and not 0 <= margin < float("inf"):
        raise InputError(f"margin={margin}; give a number of at least 0, or None for no such bound")
    if share is not None and not 0 < share <= 1:
        raise InputError(f"share={share}; give a share above 0 and up to 1, or None for no such bound")


class HardNegatives(DrawnNegatives):
    r"""The items that the model itself ranks highest, in place of a share of those drawn.

    Args:
        share: Share of the negatives that are chosen, in (0, 1].

    Raises:
        InputError: If the share is out of range.

    See: chapter 10.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        check_share(share)
        self.share = share

    def forward(self, given: Candidates) -> Negatives:
        """Choose, and keep the rest as drawn."""
        plain = super().forward(given)
        k = chosen_of(self.share, plain.mask.shape[1])
        everything = torch.arange(len(given.table), device=given.table.device)  # (N,)
        sample, empty = hard_negatives(
            given.query,
            given.table,
            given.target,
            k,
            mask=lambda rows: given.known(rows, everything),
        )
        return replace(
            plain,
            vectors=torch.cat([given.table[sample.items], plain.vectors[:, k:]], dim=1),  # (B, K, d)
            mask=torch.cat([empty, plain.mask[:, k:]], dim=1),  # (B, K)
        )
