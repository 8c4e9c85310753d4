"""Sequence encoders (Transformer, GRU): map a history's item vectors to a hidden state after each event.

A batch is ragged: the events of all histories form one ``(T, dim)`` tensor, row by row, oldest first, and ``lengths``
says where rows end. Linear maps, norms and losses thus see only real events; only attention is padded, to the longest
history of the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from recsys_cl.encoders.attention import merge_heads, rotary, split_heads
from recsys_cl.errors import InputError
from recsys_cl.registry import Registry


def padded_places(lengths: Tensor) -> tuple[Tensor, int]:
    """Position of each event of a ragged batch after padding its rows on the right and joining them.

    Args:
        lengths: ``(B,)`` number of events of each row.

    Returns:
        ``(T,)`` positions, and the length S of the longest row.

    >>> padded_places(torch.tensor([2, 0, 1]))  # the third row begins at 2 S
    (tensor([0, 1, 4]), 2)
    """
    longest = int(lengths.max())
    row = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)  # (T,)
    first = lengths.cumsum(0) - lengths  # (B,)
    return row * longest + torch.arange(len(row), device=lengths.device) - first[row], longest


def pad(x: Tensor, where: Tensor, rows: int) -> Tensor:
    """Scatter ragged events ``(T, d)`` to their padded positions ``(rows, d)``; empty positions are zero."""
    places = x.new_zeros(rows, x.shape[1])  # (B S, d)
    return places.index_copy(0, where, x)


class SelfAttention(nn.Module):
    """Self-attention within each history, by content and distance.

    Queries and keys are rotated by their position (:func:`~recsys_cl.encoders.attention.rotary`), so only the distance
    between two events matters, not the number of events before them.

    Args:
        dim: Width of the event vectors.
        heads: Number of attention heads, a divisor of ``dim`` with an even quotient.
        causal: Whether an event attends only to itself and earlier events, or to all.
    """

    def __init__(self, dim: int, *, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.project = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Attend within each history: ``(T, dim)`` to ``(T, dim)``."""
        where, longest = padded_places(lengths)
        projected = pad(self.project(x), where, len(lengths) * longest)  # (B S, 3d)
        query, key, value = (
            split_heads(part, self.heads) for part in projected.view(len(lengths), longest, -1).chunk(3, dim=-1)
        )  # (B, H, S, d / H) each
        inside = None
        if not self.causal:
            inside = (torch.arange(longest, device=x.device) < lengths[:, None])[:, None, None]  # (B, 1, 1, S)
        mixed = F.scaled_dot_product_attention(
            rotary(query), rotary(key), value, attn_mask=inside, is_causal=self.causal
        )  # (B, H, S, d / H); with causal attention no event attends to the padding, which comes last
        return self.out(merge_heads(mixed).flatten(0, 1)[where])  # (T, d)


class TransformerBlock(nn.Module):
    r"""Pre-norm Transformer block: self-attention, then a feed-forward network, each with a residual connection.

    .. math:: X \leftarrow X + \operatorname{attention}(\operatorname{norm}(X)), \qquad
        X \leftarrow X + W_2 \operatorname{GELU}(W_1 \operatorname{norm}(X))

    Args:
        dim: Width of the event vectors.
        heads: Number of attention heads.
        dropout: Dropout probability on the output of each sublayer.
        causal: Whether an event attends only to itself and earlier events, or to all.
    """

    def __init__(self, dim: int, *, heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, heads=heads, causal=causal)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """``(T, dim)`` to ``(T, dim)``."""
        x = x + self.dropout(self.attention(self.attention_norm(x), lengths))  # (T, d)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))  # (T, d)


class Transformer(nn.Module):
    """Transformer over histories: causal as in SASRec, or bidirectional as in BERT4Rec.

    Args:
        dim: Width of the event vectors.
        blocks: Number of blocks.
        heads: Number of attention heads, a divisor of ``dim`` with an even quotient.
        dropout: Dropout probability on the input and in the blocks.
        causal: Whether an event attends only to itself and earlier events, or to all.

    Raises:
        InputError: If ``dim`` does not split into heads of an even width.

    References:
        Kang and McAuley (2018), https://arxiv.org/abs/1808.09781;
        Sun et al. (2019), https://arxiv.org/abs/1904.06690.

    See: chapter 7.
    """

    def __init__(self, dim: int, *, blocks: int, heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise InputError(f"dim={dim} does not split into {heads} heads of an even width; try heads=1")
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads=heads, dropout=dropout, causal=causal) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """States of ragged histories.

        Args:
            x: ``(T, dim)`` vectors of all events, row by row, oldest first.
            lengths: ``(B,)`` number of events of each row, T in total.

        Returns:
            ``(T, dim)`` state after each event.
        """
        x = self.dropout(x)  # (T, d)
        for block in self.blocks:
            x = block(x, lengths)  # (T, d)
        return self.norm(x)  # (T, d)


class GRU(nn.Module):
    """GRU over histories (GRU4Rec), with the interface of a causal :class:`Transformer`.

    Args:
        dim: Width of the event vectors.
        blocks: Number of layers.
        dropout: Dropout probability on the input and between layers.

    References:
        Hidasi et al. (2016), https://arxiv.org/abs/1511.06939.

    See: chapter 7.
    """

    def __init__(self, dim: int, *, blocks: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.GRU(dim, dim, num_layers=blocks, dropout=dropout if blocks > 1 else 0.0, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """State after each event of ragged histories, ``(T, dim)``; no row may be empty."""
        where, longest = padded_places(lengths)
        padded = pad(self.dropout(x), where, len(lengths) * longest).view(len(lengths), longest, -1)  # (B, S, d)
        packed = pack_padded_sequence(padded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = self.layers(packed)
        assert isinstance(states, PackedSequence)
        return self.norm(nn.utils.rnn.pad_packed_sequence(states, batch_first=True)[0].flatten(0, 1)[where])  # (T, d)


SEQUENCE_ENCODERS: Registry[Callable[..., Transformer | GRU]] = Registry("sequence encoder")
"""Name to a factory ``(dim, *, blocks, heads, dropout)``: ``sasrec:encoder=gru``."""


@SEQUENCE_ENCODERS.add("causal")
def causal(dim: int, *, blocks: int, heads: int, dropout: float) -> Transformer:
    """Causal Transformer: an event attends to itself and earlier events (SASRec)."""
    return Transformer(dim, blocks=blocks, heads=heads, dropout=dropout, causal=True)


@SEQUENCE_ENCODERS.add("bidirectional")
def bidirectional(dim: int, *, blocks: int, heads: int, dropout: float) -> Transformer:
    """Bidirectional Transformer: every event attends to all events (BERT4Rec)."""
    return Transformer(dim, blocks=blocks, heads=heads, dropout=dropout, causal=False)


@SEQUENCE_ENCODERS.add("gru")
def gru(dim: int, *, blocks: int, heads: int, dropout: float) -> GRU:
    """GRU with ``blocks`` layers (GRU4Rec); ``heads`` is ignored."""
    return GRU(dim, blocks=blocks, dropout=dropout)
