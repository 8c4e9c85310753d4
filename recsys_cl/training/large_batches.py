"""Large contrastive batches: gradient caching in bounded memory, and in-batch negatives of all processes.

Gradient caching encodes in slices and recomputes each slice when its gradient is due. Gathering takes the rows of all
processes and sends their gradients back to where they came from.
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
    r"""Encode a batch slice by slice and keep the vectors, but not what the encoder computed on the way.

    A contrastive loss compares every row with every other, so accumulating the gradients of small batches is not
    the same as one large batch. But the chain rule passes through the vectors :math:`v_b = f_\theta(x_b)`,

    .. math:: \frac{\partial L}{\partial \theta} = \sum_{C} \sum_{b \in C}
        \frac{\partial L}{\partial v_b}\, \frac{\partial f_\theta(x_b)}{\partial \theta},

    and once :math:`\partial L / \partial v` is known, each slice :math:`C` of the batch can be taken by itself.
    GradCache does so in two passes over the batch. The same two passes are gradient checkpointing with slices of
    the batch as its segments, which is how it is done here: the result is an ordinary tensor, for any loss and one
    ordinary ``backward()``, during which each slice is encoded a second time. Memory holds the inputs, the vectors
    and the activations of one slice; the price is one more forward pass.

    The second pass starts from the random state of the first (of the CPU, and of the device that ``inputs`` are
    on), so that dropout is the same in both, and leaves the generators where it found them. Without gradients there
    is no second pass.

    Args:
        encode: Maps a slice of the inputs, ``(c, ...)`` each, to ``(c, dim)``, row by row: statistics over rows, as
            in batch normalisation, would be those of a slice.
        inputs: ``(batch, ...)`` each, on the device that ``encode`` computes on.
        chunk_size: Rows per slice; the last slice may have fewer.

    Returns:
        ``(batch, dim)``

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
    r"""Gather the rows of all processes, own rows first; with one process, the tensor as it is.

    Own rows first, because :func:`~recsys_cl.losses.info_nce_loss` takes the positives in the
    queries' order and extra negatives after them; then those of the next rank, and so on around. Gather the item
    numbers as well, to look up masks and :math:`\log q` for all columns.

    **Gradient.** Let :math:`W` processes hold :math:`B` rows each, and let :math:`L_p` be the mean loss of the rows
    of process p, each compared with all :math:`WB` items. Then :math:`L = \frac1W \sum_p L_p` is the mean over the
    global batch. The items :math:`v_r` of process r are columns of every :math:`L_p`, so backward sums over the
    processes what reaches them, and process r arrives at

    .. math:: g_r = \frac{\partial L_r}{\partial u_r} \frac{\partial u_r}{\partial \theta}
        + \Big[\sum_p \frac{\partial L_p}{\partial v_r}\Big] \frac{\partial v_r}{\partial \theta}
        + \frac{\partial L_r}{\partial \theta}

    with its queries :math:`u_r`, and in the last term what enters the loss directly, such as a temperature.
    ``DistributedDataParallel`` averages over the processes, and :math:`\frac1W \sum_r g_r = \mathrm{d}L/\mathrm{d}
    \theta` exactly: there is no factor of :math:`W` to repair.

    **Both directions.** In a symmetric loss each *own item* asks for its query among the queries of all processes.
    That is a second problem of :math:`B` rows and :math:`WB` columns and not the first one transposed, so gather
    both sides: ``(info_nce_loss(query, gather_items(item)) + info_nce_loss(item, gather_items(query))) / 2``, with
    own items as rows and all users as columns of the second mask.

    All processes must call this equally often and in the same order, and all or none must run backward.

    Args:
        rows: ``(batch, ...)``, of the same shape in all processes.

    Returns:
        ``(processes * batch, ...)``

    Raises:
        InputError: If the batches differ in size: the mean of their means would not be the mean over the rows.

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
    r"""The mean of rows of which every process has its own number.

    With :math:`n_p` rows in process p and W processes, each returns :math:`W \sum_r \ell_r / \sum_p n_p`; their mean,
    which ``DistributedDataParallel`` forms of the gradients, is the mean over all rows. The mean of means would weigh
    the rows of a process with few of them more.

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
    """Forward, concatenate over processes; backward, sum over processes and keep the own part."""

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
