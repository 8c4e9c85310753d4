"""What players report of a game that no single loss describes, and when to worry."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

COLLAPSED = 0.25
"""Share of the largest possible entropy below which a generator is said to have collapsed."""

PINNED = 0.99
"""Accuracy, of a discriminator that is always right, or as often always wrong, from which it has nothing to teach."""


class Watched(nn.Module):
    """Means of what a player did since the last report.

    >>> watched = Watched()
    >>> watched.add(share_filtered=torch.tensor(0.25))
    >>> watched.add(share_filtered=torch.tensor(0.75))
    >>> watched.report(n_items=10)
    {'share_filtered': 0.5}
    """

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, **values: Tensor) -> None:
        """Take the values of a training step."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()

    def report(self, *, n_items: int) -> dict[str, float]:
        """Means, and a fresh start; a warning, with what to do, if a player has stopped playing.

        Args:
            n_items: Size of the catalogue: the entropy is at most its logarithm.
        """
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        least = COLLAPSED * math.log(max(n_items, 2))
        if means.get("generator_entropy", math.inf) < least:
            warnings.warn(
                f"the generator has collapsed: its entropy, {means['generator_entropy']:.2f} nats, is below "
                f"{least:.2f}; lower epsilon, hardness or share",
                stacklevel=2,
            )
        accuracy = means.get("discriminator_accuracy", 0.5)
        if not 1 - PINNED < accuracy < PINNED:
            warnings.warn(
                f"the discriminator's accuracy is pinned at {accuracy:.3f}, so that nobody learns from it; lower "
                "epsilon or hardness",
                stacklevel=2,
            )
        if means.get("share_filtered", 0.0) == 1.0:
            warnings.warn("the filter left no generated negative; lower the threshold", stacklevel=2)
        return means
