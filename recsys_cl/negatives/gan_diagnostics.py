"""GAN diagnostics: discriminator accuracy, entropy and filtered share, with warnings of collapse and saturation."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

COLLAPSED = 0.25
"""Share of the maximum entropy below which a generator counts as collapsed."""

SATURATED = 0.99
"""Accuracy above which, or error rate above which, a discriminator no longer trains the generator."""


class GanDiagnostics(nn.Module):
    """Means of training statistics since the last report.

    >>> statistics = GanDiagnostics()
    >>> statistics.add(share_filtered=torch.tensor(0.25))
    >>> statistics.add(share_filtered=torch.tensor(0.75))
    >>> statistics.report(n_items=10)
    {'share_filtered': 0.5}
    """

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, **values: Tensor) -> None:
        """Add the values of a training step."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()

    def report(self, *, n_items: int) -> dict[str, float]:
        """Return the means and reset them; warn, with a remedy, if generator or discriminator no longer learns.

        Args:
            n_items: Size of the catalogue, whose logarithm is the maximum entropy.
        """
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        minimum = COLLAPSED * math.log(max(n_items, 2))
        if means.get("generator_entropy", math.inf) < minimum:
            warnings.warn(
                f"the generator has collapsed: its entropy, {means['generator_entropy']:.2f} nats, is below "
                f"{minimum:.2f}; lower epsilon, hardness or share",
                stacklevel=2,
            )
        accuracy = means.get("discriminator_accuracy", 0.5)
        if not 1 - SATURATED < accuracy < SATURATED:
            warnings.warn(
                f"the discriminator's accuracy is pinned at {accuracy:.3f}, so the generator learns nothing from it; "
                "lower epsilon or hardness",
                stacklevel=2,
            )
        if means.get("share_filtered", 0.0) == 1.0:
            warnings.warn("the filter removed every generated negative; lower the threshold", stacklevel=2)
        return means
