"""Sampling strategies by name: in-batch, uniform, popular, hard, perturbed, generated or policy-drawn negatives.

A strategy says which items are drawn for each example, and what a training step makes of them. A new one is a class
and a line::

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
    """Negatives of each example's own, uniform over the catalogue unless a subclass says otherwise.

    Attributes:
        negatives: Number of negatives of an example.
    """

    negatives: Count = 16

    def __post_init__(self) -> None:
        check_settings(self)

    def drawn(self, counts: Tensor, *, seed: int) -> NegativeSampler | None:
        """What draws items for an example, given the training events of each item ``(n_items,)``."""
        return UniformNegatives(len(counts), seed=seed)

    def made(self, dim: int) -> DrawnNegatives | None:
        """What a training step makes of the items drawn, for vectors of this width."""
        return DrawnNegatives()


SAMPLERS: Registry[type[Sampler]] = Registry("sampler", made=Sampler)
"""Name to a strategy: ``two-tower:sampler=hard,sampler.share=0.25``."""

SAMPLERS.add("uniform", Sampler)


@SAMPLERS.add("in-batch")
@dataclass(frozen=True)
class InBatch(Sampler):
    """The other examples' items: nothing is drawn."""

    negatives: Annotated[int, Range(0, 0)] = 0

    def drawn(self, counts: Tensor, *, seed: int) -> None:
        """Nothing."""

    def made(self, dim: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class _Partly(Sampler):
    """A share of the negatives is of another kind than uniform.

    Attributes:
        share: That share.
    """

    share: Share = 0.5


@SAMPLERS.add("popular")
@dataclass(frozen=True)
class Popular(_Partly):
    """A share in proportion to popularity to the power 3/4."""

    def drawn(self, counts: Tensor, *, seed: int) -> NegativeSampler:
        """A mixture of popular and uniform items."""
        uniform = UniformNegatives(len(counts), seed=seed)
        popular = PopularityNegatives(counts, seed=seed)
        return MixedNegatives([(popular, self.share), (uniform, 1 - self.share)], seed=seed)


@SAMPLERS.add("hard")
@dataclass(frozen=True)
class Hard(_Partly):
    """A share of items that the model itself ranks highest."""

    def made(self, dim: int) -> HardNegatives:
        """Mines the catalogue."""
        return HardNegatives(self.share)


@SAMPLERS.add("perturbed")
@dataclass(frozen=True)
class Perturbed(_Partly):
    """A share moved towards the user.

    Attributes:
        epsilon: Length of the move, in units of each vector's norm.
    """

    epsilon: Annotated[float, Range(1e-6)] = 0.5

    def made(self, dim: int) -> PerturbedNegatives:
        """Moves the items drawn."""
        return PerturbedNegatives(self.share, epsilon=self.epsilon)


@SAMPLERS.add("generated")
@dataclass(frozen=True)
class Generated(Perturbed):
    """A share moved by a generator, and filtered by a discriminator.

    Attributes:
        hardness: What closeness to the user is worth to the generator.
        threshold: Probability of being real below which the filter takes a negative back, 0 for no filter.
    """

    hardness: float = 1.0
    threshold: Annotated[float, Range(0, 0.99)] = 0.0

    def made(self, dim: int) -> GanNegatives:  # type: ignore[override]
        """Generator and discriminator."""
        return GanNegatives(dim, self.share, epsilon=self.epsilon, hardness=self.hardness, threshold=self.threshold)


@SAMPLERS.add("policy")
@dataclass(frozen=True)
class Policy(_Partly):
    """A share drawn by a policy that learns by REINFORCE what the model ranks high."""

    def made(self, dim: int) -> PolicyNegatives:
        """The policy."""
        return PolicyNegatives(dim, self.share)
