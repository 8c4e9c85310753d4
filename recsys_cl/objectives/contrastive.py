"""Contrastive losses: bring an anchor and its positive together, push it from everything else."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError

Reduction = Literal["mean", "sum", "none"]


def info_nce_loss(
    query: Tensor,
    item: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    mask: Tensor | None = None,
    log_q: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""InfoNCE: pick each query's own item out of all items of the batch.

    .. math:: L_b = -\log \frac{\exp(s_{bb} - \log q_b)}{\sum_{j \notin M_b} \exp(s_{bj} - \log q_j)},
        \qquad s_{bj} = u_b^\top v_j / \tau

    Row ``b`` of the logits has its positive in column ``b``; the other columns, up to those masked, are its
    negatives. Vectors are compared as they come: normalise both for cosine similarity.

    With negatives drawn in proportion to :math:`q` (in a batch of interactions: to popularity) the loss
    without ``log_q`` learns :math:`s = \log p(j \mid b) - \log q_j + c`, a ranking in which what is popular
    is held down; subtracting :math:`\log q_j` restores :math:`s = \log p(j \mid b) + c`.

    Args:
        query: ``(batch, dim)`` anchors.
        item: ``(n, dim)`` with ``n >= batch``: the positives in the queries' order, then extra negatives.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, n)``, true where an item is *not* to count as a negative (a duplicate of the positive,
            something the user is known to like); the positive itself is never masked.
        log_q: ``(n,)`` log of each item's chance of being drawn, up to a constant.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, the latter giving ``(batch,)``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If the shapes do not fit.

    References:
        van den Oord, Li and Vinyals (2018), https://arxiv.org/abs/1807.03748;
        Yi et al. (2019), https://doi.org/10.1145/3298689.3346996 (sampling bias, :math:`\log q`).

    See: chapter 5; chapter 4 derives it.

    >>> anchors = torch.eye(2)
    >>> round(float(info_nce_loss(anchors, anchors, temperature=1.0)), 4)  # log(1 + exp(-1))
    0.3133
    """
    if query.ndim != 2 or item.ndim != 2 or query.shape[1] != item.shape[1] or len(item) < len(query):
        raise InputError(
            f"query {tuple(query.shape)} and item {tuple(item.shape)} do not fit; "
            "give (batch, dim) and (n, dim) with n >= batch"
        )
    if log_q is not None and log_q.shape != (len(item),):
        raise InputError(f"log_q {tuple(log_q.shape)} does not fit; give one entry per item, ({len(item)},)")
    if mask is not None and mask.shape != (len(query), len(item)):
        raise InputError(f"mask {tuple(mask.shape)} does not fit; give one entry per logit, {len(query), len(item)}")
    logits = query @ item.T / temperature  # (B, N)
    if log_q is not None:
        logits = logits - log_q  # (B, N)
    positive = torch.arange(len(query), device=query.device)  # (B,)
    if mask is not None:
        own = positive[:, None] == torch.arange(len(item), device=query.device)  # (B, N)
        logits = logits.masked_fill(mask & ~own, -torch.inf)  # (B, N)
    return F.cross_entropy(logits, positive, reduction=reduction)
