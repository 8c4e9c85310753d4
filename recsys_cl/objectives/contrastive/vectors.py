"""What every loss shares: vectors that can be compared, temperatures, reductions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from recsys_cl.errors import InputError

Reduction = Literal["mean", "sum", "none"]


def comparable(**vectors: Tensor) -> tuple[Tensor, ...]:
    """Vectors that a loss can work with: floating point, finite, at least single precision.

    Half precision is widened, because logits of 20 would be rounded to sixteenths in bfloat16 and overflow
    beyond 65504 in float16.

    Raises:
        InputError: If a tensor holds integers, NaN or infinity, or they mix single and double precision.
    """
    widened = tuple(_comparable(name, tensor) for name, tensor in vectors.items())
    if len({tensor.dtype for tensor in widened}) > 1:
        given = ", ".join(f"{name} of {tensor.dtype}" for name, tensor in vectors.items())
        raise InputError(f"{given} cannot be compared; convert one of them")
    return widened


def _comparable(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise InputError(f"{name} has dtype {tensor.dtype}; vectors are floating point: pass {name}.float()")
    if not tensor.detach().sum().isfinite() and not tensor.isfinite().all():
        index = tuple((~tensor.isfinite()).nonzero()[0].tolist())
        value, row = float(tensor.detach()[index]), index[0] if index else 0
        raise InputError(f"{name} has the value {value} in row {row}; look for what made it before the loss does")
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def check_pairs(query: Tensor, item: Tensor, *, names: tuple[str, str] = ("query", "item")) -> None:
    """Demand one positive for each anchor, ``(batch, dim)`` both, and a batch of at least one.

    Raises:
        InputError: If the shapes are others.
    """
    if query.ndim != 2 or query.shape != item.shape or len(query) == 0:
        raise InputError(
            f"{names[0]} {tuple(query.shape)} and {names[1]} {tuple(item.shape)} do not fit; "
            f"give (batch, dim) for both, row b of {names[1]} being the positive of row b of {names[0]}"
        )


def own_negatives(anchor: Tensor, negative: Tensor) -> Tensor:
    """Each anchor's own negatives as ``(batch, k, dim)``; ``(batch, dim)`` is read as k = 1.

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
    """Anchors and positives ``(batch, dim)`` with at least one negative each, ``(batch, k, dim)``, all comparable.

    Raises:
        InputError: If a shape or a value does not fit.
    """
    anchor, positive, negative = comparable(anchor=anchor, positive=positive, negative=negative)
    check_pairs(anchor, positive, names=("anchor", "positive"))
    negative = own_negatives(anchor, negative)  # (B, K, d)
    if negative.shape[1] == 0:
        raise InputError("each anchor has 0 negatives; give at least one, or use a loss with in-batch negatives")
    return anchor, positive, negative


def check_positive(name: str, value: float | Tensor) -> None:
    """Demand a number, or a scalar tensor, above zero and finite.

    Raises:
        InputError: If it is not.
    """
    number = float(value.detach()) if isinstance(value, Tensor) and value.numel() == 1 else value
    if isinstance(number, Tensor) or not 0 < number < math.inf:
        shown = f"a tensor of shape {tuple(number.shape)}" if isinstance(number, Tensor) else number
        raise InputError(f"{name} is {shown}; give one number above 0")


def unit(vectors: Tensor) -> Tensor:
    """Divide by the length; a zero vector stays zero, so that its cosine with everything is 0.

    Its gradient is then that of a vector of length 1: finite, and enough to leave the origin.
    (Dividing by ``max(length, 1e-12)`` would multiply it by 10¹².)

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)  # (…, 1)
    return vectors / length.masked_fill(length == 0, 1)  # (…, d)


def mean_of_negatives(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over each anchor's negatives ``(batch, k)`` that count; 0 for an anchor of whose negatives none does.

    >>> mean_of_negatives(torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[False, True], [True, True]])).tolist()
    [1.0, 0.0]
    """
    if mask is None:
        return rows.mean(1)  # (B,)
    return sum_of_negatives(rows, mask) / (~mask).sum(1).clamp(min=1)  # (B,)


def sum_of_negatives(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Sum over each anchor's negatives ``(batch, k)`` that count.

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
    """Losses ``(batch,)`` to their mean, their sum, or themselves.

    Raises:
        InputError: If the reduction is another.
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


class LearnedTemperature(nn.Module):
    r"""A temperature that is trained with the model, and never falls below a floor.

    .. math:: \tau = e^{-\theta}, \qquad \theta \le -\log \tau_{\min}

    The logarithm is what is learned, so that steps are relative and :math:`\tau > 0`. Without a floor, training
    sharpens without end once all positives come first, and one mislabelled negative then outweighs the batch.
    The floor projects the *parameter*: clamping the value instead would cut its gradient off beyond the floor,
    and the temperature could never rise again.

    Args:
        initial: Where :math:`\tau` starts.
        lowest: :math:`\tau_{\min}`; 0.01 keeps the logits of cosines within ±100, as CLIP does.

    Raises:
        InputError: If ``lowest`` is not above 0 or ``initial`` is below it.

    References:
        Radford et al. (2021), §2.5, https://arxiv.org/abs/2103.00020.

    See: chapter 4.

    >>> temperature = LearnedTemperature(0.5)
    >>> round(float(temperature().detach()), 4)
    0.5
    """

    def __init__(self, initial: float = 0.07, *, lowest: float = 0.01) -> None:
        super().__init__()
        check_positive("lowest", lowest)
        if not lowest <= initial < math.inf:
            raise InputError(f"initial is {initial}; give a temperature of at least lowest = {lowest}")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(initial)))
        self.lowest = lowest

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        with torch.no_grad():
            self.log_scale.clamp_(max=-math.log(self.lowest))
        return (-self.log_scale).exp()  # ()
