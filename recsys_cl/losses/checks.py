"""Input checks and reductions shared by all losses: dtypes, finite values, shapes, temperatures.

See: chapter 4.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

from recsys_cl.errors import InputError

Reduction = Literal["mean", "sum", "none"]
"""Reduction of a loss over the batch."""


def comparable(**vectors: Tensor) -> tuple[Tensor, ...]:
    """Check that vectors are floating point and finite, and widen half precision to single.

    In bfloat16 a logit of 20 would be off by up to 1/16; float16 overflows beyond 65504.

    Raises:
        InputError: If a tensor holds integers, NaN or infinity, or if single and double precision are mixed.
    """
    widened = tuple(_comparable(name, tensor) for name, tensor in vectors.items())
    if len({tensor.dtype for tensor in widened}) > 1:
        given = ", ".join(f"{name} of {tensor.dtype}" for name, tensor in vectors.items())
        raise InputError(f"{given} cannot be compared; convert one of them")
    return widened


def _comparable(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise InputError(f"{name} has dtype {tensor.dtype}; vectors must be floating point: pass {name}.float()")
    if not tensor.detach().sum().isfinite() and not tensor.isfinite().all():
        index = tuple((~tensor.isfinite()).nonzero()[0].tolist())
        value, row = float(tensor.detach()[index]), index[0] if index else 0
        raise InputError(f"{name} has the value {value} in row {row}; find the step before the loss that produced it")
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def check_pairs(query: Tensor, item: Tensor, *, names: tuple[str, str] = ("query", "item")) -> None:
    """Check that both are ``(batch, dim)``, one positive per anchor, and that the batch is not empty.

    Raises:
        InputError: If they are not.
    """
    if query.ndim != 2 or query.shape != item.shape or len(query) == 0:
        raise InputError(
            f"{names[0]} {tuple(query.shape)} and {names[1]} {tuple(item.shape)} do not fit; "
            f"give (batch, dim) for both, where row b of {names[1]} is the positive of row b of {names[0]}"
        )


def own_negatives(anchor: Tensor, negative: Tensor) -> Tensor:
    """Per-anchor negatives as ``(batch, k, dim)``; ``(batch, dim)`` is read as k = 1.

    Raises:
        InputError: If ``negative`` has another shape.
    """
    own = negative[:, None] if negative.ndim == 2 else negative  # (B, K, d)
    if own.ndim != 3 or (len(own), own.shape[2]) != tuple(anchor.shape):
        raise InputError(
            f"negative {tuple(negative.shape)} does not fit anchors {tuple(anchor.shape)}; "
            "give (batch, dim), or (batch, k, dim) for k negatives each"
        )
    return own


def check_triplets(anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check anchors and positives ``(batch, dim)`` and at least one negative per anchor, ``(batch, k, dim)``.

    Raises:
        InputError: If a shape does not fit or a value is not valid.
    """
    anchor, positive, negative = comparable(anchor=anchor, positive=positive, negative=negative)
    check_pairs(anchor, positive, names=("anchor", "positive"))
    negative = own_negatives(anchor, negative)  # (B, K, d)
    if negative.shape[1] == 0:
        raise InputError("each anchor has 0 negatives; give at least one, or use a loss with in-batch negatives")
    return anchor, positive, negative


def check_positive(name: str, value: float | Tensor) -> None:
    """Check that a number or a scalar tensor is positive and finite.

    Raises:
        InputError: If it is not.
    """
    number = float(value.detach()) if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(number, Real) or not 0 < number < math.inf:
        shown = f"a tensor of shape {tuple(number.shape)}" if isinstance(number, Tensor) else repr(number)
        raise InputError(f"{name} is {shown}; give one number above 0")


def unit(vectors: Tensor) -> Tensor:
    """Normalise to unit length; a zero vector stays zero, so its cosine with any vector is 0.

    A zero vector gets the gradient of a vector of length 1: finite, and large enough to leave the origin.
    (Dividing by ``max(length, 1e-12)`` would multiply the gradient by 10¹².)

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)  # (…, 1)
    return vectors / length.masked_fill(length == 0, 1)  # (…, d)


def mean_of_negatives(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over each anchor's unmasked negatives ``(batch, k)``; 0 for an anchor whose negatives are all masked.

    >>> mean_of_negatives(torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[False, True], [True, True]])).tolist()
    [1.0, 0.0]
    """
    if mask is None:
        return rows.mean(1)  # (B,)
    return sum_of_negatives(rows, mask) / (~mask).sum(1).clamp(min=1)  # (B,)


def sum_of_negatives(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Sum over each anchor's unmasked negatives ``(batch, k)``.

    Raises:
        InputError: If the mask is not bool, one entry per negative.
    """
    if mask is None:
        return rows.sum(1)  # (B,)
    if mask.dtype != torch.bool or mask.shape != rows.shape:
        raise InputError(
            f"mask {tuple(mask.shape)} of {mask.dtype} does not fit; give bool, one per negative, {tuple(rows.shape)}"
        )
    return rows.masked_fill(mask, 0).sum(1)  # (B,)


def reduce(rows: Tensor, reduction: Reduction) -> Tensor:
    """Reduce losses ``(batch,)`` to their mean or sum, or return them unchanged.

    Raises:
        InputError: If the reduction is unknown.
    """
    match reduction:
        case "mean":
            return rows.mean()
        case "sum":
            return rows.sum()
        case "none":
            return rows
        case _:
            raise InputError(f"no reduction {reduction!r}; choose from 'mean', 'sum', 'none'")
