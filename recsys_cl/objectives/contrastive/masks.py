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
    """The mask of some rows of logits that have this shape in all, checked.

    Raises:
        InputError: If a matrix does not fit all logits, or what a function gives not those of the rows; or not bool.
    """
    fits = (len(range(shape[0])[rows]), shape[1]) if callable(mask) else shape
    given = mask(rows) if callable(mask) else mask  # (R, N) or (B, N)
    if given.dtype != torch.bool or tuple(given.shape) != fits:
        raise InputError(f"mask {tuple(given.shape)} of {given.dtype} does not fit; give bool, one per logit, {fits}")
    return (given if callable(mask) else given[rows]).to(device)  # (R, N)


def sparing(mask: Mask, target: Tensor, n: int) -> Callable[[slice], Tensor]:
    """The same mask, except that every row's ``target`` of ``(batch,)`` counts."""

    def rows(part: slice) -> Tensor:
        own = target[part, None]  # (R, 1)
        return rows_of(mask, part, (len(target), n), target.device).scatter(1, own, False)  # (R, N)

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
    return lambda rows: own(rows) | rows_of(mask, rows, (len(query), len(item)), item.device)
