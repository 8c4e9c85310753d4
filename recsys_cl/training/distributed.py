"""In-batch negatives of all processes: gather rows, and send their gradients back to where they came from."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recsys_cl.errors import InputError


def gather_items(rows: Tensor) -> Tensor:
    r"""Gather the rows of all processes, own rows first; with one process, the tensor as it is.

    Own rows first, because :func:`~recsys_cl.objectives.contrastive.info_nce_loss` takes the positives in the
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
