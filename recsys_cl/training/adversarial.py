"""Adversarial training: train on each batch and on the batch with perturbed item vectors (APR, VAT, SimGCL).

See: chapter 9.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor, nn

from recsys_cl.encoders.towers import ItemTower
from recsys_cl.losses import LearnedTemperature, nt_xent_loss
from recsys_cl.losses.partition import scores
from recsys_cl.losses.perturbations import (
    divergence,
    gradient_of,
    pgd,
    random_perturbation,
    sign_preserving_noise,
    steepest,
    virtual_direction,
)
from recsys_cl.registry import Registry
from recsys_cl.settings import Range, check_settings

PGD_STEPS = 3
"""Gradient steps of the projected gradient attack."""

VIEW_TEMPERATURE = 0.2
"""Temperature of the contrast between noisy views."""


class Attackable(Protocol):
    """Interface of a network that can be trained adversarially."""

    items: ItemTower
    temperature: LearnedTemperature

    def __call__(self, **batch: Tensor) -> dict[str, Tensor]:
        """Loss of a batch."""
        ...

    def pairs(self, **batch: Tensor) -> tuple[Tensor, Tensor]:
        """Queries ``(Q, dim)`` of a batch and the candidates ``(C, dim)`` that they are compared with."""
        ...


Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Attack(ABC):
    r"""Attack on item vectors during training.

    .. math:: L(\theta) + \lambda\, L(\theta;\, v_i + \lVert v_i \rVert\, \delta_i), \qquad
        \lVert \delta_i \rVert \le \epsilon

    Attributes:
        epsilon: Maximum move, :math:`\epsilon > 0`, in units of each vector's norm.
        weight: Weight of the loss under attack, :math:`\lambda \ge 0`.

    Raises:
        InputError: If a value is out of range.

    References:
        He et al. (2018), https://arxiv.org/abs/1808.03908 (APR).

    See: chapter 9.
    """

    epsilon: Annotated[float, Range(1e-6)] = 0.5
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self)

    @abstractmethod
    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of a batch, clean and under attack."""


class _Attacks(Registry[type[Attack]]):
    """Attacks by name; ``"none"`` is no attack."""

    optional = True


ATTACKS = _Attacks("attack", made=Attack)
"""Attacks by name: ``two-tower:attack=fgm,attack.epsilon=0.1``."""


def zero_shift(network: Attackable) -> Tensor:
    """Perturbation of all item vectors by zero, ``(N, dim)``."""
    tower = network.items
    return torch.zeros(len(tower.warm), tower.dim, device=tower.warm.device)  # (N, d)


def loss_at(network: Attackable, shift: Tensor, batch: Batch) -> Tensor:
    """Loss of a batch with item vectors moved by ``shift``, ``(N, dim)``."""
    with network.items.shifted(shift):
        return network(**batch)["loss"]


@ATTACKS.add("random")
class RandomMove(Attack):
    """Random perturbation: the control for the other attacks."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Clean loss, and loss under a random perturbation."""
        clean = network(**batch)["loss"]
        return clean, loss_at(network, random_perturbation(zero_shift(network), self.epsilon), batch)


@ATTACKS.add("fgm")
class FastGradient(Attack):
    """Fast gradient method: one step along the gradient, as in adversarial personalised ranking (APR)."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Clean loss, and loss after the step; the gradient reuses the clean forward pass."""
        at = zero_shift(network).requires_grad_()  # (N, d)
        clean = loss_at(network, at, batch)
        worst = steepest(gradient_of(clean, at, again=True), self.epsilon)  # (N, d)
        return clean, loss_at(network, worst, batch)


@ATTACKS.add("pgd")
class ProjectedGradient(Attack):
    """Projected gradient descent (PGD): three projected gradient steps."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Clean loss, and loss after the steps."""
        clean = network(**batch)["loss"]
        moved = pgd(
            lambda shift: loss_at(network, shift, batch), zero_shift(network), self.epsilon, steps=PGD_STEPS
        )  # (N, d)
        return clean, loss_at(network, moved, batch)


@ATTACKS.add("vat")
class VirtualAdversary(Attack):
    """Virtual adversarial training (VAT): penalise the divergence of the output in its most sensitive direction."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Clean loss, and divergence between clean and perturbed output distributions."""
        loss = network(**batch)["loss"]

        def logits(shift: Tensor) -> Tensor:
            with network.items.shifted(shift):
                queries, items = network.pairs(**batch)  # (Q, d), (C, d)
            return scores(queries.float(), items.float(), network.temperature())  # (Q, C)

        zeros = zero_shift(network)  # (N, d)
        with torch.no_grad():
            clean = logits(zeros)  # (Q, C)
        shift = virtual_direction(lambda move: divergence(clean, logits(move)), zeros, self.epsilon)
        return loss, divergence(clean, logits(shift))


@ATTACKS.add("simgcl")
class NoisyViews(Attack):
    """Contrast between two views with random noise (SimGCL)."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Clean loss, and the contrast between noisy queries plus that between noisy candidates."""
        loss = network(**batch)["loss"]
        (queries, items), (other_queries, other_items) = (
            [self._noisy(vectors.float()) for vectors in network.pairs(**batch)]  # (Q, d), (C, d)
            for _ in range(2)
        )
        return loss, nt_xent_loss(queries, other_queries, temperature=VIEW_TEMPERATURE) + nt_xent_loss(
            items, other_items, temperature=VIEW_TEMPERATURE
        )

    def _noisy(self, vectors: Tensor) -> Tensor:
        """Vectors ``(n, dim)`` plus noise of epsilon times their length."""
        length = vectors.detach().norm(dim=-1, keepdim=True)  # (n, 1)
        return vectors + length * sign_preserving_noise(vectors, self.epsilon)  # (n, d)


class AdversarialTraining(nn.Module):
    """Wrapper that trains a network on its batches and on the same batches under attack.

    Like any model for the trainer, ``forward(**batch)`` returns ``{"loss": ...}``. Score with the wrapped network. Each
    process attacks its own part of a batch. Each pass draws its own dropout mask, so VAT's divergence includes that
    between two masks.

    Args:
        network: A two-tower or sequence network.
        attack: Attack on its item vectors.

    See: chapter 9.
    """

    def __init__(self, network: nn.Module, attack: Attack) -> None:
        super().__init__()
        self.network: Attackable = network  # type: ignore[assignment]
        self.attack = attack

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Loss of the batch plus the weighted loss under attack."""
        clean, attacked = self.attack.losses(self.network, batch)
        return {"loss": clean + self.attack.weight * attacked}
