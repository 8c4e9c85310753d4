r"""Next-item losses: full softmax, sampled softmax, binary cross-entropy and gBCE.

The states of all events of a ragged batch form one ``(T, dim)`` tensor, without events that have no next item. The
losses differ in how many items the target is compared with, and in whether items compete.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import Reduction, check_positive, comparable, reduce
from recsys_cl.losses.partition import Mask, log_partition, negative_log_likelihood, paired_scores


@dataclass(frozen=True, eq=False)
class NegativeSample:
    """Sampled negatives and their log-probabilities.

    Attributes:
        items: ``(k,)`` item numbers shared by all rows, or ``(batch, k)``.
        log_q: Log-probability of each item, of the same shape.

    See: chapter 5.
    """

    items: Tensor
    log_q: Tensor


def next_item_loss(
    hidden: Tensor,
    items: Tensor,
    target: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    mask: Mask | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Full softmax: cross-entropy over the whole catalogue, with every other item as a negative.

    .. math:: L_t = -\log \frac{\exp(s_{t y_t})}{\sum_{j \notin M_t} \exp(s_{tj})}, \qquad
        s_{tj} = h_t^\top v_j / \tau

    The gradient with respect to a score is :math:`p_{tj} - [j = y_t]`, so at the optimum the scores are
    :math:`\log p(j \mid t)` up to a constant per row. Beyond a million scores the loss is computed in blocks: the
    result is exact, and memory does not grow with events times items.

    Args:
        hidden: ``(T, dim)`` states, not normalised here.
        items: ``(N, dim)`` vectors of the whole catalogue.
        target: ``(T,)`` number of the next item.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: :math:`M`, ``(T, N)`` or a function from a slice of rows to their mask, true where an item is not a
            negative; the target is never masked.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, which returns ``(T,)``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, a target is not in the catalogue, the temperature is not above 0, or a
            vector is not finite.

    References:
        Hidasi et al. (2016), https://arxiv.org/abs/1511.06939; Klenitskiy and Vasilev (2023),
        https://arxiv.org/abs/2309.07602, for its effect on SASRec.

    See: chapter 7.

    >>> even = next_item_loss(torch.zeros(3, 2), torch.ones(8, 2), torch.tensor([0, 5, 7]))  # equal scores
    >>> round(float(even / math.log(8)), 4)
    1.0
    """
    hidden, items = _check_states(hidden, items, target, temperature)
    return reduce(negative_log_likelihood(hidden, items, target, temperature, mask=mask), reduction)


def sampled_next_item_loss(
    hidden: Tensor,
    items: Tensor,
    target: Tensor,
    negative: NegativeSample,
    *,
    temperature: float | Tensor = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Sampled softmax with k negatives that all events share, drawn from the catalogue.

    .. math:: L_t = -\log \frac{e^{s_{t y_t}}}{\hat Z_t}, \qquad
        \hat Z_t = e^{s_{t y_t}} + \frac1k \sum_{c:\, j_c \neq y_t} \frac{e^{s_{t j_c}}}{q_{j_c}}

    Each draw represents the :math:`1 / (k q)` items that it was drawn from, so
    :math:`\mathbb E \hat Z_t = Z_t` whatever :math:`q` and :math:`k`. The target is known, not drawn: it enters once,
    uncorrected, and a draw that hits it is masked. The loss, a logarithm, is biased slightly low
    (:math:`\mathbb E \log \hat Z \le \log Z`); loss and gradient converge to those of :func:`next_item_loss` as k
    grows.

    Shared negatives cost one matrix product. For each event's own negatives, and for the correction that treats the
    positive as one draw among others, see :func:`~recsys_cl.losses.sampled_softmax_loss`.

    Args:
        hidden: ``(T, dim)`` states, not normalised here.
        items: ``(N, dim)`` vectors of the whole catalogue.
        target: ``(T,)`` number of the next item.
        negative: One draw of a sampler: ``(k,)`` item numbers and their ``log_q``.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats; 0 where every draw hit the target.

    Raises:
        InputError: Under the conditions of :func:`next_item_loss`, or if the negatives are not ``(k,)`` or a ``log_q``
            is not finite.

    References:
        Bengio and Senécal (2008), https://doi.org/10.1109/TNN.2007.912312; Khrylchenko et al. (2025),
        https://arxiv.org/abs/2507.09331, on the positive's correction.

    See: chapter 7.

    >>> drawn = NegativeSample(torch.tensor([1, 2]), torch.full((2,), 0.25).log())  # 2 of the 3 others of 4 items
    >>> loss = sampled_next_item_loss(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([0]), drawn)
    >>> round(float(loss.exp()), 4)  # the target, and two draws that stand for two items each
    5.0
    """
    hidden, items = _check_states(hidden, items, target, temperature)
    _check_shared(negative, len(items))
    log_weight = negative.log_q.to(hidden) + math.log(len(negative.items))  # (K,)
    log_others = log_partition(
        hidden,
        items[negative.items],
        temperature,
        mask=lambda rows: target[rows, None] == negative.items,  # (R, K)
        log_q=log_weight,
    )  # (T,)
    return reduce(F.softplus(log_others - paired_scores(hidden, items[target], temperature)), reduction)


def binary_next_item_loss(positive: Tensor, negative: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Binary cross-entropy with k sampled negatives: classify the target as next item, the negatives as not.

    .. math:: L_t = -\log \sigma(s_t^+) - \sum_{c=1}^k \log \sigma(-s_{tc}^-)

    k = 1 is SASRec's original loss. Let :math:`p_i` be the probability that item i comes next, and let negatives be
    uniform over the other N − 1 items. Item i is then a positive with probability :math:`p_i`, and a negative
    :math:`\alpha (1 - p_i)` times on average, with :math:`\alpha = k / (N - 1)`. Setting the derivative of the mean
    loss, :math:`-p_i (1 - \sigma_i) + \alpha (1 - p_i)\, \sigma_i`, to 0 gives

    .. math:: \sigma(s_i) = \frac{p_i}{p_i + \alpha (1 - p_i)}

    With few negatives in a large catalogue this is close to 1 for every item much more likely than :math:`\alpha` (at
    :math:`\alpha = 10^{-3}`, 0.91 for an item with :math:`p_i = 1\,\%`): overconfidence. The ranking at the optimum is
    correct, :math:`s_i = \log \frac{p_i}{1 - p_i} - \log \alpha`.

    To draw uniform negatives other than the target, draw ``other = UniformNegatives(N - 1).sample(epoch, example,
    k).items`` and use ``other + (other >= target[:, None])``.

    Args:
        positive: ``(T,)`` scores of the next items.
        negative: ``(T, k)`` scores of each event's negatives; their terms are summed.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit or a score is not finite.

    References:
        Kang and McAuley (2018), https://arxiv.org/abs/1808.09781.

    See: chapter 7.

    >>> round(float(binary_next_item_loss(torch.zeros(5), torch.zeros(5, 3)) / math.log(2)), 4)  # 4 coins
    4.0
    """
    return _weighted_binary_loss(positive, negative, 1.0, reduction)


def gbce_loss(
    positive: Tensor, negative: Tensor, *, n_items: int, calibration: float = 0.75, reduction: Reduction = "mean"
) -> Tensor:
    r"""Generalised binary cross-entropy (gSASRec): scale the positive term down to undo negative sampling.

    .. math:: L_t = -\log \sigma(s_t^+)^\beta - \sum_{c=1}^k \log \sigma(-s_{tc}^-), \qquad
        \beta = \alpha \Bigl(t \bigl(1 - \tfrac1\alpha\bigr) + \tfrac1\alpha\Bigr) = 1 - t (1 - \alpha), \qquad
        \alpha = \frac{k}{N - 1}

    With positives weighted by :math:`\beta`, the derivative in :func:`binary_next_item_loss` gives

    .. math:: \sigma(s_i) = \frac{\beta p_i}{\beta p_i + \alpha (1 - p_i)}

    At t = 1, :math:`\beta = \alpha` and the sigmoid is the probability: :math:`\sigma(s_i) = p_i`. At t = 0,
    :math:`\beta = 1`: binary cross-entropy. (The paper divides by k + 1, a constant.)

    Args:
        positive: ``(T,)`` scores of the next items.
        negative: ``(T, k)`` scores of each event's negatives, uniform over the other items.
        n_items: Size of the catalogue, N.
        calibration: t in [0, 1], from binary cross-entropy to calibrated probabilities.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, a score is not finite, there are fewer than 2 items, or t is out of range.

    References:
        Petrov and Macdonald (2023), https://arxiv.org/abs/2308.07192.

    See: chapter 7.

    >>> one_of_four = gbce_loss(torch.zeros(1), torch.zeros(1, 1), n_items=5, calibration=1.0)  # beta = 1 / 4
    >>> round(float(one_of_four / math.log(2)), 4)
    1.25
    """
    if not 0 <= calibration <= 1:
        raise InputError(f"calibration={calibration}; give 0 (binary cross-entropy) to 1 (sigmoids are probabilities)")
    if n_items < 2:
        raise InputError(f"n_items={n_items} leaves no negative; give the size of the catalogue")
    sampled = negative.shape[-1] / (n_items - 1)
    return _weighted_binary_loss(positive, negative, 1 - calibration * (1 - sampled), reduction)


def _weighted_binary_loss(positive: Tensor, negative: Tensor, weight: float, reduction: Reduction) -> Tensor:
    positive, negative = comparable(positive=positive, negative=negative)
    if positive.ndim != 1 or negative.ndim != 2 or len(positive) != len(negative) or negative.numel() == 0:
        raise InputError(
            f"positive {tuple(positive.shape)} and negative {tuple(negative.shape)} do not fit; "
            "give scores (T,) and (T, k), at least one of each"
        )
    return reduce(weight * F.softplus(-positive) + F.softplus(negative).sum(1), reduction)


def _check_states(hidden: Tensor, items: Tensor, target: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    hidden, items = comparable(hidden=hidden, items=items)
    check_positive("temperature", temperature)
    fits = hidden.ndim == items.ndim == 2 and hidden.shape[1] == items.shape[1] and len(items) > 0
    if not fits or len(hidden) == 0 or target.shape != hidden.shape[:1]:
        raise InputError(
            f"hidden {tuple(hidden.shape)}, items {tuple(items.shape)} and target {tuple(target.shape)} do not fit; "
            "give (T, dim), (N, dim) and (T,) with T at least 1: only events that have a next item"
        )
    _check_numbers("target", target, len(items))
    return hidden, items


def _check_shared(negative: NegativeSample, n_items: int) -> None:
    shape = tuple(negative.items.shape)
    if len(shape) != 1 or shape[0] == 0 or tuple(negative.log_q.shape) != shape:
        raise InputError(
            f"negatives {shape} with log_q {tuple(negative.log_q.shape)} are not shared by the batch; "
            "give (k,) for both, or use sampled_softmax_loss for each event's own negatives"
        )
    _check_numbers("negative", negative.items, n_items)
    if not negative.log_q.isfinite().all():
        raise InputError("a negative has a log_q that is not finite; give the log-probability of drawing it")


def _check_numbers(name: str, numbers: Tensor, n_items: int) -> None:
    if numbers.dtype != torch.int64:
        raise InputError(f"{name} has dtype {numbers.dtype}; give item numbers as torch.int64")
    low, high = (int(end) for end in torch.aminmax(numbers))
    if low < 0 or high >= n_items:
        raise InputError(f"{name} has items {low} to {high}; give 0 to N - 1 = {n_items - 1}, without padding")
