"""Hard negatives: the items that the model itself ranks highest, without those that look like positives."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import comparable
from recsys_cl.losses.partition import Mask, rows_of
from recsys_cl.negatives.candidates import Candidates, DrawnNegatives, Negatives, check_share, chosen_of
from recsys_cl.negatives.samplers import NegativeSample

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
        bound: :math:`\rho`: what reaches :math:`1 - \rho` of the positive's score is left out
            (:func:`~recsys_cl.negatives.hard.hard_negatives`); 0 leaves nothing out.

    Raises:
        InputError: If the share is out of range.

    See: chapter 10.
    """

    def __init__(self, share: float, *, bound: float = 0.0) -> None:
        super().__init__()
        check_share(share)
        self.share, self.bound = share, bound

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
            share=self.bound or None,
        )
        return replace(
            plain,
            vectors=torch.cat([given.table[sample.items], plain.vectors[:, k:]], dim=1),  # (B, K, d)
            mask=torch.cat([empty, plain.mask[:, k:]], dim=1),  # (B, K)
        )
