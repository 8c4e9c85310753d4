r"""What language models are pre-trained on: words hidden in their sentence, or words that come next.

Labels follow the usual convention: a token that counts has its own id as its label, the others :data:`IGNORED`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_hash, counter_uniform

IGNORED = -100
"""Label of a token that is given, not predicted."""

CHOICE, FATE, REPLACEMENT = 0, 1, 2  # what a random number is for, so that no two purposes share one


def mask_tokens(
    input_ids: Tensor,
    maskable: Tensor,
    *,
    mask_id: int,
    vocabulary_size: int,
    example: np.ndarray,
    epoch: int | np.ndarray = 0,
    seed: int = 0,
    share: float = 0.15,
) -> tuple[Tensor, Tensor]:
    """Hide a share of the tokens as BERT does: 80 % become the mask, 10 % a random token, 10 % stay.

    At use there is no mask in the text. The 20 % are there so that the model must have something to say about
    tokens that look like any other. Each position's fate is a function of (seed, epoch, example, position):
    neither the batch nor a resume changes it.

    Args:
        input_ids: ``(batch, tokens)``.
        maskable: ``(batch, tokens)``, false for padding and special tokens.
        mask_id: Id of the mask.
        vocabulary_size: Random tokens are drawn from ``0 .. vocabulary_size - 1``.
        example: ``(batch,)`` number of each text in its data set.
        epoch: Of all texts, or ``(batch,)``; another epoch hides other tokens.
        seed: Seed of all choices.
        share: Chance of a maskable token to be chosen.

    Returns:
        Inputs and labels, both ``(batch, tokens)``; the label of a token that was not chosen is ``IGNORED``.

    Raises:
        InputError: If the share is not in (0, 1].

    References:
        Devlin et al. (2019), BERT, NAACL, section 3.1.

    See: chapter 1.

    >>> ids = torch.tensor([[1, 7, 8, 9, 2]])
    >>> inner = torch.tensor([[False, True, True, True, False]])
    >>> hidden, labels = mask_tokens(ids, inner, mask_id=3, vocabulary_size=10, example=np.array([0]), share=1.0)
    >>> labels  # every token between the first and the last has to be predicted
    tensor([[-100,    7,    8,    9, -100]])
    """
    if not 0 < share <= 1:
        raise InputError(f"share={share} of the tokens cannot be hidden; give a number above 0 and at most 1")
    place = (np.reshape(epoch, (-1, 1)), example[:, None], np.arange(input_ids.shape[1]))
    choice, fate = (torch.from_numpy(counter_uniform(seed, purpose, *place)) for purpose in (CHOICE, FATE))  # (B, T)
    other = torch.from_numpy((counter_hash(seed, REPLACEMENT, *place) % np.uint64(vocabulary_size)).astype(np.int64))
    chosen = maskable.bool() & (choice < share)  # (B, T)
    hidden = input_ids.masked_fill(chosen & (fate < 0.8), mask_id)  # (B, T)
    hidden = torch.where(chosen & (fate >= 0.9), other, hidden)  # (B, T)
    return hidden, input_ids.masked_fill(~chosen, IGNORED)


def mask_each(input_ids: Tensor, maskable: Tensor, *, mask_id: int) -> tuple[Tensor, Tensor]:
    """One copy of a text for each of its tokens, with that token hidden.

    The log-likelihoods of the hidden tokens add up to the text's *pseudo*-log-likelihood: each token is
    predicted from all others, so their product is no probability of the text.

    Args:
        input_ids: One text, ``(tokens,)``.
        maskable: ``(tokens,)``, false for padding and special tokens.
        mask_id: Id of the mask.

    Returns:
        Inputs and labels, both ``(maskable tokens, tokens)``.

    References:
        Salazar et al. (2020), Masked Language Model Scoring, ACL.

    See: chapter 1.

    >>> mask_each(torch.tensor([1, 7, 8, 2]), torch.tensor([False, True, True, False]), mask_id=3)[0]
    tensor([[1, 3, 8, 2],
            [1, 7, 3, 2]])
    """
    at = maskable.bool().diag()[maskable.bool()]  # (n, T), one true entry a row
    copies = input_ids.expand(at.shape)  # (n, T)
    return copies.masked_fill(at, mask_id), copies.masked_fill(~at, IGNORED)


def masked_language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Cross-entropy of the hidden tokens, each predicted from the corrupted text :math:`\tilde x` around it.

    .. math:: L = -\frac{1}{|M|} \sum_{t \in M} \log p(x_t \mid \tilde x)

    Args:
        logits: ``(batch, tokens, vocabulary)``, or any shape that ends so.
        labels: ``(batch, tokens)``, ``IGNORED`` outside :math:`M`.

    Returns:
        The loss in nats per hidden token; 0 if none is hidden.

    References:
        Devlin et al. (2019), BERT, NAACL.

    See: chapter 1.

    >>> even = torch.zeros(1, 3, 4)  # four words, no opinion
    >>> round(float(masked_language_loss(even, torch.tensor([[-100, 2, -100]])) / math.log(4)), 4)
    1.0
    """
    total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp_min(1)  # ()


def causal_language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Cross-entropy of each token given those before it: the logits of place :math:`t` predict place :math:`t + 1`.

    .. math:: L = -\frac{1}{n} \sum_{t} \log p(x_{t + 1} \mid x_1, \dots, x_t)

    Args:
        logits: ``(batch, tokens, vocabulary)``.
        labels: ``(batch, tokens)``, the token ids themselves, ``IGNORED`` where there is padding; the shift by one
            place is made here.

    Returns:
        The loss in nats per predicted token; 0 if there is none.

    References:
        Radford et al. (2018), Improving Language Understanding by Generative Pre-Training.

    See: chapter 1.

    >>> sure = 100 * F.one_hot(torch.tensor([[1, 2, 0]]), 3).float()  # says 1, then 2, then 0
    >>> float(causal_language_loss(sure, torch.tensor([[0, 1, 2]])))  # after 0 comes 1, after 1 comes 2
    0.0
    """
    return masked_language_loss(logits[..., :-1, :], labels[..., 1:])


def perplexity(nats: float, tokens: int) -> float:
    r"""Between how many equally likely tokens the model hesitates, on average.

    .. math:: \exp\Big({-\frac{1}{n}} \sum_t \log p_t\Big)

    Two models can be compared by it only if they cut texts into the same tokens.

    Args:
        nats: Summed negative log-likelihood.
        tokens: How many tokens were predicted.

    See: chapter 1.

    >>> round(perplexity(3 * math.log(5), 3), 6)
    5.0
    """
    return math.exp(nats / tokens)


def bits_per_character(nats: float, texts: list[str]) -> float:
    r"""Summed negative log-likelihood per character, to base 2: comparable whatever the tokens are.

    .. math:: \frac{-\sum_t \log_2 p_t}{\text{characters}}

    Args:
        nats: Summed negative log-likelihood of the texts.
        texts: The texts that were predicted.

    See: chapter 1.

    >>> bits_per_character(6 * math.log(2), ["ab", "c"])
    2.0
    """
    return nats / math.log(2) / sum(map(len, texts))
