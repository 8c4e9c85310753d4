"""Token ids: cut, closed, padded, and gathered into batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_cl.errors import InputError


class TextTokens:
    """What a tokenizer makes of texts, as a model with a limited context reads it.

    Args:
        tokenizer: A tokenizer of transformers.
        max_length: Longer texts are cut to this many tokens.
        closed: Every text ends in a special token: where the tokenizer adds none, its end-of-text token is added.
        name: The model's name, for messages.

    Attributes:
        pad_id: The token to pad with.

    Raises:
        InputError: If there is no token to pad with, or none that could end a text.
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
        """Token ids of each text, at least one, and how many there were before any were cut."""
        rows = self._ids(texts, None)
        lengths = [len(row) + len(self._end) for row in rows]
        long = [number for number, length in enumerate(lengths) if length > self.max_length]
        kept = self._ids([texts[number] for number in long], self.max_length - len(self._end)) if long else []
        for number, row in zip(long, kept, strict=True):
            rows[number] = row
        return [row + self._end or [self.pad_id] for row in rows], lengths

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids and mask ``(batch, tokens)``, padded on the right, where positions stay those of the text."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.pad_id] * (width - len(row))] for row in rows])  # (B, T)
        lengths = torch.tensor([len(row) for row in rows])  # (B,)
        return ids, (torch.arange(width) < lengths[:, None]).long()  # (B, T) both

    def _ids(self, texts: Sequence[str], limit: int | None) -> list[list[int]]:
        """Token ids; a cut text keeps the special tokens at its ends."""
        cut = {"truncation": True, "max_length": limit} if limit else {}
        encoded = self._tokenizer(list(texts), verbose=False, padding=False, **cut)
        return [list(ids) for ids in encoded["input_ids"]]


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group texts by length into batches of at most ``budget`` tokens, padding included, the longest first.

    Args:
        lengths: Tokens of each text.
        budget: Tokens of a batch; a longer text is a batch of its own.

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
    """How many texts were cut, in one sentence; None if none was.

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
    """The id to pad with; masked out, so that any token serves when there is none for padding."""
    for token in ("pad", "eos", "unk", "bos"):
        token_id = getattr(tokenizer, f"{token}_token_id", None)
        if token_id is not None:
            return int(token_id)
    raise InputError(f"the tokenizer of {name!r} has no pad, eos, unk or bos token: set one and save it again")
