"""What counts as a negative, and how likely it was drawn."""

from __future__ import annotations

from torch import Tensor


def in_batch_log_q(counts: Tensor) -> Tensor:
    r"""Log-probability that a random training interaction has item j: :math:`\log (c_j / \sum_k c_k)`.

    Args:
        counts: ``(n_items,)`` training events; an item without any counts as one, so that the log exists.

    Returns:
        ``(n_items,)``

    References:
        Yi et al. (2019), https://doi.org/10.1145/3298689.3346996.

    See: chapter 5.
    """
    counts = counts.clamp(min=1).double()  # (N,)
    return (counts / counts.sum()).log().float()  # (N,)
