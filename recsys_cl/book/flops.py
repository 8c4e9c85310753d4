"""Training FLOPs: closed-form counts of parameters and of floating-point operations in matrix products.

A product of an ``(a, b)`` and a ``(b, c)`` matrix takes :math:`abc` multiplications and as many additions:
:math:`2abc` floating-point operations. All other operations (norms, activations, the optimiser) grow with one factor
less and are omitted.
"""

from __future__ import annotations


def parameters(*, dim: int, blocks: int, n_items: int) -> int:
    r"""Number of parameters of a Transformer over item ids.

    .. math:: P = N d + L\,(8 d^2 + 11 d) + 2 d + 1

    Input and output item vectors are shared and count once. A block has four attention projections
    (:math:`4 d^2 + 4 d`), a feed-forward network of twice the width (:math:`4 d^2 + 3 d`) and two norms (:math:`4 d`);
    a norm and the temperature follow the L blocks.

    Args:
        dim: Width d.
        blocks: Number of blocks L.
        n_items: Size of the catalogue N.

    See: chapter 11.

    >>> parameters(dim=64, blocks=2, n_items=1682)
    174721
    """
    return n_items * dim + blocks * (8 * dim**2 + 11 * dim) + 2 * dim + 1


def block_flops(*, dim: int, span: int) -> int:
    r"""Forward operations of one Transformer block on one event.

    .. math:: F_\text{block} = \underbrace{8 d^2}_{Q, K, V, \text{out}} + \underbrace{4 S d}_{Q K^\top,\ A V}
        + \underbrace{8 d^2}_{\text{feed-forward}}

    Args:
        dim: Width d.
        span: Number of events S that an event attends to: the longest row of its batch, to which all rows are padded.

    See: chapter 11.

    >>> block_flops(dim=64, span=50)
    78336
    """
    return 8 * dim**2 + 4 * span * dim + 8 * dim**2


def softmax_flops(*, dim: int, n_items: int) -> int:
    r"""Forward operations of the scores of one state over the catalogue: :math:`F_\text{softmax} = 2 N d`.

    See: chapter 11.

    >>> softmax_flops(dim=64, n_items=1682)
    215296
    """
    return 2 * n_items * dim


def training_flops(events: int, *, dim: int, blocks: int, span: int, n_items: int) -> int:
    r"""Training operations (forward and backward) with each event as a target once.

    .. math:: F = 3 E\,(L\, F_\text{block} + F_\text{softmax})

    The factor is 3 because backward computes two products of the same size for each forward product: for
    :math:`Y = X W`, :math:`\partial X = \partial Y\, W^\top` and :math:`\partial W = X^\top \partial Y`.

    Args:
        events: Number of events E.
        dim: Width d.
        blocks: Number of blocks L.
        span: Length S of the longest row of a batch, in events.
        n_items: Size of the catalogue N.

    References:
        Kaplan et al. (2020), https://arxiv.org/abs/2001.08361, section 2.1.

    See: chapter 11.

    >>> training_flops(1, dim=64, blocks=2, span=50, n_items=1682)
    1115904
    """
    return 3 * events * (blocks * block_flops(dim=dim, span=span) + softmax_flops(dim=dim, n_items=n_items))
