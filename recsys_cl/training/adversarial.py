"""Adversarial training of any network whose items come from an item tower: plugged in between network and trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from recsys_cl.encoders.towers import ItemTower
from recsys_cl.errors import InputError
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

Attack = Literal["none", "random", "fgm", "pgd", "vat", "simgcl"]

PGD_STEPS = 3
VIEW_TEMPERATURE = 0.2


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


@dataclass(frozen=True)
class Adversary:
    r"""How item vectors are moved in training.

    .. math:: L(\theta) + \lambda\, L(\theta;\, v_i + \lVert v_i \rVert\, \delta_i), \qquad
        \lVert \delta_i \rVert \le \epsilon

    Attributes:
        attack: ``"fgm"`` one step along the gradient (adversarial personalised ranking); ``"pgd"`` three projected
            ones; ``"random"`` a direction without intent, the control of both; ``"vat"`` the direction that changes
            the answers most, with their divergence for a loss; ``"simgcl"`` two views by random noise, contrasted.
        epsilon: :math:`\epsilon > 0`, in units of each vector's own norm.
        weight: :math:`\lambda \ge 0`.

    Raises:
        InputError: If a value is out of range.

    References:
        He et al. (2018), https://arxiv.org/abs/1808.03908 (APR).

    See: chapter 9.
    """

    attack: Attack
    epsilon: float = 0.5
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.attack == "none":
            raise InputError("attack='none' needs no adversary; train the network as it is")
        if not self.epsilon > 0:
            raise InputError(f"epsilon={self.epsilon} moves nothing; give a length above 0, in units of the vectors'")


class AdversarialTraining(nn.Module):
    """Trains a network on its batches, and on the same batches with its item vectors moved.

    What it is given is what the trainer takes: ``forward(**batch)`` returns ``{"loss": ...}``. The network inside is
    the one to score with. Each process attacks its own part of a batch, and each pass draws a dropout of its own, so
    that the divergence of VAT is that of two dropouts as well.

    Args:
        network: A two-tower or sequence network.
        adversary: How to move its item vectors.

    See: chapter 9.
    """

    def __init__(self, network: nn.Module, adversary: Adversary) -> None:
        super().__init__()
        self.network: Attackable = network  # type: ignore[assignment]
        self.adversary = adversary

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Loss of the batch, and of the batch under attack."""
        match self.adversary.attack:
            case "vat":
                clean, attacked = self.network(**batch)["loss"], self._virtual(batch)
            case "simgcl":
                clean, attacked = self.network(**batch)["loss"], self._two_views(batch)
            case "random":
                clean = self.network(**batch)["loss"]
                attacked = self._loss(random_perturbation(self._zeros(), self.adversary.epsilon), batch)
            case "fgm":  # the gradient comes from the pass that is needed anyway
                at = self._zeros().requires_grad_()  # (N, d)
                clean = self._loss(at, batch)
                worst = steepest(gradient_of(clean, at, again=True), self.adversary.epsilon)  # (N, d)
                attacked = self._loss(worst, batch)
            case _:
                clean = self.network(**batch)["loss"]
                moved = pgd(
                    lambda shift: self._loss(shift, batch), self._zeros(), self.adversary.epsilon, steps=PGD_STEPS
                )  # (N, d)
                attacked = self._loss(moved, batch)
        return {"loss": clean + self.adversary.weight * attacked}

    def _zeros(self) -> Tensor:
        """A perturbation that moves nothing, ``(N, dim)``."""
        tower = self.network.items
        return torch.zeros(len(tower.warm), tower.dim, device=tower.warm.device)  # (N, d)

    def _loss(self, shift: Tensor, batch: dict[str, Tensor]) -> Tensor:
        with self.network.items.shifted(shift):
            return self.network(**batch)["loss"]

    def _virtual(self, batch: dict[str, Tensor]) -> Tensor:
        """Divergence of the answers under the perturbation that changes them most."""

        def answers(shift: Tensor) -> Tensor:
            with self.network.items.shifted(shift):
                queries, items = self.network.pairs(**batch)  # (Q, d), (C, d)
            return scores(queries.float(), items.float(), self.network.temperature())  # (Q, C)

        zeros = self._zeros()  # (N, d)
        with torch.no_grad():
            clean = answers(zeros)  # (Q, C)
        shift = virtual_direction(lambda move: divergence(clean, answers(move)), zeros, self.adversary.epsilon)
        return divergence(clean, answers(shift))

    def _two_views(self, batch: dict[str, Tensor]) -> Tensor:
        """Contrast of two noisy views, of queries and of candidates."""
        (queries, items), (other_queries, other_items) = (
            [self._noisy(vectors.float()) for vectors in self.network.pairs(**batch)]  # (Q, d), (C, d)
            for _ in range(2)
        )
        return nt_xent_loss(queries, other_queries, temperature=VIEW_TEMPERATURE) + nt_xent_loss(
            items, other_items, temperature=VIEW_TEMPERATURE
        )

    def _noisy(self, vectors: Tensor) -> Tensor:
        """Vectors ``(n, dim)`` with noise as long as epsilon times theirs."""
        length = vectors.detach().norm(dim=-1, keepdim=True)  # (n, 1)
        return vectors + length * sign_preserving_noise(vectors, self.adversary.epsilon)  # (n, d)
