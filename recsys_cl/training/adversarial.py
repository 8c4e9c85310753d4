"""Adversarial training: a network also learns from its batches with the item vectors moved against it (APR, VAT).

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

VIEW_TEMPERATURE = 0.2
"""Of the contrast of noisy views."""


class Attackable(Protocol):
    """What a network must have to be trained adversarially."""

    items: ItemTower
    temperature: LearnedTemperature

    def __call__(self, **batch: Tensor) -> dict[str, Tensor]:
        """Loss of a batch."""
        ...

    def pairs(self, **batch: Tensor) -> tuple[Tensor, Tensor]:
        """Queries ``(Q, dim)`` of a batch, and the candidates ``(C, dim)`` that they are compared with."""
        ...


Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Attack(ABC):
    r"""How item vectors are moved in training.

    .. math:: L(\theta) + \lambda\, L(\theta;\, v_i + \lVert v_i \rVert\, \delta_i), \qquad
        \lVert \delta_i \rVert \le \epsilon

    Attributes:
        epsilon: :math:`\epsilon > 0`, in units of each vector's own norm.
        weight: :math:`\lambda \ge 0`.

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
        """Loss of a batch as it is, and under attack."""


class _Attacks(Registry[type[Attack]]):
    """Attacks by name; ``"none"`` is no attack."""

    optional = True


ATTACKS = _Attacks("attack")
"""Name to an attack: ``two-tower:attack=fgm,attack.epsilon=0.1``."""


def no_move(network: Attackable) -> Tensor:
    """A perturbation that moves nothing, ``(N, dim)``."""
    tower = network.items
    return torch.zeros(len(tower.warm), tower.dim, device=tower.warm.device)  # (N, d)


def loss_at(network: Attackable, shift: Tensor, batch: Batch) -> Tensor:
    """Loss of a batch with item vectors moved by ``shift``, ``(N, dim)``."""
    with network.items.shifted(shift):
        return network(**batch)["loss"]


@ATTACKS.add("random")
class RandomMove(Attack):
    """A direction without intent: the control of the other attacks."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss as it is, and under a random perturbation."""
        clean = network(**batch)["loss"]
        return clean, loss_at(network, random_perturbation(no_move(network), self.epsilon), batch)


@ATTACKS.add("fgm")
class FastGradient(Attack):
    """One step along the gradient: adversarial personalised ranking."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss as it is, and after the step; the gradient comes from the pass that is needed anyway."""
        at = no_move(network).requires_grad_()  # (N, d)
        clean = loss_at(network, at, batch)
        worst = steepest(gradient_of(clean, at, again=True), self.epsilon)  # (N, d)
        return clean, loss_at(network, worst, batch)


@ATTACKS.add("pgd")
class ProjectedGradient(Attack):
    """Three projected gradient steps."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss as it is, and after the steps."""
        clean = network(**batch)["loss"]
        moved = pgd(
            lambda shift: loss_at(network, shift, batch), no_move(network), self.epsilon, steps=PGD_STEPS
        )  # (N, d)
        return clean, loss_at(network, moved, batch)


@ATTACKS.add("vat")
class VirtualAdversary(Attack):
    """The direction that changes the answers most, with their divergence for a loss (virtual adversarial training)."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss as it is, and the divergence of the answers."""
        loss = network(**batch)["loss"]

        def answers(shift: Tensor) -> Tensor:
            with network.items.shifted(shift):
                queries, items = network.pairs(**batch)  # (Q, d), (C, d)
            return scores(queries.float(), items.float(), network.temperature())  # (Q, C)

        zeros = no_move(network)  # (N, d)
        with torch.no_grad():
            clean = answers(zeros)  # (Q, C)
        shift = virtual_direction(lambda move: divergence(clean, answers(move)), zeros, self.epsilon)
        return loss, divergence(clean, answers(shift))


@ATTACKS.add("simgcl")
class NoisyViews(Attack):
    """Two views by random noise, contrasted (SimGCL)."""

    def losses(self, network: Attackable, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss as it is, and the contrast of noisy queries and of noisy candidates."""
        loss = network(**batch)["loss"]
        (queries, items), (other_queries, other_items) = (
            [self._noisy(vectors.float()) for vectors in network.pairs(**batch)]  # (Q, d), (C, d)
            for _ in range(2)
        )
        return loss, nt_xent_loss(queries, other_queries, temperature=VIEW_TEMPERATURE) + nt_xent_loss(
            items, other_items, temperature=VIEW_TEMPERATURE
        )

    def _noisy(self, vectors: Tensor) -> Tensor:
        """Vectors ``(n, dim)`` with noise as long as epsilon times theirs."""
        length = vectors.detach().norm(dim=-1, keepdim=True)  # (n, 1)
        return vectors + length * sign_preserving_noise(vectors, self.epsilon)  # (n, d)


class AdversarialTraining(nn.Module):
    """Trains a network on its batches, and on the same batches under attack.

    What it is given is what the trainer takes: ``forward(**batch)`` returns ``{"loss": ...}``. The network inside is
    the one to score with. Each process attacks its own part of a batch, and each pass draws a dropout of its own, so
    the divergence of VAT is that of two dropouts as well.

    Args:
        network: A two-tower or sequence network.
        attack: How to move its item vectors.

    See: chapter 9.
    """

    def __init__(self, network: nn.Module, attack: Attack) -> None:
        super().__init__()
        self.network: Attackable = network  # type: ignore[assignment]
        self.attack = attack

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Loss of the batch, and of the batch under attack."""
        clean, attacked = self.attack.losses(self.network, batch)
        return {"loss": clean + self.attack.weight * attacked}
