"""Pooling: one vector per text out of one vector per token.

See: chapter 1, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "cls", "last"]


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    r"""Average the hidden states of the real tokens, wherever the padding stands.

    .. math:: z = \frac{\sum_t m_t h_t}{\max(1, \sum_t m_t)}

    Args:
        hidden: Hidden states, ``(batch, tokens, dim)``.
        mask: 1 for a token, 0 for padding, ``(batch, tokens)``.

    Returns:
        ``(batch, dim)``; a row without tokens gives zeros.

    References:
        Reimers & Gurevych (2019), Sentence-BERT, EMNLP.

    See: chapter 1.

    >>> hidden = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]])
    >>> mean_pool(hidden, torch.tensor([[1, 1, 0]]))
    tensor([[2., 1.]])
    """
    kept = hidden.masked_fill(~mask.bool().unsqueeze(-1), 0.0)  # (B, T, d); not a product: NaN · 0 = NaN
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)  # (B, d)


def cls_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Take the first real token (BERT's ``[CLS]``), under right and left padding alike.

    Args:
        hidden: Hidden states, ``(batch, tokens, dim)``.
        mask: 1 for a token, 0 for padding, ``(batch, tokens)``.

    Returns:
        ``(batch, dim)``.

    References:
        Devlin et al. (2019), BERT, NAACL.

    See: chapter 1.

    >>> hidden = torch.tensor([[[9.0], [5.0], [6.0]]])
    >>> cls_pool(hidden, torch.tensor([[0, 1, 1]]))  # left padding
    tensor([[5.]])
    """
    first = mask.int().argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(hidden), device=hidden.device), first]  # (B, d)


def last_token_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Take the last real token, the only one of a causal decoder that has read the whole text.

    Args:
        hidden: Hidden states, ``(batch, tokens, dim)``.
        mask: 1 for a token, 0 for padding, ``(batch, tokens)``.

    Returns:
        ``(batch, dim)``.

    References:
        Wang et al. (2024), Improving Text Embeddings with Large Language Models, ACL.

    See: chapter 3.

    >>> hidden = torch.tensor([[[5.0], [6.0], [9.0]]])
    >>> last_token_pool(hidden, torch.tensor([[1, 1, 0]]))  # right padding
    tensor([[6.]])
    """
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]  # (B, d)


POOLINGS: dict[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean_pool,
    "cls": cls_pool,
    "last": last_token_pool,
}
