r"""Gradient estimators for discrete sampling: REINFORCE with a leave-one-out baseline, and Gumbel-softmax.

.. math:: J = \mathbb E_{i \sim p}\, r(i)

A drawn number has no derivative. REINFORCE differentiates the log-probability instead: unbiased, high variance, any
reward. Gumbel-softmax relaxes the draw: biased, low variance, and only for differentiable rewards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import check_positive, comparable


def reinforce_loss(log_prob: Tensor, reward: Tensor, *, baseline: Tensor | None = None) -> Tensor:
    r"""REINFORCE: a loss whose gradient estimates the negative gradient of the expected reward.

    .. math:: L = -\frac{1}{Bk} \sum_{b,j} (r_{bj} - c_{bj}) \log p_b(i_{bj}), \qquad
        \nabla \mathbb E_p[r] = \mathbb E_p[r \nabla \log p]

    A baseline c that does not depend on its own draw leaves the mean unchanged, since
    :math:`\mathbb E[c \nabla \log p(i)] = \mathbb E[c]\, \nabla \sum_i p(i) = \mathbb E[c]\, \nabla 1 = 0`, and reduces
    the variance: without it, a draw with reward 10.1 among rewards of 10 gets hardly more gradient than the others.
    :func:`leave_one_out_baseline` is such a baseline. The value of the loss has no meaning.

    Args:
        log_prob: ``(batch, k)`` log-probabilities of k items drawn *from p* for each user, with replacement.
        reward: ``(batch, k)`` rewards of the draws, without gradient.
        baseline: ``(batch, k)``, or ``None`` for 0.

    Returns:
        The loss, to be minimised.

    Raises:
        InputError: If shapes are not ``(batch, k)`` or differ, a value is not finite, or there are no draws.

    References:
        Williams (1992), https://doi.org/10.1007/BF00992696; Kool, van Hoof and Welling (2019),
        https://openreview.net/forum?id=r1lgTGL5DE (leaving one out).

    See: chapter 10.

    >>> half = torch.tensor([[0.5, 0.5]]).log()
    >>> reward = torch.tensor([[1.0, 0.0]])
    >>> round(float(reinforce_loss(half, reward)), 4)  # (log 2) / 2
    0.3466
    >>> log_prob = torch.tensor([[0.8, 0.2]]).log()
    >>> others = leave_one_out_baseline(reward)
    >>> round(float(reinforce_loss(log_prob, reward, baseline=others)), 4)  # -(log .8 - log .2) / 2
    -0.6931
    """
    reward = reward.detach()
    baseline = torch.zeros_like(reward) if baseline is None else baseline.detach()
    log_prob, reward, baseline = comparable(log_prob=log_prob, reward=reward, baseline=baseline)
    if log_prob.ndim != 2 or log_prob.numel() == 0 or not log_prob.shape == reward.shape == baseline.shape:
        raise InputError(
            f"log_prob {tuple(log_prob.shape)}, reward {tuple(reward.shape)} and baseline {tuple(baseline.shape)} do "
            "not fit; give (batch, k) for all, at least one draw for at least one user"
        )
    return -((reward - baseline) * log_prob).mean()


def leave_one_out_baseline(reward: Tensor) -> Tensor:
    r"""Leave-one-out baseline: for each draw, the mean reward of the user's other draws.

    .. math:: c_{bj} = \frac{1}{k - 1} \sum_{l \neq j} r_{bl}

    It is independent of the draw. The mean of *all* k draws is not, and shrinks the gradient by :math:`(k - 1) / k`.

    Args:
        reward: ``(batch, k)`` with k ≥ 2.

    Returns:
        ``(batch, k)``

    Raises:
        InputError: If a user has fewer than two draws, or a reward is not finite.

    See: chapter 10.

    >>> leave_one_out_baseline(torch.tensor([[1.0, 2.0, 6.0]])).tolist()
    [[4.0, 3.5, 1.5]]
    """
    (reward,) = comparable(reward=reward)
    if reward.ndim != 2 or reward.shape[1] < 2:
        raise InputError(
            f"reward has shape {tuple(reward.shape)}; leaving one out needs (batch, k) with k of at least 2"
        )
    return (reward.sum(1, keepdim=True) - reward) / (reward.shape[1] - 1)  # (B, k)


def gumbel(uniform: Tensor) -> Tensor:
    r"""Standard Gumbel noise from uniform numbers.

    .. math:: g = -\log(-\log u)

    Args:
        uniform: ``(...)`` in [0, 1), in double precision: in single precision a number just below 1 rounds to 1.

    Returns:
        ``(...)`` finite, in the same precision.

    Raises:
        InputError: If a number is outside [0, 1).

    >>> round(float(gumbel(torch.tensor(0.5))), 4)  # -log log 2
    0.3665
    """
    (uniform,) = comparable(uniform=uniform)
    if uniform.numel() and not (uniform.min() >= 0 and uniform.max() < 1):
        low, high = float(uniform.min()), float(uniform.max())
        raise InputError(f"uniform numbers range from {low} to {high}; give numbers of at least 0 and below 1")
    return -(-uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log()).log()  # (...)


def gumbel_softmax_sample(log_p: Tensor, noise: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""Straight-through Gumbel-softmax: draw items as one-hot rows, with the gradient of a relaxation.

    .. math:: i = \operatorname*{argmax}_n (\log p_n + g_n) \sim p, \qquad
        y = \operatorname{softmax}\big((\log p + g) / \tau\big), \qquad
        \frac{\partial\, \text{one-hot}}{\partial \log p} := \frac{\partial y}{\partial \log p}

    A lower temperature reduces the bias of the gradient and increases its variance. The reward must be differentiable
    in the row, such as D of ``row @ table``, and each draw needs all N items in memory.

    Args:
        log_p: ``(batch, n_items)`` log-probabilities; −∞ for items that must not be drawn.
        noise: ``(batch, k, n_items)`` standard Gumbel noise from :func:`gumbel`: k draws with replacement.
        temperature: :math:`\tau > 0`.

    Returns:
        ``(batch, k, n_items)`` one-hot rows, up to rounding.

    Raises:
        InputError: If shapes do not fit, a user has no item to draw, a log-probability is NaN or +∞, the noise is not
            finite, or the temperature is not above 0.

    References:
        Jang, Gu and Poole (2017), https://arxiv.org/abs/1611.01144; Maddison, Mnih and Teh (2017),
        https://arxiv.org/abs/1611.00712.

    See: chapter 10.

    >>> p = torch.tensor([[0.7, 0.3]])
    >>> gumbel_softmax_sample(p.log(), torch.tensor([[[0.0, 0.0], [0.0, 2.0]]])).round().tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    check_positive("temperature", temperature)
    _check_log_p(log_p)
    (noise,) = comparable(noise=noise)
    if log_p.ndim != 2 or noise.ndim != 3 or (noise.shape[0], noise.shape[2]) != tuple(log_p.shape):
        raise InputError(
            f"log_p {tuple(log_p.shape)} and noise {tuple(noise.shape)} do not fit; give (batch, n_items) and "
            "(batch, k, n_items)"
        )
    perturbed = log_p[:, None] + noise.to(log_p.dtype)  # (B, k, N)
    soft = (perturbed / temperature).softmax(-1)  # (B, k, N)
    hard = torch.zeros_like(soft).scatter_(-1, perturbed.argmax(-1, keepdim=True), 1)  # (B, k, N)
    return hard - soft.detach() + soft


def entropy(log_p: Tensor) -> Tensor:
    r"""Entropy of a policy; :math:`e^H` is its effective number of items.

    .. math:: H(p) = -\sum_i p_i \log p_i

    Args:
        log_p: ``(..., n_items)`` log-probabilities, −∞ for a probability of 0.

    Returns:
        ``(...)`` in nats, from 0 (always the same item) to log N (uniform).

    Raises:
        InputError: If a row has no item to draw, or a log-probability is NaN or +∞.

    See: chapter 10.

    >>> round(float(entropy(torch.tensor([0.5, 0.5, 0.0]).log())), 4)  # log 2
    0.6931
    """
    _check_log_p(log_p)
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0)).sum(-1)  # (...)


def _check_log_p(log_p: Tensor) -> None:
    if not log_p.is_floating_point() or not (log_p < torch.inf).all():
        raise InputError("log_p holds NaN, +infinity or integers; give log-probabilities, at most 0")
    if log_p.numel() == 0 or not (log_p > -torch.inf).any(-1).all():
        raise InputError(f"log_p {tuple(log_p.shape)} has a row without an item to draw; leave one unmasked")
