"""Who does not count: masks as matrices, or as functions that give some rows of one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recsys_cl.errors import InputError

Mask = Tensor | Callable[[slice], Tensor]
"""What does not count: bool ``(batch, n)``, or a function from a slice of rows to their bool rows, for batches
whose mask should never exist as a whole."""


def rows_of(mask: Mask, rows: slice, shape: tuple[int, int], device: torch.device) -> Tensor:
    """The mask of some rows, checked.

    Raises:
        InputError: If it is not bool, or not of the shape of these rows' logits.
    """
    block = mask(rows) if callable(mask) else mask[rows]  # (R, N)
    if block.dtype != torch.bool or tuple(block.shape) != shape:
        raise InputError(f"mask {tuple(block.shape)} of {block.dtype} does not fit; give bool, one per logit, {shape}")
    return block.to(device)


def sparing(mask: Mask, target: Tensor, n: int) -> Callable[[slice], Tensor]:
    """The same mask, except that every row's ``target`` of ``(batch,)`` counts."""

    def rows(part: slice) -> Tensor:
        own = target[part, None]  # (R, 1)
        return rows_of(mask, part, (len(own), n), target.device).scatter(1, own, False)  # (R, N)

    return rows


def itself(n: int, device: torch.device) -> Callable[[slice], Tensor]:
    """Nothing is its own negative: the diagonal, some rows at a time."""
    numbers = torch.arange(n, device=device)  # (N,)
    return lambda rows: numbers[rows, None] == numbers  # (R, N)


def others(mask: Mask | None, query: Tensor, item: Tensor) -> Mask:
    """The mask with every row's own positive masked as well."""
    own = itself(len(item), item.device)
    if mask is None:
        return own
    return lambda rows: own(rows) | rows_of(mask, rows, (len(query[rows]), len(item)), item.device)
