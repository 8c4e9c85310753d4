r"""Losses on distances with a margin: a positive closer than a negative, by enough."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.objectives.contrastive.vectors import (
    Reduction,
    check_positive,
    check_triplets,
    mean_of_negatives,
    reduce,
    unit,
)

Distance = Literal["euclidean", "squared", "cosine"]


def distance(first: Tensor, second: Tensor, kind: Distance) -> Tensor:
    r"""Distance along the last dimension.

    Euclidean :math:`\lVert x - y \rVert`, its square, or cosine :math:`1 - \cos(x, y)`, which is half the square
    between normalised vectors. The Euclidean distance has a corner where it is 0; its gradient there is taken as 0.

    Args:
        first: ``(…, dim)``.
        second: ``(…, dim)``, broadcast against ``first``.
        kind: ``"euclidean"``, ``"squared"`` or ``"cosine"``.

    Raises:
        InputError: If ``kind`` is another.
    """
    match kind:
        case "euclidean":
            return torch.linalg.vector_norm(first - second, dim=-1)  # (…)
        case "squared":
            return (first - second).square().sum(-1)  # (…)
        case "cosine":
            return 1 - (unit(first) * unit(second)).sum(-1)  # (…)
        case _:
            raise InputError(f"no distance {kind!r}; choose from 'euclidean', 'squared', 'cosine'")


def triplet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 0.2,
    distance: Distance = "euclidean",
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Triplet loss with a hinge: the positive closer than the negative, by a margin.

    .. math:: L = \max\{0,\; d(a, p) - d(a, n) + m\}

    Without the maximum the loss has no lower bound: pushing negatives to infinity would always pay. A triplet
    that satisfies the margin is silent. So is a batch of identical vectors: its loss is the margin, and where the
    Euclidean distance has its kink the gradient is taken as 0.

    Args:
        anchor: ``(batch, dim)``.
        positive: ``(batch, dim)``.
        negative: ``(batch, dim)`` or ``(batch, k, dim)``; the loss of an anchor is the mean over its k.
        margin: :math:`m > 0`, in units of the distance.
        distance: ``"euclidean"``, ``"squared"`` or ``"cosine"``.
        mask: ``(batch, k)``, true where a negative is not to count (something the user is known to like).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss, in units of the distance.

    Raises:
        InputError: If shapes do not fit, the margin is not above 0, or a vector is not finite.

    References:
        Schroff, Kalenichenko and Philbin (2015), https://arxiv.org/abs/1503.03832.

    See: chapter 4.

    >>> u = torch.tensor([[0.2, 0.3, 0.1, 0.4]])
    >>> p, n = torch.tensor([[0.1, 0.3, 0.5, 0.1]]), torch.tensor([[0.5, 0.1, 0.3, 0.5]])
    >>> round(float(triplet_loss(u, p, n, margin=0.1)), 4)  # .5099 - .4243 + .1
    0.1856
    """
    check_positive("margin", margin)
    return reduce(mean_of_negatives(F.relu(_gaps(anchor, positive, negative, distance) + margin), mask), reduction)


def soft_triplet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance: Distance = "euclidean",
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Triplet loss with a soft margin: it keeps pulling, ever less, when the order is right.

    .. math:: L = \log\bigl(1 + e^{d(a, p) - d(a, n)}\bigr)

    Args:
        anchor: ``(batch, dim)``.
        positive: ``(batch, dim)``.
        negative: ``(batch, dim)`` or ``(batch, k, dim)``; the loss of an anchor is the mean over its k.
        distance: ``"euclidean"``, ``"squared"`` or ``"cosine"``.
        mask: ``(batch, k)``, true where a negative is not to count (something the user is known to like).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit or a vector is not finite.

    References:
        Hermans, Beyer and Leibe (2017), https://arxiv.org/abs/1703.07737.

    See: chapter 4.

    >>> a = torch.zeros(1, 2)
    >>> round(float(soft_triplet_loss(a, a, torch.tensor([[3.0, 4.0]]))), 4)  # log(1 + exp(-5))
    0.0067
    """
    return reduce(mean_of_negatives(F.softplus(_gaps(anchor, positive, negative, distance)), mask), reduction)


def pairwise_contrastive_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Contrastive loss on pairs: positives to distance 0, negatives beyond a margin, each on its own.

    .. math:: L = \tfrac12 d(a, p)^2 + \tfrac12 \max\{0,\; m - d(a, n)\}^2

    Unlike a triplet it fixes a scale: how close is close does not depend on the negative.

    Args:
        anchor: ``(batch, dim)``.
        positive: ``(batch, dim)``.
        negative: ``(batch, dim)`` or ``(batch, k, dim)``; the second term is the mean over an anchor's k.
        margin: :math:`m > 0`, a Euclidean distance.
        mask: ``(batch, k)``, true where a negative is not to count (something the user is known to like).
        reduction: ``"mean"`` over anchors (both terms summed), ``"sum"`` or ``"none"``.

    Returns:
        The loss, in units of squared distance.

    Raises:
        InputError: If shapes do not fit, the margin is not above 0, or a vector is not finite.

    References:
        Hadsell, Chopra and LeCun (2006), https://doi.org/10.1109/CVPR.2006.100.

    See: chapter 4.

    >>> a, p, n = torch.tensor([[0.0]]), torch.tensor([[0.2]]), torch.tensor([[0.6]])
    >>> round(float(pairwise_contrastive_loss(a, p, n)), 4)  # (.2² + .4²) / 2
    0.1
    """
    check_positive("margin", margin)
    anchor, positive, negative = check_triplets(anchor, positive, negative)
    pull = distance(anchor, positive, "squared")  # (B,)
    push = F.relu(margin - distance(anchor[:, None], negative, "euclidean")).square()  # (B, K)
    return reduce((pull + mean_of_negatives(push, mask)) / 2, reduction)


def _gaps(anchor: Tensor, positive: Tensor, negative: Tensor, kind: Distance) -> Tensor:
    """How much farther the positive is than each negative, ``(batch, k)``."""
    anchor, positive, negative = check_triplets(anchor, positive, negative)
    return distance(anchor, positive, kind)[:, None] - distance(anchor[:, None], negative, kind)  # (B, K)
