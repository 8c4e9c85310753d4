"""Tokenisation, batching by length, and pooling (mean, CLS, last token) of hidden states.

See: chapter 1, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from recsys_cl.errors import InputError


class TextTokens:
    """Tokenise texts for a model with a limited context.

    Args:
        tokenizer: A transformers tokenizer.
        max_length: Maximum number of tokens; longer texts are truncated.
        closed: Whether every text must end in a special token: if the tokenizer adds none, append end-of-text.
        name: Name of the model, for messages.

    Attributes:
        pad_id: Id of the padding token.

    Raises:
        InputError: If the tokenizer has no token to pad with, or no end-of-text token that ``closed`` needs.
    """

    def __init__(self, tokenizer: Any, *, max_length: int, closed: bool, name: str) -> None:
        self._tokenizer, self.max_length = tokenizer, max_length
        self.pad_id = _padding(tokenizer, name)
        self._end: list[int] = []
        if closed and self._ids([""], None)[0][-1:] != self._ids(["."], None)[0][-1:]:
            if tokenizer.eos_token_id is None:
                raise InputError(
                    f"the tokenizer of {name!r} has no end-of-text token for pooling='last': use 'mean', or set one"
                )
            self._end = [tokenizer.eos_token_id]

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Token ids of each text, at least one, and their number before truncation."""
        rows = self._ids(texts, None)
        lengths = [len(row) + len(self._end) for row in rows]
        long = [number for number, length in enumerate(lengths) if length > self.max_length]
        kept = self._ids([texts[number] for number in long], self.max_length - len(self._end)) if long else []
        for number, row in zip(long, kept, strict=True):
            rows[number] = row
        return [row + self._end or [self.pad_id] for row in rows], lengths

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids and mask, both ``(batch, tokens)``, padded on the right, which keeps the positions of the text."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.pad_id] * (width - len(row))] for row in rows])  # (B, T)
        lengths = torch.tensor([len(row) for row in rows])  # (B,)
        return ids, (torch.arange(width) < lengths[:, None]).long()  # (B, T) both

    def _ids(self, texts: Sequence[str], limit: int | None) -> list[list[int]]:
        """Token ids; a truncated text keeps its special tokens at both ends."""
        cut = {"truncation": True, "max_length": limit} if limit else {}
        encoded = self._tokenizer(list(texts), verbose=False, padding=False, **cut)
        return [list(ids) for ids in encoded["input_ids"]]


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group texts by length into batches of at most ``budget`` tokens, including padding, longest first.

    Args:
        lengths: Number of tokens of each text.
        budget: Maximum number of tokens per batch; a longer text is a batch of its own.

    Returns:
        Numbers of the texts of each batch.

    >>> batches([3, 9, 2, 8], budget=18)
    [[1, 3], [0, 2]]
    """
    made: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if made and lengths[made[-1][0]] * (len(made[-1]) + 1) <= budget:
            made[-1].append(number)
        else:
            made.append([number])
    return made


def cut_message(lengths: Sequence[int], max_length: int) -> str | None:
    """Warning with the number of truncated texts; ``None`` if there are none.

    >>> cut_message([5, 300, 912], 256)
    '2 of 3 texts are longer than 256 tokens and were cut; the longest has 912'
    """
    long = sum(length > max_length for length in lengths)
    if not long:
        return None
    are, were = ("is", "was") if long == 1 else ("are", "were")
    counts = f"{long:,} of {len(lengths):,} texts {are} longer than {max_length:,} tokens and {were} cut"
    return f"{counts}; the longest has {max(lengths):,}"


def _padding(tokenizer: Any, name: str) -> int:
    """Id to pad with; padding is masked out, so any special token serves if there is no padding token."""
    for token in ("pad", "eos", "unk", "bos"):
        token_id = getattr(tokenizer, f"{token}_token_id", None)
        if token_id is not None:
            return int(token_id)
    raise InputError(f"the tokenizer of {name!r} has no pad, eos, unk or bos token: set one and save it again")


Pooling = Literal["mean", "cls", "last"]


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    r"""Mean pooling: average the hidden states of the real tokens, wherever the padding is.

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
    """CLS pooling: take the first real token (BERT's ``[CLS]``), under right or left padding.

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
    """Last-token pooling: take the last real token, the only one in a causal decoder that attends to the whole text.

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
