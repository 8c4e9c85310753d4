r"""Losses that decide pair by pair: is this one a positive, or better than that one?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.objectives.contrastive.masks import Mask, rows_of
from recsys_cl.objectives.contrastive.partition import paired_scores, scores
from recsys_cl.objectives.contrastive.vectors import (
    Reduction,
    check_pairs,
    check_positive,
    check_triplets,
    comparable,
    mean_of_negatives,
    reduce,
    sum_of_negatives,
)


def logistic_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Logistic loss with negative sampling: each pair is classified by itself (SGNS).

    .. math:: L = -\log \sigma(a^\top p / \tau) - \sum_k \log \sigma(-a^\top n_k / \tau)

    The minus in the second term is what repels. The optimum is
    :math:`a^\top p / \tau = \log p(p \mid a) - \log q(p) - \log k`, for negatives from the marginal the pointwise
    mutual information less :math:`\log k`.

    Args:
        anchor: ``(batch, dim)``, compared as they come.
        positive: ``(batch, dim)``.
        negative: ``(batch, dim)`` or ``(batch, k, dim)``; an anchor's k terms are summed.
        temperature: :math:`\tau > 0`.
        mask: ``(batch, k)``, true where a negative is not to count (something the user is known to like).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, the temperature is not above 0, or a vector is not finite.

    References:
        Mikolov et al. (2013), https://arxiv.org/abs/1310.4546; Levy and Goldberg (2014) for the optimum.

    See: chapter 4.

    >>> a = torch.ones(1, 1)
    >>> round(float(logistic_loss(a, a, -a)), 4)  # 2 log(1 + exp(-1))
    0.6265
    """
    anchor, positive, negative = check_triplets(anchor, positive, negative)
    check_positive("temperature", temperature)
    pull = F.softplus(-paired_scores(anchor, positive, temperature))  # (B,)
    push = F.softplus(scores(anchor, negative, temperature))  # (B, K)
    return reduce(pull + sum_of_negatives(push, mask), reduction)


def bpr_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Bayesian personalised ranking: the positive scores above the negative.

    .. math:: L = -\log \sigma\bigl((a^\top p - a^\top n) / \tau\bigr)

    It is InfoNCE with one negative, and the soft-margin triplet with :math:`-a^\top x / \tau` for a distance.

    Args:
        anchor: ``(batch, dim)``, compared as they come.
        positive: ``(batch, dim)``.
        negative: ``(batch, dim)`` or ``(batch, k, dim)``; the loss of an anchor is the mean over its k.
        temperature: :math:`\tau > 0`; the paper has 1.
        mask: ``(batch, k)``, true where a negative is not to count (something the user is known to like).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, the temperature is not above 0, or a vector is not finite.

    References:
        Rendle et al. (2009), https://arxiv.org/abs/1205.2618.

    See: chapter 4.

    >>> a = torch.ones(1, 1)
    >>> round(float(bpr_loss(a, a, 0 * a)), 4)  # log(1 + exp(-1))
    0.3133
    """
    anchor, positive, negative = check_triplets(anchor, positive, negative)
    check_positive("temperature", temperature)
    gaps = scores(anchor, negative, temperature) - paired_scores(anchor, positive, temperature)[:, None]  # (B, K)
    return reduce(mean_of_negatives(F.softplus(gaps), mask), reduction)


def sigmoid_loss(
    query: Tensor,
    item: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    mask: Mask | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Sigmoid loss over all pairs of a batch: the logistic loss with in-batch negatives (SigLIP).

    .. math:: L_b = -\log \sigma(s_{bb}) - \sum_{j \neq b,\, j \notin M_b} \log \sigma(-s_{bj}), \qquad
        s_{bj} = u_b^\top v_j / \tau + \beta

    No sum runs over a row inside a logarithm, so pairs do not compete. With B − 1 negatives to one positive the
    bias :math:`\beta` starts low, or the first steps would only push.

    Args:
        query: ``(batch, dim)``, compared as they come (the paper normalises).
        item: ``(batch, dim)`` the queries' positives in their order.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        bias: :math:`\beta`, a number or a learned scalar tensor.
        mask: ``(batch, batch)``, true where an item is not to count; the positive itself always counts.
        reduction: ``"mean"`` over queries, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, the temperature is not above 0, the bias is not one finite number, or a
            vector is not finite.

    References:
        Zhai et al. (2023), https://arxiv.org/abs/2303.15343.

    See: chapter 4.

    >>> round(float(sigmoid_loss(torch.eye(2), torch.eye(2), temperature=1.0, bias=0.0)), 4)  # log(1 + 1/e) + log 2
    1.0064
    """
    query, item = comparable(query=query, item=item)
    check_pairs(query, item)
    check_positive("temperature", temperature)
    _check_bias(bias)
    sign = 1 - 2 * torch.eye(len(query), dtype=query.dtype, device=query.device)  # (B, B)
    losses = F.softplus(sign * (scores(query, item, temperature) + bias))  # (B, B)
    if mask is not None:
        excluded = rows_of(mask, slice(0, len(query)), (len(query), len(item)), query.device)  # (B, B)
        losses = losses.masked_fill(excluded & (sign > 0), 0)  # (B, B)
    return reduce(losses.sum(1), reduction)


def _check_bias(bias: float | Tensor) -> None:
    value = torch.as_tensor(bias)
    if value.numel() != 1 or not value.isfinite():
        raise InputError(f"bias is {bias}; give one finite number")
