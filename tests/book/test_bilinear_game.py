"""Players of xy go in circles: outwards, around, or inwards, by the method."""

import math

import pytest
import torch
from torch.testing import assert_close

from recsys_cl.book.toy_games import Method, bilinear_game
from recsys_cl.errors import InputError

METHODS: list[Method] = ["simultaneous", "alternating", "extragradient"]


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_simultaneous_steps_spiral_outwards(rate: float) -> None:
    distance = bilinear_game(50, rate).norm(dim=1)
    assert_close(distance, math.sqrt(1 + rate**2) ** torch.arange(51, dtype=torch.double))


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_steps_in_turns_stay_on_an_ellipse(rate: float) -> None:
    x, y = bilinear_game(500, rate, method="alternating").T
    assert_close(x**2 + y**2 - rate * x * y, torch.ones(501, dtype=torch.double))


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_extragradient_spirals_inwards(rate: float) -> None:
    distance = bilinear_game(50, rate, method="extragradient").norm(dim=1)
    assert_close(distance, math.sqrt(1 - rate**2 + rate**4) ** torch.arange(51, dtype=torch.double))


@pytest.mark.parametrize("method", METHODS)
def test_paths_are_those_of_gradients(method: Method) -> None:
    """The definition, a player at a time, by automatic differentiation of the game."""
    rate = 0.3

    def slope(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        return torch.autograd.grad(x * y, (x, y))

    x, y = torch.tensor([1.0, 0.0], dtype=torch.double)
    for place in bilinear_game(5, rate, method=method)[1:]:
        if method == "alternating":
            x = x - rate * slope(x, y)[0]
            y = y + rate * slope(x, y)[1]
        else:
            of_x, of_y = slope(x, y)
            if method == "extragradient":
                of_x, of_y = slope(x - rate * of_x, y + rate * of_y)
            x, y = x - rate * of_x, y + rate * of_y
        assert_close(place, torch.stack([x, y]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0, "rate": 0.1}, "steps=0"),
        ({"steps": 1, "rate": 0.0}, "rate=0.0"),
        ({"steps": 1, "rate": float("nan")}, "rate=nan"),
        ({"steps": 1, "rate": 0.1, "method": "implicit"}, "no method 'implicit'"),
    ],
)
def test_games_that_cannot_be_played(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bilinear_game(**given)
