r"""Language modelling losses: masked, causal, and contrastive over continuations.

Labels follow the usual convention: a token that counts has its own id as its label, the others :data:`IGNORED`.

Contrastive language modelling tells what continues a text, or a history, from what continues others.
Written as it often is, to find the word :math:`W` that tells two texts apart,

.. math:: \arg\max_W \log \frac{P(x_1, W \mid x_2)}{P(x_2, W \mid x_1)},

it has no answer. By the chain rule :math:`P(x_1, W \mid x_2) = P(x_1, x_2, W) / P(x_2)` and
:math:`P(x_2, W \mid x_1) = P(x_1, x_2, W) / P(x_1)`, so that the ratio is

.. math:: \frac{P(x_1, W \mid x_2)}{P(x_2, W \mid x_1)} = \frac{P(x_1)}{P(x_2)},

the same for every :math:`W`. What does tell texts apart is how much likelier a context makes a continuation than it is
by itself, their pointwise mutual information; :func:`continuation_loss` learns by it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import Reduction, reduce
from recsys_cl.randomness import counter_hash, counter_uniform

IGNORED = -100
"""Label of a token that is given, not predicted."""


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
    choice = torch.from_numpy(counter_uniform(seed, "masked-token", *place))  # (B, T)
    fate = torch.from_numpy(counter_uniform(seed, "token-fate", *place))  # (B, T)
    number = counter_hash(seed, "token-replacement", *place) % np.uint64(vocabulary_size)
    other = torch.from_numpy(number.astype(np.int64))  # (B, T)
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


def continuation_loss(conditional: Tensor, marginal: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""InfoNCE over pointwise mutual information: find each context's own continuation among those of the batch.

    .. math:: L_i = -\log \frac{\exp(s_{ii})}{\sum_j \exp(s_{ij})}, \qquad
        s_{ij} = \log P(x_j \mid c_i) - \log P(x_j)

    The likelihood alone would favour what is likely anywhere: short texts, popular items. With exact probabilities
    :math:`s` is the best score there is, and B independent pairs give a lower bound of the mutual information,

    .. math:: I(c; x) \ge \log B - \mathbb E\, L,

    which never exceeds :math:`\log B` and gets closer as B grows. It holds with every pair in the sum, equal
    continuations as well.

    A text's continuation has its words' log-probabilities summed, without the context for the marginal. Of behaviour
    the continuation is the next item, :math:`P(x_j)` its popularity: then this is
    :func:`~recsys_cl.losses.info_nce_loss` over a batch with ``log_q``.

    Args:
        conditional: ``(B, B)`` log-probability of continuation j (column) after context i (row); −∞ where it is
            impossible, which the diagonal is not.
        marginal: ``(B,)`` log-probability of continuation j by itself.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, or what happened has a log-probability that is not finite.

    References:
        van den Oord, Li and Vinyals (2018), https://arxiv.org/abs/1807.03748; Poole et al. (2019),
        https://arxiv.org/abs/1905.06922, for the bound.

    See: chapter 7.

    >>> coins = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()  # each context determines its continuation
    >>> float(continuation_loss(coins, torch.tensor([0.5, 0.5]).log()))  # log 2 - L = log 2, all there is to know
    0.0
    """
    n = len(marginal)
    if marginal.ndim != 1 or n == 0 or conditional.shape != (n, n):
        raise InputError(
            f"conditional {tuple(conditional.shape)} and marginal {tuple(marginal.shape)} do not fit; give (B, B), "
            "continuation j after context i in row i and column j, and (B,)"
        )
    happened = conditional.diagonal().isfinite() & marginal.isfinite()  # (B,)
    if not happened.all():
        pair = int((~happened).nonzero()[0])
        raise InputError(f"what happened in pair {pair} has no finite log-probability; smooth the model that gave it")
    own = torch.arange(n, device=conditional.device)  # (B,)
    return reduce(F.cross_entropy(conditional - marginal, own, reduction="none"), reduction)
