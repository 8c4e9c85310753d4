r"""The smallest game that goes in circles.

.. math:: \min_x \max_y\; x y

Its only solution is the origin. Each player alone does what is right, and the field that they follow,
:math:`(-y, x)`, turns around the solution without ever pointing at it.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from recsys_cl.errors import InputError

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
