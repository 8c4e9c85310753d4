r"""Softmax log-likelihood with masked logits: dense, or memory-efficient in row blocks with exact gradients.

.. math:: \log Z_b = \log \sum_{j \notin M_b} \exp(u_b^\top v_j / \tau - \log q_j)

is the only expensive part of a contrastive loss: the rest is one score per row. The dense form takes a few matrices of
``(batch, n)``. In blocks of rows it takes one block, whatever the batch size:

.. math:: \frac{\partial \log Z_b}{\partial u_b} = \frac1\tau \sum_j p_{bj} v_j, \qquad
    \frac{\partial \log Z_b}{\partial v_j} = \frac1\tau p_{bj} u_b, \qquad
    \frac{\partial \log Z_b}{\partial \tau} = -\frac1\tau\, u_b^\top \frac{\partial \log Z_b}{\partial u_b},
    \qquad p_{bj} = e^{s_{bj} - \log Z_b}

The forward pass computes :math:`p` of each block anyway, so it also accumulates both sums, ``(batch, dim)`` and
``(n, dim)``. They are the gradient if all rows have the same weight (``"mean"``, ``"sum"``); if weights differ, the
second sum is computed again from recomputed blocks.

A mask is a matrix, or a function from a slice of rows to the mask of those rows.

See: chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError

Mask = Tensor | Callable[[slice], Tensor]
"""Logits to ignore: bool ``(batch, n)``, or a function from a slice of rows to their bool rows, which avoids
materialising the whole mask."""


def rows_of(mask: Mask, rows: slice, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Mask of some rows, ``(R, N)``, checked against the shape of all logits.

    Raises:
        InputError: If the mask is not bool, or its shape does not match the logits (a matrix) or the rows (a function).
    """
    fits = (len(range(shape[0])[rows]), shape[1]) if callable(mask) else shape
    given = mask(rows) if callable(mask) else mask  # (R, N) or (B, N)
    if given.dtype != torch.bool or tuple(given.shape) != fits:
        raise InputError(f"mask {tuple(given.shape)} of {given.dtype} does not fit; give bool, one per logit, {fits}")
    return (given if callable(mask) else given[rows]).to(device)  # (R, N)


def sparing(mask: Mask, target: Tensor, n: int) -> Callable[[slice], Tensor]:
    """Unmask the ``target`` column ``(batch,)`` of each row."""

    def rows(part: slice) -> Tensor:
        own = target[part, None]  # (R, 1)
        return rows_of(mask, part, (len(target), n), target.device).scatter(1, own, False)  # (R, N)

    return rows


def itself(n: int, device: torch.device) -> Callable[[slice], Tensor]:
    """Mask of the diagonal, as a function of a slice of rows: no vector is its own negative."""
    numbers = torch.arange(n, device=device)  # (N,)
    return lambda rows: numbers[rows, None] == numbers  # (R, N)


def others(mask: Mask | None, query: Tensor, item: Tensor) -> Mask:
    """Mask each row's own positive in addition to ``mask``."""
    own = itself(len(item), item.device)
    if mask is None:
        return own
    return lambda rows: own(rows) | rows_of(mask, rows, (len(query), len(item)), item.device)


DENSE = 2**20
"""Maximum number of logits for the dense form, which is as fast up to this size and simpler."""

BLOCK = 2**22
"""Logits per block: 16 MiB in single precision. Smaller blocks slow down the matrix product."""


def nothing(dtype: torch.dtype) -> float:
    """Logit of a masked entry: finite, so the gradient of a fully masked row has no NaN."""
    return torch.finfo(dtype).min


def scores(query: Tensor, item: Tensor, temperature: float | Tensor) -> Tensor:
    """Dot products over the temperature; ``item`` is ``(n, dim)``, shared, or ``(batch, n, dim)``, one set a query."""
    scaled = query / temperature  # (B, d)
    with torch.autocast(query.device.type, enabled=False):
        return scaled @ item.T if item.ndim == 2 else (item @ scaled[:, :, None]).squeeze(2)  # (B, N)


def paired_scores(query: Tensor, item: Tensor, temperature: float | Tensor) -> Tensor:
    """Row-wise dot products over the temperature, ``(batch,)``."""
    return (query * item).sum(-1) / temperature  # (B,)


def dense_logits(
    query: Tensor, item: Tensor, temperature: float | Tensor, mask: Mask | None, log_q: Tensor | None
) -> Tensor:
    """Logits as one matrix ``(batch, n)``; masked entries are :func:`nothing`."""
    logits = scores(query, item, temperature)  # (B, N)
    if log_q is not None:
        logits = logits - log_q  # (B, N)
    if mask is None:
        return logits
    excluded = rows_of(mask, slice(0, len(query)), (len(query), len(item)), query.device)  # (B, N)
    return logits.masked_fill(excluded, nothing(logits.dtype))  # (B, N)


def log_partition(
    query: Tensor,
    item: Tensor,
    temperature: float | Tensor,
    *,
    mask: Mask | None = None,
    log_q: Tensor | None = None,
) -> Tensor:
    r""":math:`\log Z` of each query, ``(batch,)``; dense up to ``DENSE`` logits, in blocks beyond.

    Args:
        query: ``(batch, dim)``.
        item: ``(n, dim)``.
        temperature: A number or a scalar tensor, which may be learned.
        mask: ``(batch, n)``, true where an item is ignored.
        log_q: ``(n,)`` log-probabilities, without gradient.

    Returns:
        ``(batch,)``; about the most negative number of the dtype where all items are masked.
    """
    if len(query) * len(item) <= DENSE:
        return dense_logits(query, item, temperature, mask, log_q).logsumexp(1)  # (B,)
    return _RowLikelihood.apply(query, item, _scalar(temperature, query), mask, log_q, None)  # (B,)


def negative_log_likelihood(
    query: Tensor,
    item: Tensor,
    target: Tensor,
    temperature: float | Tensor,
    *,
    mask: Mask | None = None,
    log_q: Tensor | None = None,
) -> Tensor:
    r""":math:`-\log p_{b, t_b} = \log Z_b - s_{b, t_b}`: cross-entropy over similarities, ``(batch,)``.

    Args:
        query: ``(batch, dim)``.
        item: ``(n, dim)``.
        target: ``(batch,)`` column of each query's positive, which is never masked.
        temperature: A number or a scalar tensor, which may be learned.
        mask: ``(batch, n)``, true where an item is ignored.
        log_q: ``(n,)`` log-probabilities, without gradient.
    """
    if mask is not None:
        mask = sparing(mask, target, len(item))
    if len(query) * len(item) <= DENSE:
        return F.cross_entropy(dense_logits(query, item, temperature, mask, log_q), target, reduction="none")  # (B,)
    return _RowLikelihood.apply(query, item, _scalar(temperature, query), mask, log_q, target)  # (B,)


def symmetric_negative_log_likelihoods(
    query: Tensor,
    item: Tensor,
    temperature: float | Tensor,
    *,
    mask: Mask | None = None,
    log_q: Tensor,
    query_log_q: Tensor,
) -> tuple[Tensor, Tensor]:
    r""":math:`-\log p_{bb}` over the rows and over the columns of one matrix, ``(batch,)`` each.

    Rows are corrected by ``log_q`` ``(batch,)``, columns by ``query_log_q`` ``(batch,)``; the diagonal is never masked.
    """
    own = torch.arange(len(query), device=query.device)  # (B,)
    if mask is not None:
        mask = sparing(mask, own, len(item))
    if len(query) * len(item) <= DENSE:
        logits = dense_logits(query, item, temperature, mask, None)  # (B, B)
        by_row = F.cross_entropy(logits - log_q, own, reduction="none")  # (B,)
        return by_row, F.cross_entropy(logits.T - query_log_q, own, reduction="none")  # (B,) both
    return _BothLikelihoods.apply(query, item, _scalar(temperature, query), mask, log_q, query_log_q)  # (B,) both


def _scalar(temperature: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(temperature, dtype=like.dtype, device=like.device)


def _refuse_second_derivative() -> None:
    """Fail in a double backward, where buffers that are written in place would wrongly count as constants."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"in blocks, beyond {DENSE} logits, there is no second derivative; give a smaller batch")


def _space(query: Tensor, item: Tensor) -> Tensor:
    return query.new_empty(min(max(1, BLOCK // len(item)), len(query)), len(item))  # (R, N)


def _logsumexp_(block: Tensor, dim: int) -> Tensor:
    """Compute ``block.logsumexp(dim)`` in place; it overwrites the block."""
    top = block.amax(dim, keepdim=True)
    return block.sub_(top).exp_().sum(dim).log_().add_(top.squeeze(dim))


def _blocks(
    query: Tensor, item: Tensor, temperature: Tensor, mask: Mask | None, log_q: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """Slices of rows with their corrected and masked logits; each block overwrites the previous one."""
    height, space = max(1, BLOCK // len(item)), _space(query, item)  # (R, N)
    for start in range(0, len(query), height):
        rows = slice(start, min(start + height, len(query)))
        block = space[: rows.stop - start]  # (R, N)
        torch.mm(query[rows] / temperature, item.T, out=block)  # autocast leaves products with `out` alone
        if log_q is not None:
            block -= log_q  # (R, N)
        if mask is not None:
            block.masked_fill_(rows_of(mask, rows, (len(query), len(item)), query.device), nothing(block.dtype))
        yield rows, block


class _RowLikelihood(torch.autograd.Function):
    r""":math:`\log Z` of each row, minus the logit of the row's target if there is one, in blocks.

    Subtracting the target here, not outside, avoids copies of all vectors. The gradient with respect to the logits is
    :math:`p - [j = t_b]` instead of :math:`p`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        item: Tensor,
        temperature: Tensor,
        mask: Mask | None,
        log_q: Tensor | None,
        target: Tensor | None,
    ) -> Tensor:
        log_z, slope, value = query.new_empty(3, len(query))  # (B,) all
        trains = any(ctx.needs_input_grad)
        for_query = torch.empty_like(query) if trains else query  # (B, d)
        for_item = torch.zeros_like(item) if trains else item  # (N, d)
        for rows, block in _blocks(query, item, temperature, mask, log_q):
            own = 0 if target is None else block.gather(1, target[rows, None])  # (R, 1)
            top = block.amax(1, keepdim=True)  # (R, 1)
            weights = block.sub_(top).exp_()  # (R, N), p before normalisation
            total = weights.sum(1, keepdim=True)  # (R, 1)
            log_z[rows] = (total.log() + top).squeeze(1)
            value[rows] = (total.log() + (top - own)).squeeze(1)
            if trains:
                torch.mm(weights, item, out=for_query[rows]).div_(total)
                for_item.addmm_(weights.T, query[rows] / total)
                if target is not None:
                    for_query[rows] -= item[target[rows]]
                    for_item.index_add_(0, target[rows], query[rows], alpha=-1)
                slope[rows] = (query[rows] * for_query[rows]).sum(1)
        ctx.mask, ctx.log_q, ctx.target = mask, log_q, target
        ctx.save_for_backward(query, item, temperature, log_z, slope, for_query, for_item)
        return value

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        query, item, temperature, log_z, slope, for_query, for_item = ctx.saved_tensors
        scale = weight / temperature  # (B,)
        if bool((weight == weight[0]).all()):
            item_gradient = for_item * scale[0]  # (N, d)
        else:
            item_gradient = torch.zeros_like(item)  # (N, d)
            for rows, block in _blocks(query, item, temperature, ctx.mask, ctx.log_q):
                p, weighted = block.sub_(log_z[rows, None]).exp_(), query[rows] * scale[rows, None]  # (R, N), (R, d)
                item_gradient.addmm_(p.T, weighted)
                if ctx.target is not None:
                    item_gradient.index_add_(0, ctx.target[rows], weighted, alpha=-1)
        return for_query * scale[:, None], item_gradient, -(scale * slope).sum() / temperature, None, None, None


class _BothLikelihoods(torch.autograd.Function):
    r""":math:`\log Z` minus the diagonal, over rows and over columns, in one pass over the blocks.

    A column is complete only after the last block, so its logsumexp is accumulated online and backward recomputes the
    blocks.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        item: Tensor,
        temperature: Tensor,
        mask: Mask | None,
        log_q: Tensor,
        query_log_q: Tensor,
    ) -> tuple[Tensor, Tensor]:
        by_row, own = query.new_empty(2, len(query))  # (B,) both
        by_column = query.new_full((len(item),), -torch.inf)  # (B,)
        space = _space(query, item)  # (R, B)
        for rows, block in _blocks(query, item, temperature, mask, None):
            own[rows] = block.diagonal(rows.start)
            by_row[rows] = _logsumexp_(torch.sub(block, log_q, out=space[: len(block)]), 1)
            by_column = torch.logaddexp(by_column, _logsumexp_(block.sub_(query_log_q[rows, None]), 0))  # (B,)
        ctx.mask = mask
        ctx.save_for_backward(query, item, temperature, log_q, query_log_q, by_row, by_column)
        return by_row - (own - log_q), by_column - (own - query_log_q)

    @staticmethod
    def backward(ctx: Any, row_weight: Tensor, column_weight: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        query, item, temperature, log_q, query_log_q, by_row, by_column = ctx.saved_tensors
        query_gradient = torch.empty_like(query)  # (B, d)
        item_gradient = torch.zeros_like(item)  # (B, d)
        slope = torch.zeros_like(temperature)  # ()
        space = _space(query, item)  # (R, B)
        for rows, block in _blocks(query, item, temperature, ctx.mask, None):
            along_columns = torch.sub(block, by_column, out=space[: len(block)]).sub_(query_log_q[rows, None])
            along_columns.exp_().mul_(column_weight)  # (R, B)
            along_rows = block.sub_(by_row[rows, None]).sub_(log_q).exp_().mul_(row_weight[rows, None])  # (R, B)
            weights = along_rows.add_(along_columns)  # (R, B)
            weights.diagonal(rows.start).sub_(row_weight[rows] + column_weight[rows])
            torch.mm(weights.div_(temperature), item, out=query_gradient[rows])
            item_gradient.addmm_(weights.T, query[rows])
            slope += (query[rows] * query_gradient[rows]).sum()
        return query_gradient, item_gradient, -slope / temperature, None, None, None
