r"""Toy adversarial games: a GAN in the plane, and the smallest game that goes in circles.

The generator of the first is to cover eight clusters on a ring. The second is

.. math:: \min_x \max_y\; x y

Its only solution is the origin. Each player alone does what is right, and the field that they follow,
:math:`(-y, x)`, turns around the solution without ever pointing at it.
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
"""Clusters on the unit circle, and how wide each is."""

COVERED = 0.02
"""Share of the samples from which on a mode counts as covered; data have 1/8 in each."""

NOISE = 8
"""Dimensions of the generator's noise."""

PICTURED = 1_000
"""Samples in a snapshot."""

Loss = Literal["minimax", "non-saturating"]

_GENERATOR_LOSSES: dict[Loss, Callable[[Tensor], Tensor]] = {
    "minimax": saturating_generator_loss,
    "non-saturating": generator_loss,
}


def centres() -> Tensor:
    """Centres of the modes, ``(8, 2)``, evenly on the unit circle."""
    angle = torch.arange(MODES) * (2 * torch.pi / MODES)  # (M,)
    return torch.stack([angle.cos(), angle.sin()], dim=1)  # (M, 2)


def ring(n: int, chance: torch.Generator) -> Tensor:
    r"""The toy's data: eight round normal densities on the unit circle, each as likely as the others.

    .. math:: x = (\cos\varphi, \sin\varphi) + 0.05\, \epsilon, \qquad
        \varphi \sim \mathcal U\{0, \tfrac{1}{8}, \dots, \tfrac{7}{8}\}\, 2 \pi, \quad \epsilon \sim \mathcal N(0, I)

    Args:
        n: Number of points.
        chance: Where they come from.

    Returns:
        ``(n, 2)``

    See: chapter 10.

    >>> round(float(ring(1000, torch.Generator().manual_seed(0)).norm(dim=1).mean()), 2)
    1.0
    """
    mode = torch.randint(MODES, (n,), generator=chance)  # (n,)
    return centres()[mode] + SD * torch.randn(n, 2, generator=chance)  # (n, 2)


def covered_modes(samples: Tensor) -> list[int]:
    """Modes that at least 2 % of the samples hit: those within three standard deviations of its centre.

    Data give each mode about 12 %. What falls between modes counts for none (:func:`share_on_modes` says how much).

    Args:
        samples: ``(n, 2)``.

    Returns:
        Numbers of the modes, counterclockwise from (1, 0).

    Raises:
        InputError: If there are no points of the plane.

    See: chapter 10.

    >>> covered_modes(torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    [0, 2]
    """
    return (_hits(samples).float().mean(0) >= COVERED).nonzero().flatten().tolist()


def share_on_modes(samples: Tensor) -> float:
    """Share of the samples ``(n, 2)`` within three standard deviations of a mode's centre: 98.9 % of the data.

    >>> share_on_modes(torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    0.75
    """
    return float(_hits(samples).any(1).float().mean())


def _hits(samples: Tensor) -> Tensor:
    """Whether each sample is within three standard deviations of each mode, ``(n, 8)``."""
    if samples.ndim != 2 or samples.shape[1] != 2 or len(samples) == 0:
        raise InputError(f"samples {tuple(samples.shape)} are no points of the plane; give (n, 2)")
    return torch.cdist(samples, centres()) < 3 * SD  # (n, M)


@dataclass(frozen=True)
class ToyGan:
    """Settings of a run. By default without cures: the minimax loss, nothing that holds the discriminator back.

    The generator's learning rate is five times the discriminator's: a generator that outruns its teacher moves all
    samples to whichever mode is least guarded, and on again once it is guarded. With equal rates modes are found
    without any cure.

    Args:
        loss: The generator's, ``"minimax"`` or ``"non-saturating"``.
        penalty: Weight of the gradient penalty on data, 0 for none.
        spectral: Whether the discriminator's layers have spectral norm 1.
        steps: Of each player, in turns.
        batch: Data, and samples, in a step.
        generator_rate: Adam's learning rate of the generator at first; it falls linearly to 0 at the last step.
        discriminator_rate: That of the discriminator, likewise.
        hidden: Width of both players' layers.
        every: Steps from one snapshot to the next.

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
            raise InputError(f"every={self.every} is more than steps={self.steps}: no snapshot; give a smaller one")


@dataclass(frozen=True)
class Snapshot:
    """How the game stood after a step.

    Args:
        step: Steps taken by each player.
        samples: ``(1000, 2)`` of the generator.
        discriminator_loss: In nats; 1.386 if it guesses.
        generator_loss: In nats.
        discriminator_accuracy: Share of the batch that it told right, .5 if it guesses.
        gradient_norm: Length of the generator's gradient.
    """

    step: int
    samples: Tensor
    discriminator_loss: float
    generator_loss: float
    discriminator_accuracy: float
    gradient_norm: float


def train_toy(config: ToyGan, seed: int) -> list[Snapshot]:
    """Let the two players take steps in turns.

    Args:
        config: The game.
        seed: Of the weights, the data and the noise; torch's global generator is left as it was.

    Returns:
        A snapshot after every ``config.every`` steps.

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
    """Length of the gradient that the last backward pass left in a network's parameters, all taken together."""
    squares = [weight.grad.square().sum() for weight in network.parameters() if weight.grad is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _samples(generator: Generator, n: int, chance: torch.Generator) -> Tensor:
    noise = torch.randn(1, n, NOISE, generator=chance)  # (1, n, z)
    return generator(None, noise)[0]  # (n, 2)


def _adam(network: nn.Module) -> Adam:
    """Adam with less momentum than usual, which keeps players from running past each other."""
    return Adam(network.parameters(), betas=(0.5, 0.99), fused=True)


def _step(optimiser: Adam, loss: Tensor, rate: float) -> None:
    optimiser.param_groups[0]["lr"] = rate
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


Method = Literal["simultaneous", "alternating", "extragradient"]


def bilinear_game(steps: int, rate: float, *, method: Method = "simultaneous") -> Tensor:
    r"""Path of gradient descent in x and ascent in y, from (1, 0).

    Both at once, the distance to the solution grows by :math:`\sqrt{1 + \eta^2}` a step:

    .. math:: x' = x - \eta y, \quad y' = y + \eta x, \qquad
        x'^2 + y'^2 = (1 + \eta^2)(x^2 + y^2)

    In turns, :math:`y' = y + \eta x'`, they stay on an ellipse for :math:`\eta < 2`:
    :math:`x'^2 + y'^2 - \eta x' y' = x^2 + y^2 - \eta x y`. Extragradient looks one step ahead and steps by the
    gradient found there, which shrinks the distance by :math:`\sqrt{1 - \eta^2 + \eta^4}`.

    Args:
        steps: Steps of each player.
        rate: :math:`\eta > 0`.
        method: ``"simultaneous"``, ``"alternating"`` or ``"extragradient"``.

    Returns:
        ``(steps + 1, 2)``, the start included, in double precision.

    Raises:
        InputError: If the method is another, there are no steps, or the rate is not above 0.

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
    """What a step multiplies (x, y) with: the game is linear in both."""
    match method:
        case "simultaneous":
            return [[1, -rate], [rate, 1]]
        case "alternating":
            return [[1, -rate], [rate, 1 - rate**2]]
        case "extragradient":
            return [[1 - rate**2, -rate], [rate, 1 - rate**2]]
        case _:
            raise InputError(f"no method {method!r}; choose from {', '.join(map(repr, get_args(Method)))}")
