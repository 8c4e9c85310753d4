"""Positives by augmentation: two views of one text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recsys_cl.errors import InputError


def dropout_views(module: nn.Module, encode: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Two views of the same inputs that differ by dropout alone (SimCSE).

    For texts and a :class:`~recsys_cl.encoders.language.LanguageEncoder`:
    ``dropout_views(encoder.model, encoder.embed, *encoder.tokenize(texts))``. Most encoders have a dropout of 0.1;
    many decoders have none, and their two views would be one. Dropout draws from torch's own generator, whose state
    the trainer's checkpoints hold.

    Args:
        module: What has the dropout: in training mode meanwhile, then as it was.
        encode: Calls ``module``; gives ``(batch, dim)``.
        *inputs: What ``encode`` takes.

    Returns:
        Both views, ``(batch, dim)`` each, with gradient.

    Raises:
        InputError: If the two views are equal.

    References:
        Gao, Yao and Chen (2021), https://arxiv.org/abs/2104.08821.

    See: chapter 6.

    >>> half = nn.Dropout(0.5).eval()
    >>> first, second = dropout_views(half, half, torch.ones(64, 2))
    >>> first.unique().tolist(), bool((first == second).all()), half.training
    ([0.0, 2.0], False, False)
    """
    modes = [(part, part.training) for part in module.modules()]
    module.train()
    try:
        first, second = encode(*inputs), encode(*inputs)  # (B, d) both
    finally:
        for part, training in modes:
            part.training = training
    if torch.equal(first, second):
        raise InputError(
            f"both views of {tuple(first.shape)} are equal, so there is nothing to learn from them: the model has no "
            "dropout, or not between 0 and 1; load it with one (for BERT hidden_dropout_prob=0.1)"
        )
    return first, second
