"""Alignment and uniformity on the unit sphere: how close positives are, and how evenly all vectors are spread."""

from __future__ import annotations

import math

from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import check_pairs, check_positive, comparable, unit
from recsys_cl.losses.partition import itself, log_partition


def alignment(first: Tensor, second: Tensor, *, power: float = 2.0) -> Tensor:
    r"""Alignment: mean distance between the normalised vectors of positive pairs; 0 is perfect.

    .. math:: \mathbb{E}\, \lVert x - y \rVert^\alpha

    Args:
        first: ``(batch, dim)``, normalised here.
        second: ``(batch, dim)``, the positives of ``first``, row by row, normalised here.
        power: Exponent of the distance, :math:`\alpha \ge 1`.

    Returns:
        A scalar between 0 and :math:`2^\alpha`.

    Raises:
        InputError: If shapes do not fit, the power is below 1, or a vector is not finite.

    References:
        Wang and Isola (2020), https://arxiv.org/abs/2005.10242.

    See: chapter 4.

    >>> import torch
    >>> float(alignment(torch.eye(2), -torch.eye(2)))
    4.0
    """
    first, second = comparable(first=first, second=second)
    check_pairs(first, second, names=("first", "second"))
    if not 1 <= power < math.inf:
        raise InputError(f"power is {power}; give a number of at least 1: below 1, equal vectors have no gradient")
    return (unit(first) - unit(second)).norm(dim=1).pow(power).mean()  # ()


def uniformity(embedding: Tensor, *, sharpness: float = 2.0) -> Tensor:
    r"""Uniformity: log of the mean Gaussian potential over all pairs; lower means more evenly spread.

    .. math:: \log \mathbb{E}_{i \neq j}\, e^{-t \lVert x_i - x_j \rVert^2}
        = \operatorname*{logsumexp}_i \log \sum_{j \neq i} e^{2t\, x_i^\top x_j} - 2t - \log N(N - 1)

    The right-hand side is the partition function of a contrastive loss at temperature :math:`1 / 2t`: repelling
    negatives optimises uniformity. Identical vectors give 0; the value for a uniform sphere depends on the dimension.

    Args:
        embedding: ``(n, dim)`` with ``n >= 2``, normalised here.
        sharpness: Inverse width of the Gaussian, :math:`t > 0`.

    Returns:
        A scalar, at most 0.

    Raises:
        InputError: If the shape does not fit, the sharpness is not above 0, or a vector is not finite.

    References:
        Wang and Isola (2020), https://arxiv.org/abs/2005.10242.

    See: chapter 4.

    >>> import torch
    >>> round(float(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))), 4)  # squared distance 4, times -2
    -8.0
    """
    (embedding,) = comparable(embedding=embedding)
    check_positive("sharpness", sharpness)
    if embedding.ndim != 2 or len(embedding) < 2:
        raise InputError(f"embedding {tuple(embedding.shape)} has no pairs; give (n, dim) with n >= 2")
    x, n = unit(embedding), len(embedding)  # (N, d)
    log_z = log_partition(x, x, 1 / (2 * sharpness), mask=itself(n, x.device))  # (N,)
    return log_z.logsumexp(0) - 2 * sharpness - math.log(n * (n - 1))  # ()
