"""Large contrastive batches in bounded memory: encode in slices, and recompute each slice when its gradient is due."""

from __future__ import annotations

from collections.abc import Callable

import torch
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
