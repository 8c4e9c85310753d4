r"""An adversarial game: a generator makes samples, a discriminator tells them from data.

.. math:: \min_G \max_D \; V(D, G)
    = \mathbb E_{x \sim p} \log \sigma(D(x)) + \mathbb E_{x \sim q_G} \log(1 - \sigma(D(x)))

D gives logits here, p is the data's density and :math:`q_G` the samples'. For fixed G the best D knows the ratio of
the densities, :math:`D^\star = \log p - \log q_G`, and the game is worth
:math:`2 \operatorname{JS}(p, q_G) - 2 \log 2`: the G that does best against it makes the two equal.

Where samples are *items*, numbers from a catalogue, no gradient flows from D's verdict to G:
:mod:`recsys_cl.losses.policy_gradient` has two ways around that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import comparable


def discriminator_loss(real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    r"""What the discriminator minimises: binary cross-entropy, the negative of the game's value.

    .. math:: L_D = -V = \mathbb E_{p} \operatorname{softplus}(-D) + \mathbb E_{q} \operatorname{softplus}(D)

    Each side has its own mean: the balance does not depend on how many samples either has. At 2 log 2 = 1.386 D
    guesses; :math:`\log 2 - L_D / 2` never exceeds the Jensen–Shannon divergence of data and samples in expectation.

    Args:
        real_logit: ``(...)`` D's logits of data.
        fake_logit: ``(...)`` D's logits of samples, any number of them. Detach the samples, or step only D.

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
    r"""The generator's side of the minimax game as it stands.

    .. math:: L_G = \mathbb E_q \log(1 - \sigma(D)) = -\mathbb E_q \operatorname{softplus}(D),
        \qquad \frac{\partial L_G}{\partial D} = -\sigma(D)

    A sample that D is sure about, :math:`\sigma(D) \to 0`, gets no gradient: G learns nothing just where it is worst.

    Args:
        fake_logit: ``(...)`` D's logits of samples.

    Returns:
        The loss in nats, at most 0.

    Raises:
        InputError: If there are none, or a logit is not finite.

    See: chapter 10.

    >>> round(float(saturating_generator_loss(torch.zeros(2))), 4)  # -log 2
    -0.6931
    """
    (fake_logit,) = _logits(fake_logit=fake_logit)
    return -F.softplus(fake_logit).mean()


def generator_loss(fake_logit: Tensor) -> Tensor:
    r"""The generator's loss as it is used, non-saturating: samples are to be taken for data.

    .. math:: L_G = -\mathbb E_q \log \sigma(D) = \mathbb E_q \operatorname{softplus}(-D),
        \qquad \frac{\partial L_G}{\partial D} = -(1 - \sigma(D))

    It pulls each sample in the same direction as the minimax loss, hardest where D is surest. The two players no
    longer share one value.

    Args:
        fake_logit: ``(...)`` D's logits of samples.

    Returns:
        The loss in nats.

    Raises:
        InputError: If there are none, or a logit is not finite.

    References:
        Goodfellow et al. (2014), section 3, https://arxiv.org/abs/1406.2661.

    See: chapter 10.

    >>> round(float(generator_loss(torch.zeros(2))), 4)  # log 2
    0.6931
    """
    (fake_logit,) = _logits(fake_logit=fake_logit)
    return F.softplus(-fake_logit).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    r"""R1: D is to be flat on the data.

    .. math:: R_1 = \tfrac12\, \mathbb E_{x \sim p} \lVert \nabla_x D(x) \rVert^2

    Once the samples are the data there is nothing to tell apart, and any slope that D has left drives G away again:
    unpenalised players circle around the solution. A weight :math:`\gamma` of 0.1 to 10 makes them converge to it.

    Args:
        discriminator: From vectors ``(..., dim)`` to logits ``(...)``, each of its own vector alone.
        real: ``(..., dim)`` data; the mean is over all of their vectors.

    Returns:
        The penalty, differentiable in D's parameters, under ``no_grad`` as well.

    Raises:
        InputError: If the data are no finite floating-point numbers, there are none, or D's logits do not depend
            on them.

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
    r"""The probability of being real that the best discriminator gives.

    .. math:: \sigma(D^\star(x)) = \frac{p(x)}{p(x) + q(x)}

    At each x, :math:`p \log \sigma + q \log(1 - \sigma)` has its maximum there. D's loss then is
    :math:`2 \log 2 - 2 \operatorname{JS}(p, q)`.

    Args:
        real_density: ``(...)`` p, densities or probabilities of data.
        fake_density: ``(...)`` q, of samples.

    Returns:
        ``(...)`` in [0, 1].

    Raises:
        InputError: If shapes differ, a density is negative or not finite, or neither can produce a point.

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
        raise InputError("a density is negative, or both are 0 at one point; give points that one of them produces")
    return p / (p + q)


def discriminator_accuracy(real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    """Share that D tells right, data and samples weighing the same; a logit of 0 is half right.

    .5 is what the game strives for, and also what a D that has learnt nothing has; 1 for long means that D is too
    strong to teach G anything.

    Args:
        real_logit: ``(...)`` D's logits of data.
        fake_logit: ``(...)`` D's logits of samples.

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
    """Finite floating-point tensors with at least one number each."""
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            raise InputError(f"{name} {tuple(tensor.shape)} is empty; its mean needs at least one number")
    return comparable(**tensors)
