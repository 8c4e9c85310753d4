"""Negative sampling by name: in-batch, uniform, popular, hard, perturbed, generated or policy-drawn negatives.

A strategy defines which items are drawn for each example and what a training step turns them into. To add one, write
and register a class::

    @SAMPLERS.add("mine")
    @dataclass(frozen=True)
    class Mine(Sampler):
        negatives: int = 16

        def drawn(self, counts, *, seed): ...

See: chapter 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from recsys_cl.negatives.gan import GanNegatives
from recsys_cl.negatives.hard import DrawnNegatives, HardNegatives, PerturbedNegatives
from recsys_cl.negatives.policy import PolicyNegatives
from recsys_cl.negatives.samplers import MixedNegatives, NegativeSampler, PopularityNegatives, UniformNegatives
from recsys_cl.registry import Registry
from recsys_cl.settings import Range, check_settings

Share = Annotated[float, Range(0.001, 1)]
Count = Annotated[int, Range(1)]


@dataclass(frozen=True)
class Sampler:
    """Own negatives for each example, uniform over the catalogue unless a subclass overrides it.

    Attributes:
        negatives: Number of negatives per example.
    """

    negatives: Count = 16

    def __post_init__(self) -> None:
        check_settings(self)

    def drawn(self, counts: Tensor, *, seed: int) -> NegativeSampler | None:
        """Sampler of items, given the number of training events of each item ``(n_items,)``."""
        return UniformNegatives(len(counts), seed=seed)

    def made(self, dim: int) -> DrawnNegatives | None:
        """Module that turns drawn items into negatives, for vectors of dimension ``dim``."""
        return DrawnNegatives()


SAMPLERS: Registry[type[Sampler]] = Registry("sampler", made=Sampler)
"""Strategies by name: ``two-tower:sampler=hard,sampler.share=0.25``."""

SAMPLERS.add("uniform", Sampler)


@SAMPLERS.add("in-batch")
@dataclass(frozen=True)
class InBatch(Sampler):
    """The items of the other examples; no items are drawn."""

    negatives: Annotated[int, Range(0, 0)] = 0

    def drawn(self, counts: Tensor, *, seed: int) -> None:
        """No sampler."""

    def made(self, dim: int) -> None:
        """No module."""


@dataclass(frozen=True)
class PartlyUniform(Sampler):
    """Uniform negatives, a share of which is replaced by another kind.

    Attributes:
        share: Share of the negatives of the other kind.
    """

    share: Share = 0.5


@SAMPLERS.add("popular")
@dataclass(frozen=True)
class Popular(PartlyUniform):
    """Uniform negatives, a share of them drawn in proportion to popularity to the power 3/4."""

    def drawn(self, counts: Tensor, *, seed: int) -> NegativeSampler:
        """A mixture of popular and uniform items."""
        uniform = UniformNegatives(len(counts), seed=seed)
        popular = PopularityNegatives(counts, seed=seed)
        return MixedNegatives([(popular, self.share), (uniform, 1 - self.share)], seed=seed)


@SAMPLERS.add("hard")
@dataclass(frozen=True)
class Hard(PartlyUniform):
    """Uniform negatives, a share of them replaced by the items that the model ranks highest."""

    def made(self, dim: int) -> HardNegatives:
        """Hard negative mining over the catalogue."""
        return HardNegatives(self.share)


@SAMPLERS.add("perturbed")
@dataclass(frozen=True)
class Perturbed(PartlyUniform):
    """Uniform negatives, a share of them moved towards the user.

    Attributes:
        epsilon: Length of the move, in units of each vector's norm.
    """

    epsilon: Annotated[float, Range(1e-6)] = 0.5

    def made(self, dim: int) -> PerturbedNegatives:
        """Perturbation of the drawn items."""
        return PerturbedNegatives(self.share, epsilon=self.epsilon)


@SAMPLERS.add("generated")
@dataclass(frozen=True)
class Generated(Perturbed):
    """Uniform negatives, a share of them moved by a generator and filtered by a discriminator.

    Attributes:
        hardness: Weight of the cosine with the user in the generator's loss.
        threshold: Minimum probability of being real for a generated negative to be kept; 0 keeps all.
    """

    hardness: float = 1.0
    threshold: Annotated[float, Range(0, 0.99)] = 0.0

    def made(self, dim: int) -> GanNegatives:  # type: ignore[override]
        """Generator and discriminator."""
        return GanNegatives(dim, self.share, epsilon=self.epsilon, hardness=self.hardness, threshold=self.threshold)


@SAMPLERS.add("policy")
@dataclass(frozen=True)
class Policy(PartlyUniform):
    """Uniform negatives, a share of them drawn by a policy that REINFORCE trains on the model's scores."""

    def made(self, dim: int) -> PolicyNegatives:
        """Policy network."""
        return PolicyNegatives(dim, self.share)
