"""Decoding from a causal language model's logits: likelihood of given tokens, and temperature and nucleus sampling.

See: chapter 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError

DOCUMENT_START = "<|endoftext|>"
"""Separator of documents in the pre-training of GPT-2's descendants, whatever bos token a chat model defines."""


@dataclass(frozen=True)
class Generation:
    """Generated continuation of one prompt.

    Attributes:
        text: Generated text, without the prompt and special tokens.
        tokens: Number of generated tokens.
        finished: Why generation ended: at a stop token, at ``max_new_tokens``, or at the time limit.
    """

    text: str
    tokens: int
    finished: Literal["stop", "length", "timeout"]


def continuation_log_likelihood(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    r"""Log-likelihood of each row of tokens under the logits that predict them.

    .. math:: \log p(c \mid x) = \sum_t m_t \log \frac{e^{z_{t, c_t}}}{\sum_v e^{z_{t, v}}}

    Args:
        logits: Logits ``(batch, tokens, vocabulary)``; row :math:`t` is computed from the tokens before :math:`t`.
        ids: Observed token ids, ``(batch, tokens)``.
        mask: 1 for a token, 0 for padding, ``(batch, tokens)``.

    Returns:
        Log-likelihoods in nats, ``(batch,)``.

    See: chapter 1.

    >>> even = torch.zeros(1, 3, 4)  # four tokens, all as likely: log 1/4 for each that counts
    >>> round(float(continuation_log_likelihood(even, torch.tensor([[0, 3, 0]]), torch.tensor([[1, 1, 0]]))), 4)
    -2.7726
    """
    # rows of logits stay contiguous: along a strided vocabulary, sums in float32 lose the fourth decimal
    surprise = F.cross_entropy(logits.float().flatten(0, 1), ids.flatten(), reduction="none")  # (B * T,)
    return -surprise.view(ids.shape).masked_fill(mask == 0, 0.0).sum(1)  # (B,)


def sample_token(logits: Tensor, uniform: Tensor, *, temperature: float, top_p: float) -> Tensor:
    r"""Choose the next token of each row: greedily, or by temperature and nucleus (top-p) sampling.

    With :math:`p \propto e^{z / \tau}` in descending order and :math:`k` the minimum number of tokens with
    :math:`\sum_{i \le k} p_i \ge \rho`, the token is the first at which :math:`\sum_{i \le j} p_i` exceeds
    :math:`u \sum_{i \le k} p_i`.

    Args:
        logits: Logits :math:`z`, ``(batch, vocabulary)``.
        uniform: Uniform random numbers :math:`u` in [0, 1), ``(batch,)``.
        temperature: :math:`\tau \ge 0`; 0 takes the most likely token.
        top_p: :math:`\rho` in (0, 1]; 1 keeps the whole vocabulary.

    Returns:
        Token ids, ``(batch,)``.

    References:
        Holtzman et al. (2020), The Curious Case of Neural Text Degeneration, ICLR.

    See: chapter 1.

    >>> z = torch.log(torch.tensor([[0.2, 0.5, 0.3]]))
    >>> [int(sample_token(z, torch.tensor([u]), temperature=1.0, top_p=0.8)) for u in (0.0, 0.6, 0.7, 0.99)]
    [1, 1, 2, 2]
    """
    if temperature == 0:
        return logits.argmax(1)  # (B,)
    p, token = (logits.float() / temperature).softmax(1).sort(dim=1, descending=True, stable=True)  # (B, V)
    mass = p.cumsum(1)  # (B, V)
    last = (mass < top_p).sum(1, keepdim=True).clamp_max(p.shape[1] - 1)  # (B, 1)
    chosen = (mass <= uniform[:, None] * mass.gather(1, last)).sum(1, keepdim=True)  # (B, 1)
    return token.gather(1, torch.minimum(chosen, last))[:, 0]  # (B,)


def stop_ids(tokenizer: Any, model: Any) -> list[int]:
    """Ids of all end tokens of the tokenizer and of the model's generation settings."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({int(end) for end in [*ends, tokenizer.eos_token_id] if end is not None})


def start_id(tokenizer: Any, name: str) -> int:
    """Id of the token that starts a text without a prompt."""
    known = tokenizer.get_vocab().get(DOCUMENT_START)
    for token_id in (known, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if token_id is not None:
            return int(token_id)
    raise InputError(f"the tokenizer of {name!r} has no bos, eos or pad token to start a text with: set one")


def common_prefix(rows: list[list[int]]) -> int:
    """Length of the longest common prefix of all rows, in tokens."""
    first, last = min(rows), max(rows)  # in lexicographic order all others lie between
    return next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
