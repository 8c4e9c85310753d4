"""The game's losses: their gradients, the best discriminator, and what a penalty on its slope is."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.testing import assert_close

from recsys_cl.encoders.generator import Discriminator
from recsys_cl.errors import InputError
from recsys_cl.losses.gan import (
    discriminator_accuracy,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    optimal_discriminator,
    saturating_generator_loss,
)


@pytest.fixture
def logits() -> Tensor:
    return torch.tensor([-3.0, -0.5, 0.0, 2.0], dtype=torch.double, requires_grad=True)


def test_discriminator_loss_is_binary_cross_entropy(logits: Tensor) -> None:
    real, fake = logits[:1], logits[1:]
    cross_entropy = nn.functional.binary_cross_entropy_with_logits
    expected = cross_entropy(real, torch.ones_like(real)) + cross_entropy(fake, torch.zeros_like(fake))
    assert_close(discriminator_loss(real, fake), expected)


def test_the_minimax_generator_has_the_discriminators_loss_reversed(logits: Tensor) -> None:
    real = logits.detach() + 1
    (of_generator,) = torch.autograd.grad(saturating_generator_loss(logits), logits)
    (of_discriminator,) = torch.autograd.grad(discriminator_loss(real, logits), logits)
    assert_close(of_generator, -of_discriminator)


def test_the_minimax_gradient_vanishes_where_the_discriminator_is_sure(logits: Tensor) -> None:
    (minimax,) = torch.autograd.grad(saturating_generator_loss(logits), logits)
    (non_saturating,) = torch.autograd.grad(generator_loss(logits), logits)
    assert_close(minimax, -logits.sigmoid() / 4)
    assert_close(non_saturating, -(1 - logits.sigmoid()) / 4)


@pytest.mark.parametrize("loss", [saturating_generator_loss, generator_loss])
def test_losses_stay_finite_at_sure_verdicts(loss: Callable[[Tensor], Tensor]) -> None:
    sure = torch.tensor([-1e4, 1e4], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(sure), sure)
    assert loss(sure).isfinite()
    assert gradient.isfinite().all()


def test_the_best_table_of_logits_is_the_optimal_discriminator() -> None:
    """A discriminator without a network, on five points of which data and samples produce these counts."""
    real, fake = torch.tensor([1, 2, 3, 10, 4]), torch.tensor([8, 2, 2, 4, 4])
    logit = torch.zeros(5, requires_grad=True)
    optimiser = torch.optim.LBFGS([logit], max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = discriminator_loss(logit.repeat_interleave(real), logit.repeat_interleave(fake))
        loss.backward()
        return loss

    optimiser.step(closure)
    p, q = real / real.sum(), fake / fake.sum()
    assert_close(logit.detach().sigmoid(), optimal_discriminator(p, q), atol=1e-3, rtol=0)
    mean = (p + q) / 2
    divergence = ((p * (p / mean).log()).sum() + (q * (q / mean).log()).sum()) / 2
    assert_close(closure().detach(), 2 * math.log(2) - 2 * divergence, atol=1e-5, rtol=0)


def frozen_game(dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """What a small network and theory say, in probabilities, at points of data and samples, each of known density."""
    generator = torch.Generator().manual_seed(seed)
    data, samples = (
        Normal(torch.full((dim,), centre), torch.full((dim,), sd)) for centre, sd in [(0.5, 0.7), (-0.5, 1.0)]
    )

    def draw(density: Normal, n: int) -> Tensor:
        return density.mean + density.stddev * torch.randn(n, dim, generator=generator)

    steps = 400
    torch.manual_seed(seed)
    discriminator = Discriminator(dim, 0, hidden=32)
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        loss = discriminator_loss(discriminator(draw(data, 512)), discriminator(draw(samples, 512)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    points = torch.cat([draw(data, 10_000), draw(samples, 10_000)])
    p, q = (density.log_prob(points).sum(-1).exp() for density in (data, samples))
    return discriminator(points).detach().sigmoid(), optimal_discriminator(p, q)


@pytest.mark.parametrize("dim", [1, 2])
def test_a_network_reaches_the_optimum_against_a_frozen_generator(dim: int) -> None:
    found, optimum = frozen_game(dim, seed=0)
    assert optimum.std() > 0.2  # so that guessing is far away
    assert (found - optimum).abs().mean() < 0.02


@pytest.mark.parametrize(("p", "q"), [(-0.1, 0.5), (0.0, 0.0), (float("nan"), 0.5)])
def test_densities_that_are_none(p: float, q: float) -> None:
    with pytest.raises(InputError, match="density"):
        optimal_discriminator(torch.tensor([0.5, p]), torch.tensor([0.5, q]))


def test_densities_at_other_points() -> None:
    with pytest.raises(InputError, match="same points"):
        optimal_discriminator(torch.ones(2), torch.ones(3))


def test_penalty_of_a_quadratic() -> None:
    """The slope of |x|² is 2x, so that the penalty is 2 E|x|²."""
    real = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
    assert_close(gradient_penalty(lambda x: x.square().sum(-1), real), 2 * real.square().sum(-1).mean())


def test_penalty_reaches_the_discriminators_parameters_and_not_the_data() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(3, 0, hidden=8)
    real = torch.randn(6, 3, requires_grad=True)
    gradient_penalty(discriminator, real).backward()
    assert discriminator.network[0].weight.grad.abs().sum() > 0
    assert real.grad is None


def test_gradient_of_the_penalty_is_right() -> None:
    torch.manual_seed(0)
    real = torch.randn(4, 2, dtype=torch.double)

    def penalty(weight: Tensor) -> Tensor:
        return gradient_penalty(lambda x: torch.tanh(x @ weight).sum(-1), real)

    assert torch.autograd.gradcheck(penalty, torch.randn(2, 3, dtype=torch.double, requires_grad=True))


def test_penalty_works_where_gradients_are_off() -> None:
    torch.manual_seed(0)
    discriminator, real = Discriminator(2, 0, hidden=8), torch.randn(4, 2)
    with torch.no_grad():
        unwatched = gradient_penalty(discriminator, real)
    assert_close(unwatched, gradient_penalty(discriminator, real))


def test_penalty_of_a_discriminator_that_ignores_the_data() -> None:
    with pytest.raises(InputError, match="no gradient to the data"):
        gradient_penalty(lambda x: torch.ones(len(x)), torch.zeros(4, 2))


def test_accuracy_weighs_both_sides_the_same() -> None:
    assert discriminator_accuracy(torch.ones(100), torch.ones(1)) == 0.5
    assert discriminator_accuracy(torch.zeros(3), torch.zeros(4)) == 0.5
    assert discriminator_accuracy(torch.ones(3), -torch.ones(4)) == 1
    assert discriminator_accuracy(-torch.ones(3), torch.ones(4)) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("loss", [saturating_generator_loss, generator_loss])
def test_logits_that_are_not_finite(loss: Callable[[Tensor], Tensor], value: float) -> None:
    with pytest.raises(InputError, match=f"fake_logit has the value {value} in row 1"):
        loss(torch.tensor([0.0, value]))


@pytest.mark.parametrize("loss", [discriminator_loss, discriminator_accuracy])
def test_both_sides_are_needed(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match=r"real_logit \(0,\) is empty"):
        loss(torch.zeros(0), torch.zeros(2))
    with pytest.raises(InputError, match="fake_logit has the value nan"):
        loss(torch.zeros(2), torch.tensor([float("nan")]))
