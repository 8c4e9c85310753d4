r"""Adversarial perturbations of embedding vectors (FGM, PGD, VAT), with random perturbations as controls.

.. math:: \delta^\ast = \operatorname*{arg\,max}_{\lVert \delta \rVert \le \epsilon} L(v + \delta)

A perturbation moves each vector of ``(..., dim)`` by at most :math:`\epsilon`, independently of the others. To first
order :math:`L(v + \delta) = L(v) + g^\top \delta`, whose maximum on a ball has a closed form. Every attack here uses
that maximum: once, in several steps, or for another loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import check_positive, unit

Norm = Literal["l2", "linf"]

Loss = Callable[[Tensor], Tensor]
"""A loss as a function of the perturbation."""

OVERSHOOT = 2.5
"""Total length of the steps of :func:`pgd`, in radii of the ball, so every point of the ball is within reach."""

PROBE = 1e-3
"""Length of the finite difference in :func:`virtual_direction`; the divergence is quadratic in it."""


def steepest(gradient: Tensor, epsilon: float, *, norm: Norm = "l2") -> Tensor:
    r"""Fast gradient step: the move of length :math:`\epsilon` that raises a linear loss most (FGM; FGSM for linf).

    .. math:: \operatorname*{arg\,max}_{\lVert \delta \rVert_2 \le \epsilon} g^\top \delta
        = \epsilon \frac{g}{\lVert g \rVert_2}, \qquad
        \operatorname*{arg\,max}_{\lVert \delta \rVert_\infty \le \epsilon} g^\top \delta
        = \epsilon \operatorname{sign}(g)

    by Cauchy–Schwarz and by Hölder: the maximum is :math:`\epsilon` times the dual norm of g. A vector with zero
    gradient is not moved.

    Args:
        gradient: :math:`g`, ``(..., dim)``.
        epsilon: :math:`\epsilon > 0`, length of the move in the units of the vectors.
        norm: ``"l2"`` or ``"linf"``.

    Returns:
        ``(..., dim)``.

    Raises:
        InputError: If :math:`\epsilon` is not above 0, or the gradient is not floating point.

    References:
        Goodfellow, Shlens and Szegedy (2015), https://arxiv.org/abs/1412.6572 (sign);
        Miyato, Dai and Goodfellow (2017), https://arxiv.org/abs/1605.07725 (embeddings, Euclidean).

    See: chapter 9.

    >>> steepest(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 0.5).tolist()
    [[0.30000001192092896, 0.4000000059604645], [0.0, 0.0]]
    """
    check_positive("epsilon", epsilon)
    _check_floating("gradient", gradient)
    match norm:
        case "l2":
            return epsilon * _unit(gradient)  # (..., d)
        case "linf":
            return epsilon * gradient.sign()  # (..., d)
        case _:
            raise InputError(f"norm={norm!r} is unknown; valid names are l2, linf")


def project(perturbation: Tensor, epsilon: float, *, norm: Norm = "l2") -> Tensor:
    r"""Project onto the ball: the nearest perturbation whose vectors are no longer than :math:`\epsilon`.

    .. math:: \delta \min\Big(1, \frac{\epsilon}{\lVert \delta \rVert_2}\Big), \qquad
        \max(-\epsilon, \min(\delta, \epsilon))

    Args:
        perturbation: ``(..., dim)``.
        epsilon: Radius of the ball, above 0.
        norm: ``"l2"`` or ``"linf"``.

    Raises:
        InputError: If :math:`\epsilon` is not above 0.

    See: chapter 9.

    >>> project(torch.tensor([[6.0, 8.0], [0.1, 0.0]]), 5.0).tolist()
    [[3.0, 4.0], [0.10000000149011612, 0.0]]
    """
    check_positive("epsilon", epsilon)
    match norm:
        case "l2":
            length = torch.linalg.vector_norm(perturbation, dim=-1, keepdim=True)  # (..., 1)
            return perturbation * (epsilon / length.clamp(min=epsilon))  # (..., d)
        case "linf":
            return perturbation.clamp(-epsilon, epsilon)  # (..., d)
        case _:
            raise InputError(f"norm={norm!r} is unknown; valid names are l2, linf")


def pgd(loss: Loss, start: Tensor, epsilon: float, *, steps: int = 1, norm: Norm = "l2") -> Tensor:
    r"""Projected gradient ascent (PGD): steepest moves, each projected back into the ball.

    .. math:: \delta \leftarrow \Pi_\epsilon \Big(\delta + \operatorname*{arg\,max}_{\lVert d \rVert \le \alpha}
        \nabla L(\delta)^\top d\Big), \qquad \alpha = 2.5\, \epsilon / n

    One step from zero equals :func:`steepest` of the gradient at zero.

    Args:
        loss: :math:`L`, maps a perturbation ``(..., dim)`` to a scalar.
        start: Initial perturbation, ``(..., dim)``: zeros, or :func:`random_perturbation`.
        epsilon: Radius of the ball around zero, above 0.
        steps: Number of steps, :math:`n \ge 1`.
        norm: ``"l2"`` or ``"linf"``.

    Returns:
        ``(..., dim)``, without gradient.

    Raises:
        InputError: If :math:`\epsilon` or the number of steps is out of range, ``start`` is not floating point, or the
            loss does not depend on the perturbation.

    References:
        Madry et al. (2018), https://arxiv.org/abs/1706.06083.

    See: chapter 9.
    """
    check_positive("epsilon", epsilon)
    if steps < 1:
        raise InputError(f"steps={steps} moves nothing; give 1 or more")
    perturbation = start.detach()  # (..., d)
    for _ in range(steps):
        gradient = gradient_at(loss, perturbation)  # (..., d)
        moved = perturbation + steepest(gradient, OVERSHOOT * epsilon / steps, norm=norm)  # (..., d)
        perturbation = project(moved, epsilon, norm=norm)  # (..., d)
    return perturbation


def gradient_at(loss: Loss, perturbation: Tensor) -> Tensor:
    """Gradient of a loss with respect to the perturbation, ``(..., dim)``; parameters get no gradient.

    Raises:
        InputError: If the perturbation is not floating point, or the loss does not depend on it.
    """
    _check_floating("perturbation", perturbation)
    with torch.enable_grad():
        moved = perturbation.detach().requires_grad_()  # (..., d)
        return gradient_of(loss(moved), moved)


def gradient_of(value: Tensor, perturbation: Tensor, *, again: bool = False) -> Tensor:
    """Gradient of a computed loss, ``(..., dim)``; ``again`` keeps the graph for a second backward pass.

    Raises:
        InputError: If the loss does not depend on the perturbation.
    """
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, perturbation, allow_unused=True, retain_graph=again)
        if gradient is not None:
            return gradient
    raise InputError("the loss does not depend on the perturbation; add the perturbation to the vectors that it reads")


def random_perturbation(like: Tensor, epsilon: float) -> Tensor:
    r"""Random move of length :math:`\epsilon` in a uniformly drawn direction: the control for every attack.

    In d dimensions its component along any given direction is about :math:`\epsilon / \sqrt d`, so noise rarely finds
    the direction that an attack finds.

    Args:
        like: ``(..., dim)`` tensor that sets shape, dtype and device.
        epsilon: Length of the move, above 0.

    Raises:
        InputError: If :math:`\epsilon` is not above 0, or ``like`` is not floating point.

    See: chapter 9.
    """
    check_positive("epsilon", epsilon)
    _check_type("like", like)
    return epsilon * _unit(torch.randn_like(like))  # (..., d)


def sign_preserving_noise(vectors: Tensor, epsilon: float) -> Tensor:
    r"""SimGCL noise: random noise of length :math:`\epsilon` in the same orthant as the vector.

    .. math:: \epsilon\, \operatorname{sign}(v) \odot \frac{x}{\lVert x \rVert}, \qquad x \sim U[0, 1]^d

    Args:
        vectors: :math:`v`, ``(..., dim)``.
        epsilon: Length of the noise, above 0.

    Raises:
        InputError: If :math:`\epsilon` is not above 0, or the vectors are not floating point.

    References:
        Yu et al. (2022), https://arxiv.org/abs/2112.08679.

    See: chapter 9.
    """
    check_positive("epsilon", epsilon)
    _check_floating("vectors", vectors)
    return epsilon * _unit(torch.rand_like(vectors)) * vectors.detach().sign()  # (..., d)


def virtual_direction(divergence: Loss, like: Tensor, epsilon: float, *, iterations: int = 1) -> Tensor:
    r"""Virtual adversarial direction (VAT): the move that changes a model's output distribution most, without labels.

    .. math:: \operatorname*{arg\,max}_{\lVert \delta \rVert \le \epsilon}
        \operatorname{KL}\big(p(\cdot \mid v) \,\Vert\, p(\cdot \mid v + \delta)\big)
        \approx \epsilon\, d, \qquad d \leftarrow \frac{\nabla_\delta \operatorname{KL}|_{\delta = \xi d}}
        {\lVert \nabla_\delta \operatorname{KL}|_{\delta = \xi d} \rVert}

    At :math:`\delta = 0` the divergence and its gradient are 0. To second order the divergence is
    :math:`\tfrac12 \delta^\top H \delta`, maximal along the leading eigenvector of H. Power iteration finds that
    eigenvector from gradients alone, since :math:`\nabla|_{\xi d} \approx \xi H d`.

    Args:
        divergence: KL divergence as a function of the perturbation ``(..., dim)``.
        like: ``(..., dim)`` tensor that sets shape, dtype and device.
        epsilon: Length of the move, above 0.
        iterations: Number of power iterations from a random direction.

    Raises:
        InputError: If :math:`\epsilon` is not above 0, or the divergence does not depend on the perturbation.

    References:
        Miyato et al. (2019), https://arxiv.org/abs/1704.03976.

    See: chapter 9.
    """
    check_positive("epsilon", epsilon)
    direction = random_perturbation(like, PROBE)  # (..., d)
    for _ in range(iterations):
        direction = PROBE * _unit(gradient_at(divergence, direction))  # (..., d)
    return epsilon / PROBE * direction  # (..., d)


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    r"""Mean Kullback–Leibler divergence between softmax distributions, :math:`\operatorname{KL}(p \,\Vert\, \hat p)`.

    Args:
        clean: ``(batch, n)`` logits of the unperturbed model, treated as constants.
        moved: ``(batch, n)`` logits of the perturbed model.

    Returns:
        The divergence in nats, at least 0.

    See: chapter 9.

    >>> float(divergence(torch.zeros(1, 2), torch.zeros(1, 2)))
    0.0
    """
    target = clean.detach().log_softmax(-1)  # (B, n)
    return F.kl_div(moved.log_softmax(-1), target, log_target=True, reduction="batchmean")


def _unit(vectors: Tensor) -> Tensor:
    """Normalise to unit length; zero vectors stay zero."""
    largest = vectors.abs().amax(-1, keepdim=True)  # (..., 1), prevents underflow of the squares
    return unit(vectors / largest.clamp(min=torch.finfo(vectors.dtype).tiny))  # (..., d)


def _check_floating(name: str, tensor: Tensor) -> None:
    _check_type(name, tensor)
    if not math.isfinite(float(tensor.detach().sum())) and not tensor.isfinite().all():
        raise InputError(f"{name} is not finite; find the step that produced it before perturbing")


def _check_type(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise InputError(
            f"{name} has dtype {tensor.dtype}, and integers cannot be perturbed; perturb the vectors that they index"
        )
