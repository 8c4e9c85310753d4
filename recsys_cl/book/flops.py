"""What training costs, counted from the formulas: parameters, and multiplications and additions of matrix products.

A product of an ``(a, b)`` and a ``(b, c)`` matrix takes :math:`abc` multiplications and as many additions,
:math:`2abc` floating-point operations. Everything else (norms, activations, the optimiser) grows with one factor less
and is left out.
"""

from __future__ import annotations


def parameters(*, dim: int, blocks: int, n_items: int) -> int:
    r"""Weights of a Transformer over item ids.

    .. math:: P = N d + L\,(8 d^2 + 11 d) + 2 d + 1

    Item vectors are read and predicted, and count once. A block has four projections of the attention
    (:math:`4 d^2 + 4 d`), a feed-forward network of twice the width (:math:`4 d^2 + 3 d`) and two norms (:math:`4 d`);
    after the L blocks come a norm and the temperature.

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
    r"""Operations of one Transformer block on one event, forward.

    .. math:: F_\text{block} = \underbrace{8 d^2}_{Q, K, V, \text{out}} + \underbrace{4 S d}_{Q K^\top,\ A V}
        + \underbrace{8 d^2}_{\text{feed-forward}}

    Args:
        dim: Width d.
        span: Events S that an event is compared with: the longest row of its batch, as rows are padded to it there.

    See: chapter 11.

    >>> block_flops(dim=64, span=50)
    78336
    """
    return 8 * dim**2 + 4 * span * dim + 8 * dim**2


def softmax_flops(*, dim: int, n_items: int) -> int:
    r"""Operations of comparing one state with the catalogue, forward: :math:`F_\text{softmax} = 2 N d`.

    See: chapter 11.

    >>> softmax_flops(dim=64, n_items=1682)
    215296
    """
    return 2 * n_items * dim


def training_flops(events: int, *, dim: int, blocks: int, span: int, n_items: int) -> int:
    r"""Operations of training on events, each of which is asked for once.

    .. math:: F = 3 E\,(L\, F_\text{block} + F_\text{softmax})

    The factor is 3 because backward takes two products for each one of forward: :math:`Y = X W` needs
    :math:`\partial X = \partial Y\, W^\top` and :math:`\partial W = X^\top \partial Y`, of the same size.

    Args:
        events: Number of events E.
        dim: Width d.
        blocks: Number of blocks L.
        span: Longest row S of a batch.
        n_items: Size of the catalogue N.

    References:
        Kaplan et al. (2020), https://arxiv.org/abs/2001.08361, section 2.1.

    See: chapter 11.

    >>> training_flops(1, dim=64, blocks=2, span=50, n_items=1682)
    1115904
    """
    return 3 * events * (blocks * block_flops(dim=dim, span=span) + softmax_flops(dim=dim, n_items=n_items))
