r"""Language modelling losses: masked, causal, and contrastive over continuations.

Labels follow the usual convention: the label of a predicted token is its id, all other labels are :data:`IGNORED`.

Contrastive language modelling distinguishes the continuation of a text or history from the continuations of others.
It is often written as a search for the word :math:`W` that distinguishes two texts,

.. math:: \arg\max_W \log \frac{P(x_1, W \mid x_2)}{P(x_2, W \mid x_1)},

but that problem has no answer. By the chain rule :math:`P(x_1, W \mid x_2) = P(x_1, x_2, W) / P(x_2)` and
:math:`P(x_2, W \mid x_1) = P(x_1, x_2, W) / P(x_1)`, so the ratio is

.. math:: \frac{P(x_1, W \mid x_2)}{P(x_2, W \mid x_1)} = \frac{P(x_1)}{P(x_2)},

the same for every :math:`W`. What does distinguish texts is how much more likely a context makes a continuation than
it is by itself: their pointwise mutual information, which :func:`continuation_loss` trains.
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
"""Label of a token that is not predicted."""


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
    """Mask a share of the tokens as BERT does: 80 % become the mask token, 10 % a random token, 10 % stay.

    At inference the text holds no mask token. The other 20 % therefore train the model to represent tokens that are
    not masked. Every choice is a function of (seed, epoch, example, position): neither the batch nor a resumed run
    changes it.

    Args:
        input_ids: ``(batch, tokens)``.
        maskable: ``(batch, tokens)``, false for padding and special tokens.
        mask_id: Id of the mask token.
        vocabulary_size: Random tokens are drawn from ``0 .. vocabulary_size - 1``.
        example: ``(batch,)`` number of each text in its data set.
        epoch: Epoch of all texts, or ``(batch,)`` of each; every epoch masks other tokens.
        seed: Seed of all choices.
        share: Probability that a maskable token is selected.

    Returns:
        Inputs and labels, both ``(batch, tokens)``; the label of a token that was not selected is ``IGNORED``.

    Raises:
        InputError: If the share is not in (0, 1].

    References:
        Devlin et al. (2019), BERT, NAACL, section 3.1.

    See: chapter 1.

    >>> ids = torch.tensor([[1, 7, 8, 9, 2]])
    >>> inner = torch.tensor([[False, True, True, True, False]])
    >>> hidden, labels = mask_tokens(ids, inner, mask_id=3, vocabulary_size=10, example=np.array([0]), share=1.0)
    >>> labels  # every token between the first and the last is to be predicted
    tensor([[-100,    7,    8,    9, -100]])
    """
    if not 0 < share <= 1:
        raise InputError(f"share={share} of the tokens cannot be masked; give a number above 0 and at most 1")
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
    """One copy of a text per token, with that token masked.

    The log-likelihoods of the masked tokens add up to the text's *pseudo*-log-likelihood: each token is predicted
    from all others, so the product of the probabilities is not a probability of the text.

    Args:
        input_ids: ``(tokens,)`` ids of one text.
        maskable: ``(tokens,)``, false for padding and special tokens.
        mask_id: Id of the mask token.

    Returns:
        Inputs and labels, both ``(maskable tokens, tokens)``.

    References:
        Salazar et al. (2020), Masked Language Model Scoring, ACL.

    See: chapter 1.

    >>> mask_each(torch.tensor([1, 7, 8, 2]), torch.tensor([False, True, True, False]), mask_id=3)[0]
    tensor([[1, 3, 8, 2],
            [1, 7, 3, 2]])
    """
    at = maskable.bool().diag()[maskable.bool()]  # (n, T), one true entry per row
    copies = input_ids.expand(at.shape)  # (n, T)
    return copies.masked_fill(at, mask_id), copies.masked_fill(~at, IGNORED)


def masked_language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Masked language modelling loss: cross-entropy of masked tokens given the corrupted text :math:`\tilde x`.

    .. math:: L = -\frac{1}{|M|} \sum_{t \in M} \log p(x_t \mid \tilde x)

    Args:
        logits: ``(batch, tokens, vocabulary)``, or any shape that ends so.
        labels: ``(batch, tokens)``, ``IGNORED`` outside :math:`M`.

    Returns:
        The loss in nats per masked token; 0 if no token is masked.

    References:
        Devlin et al. (2019), BERT, NAACL.

    See: chapter 1.

    >>> even = torch.zeros(1, 3, 4)  # four words, equally likely
    >>> round(float(masked_language_loss(even, torch.tensor([[-100, 2, -100]])) / math.log(4)), 4)
    1.0
    """
    total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp_min(1)  # ()


def causal_language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Causal language modelling loss: the logits at position :math:`t` predict the token at :math:`t + 1`.

    .. math:: L = -\frac{1}{n} \sum_{t} \log p(x_{t + 1} \mid x_1, \dots, x_t)

    Args:
        logits: ``(batch, tokens, vocabulary)``.
        labels: ``(batch, tokens)`` token ids, not shifted, ``IGNORED`` at padding; they are shifted by one here.

    Returns:
        The loss in nats per predicted token; 0 if no token is predicted.

    References:
        Radford et al. (2018), Improving Language Understanding by Generative Pre-Training.

    See: chapter 1.

    >>> sure = 100 * F.one_hot(torch.tensor([[1, 2, 0]]), 3).float()  # says 1, then 2, then 0
    >>> float(causal_language_loss(sure, torch.tensor([[0, 1, 2]])))  # after 0 comes 1, after 1 comes 2
    0.0
    """
    return masked_language_loss(logits[..., :-1, :], labels[..., 1:])


def perplexity(nats: float, tokens: int) -> float:
    r"""Perplexity: the number of equally likely tokens with the same mean log-likelihood.

    .. math:: \exp\Big({-\frac{1}{n}} \sum_t \log p_t\Big)

    It compares two models only if they share a tokenizer.

    Args:
        nats: Summed negative log-likelihood in nats.
        tokens: Number of predicted tokens.

    See: chapter 1.

    >>> round(perplexity(3 * math.log(5), 3), 6)
    5.0
    """
    return math.exp(nats / tokens)


def bits_per_character(nats: float, texts: list[str]) -> float:
    r"""Bits per character: summed negative log-likelihood in bits, comparable across tokenizers.

    .. math:: \frac{-\sum_t \log_2 p_t}{\text{characters}}

    Args:
        nats: Summed negative log-likelihood of the texts in nats.
        texts: The predicted texts.

    See: chapter 1.

    >>> bits_per_character(6 * math.log(2), ["ab", "c"])
    2.0
    """
    return nats / math.log(2) / sum(map(len, texts))


def continuation_loss(conditional: Tensor, marginal: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""InfoNCE over pointwise mutual information: identify each context's continuation among those of the batch.

    .. math:: L_i = -\log \frac{\exp(s_{ii})}{\sum_j \exp(s_{ij})}, \qquad
        s_{ij} = \log P(x_j \mid c_i) - \log P(x_j)

    The likelihood alone would favour continuations that are likely anywhere: short texts, popular items. With exact
    probabilities :math:`s` is the optimal score, and B independent pairs give a lower bound on the mutual information,

    .. math:: I(c; x) \ge \log B - \mathbb E\, L,

    which never exceeds :math:`\log B` and gets tighter as B grows. It requires every pair in the sum, including equal
    continuations.

    For texts, a log-probability is the sum over the continuation's words; the marginal omits the context. For
    behaviour, the continuation is the next item and :math:`P(x_j)` its popularity: the loss is then
    :func:`~recsys_cl.losses.info_nce_loss` over a batch with ``log_q``.

    Args:
        conditional: ``(B, B)`` log-probability of continuation j (column) after context i (row); −∞ where it is
            impossible, finite on the diagonal.
        marginal: ``(B,)`` log-probability of continuation j without a context.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, or an observed pair has a log-probability that is not finite.

    References:
        van den Oord, Li and Vinyals (2018), https://arxiv.org/abs/1807.03748; Poole et al. (2019),
        https://arxiv.org/abs/1905.06922, for the bound.

    See: chapter 7.

    >>> coins = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()  # each context determines its continuation
    >>> float(continuation_loss(coins, torch.tensor([0.5, 0.5]).log()))  # the bound log 2 - L is log 2, its maximum
    0.0
    """
    n = len(marginal)
    if marginal.ndim != 1 or n == 0 or conditional.shape != (n, n):
        raise InputError(
            f"conditional {tuple(conditional.shape)} and marginal {tuple(marginal.shape)} do not fit; give (B, B), "
            "with continuation j after context i in row i and column j, and (B,)"
        )
    finite = conditional.diagonal().isfinite() & marginal.isfinite()  # (B,)
    if not finite.all():
        pair = int((~finite).nonzero()[0])
        raise InputError(f"the observed pair {pair} has no finite log-probability; smooth the model that computed it")
    own = torch.arange(n, device=conditional.device)  # (B,)
    return reduce(F.cross_entropy(conditional - marginal, own, reduction="none"), reduction)
