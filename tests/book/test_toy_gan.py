"""The toy game: what its data are, what counts as covered, and that the cures cure."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from recsys_cl.book.toy_games import SD, ToyGan, centres, covered_modes, gradient_norm, ring, share_on_modes, train_toy
from recsys_cl.errors import InputError


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_data_fall_evenly_on_eight_modes_of_known_width() -> None:
    points = ring(40_000, chance())
    distance, mode = torch.cdist(points, centres()).min(1)
    assert_close(mode.bincount() / len(points), torch.full((8,), 1 / 8), atol=0.01, rtol=0)
    assert_close(distance.square().mean(), torch.tensor(2 * SD**2), atol=0, rtol=0.03)
    assert_close(centres().norm(dim=1), torch.ones(8))


def test_data_cover_all_modes() -> None:
    points = ring(1_000, chance())
    assert covered_modes(points) == list(range(8))
    assert share_on_modes(points) == pytest.approx(1 - 2.718281828**-4.5, abs=0.01)  # a Rayleigh variable's P(r < 3)


def test_a_mode_needs_two_in_a_hundred_samples() -> None:
    few = torch.zeros(100, 2)
    few[0] = centres()[3]
    assert covered_modes(few) == []
    few[1] = centres()[3]
    assert covered_modes(few) == [3]


def test_three_standard_deviations_are_the_border() -> None:
    inside, outside = (centres()[:1] * (1 + radius * SD) for radius in (2.9, 3.1))
    assert covered_modes(inside) == [0]
    assert covered_modes(outside) == []


@pytest.mark.parametrize("shape", [(0, 2), (5, 3), (2,)])
def test_samples_that_are_no_points(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="not points of the plane"):
        covered_modes(torch.zeros(shape))


@pytest.mark.parametrize("cures", [{}, {"penalty": 1.0}, {"spectral": True}, {"loss": "non-saturating"}])
def test_runs_repeat_and_leave_the_global_generator_alone(cures: dict) -> None:
    config = ToyGan(steps=6, every=3, batch=16, hidden=8, **cures)
    torch.manual_seed(123)
    untouched = torch.rand(3)
    torch.manual_seed(123)
    first = train_toy(config, seed=1)
    assert_close(torch.rand(3), untouched)
    torch.manual_seed(7)
    again, other = train_toy(config, seed=1), train_toy(config, seed=2)
    assert [shot.step for shot in first] == [3, 6]
    assert first[-1].samples.shape == (1_000, 2)
    assert_close(first[-1].samples, again[-1].samples, rtol=0, atol=0)
    assert (first[-1].generator_loss, first[-1].gradient_norm) == (again[-1].generator_loss, again[-1].gradient_norm)
    assert not torch.equal(first[-1].samples, other[-1].samples)


def test_each_cure_changes_the_game() -> None:
    plain = {"steps": 6, "every": 6, "batch": 16, "hidden": 8}
    cures: list[dict] = [{}, {"penalty": 1.0}, {"spectral": True}, {"loss": "non-saturating"}]
    ends: list[Tensor] = [train_toy(ToyGan(**plain, **cure), seed=0)[-1].samples for cure in cures]
    assert all(not torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])


def test_modes_collapse_without_cures_and_are_covered_with_them() -> None:
    plain = train_toy(ToyGan(), seed=0)[-1].samples
    cured = train_toy(ToyGan(loss="non-saturating", penalty=2.0), seed=0)[-1].samples
    assert len(covered_modes(plain)) <= 2
    assert len(covered_modes(cured)) >= 7
    assert share_on_modes(cured) > 0.4


def test_gradient_norm_is_that_of_all_parameters_together() -> None:
    network = nn.Linear(2, 1)
    assert gradient_norm(network) == 0
    network(torch.tensor([3.0, 4.0])).backward()
    assert gradient_norm(network) == pytest.approx((3**2 + 4**2 + 1) ** 0.5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"loss": "wasserstein"}, "no loss 'wasserstein'"),
        ({"penalty": -1.0}, "penalty=-1.0"),
        ({"penalty": float("nan")}, "penalty=nan"),
        ({"steps": 0}, "steps=0"),
        ({"batch": 0}, "batch=0"),
        ({"generator_rate": 0.0}, "generator_rate=0.0"),
        ({"discriminator_rate": float("inf")}, "discriminator_rate=inf"),
        ({"steps": 10, "every": 11}, "no snapshot"),
    ],
)
def test_settings_that_make_no_game(setting: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ToyGan(**setting)
