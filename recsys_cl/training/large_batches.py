"""Large-batch contrastive training: gradient caching in bounded memory, and in-batch negatives from all processes.

Gradient caching encodes in slices and recomputes each slice in the backward pass. Gathering concatenates the rows of
all processes and returns each gradient to the process of its row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recsys_cl.errors import InputError


def encode_in_chunks(encode: Callable[..., Tensor], *inputs: Tensor, chunk_size: int) -> Tensor:
    r"""Gradient caching (GradCache): encode a batch slice by slice, keeping the vectors but not the activations.

    A contrastive loss compares every row with every other, so accumulating the gradients of small batches is not
    equivalent to one large batch. But the chain rule passes through the vectors :math:`v_b = f_\theta(x_b)`,

    .. math:: \frac{\partial L}{\partial \theta} = \sum_{C} \sum_{b \in C}
        \frac{\partial L}{\partial v_b}\, \frac{\partial f_\theta(x_b)}{\partial \theta},

    and once :math:`\partial L / \partial v` is known, each slice :math:`C` of the batch can be processed separately.
    GradCache does so in two passes over the batch. These two passes are gradient checkpointing with slices of the batch
    as segments, which is the implementation here: the result is an ordinary tensor for any loss and a single
    ``backward()``, which encodes each slice a second time. Memory holds the inputs, the vectors and the activations of
    one slice; the cost is one more forward pass.

    The second pass restores the random state of the first (of the CPU, and of the device of ``inputs``), so dropout is
    the same in both, and leaves the generators unchanged. Without gradients there is no second pass.

    Args:
        encode: Maps a slice of the inputs, ``(c, ...)`` each, to ``(c, dim)``, row by row: statistics over rows, as
            in batch normalisation, would be those of the slice.
        inputs: ``(batch, ...)`` each, on the device on which ``encode`` computes.
        chunk_size: Rows per slice; the last slice may have fewer.

    Returns:
        ``(batch, dim)`` vectors.

    Raises:
        InputError: If there is nothing to encode, the inputs differ in length, or ``chunk_size`` is not positive.

    References:
        Gao, Zhang, Han and Callan (2021), https://arxiv.org/abs/2101.06983;
        Chen, Xu, Zhang and Guestrin (2016), https://arxiv.org/abs/1604.06174 (checkpointing).

    See: chapter 4.

    >>> rows = []
    >>> vectors = encode_in_chunks(lambda x: rows.append(len(x)) or 2 * x, torch.ones(5, 1), chunk_size=2)
    >>> rows, vectors.flatten().tolist()
    ([2, 2, 1], [2.0, 2.0, 2.0, 2.0, 2.0])
    """
    if chunk_size < 1:
        raise InputError(f"chunk_size={chunk_size} is not valid; give 1 or more rows per slice")
    lengths = {len(tensor) for tensor in inputs}
    if len(lengths) != 1 or 0 in lengths:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs) or "none"
        raise InputError(f"inputs {shapes} do not fit; give tensors with the same number of rows, at least one")
    chunks = zip(*(tensor.split(chunk_size) for tensor in inputs), strict=True)
    return torch.cat([checkpoint(encode, *chunk, use_reentrant=False) for chunk in chunks])  # (B, d)


def gather_items(rows: Tensor) -> Tensor:
    r"""Gather the rows of all processes, own rows first; with one process, return the tensor unchanged.

    Own rows come first because :func:`~recsys_cl.losses.info_nce_loss` expects the positives in the queries' order,
    then extra negatives. The rows of the following ranks come next, cyclically. Gather the item numbers as well, to
    look up masks and :math:`\log q` for all columns.

    **Gradient.** Let :math:`W` processes hold :math:`B` rows each, and let :math:`L_p` be the mean loss of the rows
    of process p, each compared with all :math:`WB` items. Then :math:`L = \frac1W \sum_p L_p` is the mean over the
    global batch. The items :math:`v_r` of process r are columns of every :math:`L_p`, so backward sums their gradients
    over the processes, and process r computes

    .. math:: g_r = \frac{\partial L_r}{\partial u_r} \frac{\partial u_r}{\partial \theta}
        + \Big[\sum_p \frac{\partial L_p}{\partial v_r}\Big] \frac{\partial v_r}{\partial \theta}
        + \frac{\partial L_r}{\partial \theta}

    with its queries :math:`u_r`; the last term covers parameters that enter the loss directly, such as a temperature.
    ``DistributedDataParallel`` averages over the processes, and :math:`\frac1W \sum_r g_r = \mathrm{d}L/\mathrm{d}
    \theta` exactly: no factor of :math:`W` needs correcting.

    **Both directions.** In a symmetric loss each *own item* identifies its query among the queries of all processes.
    That is a second problem of :math:`B` rows and :math:`WB` columns, not the transpose of the first, so gather
    both sides: ``(info_nce_loss(query, gather_items(item)) + info_nce_loss(item, gather_items(query))) / 2``, with
    own items as rows and all users as columns of the second mask.

    All processes must call this the same number of times and in the same order, and all or none must run backward.

    Args:
        rows: ``(batch, ...)``, of the same shape in all processes.

    Returns:
        ``(processes * batch, ...)`` rows.

    Raises:
        InputError: If batch sizes differ: the mean of the batch means would not be the mean over the rows.

    References:
        Chen, Kornblith, Norouzi and Hinton (2020), https://arxiv.org/abs/2002.05709 (negatives of all devices).

    See: chapter 4.

    >>> gather_items(torch.tensor([3, 1])).tolist()  # one process
    [3, 1]
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    sizes = _all_gather(torch.tensor([len(rows)], device=rows.device)).tolist()
    if len(set(sizes)) > 1:
        raise InputError(f"the processes hold batches of {sizes} rows; give all the same number, by repeating rows")
    return _Gather.apply(rows)


def mean_over_processes(rows: Tensor) -> Tensor:
    r"""Mean over the rows of all processes, which may hold different numbers of rows.

    With :math:`n_p` rows in process p and W processes, each returns :math:`W \sum_r \ell_r / \sum_p n_p`. Since
    ``DistributedDataParallel`` averages the gradients, the result is the mean over all rows. A mean of means would
    overweight the rows of processes with few rows.

    Args:
        rows: ``(n,)`` losses.

    Returns:
        A scalar; with one process, the mean.

    See: chapter 11.

    >>> mean_over_processes(torch.tensor([1.0, 3.0]))  # one process
    tensor(2.)
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows.mean()
    count = torch.tensor(float(len(rows)), device=rows.device)
    dist.all_reduce(count)
    return rows.sum() * dist.get_world_size() / count


def _all_gather(rows: Tensor) -> Tensor:
    """Rows of all processes by rank, without gradient."""
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]  # W times (B, ...)
    dist.all_gather(parts, rows)
    return torch.cat(parts)  # (W * B, ...)


class _Gather(torch.autograd.Function):
    """Forward: concatenate over processes. Backward: sum over processes and keep the own part."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.start = dist.get_rank() * len(rows)
        return _all_gather(rows.contiguous()).roll(-ctx.start, 0)  # (W * B, ...), own first

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        by_rank = gradient.roll(ctx.start, 0)  # (W * B, ...), rank 0 first
        dist.all_reduce(by_rank)
        size = len(gradient) // dist.get_world_size()
        return by_rank[ctx.start : ctx.start + size]  # (B, ...)
