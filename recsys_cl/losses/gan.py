r"""GAN losses: discriminator and generator losses, the R1 gradient penalty, and the optimal discriminator.

.. math:: \min_G \max_D \; V(D, G)
    = \mathbb E_{x \sim p} \log \sigma(D(x)) + \mathbb E_{x \sim q_G} \log(1 - \sigma(D(x)))

D returns logits here; p is the density of the data and :math:`q_G` that of the samples. For fixed G the optimal D is
the log-ratio of the densities, :math:`D^\star = \log p - \log q_G`, and the value of the game is
:math:`2 \operatorname{JS}(p, q_G) - 2 \log 2`: it is minimal when both densities are equal.

If samples are *items*, numbers from a catalogue, no gradient flows from D's output to G:
:mod:`recsys_cl.losses.policy_gradient` has two remedies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import comparable


def discriminator_loss(real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    r"""Discriminator loss: binary cross-entropy, the negative of the game's value.

    .. math:: L_D = -V = \mathbb E_{p} \operatorname{softplus}(-D) + \mathbb E_{q} \operatorname{softplus}(D)

    Data and samples are averaged separately, so their balance does not depend on their numbers. At 2 log 2 = 1.386 D
    guesses; in expectation :math:`\log 2 - L_D / 2` never exceeds the Jensen–Shannon divergence of data and samples.

    Args:
        real_logit: ``(...)`` D's logits for data.
        fake_logit: ``(...)`` D's logits for samples, any number of them. Detach the samples, or step only D.

    Returns:
        The loss in nats.

    Raises:
        InputError: If either is empty, or a logit is not finite.

    References:
        Goodfellow et al. (2014), https://arxiv.org/abs/1406.2661.

    See: chapter 10.

    >>> round(float(discriminator_loss(torch.zeros(3), torch.zeros(2))), 4)  # 2 log 2
    1.3863
    """
    real_logit, fake_logit = _logits(real_logit=real_logit, fake_logit=fake_logit)
    return F.softplus(-real_logit).mean() + F.softplus(fake_logit).mean()


def saturating_generator_loss(fake_logit: Tensor) -> Tensor:
    r"""Saturating generator loss: the generator's side of the minimax game.

    .. math:: L_G = \mathbb E_q \log(1 - \sigma(D)) = -\mathbb E_q \operatorname{softplus}(D),
        \qquad \frac{\partial L_G}{\partial D} = -\sigma(D)

    A sample that D rejects with certainty, :math:`\sigma(D) \to 0`, gets no gradient: G learns nothing where it is
    worst.

    Args:
        fake_logit: ``(...)`` D's logits for samples.

    Returns:
        The loss in nats, at most 0.

    Raises:
        InputError: If there are no logits, or one is not finite.

    See: chapter 10.

    >>> round(float(saturating_generator_loss(torch.zeros(2))), 4)  # -log 2
    -0.6931
    """
    (fake_logit,) = _logits(fake_logit=fake_logit)
    return -F.softplus(fake_logit).mean()


def generator_loss(fake_logit: Tensor) -> Tensor:
    r"""Non-saturating generator loss, the usual choice: maximise the probability that samples are taken for data.

    .. math:: L_G = -\mathbb E_q \log \sigma(D) = \mathbb E_q \operatorname{softplus}(-D),
        \qquad \frac{\partial L_G}{\partial D} = -(1 - \sigma(D))

    It moves each sample in the same direction as the minimax loss, most where D is most certain. The game is no
    longer zero-sum.

    Args:
        fake_logit: ``(...)`` D's logits for samples.

    Returns:
        The loss in nats.

    Raises:
        InputError: If there are no logits, or one is not finite.

    References:
        Goodfellow et al. (2014), section 3, https://arxiv.org/abs/1406.2661.

    See: chapter 10.

    >>> round(float(generator_loss(torch.zeros(2))), 4)  # log 2
    0.6931
    """
    (fake_logit,) = _logits(fake_logit=fake_logit)
    return F.softplus(-fake_logit).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    r"""R1 gradient penalty: the discriminator should be flat on the data.

    .. math:: R_1 = \tfrac12\, \mathbb E_{x \sim p} \lVert \nabla_x D(x) \rVert^2

    Once samples and data agree, any slope that D still has drives G away again: unpenalised players circle around the
    solution. A weight :math:`\gamma` of 0.1 to 10 makes them converge to it.

    Args:
        discriminator: Maps vectors ``(..., dim)`` to logits ``(...)``; each logit depends on its own vector only.
        real: ``(..., dim)`` data; the mean is over all vectors.

    Returns:
        The penalty, differentiable in D's parameters, even under ``no_grad``.

    Raises:
        InputError: If there are no data, if they are not finite floating-point numbers, or if D's logits do not
            depend on them.

    References:
        Mescheder, Geiger and Nowozin (2018), https://arxiv.org/abs/1801.04406.

    See: chapter 10.

    >>> float(gradient_penalty(lambda x: x @ torch.tensor([3.0, 4.0]), torch.zeros(7, 2)))  # 5² / 2
    12.5
    """
    (real,) = _logits(real=real)
    real = real.detach().requires_grad_()  # (..., d)
    with torch.enable_grad():
        logit = discriminator(real)  # (...)
        if not logit.requires_grad:
            raise InputError("the discriminator's logits have no gradient to the data; compute them from its argument")
        (slope,) = torch.autograd.grad(logit.sum(), real, create_graph=True)  # (..., d)
        return slope.square().sum(-1).mean() / 2


def optimal_discriminator(real_density: Tensor, fake_density: Tensor) -> Tensor:
    r"""Optimal discriminator: the probability that a point is real, given both densities.

    .. math:: \sigma(D^\star(x)) = \frac{p(x)}{p(x) + q(x)}

    It maximises :math:`p \log \sigma + q \log(1 - \sigma)` at each x. D's loss is then
    :math:`2 \log 2 - 2 \operatorname{JS}(p, q)`.

    Args:
        real_density: ``(...)`` p, densities or probabilities under the data.
        fake_density: ``(...)`` q, densities or probabilities under the generator.

    Returns:
        ``(...)`` in [0, 1].

    Raises:
        InputError: If shapes differ, a density is negative or not finite, or both densities are 0 at a point.

    References:
        Goodfellow et al. (2014), proposition 1, https://arxiv.org/abs/1406.2661.

    See: chapter 10.

    >>> optimal_discriminator(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.0, 0.5])).tolist()
    [0.5, 1.0, 0.0]
    """
    p, q = comparable(real_density=real_density, fake_density=fake_density)
    if p.shape != q.shape:
        raise InputError(
            f"real_density {tuple(p.shape)} and fake_density {tuple(q.shape)} do not fit; give both at the same points"
        )
    if (p < 0).any() or (q < 0).any() or (p + q == 0).any():
        raise InputError("a density is negative, or both are 0 at one point; give points where one is above 0")
    return p / (p + q)


def discriminator_accuracy(real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    """Balanced accuracy of the discriminator: the mean of its accuracies on data and on samples; a logit of 0 is half.

    0.5 is the equilibrium of the game, and also the accuracy of an untrained D. An accuracy that stays at 1 means that
    D is too strong to teach G anything.

    Args:
        real_logit: ``(...)`` D's logits for data.
        fake_logit: ``(...)`` D's logits for samples.

    Returns:
        A number in [0, 1], without gradient.

    Raises:
        InputError: If either is empty, or a logit is not finite.

    See: chapter 10.

    >>> float(discriminator_accuracy(torch.tensor([2.0, -1.0]), torch.tensor([-3.0])))
    0.75
    """
    real_logit, fake_logit = _logits(real_logit=real_logit.detach(), fake_logit=fake_logit.detach())
    return (real_logit.sign().mean() - fake_logit.sign().mean()) / 4 + 0.5


def _logits(**tensors: Tensor) -> tuple[Tensor, ...]:
    """Check that tensors are floating point, finite and not empty."""
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            raise InputError(f"{name} {tuple(tensor.shape)} is empty; its mean needs at least one number")
    return comparable(**tensors)
