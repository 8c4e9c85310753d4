r"""Toy adversarial games: a GAN on eight clusters in the plane, and the bilinear game that cycles.

The generator of the GAN should cover eight clusters on a ring. The bilinear game is

.. math:: \min_x \max_y\; x y

Its only solution is the origin. Each player follows its own gradient correctly, but the joint gradient field,
:math:`(-y, x)`, rotates around the solution and never points to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Adam

from recsys_cl.encoders.generator import Discriminator, Generator
from recsys_cl.errors import InputError
from recsys_cl.losses.gan import (
    discriminator_accuracy,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    saturating_generator_loss,
)

MODES, SD = 8, 0.05
"""Number of clusters on the unit circle, and standard deviation of each."""

COVERED = 0.02
"""Minimum share of the samples for a mode to count as covered; data have 1/8 in each mode."""

NOISE = 8
"""Dimensions of the generator's noise."""

PICTURED = 1_000
"""Number of samples in a snapshot."""

Loss = Literal["minimax", "non-saturating"]

_GENERATOR_LOSSES: dict[Loss, Callable[[Tensor], Tensor]] = {
    "minimax": saturating_generator_loss,
    "non-saturating": generator_loss,
}


def centres() -> Tensor:
    """Centres of the modes, ``(8, 2)``, evenly spaced on the unit circle."""
    angle = torch.arange(MODES) * (2 * torch.pi / MODES)  # (M,)
    return torch.stack([angle.cos(), angle.sin()], dim=1)  # (M, 2)


def ring(n: int, chance: torch.Generator) -> Tensor:
    r"""Toy data: eight isotropic normal distributions on the unit circle, equally likely.

    .. math:: x = (\cos\varphi, \sin\varphi) + 0.05\, \epsilon, \qquad
        \varphi \sim \mathcal U\{0, \tfrac{1}{8}, \dots, \tfrac{7}{8}\}\, 2 \pi, \quad \epsilon \sim \mathcal N(0, I)

    Args:
        n: Number of points.
        chance: Random number generator.

    Returns:
        ``(n, 2)`` points.

    See: chapter 10.

    >>> round(float(ring(1000, torch.Generator().manual_seed(0)).norm(dim=1).mean()), 2)
    1.0
    """
    mode = torch.randint(MODES, (n,), generator=chance)  # (n,)
    return centres()[mode] + SD * torch.randn(n, 2, generator=chance)  # (n, 2)


def covered_modes(samples: Tensor) -> list[int]:
    """Covered modes: those with at least 2 % of the samples within three standard deviations of the centre.

    Data have about 12 % in each mode. Samples between modes count for no mode (:func:`share_on_modes` measures them).

    Args:
        samples: ``(n, 2)`` points.

    Returns:
        Numbers of the modes, counterclockwise from (1, 0).

    Raises:
        InputError: If the samples are not points of the plane, at least one.

    See: chapter 10.

    >>> covered_modes(torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    [0, 2]
    """
    return (_hits(samples).float().mean(0) >= COVERED).nonzero().flatten().tolist()


def share_on_modes(samples: Tensor) -> float:
    """Share of the samples ``(n, 2)`` within three standard deviations of a mode's centre; 98.9 % for data.

    >>> share_on_modes(torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    0.75
    """
    return float(_hits(samples).any(1).float().mean())


def _hits(samples: Tensor) -> Tensor:
    """Whether each sample is within three standard deviations of each mode, ``(n, 8)``."""
    if samples.ndim != 2 or samples.shape[1] != 2 or len(samples) == 0:
        raise InputError(
            f"samples {tuple(samples.shape)} are not points of the plane; give (n, 2) with n of at least 1"
        )
    return torch.cdist(samples, centres()) < 3 * SD  # (n, M)


@dataclass(frozen=True)
class ToyGan:
    """Settings of a toy GAN run. The default has no remedies: the minimax loss and an unregularised discriminator.

    The generator's learning rate is five times the discriminator's: a generator that is faster than its discriminator
    moves all samples to the mode with the weakest discrimination, and on once that mode is discriminated. With equal
    rates it finds the modes without any remedy.

    Args:
        loss: Loss of the generator, ``"minimax"`` or ``"non-saturating"``.
        penalty: Weight of the gradient penalty on data, 0 for none.
        spectral: Whether the discriminator's layers have spectral norm 1.
        steps: Number of steps of each player, alternating.
        batch: Number of data points and of samples per step.
        generator_rate: Initial Adam learning rate of the generator; it decays linearly to 0 at the last step.
        discriminator_rate: Initial Adam learning rate of the discriminator, with the same decay.
        hidden: Width of the hidden layers of both players.
        every: Number of steps between snapshots.

    Raises:
        InputError: If a value is out of range.

    See: chapter 10.
    """

    loss: Loss = "minimax"
    penalty: float = 0.0
    spectral: bool = False
    steps: int = 1_000
    batch: int = 256
    generator_rate: float = 5e-3
    discriminator_rate: float = 1e-3
    hidden: int = 64
    every: int = 100

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise InputError(f"no loss {self.loss!r}; choose from {', '.join(map(repr, get_args(Loss)))}")
        if not 0 <= self.penalty < float("inf"):
            raise InputError(f"penalty={self.penalty}; give a weight above 0, or 0 for none")
        for name in ("steps", "batch", "hidden", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; give 1 or more")
        for name in ("generator_rate", "discriminator_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name}={getattr(self, name)}; give a learning rate above 0")
        if self.every > self.steps:
            raise InputError(f"every={self.every} is more than steps={self.steps}: no snapshot; give a smaller value")


@dataclass(frozen=True)
class Snapshot:
    """State of the game after a step.

    Args:
        step: Number of steps taken by each player.
        samples: ``(1000, 2)`` samples of the generator.
        discriminator_loss: Loss of the discriminator in nats; 1.386 if it guesses.
        generator_loss: Loss of the generator in nats.
        discriminator_accuracy: Accuracy of the discriminator on the batch; 0.5 if it guesses.
        gradient_norm: Norm of the generator's gradient.
    """

    step: int
    samples: Tensor
    discriminator_loss: float
    generator_loss: float
    discriminator_accuracy: float
    gradient_norm: float


def train_toy(config: ToyGan, seed: int) -> list[Snapshot]:
    """Train the toy GAN with alternating steps of both players.

    Args:
        config: Settings of the run.
        seed: Seed of weights, data and noise; torch's global generator is not changed.

    Returns:
        Snapshots, one after every ``config.every`` steps.

    See: chapter 10.

    >>> [shot.step for shot in train_toy(ToyGan(steps=4, every=2, batch=8, hidden=4), seed=0)]
    [2, 4]
    """
    chance = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(condition=0, noise=NOISE, out=2, hidden=config.hidden)
        discriminator = Discriminator(dim=2, condition=0, hidden=config.hidden, spectral=config.spectral)
    of_generator, of_discriminator = _adam(generator), _adam(discriminator)
    snapshots = []
    for step in range(1, config.steps + 1):
        left = 1 - (step - 1) / config.steps
        real, fake = ring(config.batch, chance), _samples(generator, config.batch, chance)  # (B, 2) both
        real_logit, fake_logit = discriminator(real), discriminator(fake.detach())  # (B,) both
        loss = penalised = discriminator_loss(real_logit, fake_logit)
        if config.penalty:
            penalised = loss + config.penalty * gradient_penalty(discriminator, real)
        _step(of_discriminator, penalised, config.discriminator_rate * left)
        fooling = _GENERATOR_LOSSES[config.loss](discriminator(fake))
        _step(of_generator, fooling, config.generator_rate * left)
        if step % config.every == 0:
            snapshots.append(
                Snapshot(
                    step,
                    _samples(generator, PICTURED, chance).detach(),
                    loss.item(),
                    fooling.item(),
                    discriminator_accuracy(real_logit, fake_logit).item(),
                    gradient_norm(generator),
                )
            )
    return snapshots


def gradient_norm(network: nn.Module) -> float:
    """Norm of the gradient of all parameters of a network after the last backward pass."""
    squares = [weight.grad.square().sum() for weight in network.parameters() if weight.grad is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _samples(generator: Generator, n: int, chance: torch.Generator) -> Tensor:
    noise = torch.randn(1, n, NOISE, generator=chance)  # (1, n, z)
    return generator(None, noise)[0]  # (n, 2)


def _adam(network: nn.Module) -> Adam:
    """Adam with less momentum than usual, so players do not overshoot each other."""
    return Adam(network.parameters(), betas=(0.5, 0.99), fused=True)


def _step(optimiser: Adam, loss: Tensor, rate: float) -> None:
    optimiser.param_groups[0]["lr"] = rate
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


Method = Literal["simultaneous", "alternating", "extragradient"]


def bilinear_game(steps: int, rate: float, *, method: Method = "simultaneous") -> Tensor:
    r"""Bilinear game: path of gradient descent in x and ascent in y, from (1, 0).

    With simultaneous steps, the distance to the solution grows by :math:`\sqrt{1 + \eta^2}` per step:

    .. math:: x' = x - \eta y, \quad y' = y + \eta x, \qquad
        x'^2 + y'^2 = (1 + \eta^2)(x^2 + y^2)

    With alternating steps, :math:`y' = y + \eta x'`, the path stays on an ellipse for :math:`\eta < 2`:
    :math:`x'^2 + y'^2 - \eta x' y' = x^2 + y^2 - \eta x y`. Extragradient looks one step ahead and uses the gradient
    there, which multiplies the distance by :math:`\sqrt{1 - \eta^2 + \eta^4}`.

    Args:
        steps: Number of steps of each player.
        rate: Learning rate, :math:`\eta > 0`.
        method: ``"simultaneous"``, ``"alternating"`` or ``"extragradient"``.

    Returns:
        ``(steps + 1, 2)`` points including the start, in double precision.

    Raises:
        InputError: If the method is unknown, there are no steps, or the rate is not above 0.

    References:
        Gidel et al. (2019), https://arxiv.org/abs/1802.10551.

    See: chapter 10.

    >>> bilinear_game(2, 1.0).tolist()
    [[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]
    """
    if steps < 1 or not 0 < rate < float("inf"):
        raise InputError(f"steps={steps} and rate={rate}; give at least one step and a rate above 0")
    advance = torch.tensor(_matrix(rate, method), dtype=torch.double)  # (2, 2)
    path = [torch.tensor([1.0, 0.0], dtype=torch.double)]
    for _ in range(steps):
        path.append(advance @ path[-1])
    return torch.stack(path)  # (T + 1, 2)


def _matrix(rate: float, method: Method) -> list[list[float]]:
    """Matrix that maps (x, y) to the next point: a step is linear in both."""
    match method:
        case "simultaneous":
            return [[1, -rate], [rate, 1]]
        case "alternating":
            return [[1, -rate], [rate, 1 - rate**2]]
        case "extragradient":
            return [[1 - rate**2, -rate], [rate, 1 - rate**2]]
        case _:
            raise InputError(f"no method {method!r}; choose from {', '.join(map(repr, get_args(Method)))}")
