r"""Hard negatives: mined by the model's scores or perturbed towards the query, in place of a share of the sampled ones.

Hard and perturbed negatives replace a share of the drawn ones, so their number does not depend on the strategy, and a
loss receives ``(batch, k, dim)`` vectors whatever their origin.
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
"""Lookup of known positives: maps rows of the batch and items, ``(n,)`` or ``(rows, k)``, to a mask of those known."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Queries, catalogue and drawn items from which negatives are made.

    Attributes:
        query: ``(batch, dim)`` query vectors.
        table: ``(n_items, dim)`` vectors of the catalogue.
        target: ``(batch,)`` number of each query's positive.
        drawn: ``(batch, k)`` randomly drawn items and their log-probabilities.
        known: Lookup of known positives, which are not negatives.
        temperature: Temperature of the scores, a scalar.

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
    """Each query's own negatives, as arguments of :func:`~recsys_cl.losses.sampled_softmax_loss`.

    Attributes:
        vectors: ``(batch, k, dim)`` vectors of the negatives.
        mask: ``(batch, k)``, true where a negative is ignored.
        log_q: ``(batch, k)`` log-probabilities of the negatives.
        loss: Additional loss to minimise: that of the networks that make the negatives.

    See: chapter 10.
    """

    vectors: Tensor
    mask: Tensor
    log_q: Tensor
    loss: Tensor | float = 0.0


class DrawnNegatives(nn.Module):
    """Negatives as drawn.

    See: chapter 10.
    """

    def forward(self, candidates: Candidates) -> Negatives:
        """Look up the vectors of the drawn items and mask known positives."""
        drawn = candidates.drawn
        mask = candidates.known(slice(None), drawn.items)  # (B, K)
        return Negatives(candidates.table[drawn.items], mask, drawn.log_q)

    def diagnostics(self, n_items: int) -> dict[str, float]:
        """Training statistics since the last call; drawn negatives have none."""
        return {}


class PerturbedNegatives(DrawnNegatives):
    r"""Drawn items, a share of them moved towards the query: the direction that raises the loss most.

    In :math:`L = \log \sum_j e^{u^\top v_j / \tau} - u^\top v^+ / \tau` the gradient with respect to a negative is
    :math:`p_j u / \tau`. Whatever the weights, it points along the query, so the worst move of length :math:`\epsilon`
    is known without a backward pass,

    .. math:: \hat v_j = v_j + \epsilon\, \lVert v_j \rVert\, \frac{u}{\lVert u \rVert},

    rescaled to the length of :math:`v_j`. The gradient flows through the item, not through the move.

    Args:
        share: Share of the negatives that are moved, in (0, 1].
        epsilon: Length of the move, :math:`\epsilon > 0`, in units of each vector's norm.

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

    def forward(self, candidates: Candidates) -> Negatives:
        """Move a share of the negatives; the rest stays as drawn."""
        plain = super().forward(candidates)
        k = share_of(self.share, plain.mask.shape[1])
        moved = self.moved(candidates.query, plain.vectors[:, :k])  # (B, k, d)
        return replace(plain, vectors=torch.cat([moved, plain.vectors[:, k:]], dim=1))

    def moved(self, query: Tensor, vectors: Tensor) -> Tensor:
        """Vectors ``(batch, k, dim)`` moved towards the query ``(batch, dim)`` at constant length."""
        length = vectors.detach().norm(dim=-1, keepdim=True)  # (B, K, 1)
        worst = steepest(query.detach(), self.epsilon)[:, None]  # (B, 1, d)
        return length * unit(vectors + length * worst)  # (B, K, d)


def share_of(share: float, k: int) -> int:
    """Number of negatives in a share of k, at least one."""
    return max(1, round(share * k))


def check_share(share: float) -> None:
    """Check that a share is in (0, 1].

    Raises:
        InputError: If it is not.
    """
    if not 0 < share <= 1:
        raise InputError(f"share={share} is out of range; give a share of the negatives above 0 and at most 1")


BLOCK = 2**22
"""Scores per block: 16 MiB in single precision."""


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
    r"""Hard negatives: the k highest-scoring items that are neither known positives nor too close to the positive.

    .. math:: \operatorname*{top\,k}_{j \notin M_b} s_{bj}, \qquad
        s_{bj} \le s_b^+ - m, \qquad s_{bj} \le s_b^+ - (1 - \rho)\, |s_b^+|

    Unlabelled positives are among the highest scores. An item that scores too close to the positive is therefore
    excluded, by an absolute margin m, by a share :math:`\rho` of the positive's score, or by both. The bounds depend on
    the model's scores: early in training they mean little, and k random negatives work better.

    Given the model, the selection is deterministic, so ``log_q`` is :math:`\log 1 = 0`. A logQ correction removes the
    bias of *sampling*; the bias towards hard negatives is intended and stays. If they are added to a sum over n sampled
    negatives, which weights each by :math:`1 / n q_j`, hard negatives have weight 1: their log q is then
    :math:`-\log n`.

    Scores are computed in blocks of rows, so memory does not grow with the number of queries times items.

    Args:
        query: ``(batch, dim)``; normalise queries and items for cosines.
        item: ``(n_items, dim)``.
        positive: ``(batch,)`` number of each query's positive, which is never its negative.
        k: Number of negatives per query.
        mask: ``(batch, n_items)``, true where an item must not be selected, or a function from a slice of rows to
            their mask: ``lambda rows: known.mask(user[rows], torch.arange(n_items))``.
        margin: :math:`m \ge 0`, in units of the score.
        share: :math:`\rho` in (0, 1]; 0.95 excludes items above 95 % of the positive's score.

    Returns:
        Items and log-probabilities ``(batch, k)``, hardest first, and their mask ``(batch, k)`` as the losses expect
        it: true where fewer than k items were left; those entries hold the positive's number.

    Raises:
        InputError: If shapes do not fit, a vector is not finite, or k, the margin or the share is out of range.

    References:
        Xiong et al. (2021), https://arxiv.org/abs/2007.00808 (by the model's own scores);
        Moreira et al. (2024), https://arxiv.org/abs/2407.15831 (bounds by the positive's score).

    See: chapter 4.

    >>> items = torch.tensor([[1.0], [0.9], [0.5], [0.1]])
    >>> sample, mask = hard_negatives(torch.ones(1, 1), items, torch.tensor([0]), k=3, margin=0.2)
    >>> sample.items.tolist(), mask.tolist()  # item 1 scores within .2 of the positive; one entry stays empty
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
    """Items of some rows, and a mask of empty entries."""
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
        raise InputError(f"{len(query)} queries and {len(item)} items leave nothing to select; give at least one each")
    if k < 1:
        raise InputError(f"k={k} selects nothing; give 1 or more")
    if margin is not None and not 0 <= margin < float("inf"):
        raise InputError(f"margin={margin}; give a number of at least 0, or None for no bound")
    if share is not None and not 0 < share <= 1:
        raise InputError(f"share={share}; give a share above 0 and at most 1, or None for no bound")


class HardNegatives(DrawnNegatives):
    r"""Drawn items, a share of them replaced by the items that the model ranks highest.

    Args:
        share: Share of the negatives that are hard, in (0, 1].

    Raises:
        InputError: If the share is out of range.

    See: chapter 10.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        check_share(share)
        self.share = share

    def forward(self, candidates: Candidates) -> Negatives:
        """Replace a share of the negatives by hard ones; the rest stays as drawn."""
        plain = super().forward(candidates)
        k = share_of(self.share, plain.mask.shape[1])
        catalogue = torch.arange(len(candidates.table), device=candidates.table.device)  # (N,)
        sample, empty = hard_negatives(
            candidates.query,
            candidates.table,
            candidates.target,
            k,
            mask=lambda rows: candidates.known(rows, catalogue),
        )
        return replace(
            plain,
            vectors=torch.cat([candidates.table[sample.items], plain.vectors[:, k:]], dim=1),  # (B, K, d)
            mask=torch.cat([empty, plain.mask[:, k:]], dim=1),  # (B, K)
        )
