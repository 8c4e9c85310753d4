r"""Attention: scaled dot-product and multi-head attention, masks and position encodings as pure functions.

A mask is boolean, true where a query may attend, or additive.

See: chapter 1 derives them and checks them against loaded models; chapter 7 reads histories with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Projection = Callable[[Tensor], Tensor]
"""A linear map of the last dimension, such as :class:`torch.nn.Linear`."""


def attention_weights(query: Tensor, key: Tensor, *, mask: Tensor | None = None) -> Tensor:
    r"""Attention weights: how much each query attends to each key.

    .. math:: A = \operatorname{softmax}\left(\frac{Q K^\top}{\sqrt{d}}\right)

    Args:
        query: Queries ``(..., queries, dim)``.
        key: Keys ``(..., keys, dim)``.
        mask: Boolean or additive, broadcast to ``(..., queries, keys)``.

    Returns:
        ``(..., queries, keys)``; rows sum to 1, or to 0 if a query may attend to nothing.

    References:
        Vaswani et al. (2017), Attention Is All You Need, NeurIPS.

    See: chapter 1.

    >>> q, k = torch.tensor([[1.0]]), torch.tensor([[math.log(3.0)], [0.0]])
    >>> attention_weights(q, k)  # e^(log 3) : e^0
    tensor([[0.7500, 0.2500]])
    """
    scores = query @ key.mT / math.sqrt(query.shape[-1])  # (..., T, S)
    if mask is None:
        return scores.softmax(-1)
    scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    blind = scores.isneginf().all(-1, keepdim=True)  # (..., T, 1)
    return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)  # no NaN, forwards or backwards


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None) -> Tensor:
    r"""Scaled dot-product attention: average the values, weighted by the match of their keys with the query.

    .. math:: \operatorname{attention}(Q, K, V) = \operatorname{softmax}\left(\frac{Q K^\top}{\sqrt{d}}\right) V

    Args:
        query: Queries ``(..., queries, dim)``.
        key: Keys ``(..., keys, dim)``.
        value: Values ``(..., keys, value dim)``.
        mask: Boolean or additive, broadcast to ``(..., queries, keys)``.

    Returns:
        ``(..., queries, value dim)``; zeros for a query that may attend to nothing.

    References:
        Vaswani et al. (2017), Attention Is All You Need, NeurIPS.

    See: chapter 1.

    >>> q, k = torch.tensor([[1.0]]), torch.tensor([[math.log(3.0)], [0.0]])
    >>> scaled_dot_product_attention(q, k, torch.tensor([[8.0], [4.0]]))
    tensor([[7.0000]])
    """
    return attention_weights(query, key, mask=mask) @ value  # (..., T, d)


def causal_mask(tokens: int) -> Tensor:
    """Causal mask ``(tokens, tokens)``: each position attends to itself and earlier positions.

    See: chapter 1.

    >>> causal_mask(3).int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    return torch.ones(tokens, tokens, dtype=torch.bool).tril()


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Split the last dimension into heads: ``(batch, tokens, heads · dim)`` to ``(batch, heads, tokens, dim)``.

    >>> split_heads(torch.arange(4.0).view(1, 1, 4), 2)[0, :, 0]
    tensor([[0., 1.],
            [2., 3.]])
    """
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Undo :func:`split_heads`: ``(batch, heads, tokens, dim)`` to ``(batch, tokens, heads · dim)``.

    >>> x = torch.arange(12.0).view(1, 3, 4)
    >>> torch.equal(merge_heads(split_heads(x, 2)), x)
    True
    """
    return x.transpose(1, 2).flatten(-2)


def multi_head_attention(
    x: Tensor,
    query: Projection,
    key: Projection,
    value: Projection,
    output: Projection,
    *,
    heads: int,
    mask: Tensor | None = None,
    rotate: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Multi-head attention: attend several times in parallel, each head in its own subspace.

    .. math:: \operatorname{MHA}(X) = [H_1, \dots, H_h]\, W_O, \qquad
        H_i = \operatorname{attention}(X W_Q^{(i)}, X W_K^{(i)}, X W_V^{(i)})

    With fewer heads for keys and values than for queries (grouped-query attention), neighbouring query heads
    share a key and a value, which makes the cache smaller during generation.

    Args:
        x: Input ``(batch, tokens, width)``.
        query: Projection from ``width`` to ``heads · dim``.
        key: Projection from ``width`` to ``heads · dim``, or to a divisor of it: fewer heads for keys and values.
        value: Projection of the same width as ``key``.
        output: Projection from ``heads · dim`` to ``width``.
        heads: Number of query heads.
        mask: Boolean or additive, broadcast to ``(batch, heads, tokens, tokens)``.
        rotate: Position encoding of queries and keys ``(batch, heads, tokens, dim)``, such as :func:`rotary`.

    Returns:
        ``(batch, tokens, width)``.

    References:
        Vaswani et al. (2017), Attention Is All You Need, NeurIPS;
        Ainslie et al. (2023), GQA, EMNLP.

    See: chapter 1.

    >>> x = torch.tensor([[[2.0, 4.0]]])  # one token attends to itself
    >>> same = torch.nn.Identity()
    >>> multi_head_attention(x, same, same, same, same, heads=2)
    tensor([[[2., 4.]]])
    """
    projected = query(x), key(x), value(x)  # (B, T, H d), (B, T, H d / g) twice
    groups = projected[0].shape[-1] // projected[1].shape[-1]
    q, k, v = (
        split_heads(part, count)
        for part, count in zip(projected, (heads, heads // groups, heads // groups), strict=True)
    )  # (B, H, T, d), (B, H / g, T, d) twice
    if rotate is not None:
        q, k = rotate(q), rotate(k)
    k, v = (part.repeat_interleave(groups, dim=1) for part in (k, v))  # (B, H, T, d) both
    return output(merge_heads(scaled_dot_product_attention(q, k, v, mask=mask)))  # (B, T, width)


def sinusoidal_positions(tokens: int, dim: int, *, base: float = 10_000.0) -> Tensor:
    r"""Sinusoidal position encodings, to be added to embeddings.

    .. math:: P_{t, 2i} = \sin(t\, \omega_i), \quad P_{t, 2i + 1} = \cos(t\, \omega_i), \qquad
        \omega_i = \text{base}^{-2i / d}

    The dot product of two positions depends only on their distance:
    :math:`P_s \cdot P_t = \sum_i \cos((s - t)\, \omega_i)`.

    Args:
        tokens: Number of positions.
        dim: Width of the encodings, an even number.
        base: Sets the longest wavelength to about :math:`2 \pi\, \text{base}` positions.

    Returns:
        ``(tokens, dim)``.

    References:
        Vaswani et al. (2017), Attention Is All You Need, NeurIPS, section 3.5.

    See: chapter 1.

    >>> sinusoidal_positions(2, 2)  # sin 0, cos 0; sin 1, cos 1
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """
    angle = _angles(torch.arange(tokens), dim, base)  # (T, d / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)  # (T, d)


def rotary(x: Tensor, *, position: Tensor | None = None, base: float = 10_000.0) -> Tensor:
    r"""Rotary position encoding (RoPE): rotate each pair of coordinates by an angle proportional to the position.

    .. math:: \begin{pmatrix} x'_i \\ x'_{i + d/2} \end{pmatrix} =
        \begin{pmatrix} \cos t \omega_i & -\sin t \omega_i \\ \sin t \omega_i & \cos t \omega_i \end{pmatrix}
        \begin{pmatrix} x_i \\ x_{i + d/2} \end{pmatrix}, \qquad \omega_i = \text{base}^{-2i/d}

    The dot product of a rotated query and a rotated key depends on their contents and on the distance between them.
    Rotation preserves norms and leaves scores at distance 0 unchanged; values are not rotated.

    Args:
        x: Queries or keys, ``(batch, heads, tokens, dim)``, dim even.
        position: Positions ``(tokens,)`` or ``(batch, 1, tokens)``; by default 0, 1, 2, …
        base: Sets the longest wavelength to about :math:`2 \pi\, \text{base}` positions.

    Returns:
        The rotated vectors, in the shape of ``x``.

    References:
        Su et al. (2024), RoFormer, Neurocomputing.

    See: chapter 1.

    >>> rotary(torch.tensor([[1.0, 0.0]]), position=torch.tensor([math.pi / 2])).round(decimals=4).abs()
    tensor([[0., 1.]])
    """
    position = torch.arange(x.shape[-2], device=x.device) if position is None else position
    angle = _angles(position, x.shape[-1], base)  # (..., T, d / 2)
    first, second = x.chunk(2, dim=-1)  # (..., T, d / 2) both
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _angles(position: Tensor, dim: int, base: float) -> Tensor:
    frequency = base ** (-torch.arange(0, dim, 2, device=position.device) / dim)  # (d / 2,)
    return position[..., None] * frequency  # (..., T, d / 2)
