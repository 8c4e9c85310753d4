r"""Perturbations of vectors: the small move that raises a loss most, and the moves that it must be compared with.

.. math:: \delta^\ast = \operatorname*{arg\,max}_{\lVert \delta \rVert \le \epsilon} L(v + \delta)

Every perturbation is one of vectors, along the last dimension: each of ``(..., dim)`` may be moved by
:math:`\epsilon`, whatever happens to the others. To first order :math:`L(v + \delta) = L(v) + g^\top \delta`, whose
maximum on a ball is known; everything here is that maximum, taken once, several times, or for another loss.
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
"""Of the steps of :func:`pgd`: together they are this many radii long, so that every point of the ball is in reach."""

PROBE = 1e-3
"""Length at which :func:`virtual_direction` feels for the direction; the divergence is quadratic in it."""


def steepest(gradient: Tensor, epsilon: float, *, norm: Norm = "l2") -> Tensor:
    r"""The move of length :math:`\epsilon` that raises a linear loss most: FGM, or FGSM for the largest entry.

    .. math:: \operatorname*{arg\,max}_{\lVert \delta \rVert_2 \le \epsilon} g^\top \delta
        = \epsilon \frac{g}{\lVert g \rVert_2}, \qquad
        \operatorname*{arg\,max}_{\lVert \delta \rVert_\infty \le \epsilon} g^\top \delta
        = \epsilon \operatorname{sign}(g)

    by Cauchy–Schwarz and by Hölder: the maximum is :math:`\epsilon` times the dual norm of g. A vector without
    gradient stays where it is.

    Args:
        gradient: :math:`g`, ``(..., dim)``.
        epsilon: :math:`\epsilon > 0`, in the units of the vectors.
        norm: ``"l2"`` or ``"linf"``.

    Returns:
        ``(..., dim)``.

    Raises:
        InputError: If :math:`\epsilon` is not above 0, or the gradient is not of floating point.

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
    r"""The nearest perturbation whose vectors are no longer than :math:`\epsilon`.

    .. math:: \delta \min\Big(1, \frac{\epsilon}{\lVert \delta \rVert_2}\Big), \qquad
        \max(-\epsilon, \min(\delta, \epsilon))

    Args:
        perturbation: ``(..., dim)``.
        epsilon: Radius, above 0.
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
    r"""Projected gradient ascent: steepest moves, each brought back into the ball.

    .. math:: \delta \leftarrow \Pi_\epsilon \Big(\delta + \operatorname*{arg\,max}_{\lVert d \rVert \le \alpha}
        \nabla L(\delta)^\top d\Big), \qquad \alpha = 2.5\, \epsilon / n

    One step from zero is :func:`steepest` of the gradient there.

    Args:
        loss: :math:`L`, a scalar for a perturbation ``(..., dim)``.
        start: Where to start, ``(..., dim)``: zeros, or :func:`random_perturbation`.
        epsilon: Radius of the ball about zero, above 0.
        steps: :math:`n \ge 1`.
        norm: ``"l2"`` or ``"linf"``.

    Returns:
        ``(..., dim)``, without gradient.

    Raises:
        InputError: If :math:`\epsilon` or the number of steps is out of range, ``start`` is not of floating point, or
            the loss does not depend on the perturbation.

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
    """Gradient of a loss with respect to the perturbation, ``(..., dim)``; parameters get none.

    Raises:
        InputError: If the perturbation is not of floating point, or the loss does not depend on it.
    """
    _check_floating("perturbation", perturbation)
    with torch.enable_grad():
        moved = perturbation.detach().requires_grad_()  # (..., d)
        return gradient_of(loss(moved), moved)


def gradient_of(value: Tensor, perturbation: Tensor, *, again: bool = False) -> Tensor:
    """Gradient of a computed loss, ``(..., dim)``; ``again`` if it will be differentiated once more.

    Raises:
        InputError: If the loss does not depend on the perturbation.
    """
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, perturbation, allow_unused=True, retain_graph=again)
        if gradient is not None:
            return gradient
    raise InputError("the loss does not depend on the perturbation; add the perturbation to the vectors that it reads")


def random_perturbation(like: Tensor, epsilon: float) -> Tensor:
    r"""A move of length :math:`\epsilon` in a direction drawn uniformly: the control of every attack.

    In d dimensions its share along any given direction is :math:`\epsilon / \sqrt d`: noise hardly ever finds what an
    attack finds.

    Args:
        like: ``(..., dim)``, for shape, type and device.
        epsilon: Length, above 0.

    Raises:
        InputError: If :math:`\epsilon` is not above 0, or ``like`` is not of floating point.

    See: chapter 9.
    """
    check_positive("epsilon", epsilon)
    _check_type("like", like)
    return epsilon * _unit(torch.randn_like(like))  # (..., d)


def sign_preserving_noise(vectors: Tensor, epsilon: float) -> Tensor:
    r"""Noise of length :math:`\epsilon` that stays in the orthant of the vector, as SimGCL makes its views.

    .. math:: \epsilon\, \operatorname{sign}(v) \odot \frac{x}{\lVert x \rVert}, \qquad x \sim U[0, 1]^d

    Args:
        vectors: :math:`v`, ``(..., dim)``.
        epsilon: Length, above 0.

    Raises:
        InputError: If :math:`\epsilon` is not above 0, or the vectors are not of floating point.

    References:
        Yu et al. (2022), https://arxiv.org/abs/2112.08679.

    See: chapter 9.
    """
    check_positive("epsilon", epsilon)
    _check_floating("vectors", vectors)
    return epsilon * _unit(torch.rand_like(vectors)) * vectors.detach().sign()  # (..., d)


def virtual_direction(divergence: Loss, like: Tensor, epsilon: float, *, iterations: int = 1) -> Tensor:
    r"""The move that changes a model's answers most, whatever the right answer is.

    .. math:: \operatorname*{arg\,max}_{\lVert \delta \rVert \le \epsilon}
        \operatorname{KL}\big(p(\cdot \mid v) \,\Vert\, p(\cdot \mid v + \delta)\big)
        \approx \epsilon\, d, \qquad d \leftarrow \frac{\nabla_\delta \operatorname{KL}|_{\delta = \xi d}}
        {\lVert \nabla_\delta \operatorname{KL}|_{\delta = \xi d} \rVert}

    At :math:`\delta = 0` the divergence is 0 and so is its gradient: to second order it is
    :math:`\tfrac12 \delta^\top H \delta`, maximal along the leading eigenvector of H, which power iteration finds from
    gradients alone, :math:`\nabla|_{\xi d} \approx \xi H d`.

    Args:
        divergence: KL as a function of the perturbation ``(..., dim)``.
        like: For shape, type and device.
        epsilon: Length, above 0.
        iterations: Steps of power iteration from a random direction.

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
    r"""Mean Kullback–Leibler divergence between softmax answers, :math:`\operatorname{KL}(p \,\Vert\, \hat p)`.

    Args:
        clean: ``(batch, n)`` logits of the unperturbed model, whose answers are held fixed.
        moved: ``(batch, n)`` logits of the perturbed one.

    Returns:
        Nats; at least 0.

    See: chapter 9.

    >>> float(divergence(torch.zeros(1, 2), torch.zeros(1, 2)))
    0.0
    """
    target = clean.detach().log_softmax(-1)  # (B, n)
    return F.kl_div(moved.log_softmax(-1), target, log_target=True, reduction="batchmean")


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1; what has no length stays zero."""
    largest = vectors.abs().amax(-1, keepdim=True)  # (..., 1), so that no square underflows
    return unit(vectors / largest.clamp(min=torch.finfo(vectors.dtype).tiny))  # (..., d)


def _check_floating(name: str, tensor: Tensor) -> None:
    _check_type(name, tensor)
    if not math.isfinite(float(tensor.detach().sum())) and not tensor.isfinite().all():
        raise InputError(f"{name} is not finite; look for what made it before perturbing")


def _check_type(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise InputError(
            f"{name} has dtype {tensor.dtype}, and integers cannot be moved a little; perturb the vectors that the "
            "numbers look up"
        )
