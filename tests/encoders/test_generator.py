"""The players of an adversarial game: shapes, what their first output is, and how steep a normalised one can be."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from recsys_cl.encoders.generator import Discriminator, Generator, ItemPolicy
from recsys_cl.errors import InputError


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def silence(last: nn.Module) -> None:
    """Let a network's last layer add nothing."""
    for weight in last.parameters():
        nn.init.zeros_(weight)


def test_samples_for_a_user_start_at_the_user() -> None:
    user = torch.randn(3, 4)
    generator = Generator(condition=4, noise=2, out=4)
    silence(generator.rest[-1])
    assert_close(generator(user, torch.randn(3, 5, 2)), user[:, None].expand(3, 5, 4))


def test_users_and_noise_both_move_the_samples() -> None:
    generator = Generator(condition=4, noise=2, out=3, hidden=8)
    user, noise = torch.randn(2, 4), torch.randn(1, 2, 2)
    samples = generator(user, noise.expand(2, 2, 2))
    assert not torch.isclose(samples[0], samples[1]).any()
    assert not torch.isclose(samples[:, 0], samples[:, 1]).any()


def test_each_sample_depends_on_its_own_noise_alone() -> None:
    generator = Generator(condition=0, noise=2, out=3, hidden=8)
    noise = torch.randn(2, 5, 2)
    assert_close(generator(None, noise)[1, 3], generator(None, noise[1:, 3:4])[0, 0])


def test_normalised_samples_have_length_one() -> None:
    samples = Generator(condition=0, noise=2, out=3, normalise=True)(None, torch.randn(4, 5, 2))
    assert_close(samples.norm(dim=-1), torch.ones(4, 5))


def test_a_user_is_paired_with_each_of_its_vectors() -> None:
    discriminator = Discriminator(dim=3, condition=3, hidden=8)
    user, vectors = torch.randn(2, 3), torch.randn(2, 5, 3)
    together = discriminator(vectors, user[:, None])
    assert_close(together[1, 4], discriminator(vectors[1, 4], user[1]))


def test_whether_a_user_likes_an_item_is_learnt() -> None:
    user, vectors = torch.randn(2, 512, 4)
    liked = (user * vectors).sum(-1) > 0
    discriminator = Discriminator(dim=4, condition=4, hidden=32)
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=0.01)
    for _ in range(100):
        loss = nn.functional.binary_cross_entropy_with_logits(discriminator(vectors, user), liked.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert ((discriminator(vectors, user) > 0) == liked).float().mean() > 0.95


def steepest(discriminator: Discriminator, points: torch.Tensor) -> float:
    points.requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(points).sum(), points)
    return float(slope.norm(dim=-1).max())


def test_a_spectral_discriminator_has_slope_of_at_most_one() -> None:
    points = torch.randn(256, 3)
    plain, spectral = (Discriminator(dim=3, condition=0, hidden=16, spectral=on) for on in (False, True))
    with torch.no_grad():
        for discriminator in (plain, spectral):
            for weight in discriminator.parameters():
                weight.mul_(20)
        for _ in range(30):  # power iterations
            spectral(points)
    assert steepest(plain, points) > 10
    assert 0 < steepest(spectral, points) < 1.01


def test_a_policy_starts_as_the_recommender() -> None:
    user, table = torch.randn(3, 4), torch.randn(6, 4)
    assert_close(ItemPolicy(4, temperature=0.5)(user, table).exp(), (2 * user @ table.T).softmax(1))


def test_a_colder_policy_concentrates() -> None:
    user, table = torch.randn(3, 4), torch.randn(6, 4)
    warm, cold = (ItemPolicy(4, temperature=t)(user, table).exp().amax(1) for t in (2.0, 0.1))
    assert (cold > warm).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature is"):
        ItemPolicy(4, temperature=temperature)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Generator(condition=-1, noise=2, out=2), "condition=-1"),
        (lambda: Generator(condition=0, noise=0, out=2), "noise=0"),
        (lambda: Generator(condition=0, noise=2, out=2, hidden=0), "hidden=0"),
        (lambda: Discriminator(dim=0, condition=0), "dim=0"),
        (lambda: Discriminator(dim=3, condition=2), "no product"),
        (lambda: ItemPolicy(0), "dim=0"),
    ],
)
def test_widths_that_make_no_network(build, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize(
    "call",
    [
        lambda: Generator(condition=3, noise=2, out=2)(None, torch.zeros(1, 1, 2)),
        lambda: Generator(condition=0, noise=2, out=2)(torch.zeros(1, 3), torch.zeros(1, 1, 2)),
        lambda: Discriminator(dim=2, condition=2)(torch.zeros(1, 2)),
        lambda: Discriminator(dim=2, condition=0)(torch.zeros(1, 2), torch.zeros(1, 2)),
    ],
)
def test_a_condition_comes_where_it_was_announced(call) -> None:
    with pytest.raises(InputError, match="condition"):
        call()
