r"""Random negative sampling: uniform, popularity-based, in-batch and mixed, with log-probabilities for logQ correction.

Items are drawn with replacement. A draw is a function of (seed, epoch, example, slot), so neither the rest of the
batch, nor the number of slots, nor a resumed run changes it.

See: chapter 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recsys_cl.errors import InputError
from recsys_cl.losses.next_item import NegativeSample
from recsys_cl.randomness import counter_uniform


class NegativeSampler(nn.Module):
    r"""Sampler with probabilities :math:`q_j = e^{w_j} / \sum_i e^{w_i}`; subclasses define :math:`w`.

    It has neither parameters nor saved state; it is a module so that it moves to the device of the model.

    Args:
        log_weight: ``(n_items,)`` unnormalised log-probabilities :math:`w`, in double precision.
        seed: Seed of the draws; two samplers for the same examples need different seeds.
    """

    table: Tensor

    def __init__(self, log_weight: Tensor, *, seed: int) -> None:
        super().__init__()
        self.seed = seed
        log_q = log_weight.cpu().log_softmax(0)  # (N,)
        self.register_buffer("table", log_q.float(), persistent=False)
        self.edges = log_q.exp().cumsum(0).numpy()  # (N,)
        self.edges /= self.edges[-1]  # close the gap below 1 that rounding may leave

    def log_q(self, items: Tensor) -> Tensor:
        """Log-probabilities of items, in the shape of ``items``."""
        return self.table[items]

    def sample(self, epoch: int | np.ndarray, example: int | np.ndarray, k: int) -> NegativeSample:
        """Draw k items for each example.

        Args:
            epoch: One epoch, or ``(batch,)``.
            example: ``(batch,)`` numbers of the examples, for own negatives; one number, such as that of the first
                example, for negatives that the batch shares.
            k: Number of negatives per example.

        Returns:
            Items and log-probabilities, ``(batch, k)``, or ``(k,)`` for one number.

        Raises:
            InputError: If k is below 1.
        """
        items = torch.from_numpy(self.draw(*slots(epoch, example, k))).to(self.table.device)  # (…, K)
        return NegativeSample(items, self.log_q(items))

    def draw(self, epoch: np.ndarray, example: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """One item for each combination of the broadcast counters."""
        return np.searchsorted(self.edges, counter_uniform(self.seed, "negative", epoch, example, slot), side="right")


class UniformNegatives(NegativeSampler):
    r"""Uniform sampler: :math:`q_j = 1 / N`. The logQ correction is a constant and has no effect.

    Args:
        n_items: Size of the catalogue, N.
        seed: Seed of the draws.

    Raises:
        InputError: If the catalogue is empty.

    See: chapter 4.

    >>> sample = UniformNegatives(4).sample(epoch=0, example=np.array([7, 8]), k=3)
    >>> tuple(sample.items.shape), round(float(sample.log_q[0, 0].exp()), 4)
    ((2, 3), 0.25)
    """

    def __init__(self, n_items: int, *, seed: int = 0) -> None:
        if n_items < 1:
            raise InputError(f"n_items={n_items} leaves nothing to draw; give the size of the catalogue")
        super().__init__(torch.zeros(n_items, dtype=torch.float64), seed=seed)


class PopularityNegatives(NegativeSampler):
    r"""Popularity sampler: :math:`q_j \propto c_j^\beta`.

    :math:`\beta = 1` draws in proportion to popularity, :math:`\beta = 0` uniformly, and ¾ is the compromise of
    word2vec. A count of 0 is raised to 1, so every item can be drawn and has a finite logarithm.

    Args:
        counts: ``(n_items,)`` training events of each item.
        power: Exponent :math:`\beta \ge 0`.
        seed: Seed of the draws.

    Raises:
        InputError: If a count is negative or not finite, all are 0, or the power is below 0 or not finite.

    References:
        Mikolov et al. (2013), https://arxiv.org/abs/1310.4546.

    See: chapter 4.

    >>> sampler = PopularityNegatives(torch.tensor([16, 1, 0]), power=0.5)
    >>> [round(float(log_q.exp()), 4) for log_q in sampler.log_q(torch.arange(3))]  # 4 : 1 : 1
    [0.6667, 0.1667, 0.1667]
    """

    def __init__(self, counts: Tensor, *, power: float = 0.75, seed: int = 0) -> None:
        if not 0 <= power < float("inf"):
            raise InputError(f"power={power}; give a number of at least 0: 0 is uniform, 1 draws like the data")
        _check_counts(counts)
        super().__init__(power * counts.clamp(min=1).double().log(), seed=seed)


class InBatchNegatives(PopularityNegatives):
    """In-batch negatives: the positives of a batch, distributed by popularity (:func:`in_batch_log_q`).

    Args:
        counts: ``(n_items,)`` training events of each item.
        seed: Seed of ``sample``, which draws from the same distribution.

    Raises:
        InputError: If a count is negative or not finite, or all are 0.

    See: chapter 4.

    >>> batch = InBatchNegatives(torch.tensor([6, 3, 1])).of(torch.tensor([0, 2]))
    >>> batch.items.tolist(), [round(float(log_q.exp()), 4) for log_q in batch.log_q]
    ([0, 2], [0.6, 0.1])
    """

    def __init__(self, counts: Tensor, *, seed: int = 0) -> None:
        super().__init__(counts, power=1.0, seed=seed)

    def of(self, target: Tensor) -> NegativeSample:
        """The batch's own targets ``(batch,)`` as a sample: row b's positive is in column b."""
        return NegativeSample(target, self.log_q(target))


class MixedNegatives(NegativeSampler):
    r"""Mixture of samplers: each slot draws from one of them, and log q is that of the mixture.

    .. math:: q_j = \sum_m w_m\, q_{mj}

    Each slot selects its sampler independently, so all slots have this q, and a sampler's share is :math:`w_m` on
    average. With popular negatives alone, rare items stay where they were initialised; a uniform part reaches them.

    For the B positives of a batch plus K uniform negatives, ``MixedNegatives([(in_batch, B), (uniform, K)])`` gives the
    ``log_q`` of both.

    Args:
        parts: Samplers with their shares :math:`w_m`, which are normalised to sum to 1.
        seed: Seed of the selection; the items are drawn with the seeds of the parts.

    Raises:
        InputError: If there is no part, a share is not above 0, or the catalogues differ in size.

    References:
        Yang et al. (2020), https://doi.org/10.1145/3366424.3386195.

    See: chapter 4.

    >>> half = MixedNegatives([(UniformNegatives(2), 1), (PopularityNegatives(torch.tensor([9, 1]), power=1.0), 1)])
    >>> [round(float(log_q.exp()), 4) for log_q in half.log_q(torch.arange(2))]  # .5 and .9, .5 and .1
    [0.7, 0.3]
    """

    def __init__(self, parts: Sequence[tuple[NegativeSampler, float]], *, seed: int = 0) -> None:
        shares = torch.tensor([share for _, share in parts], dtype=torch.float64)  # (M,)
        if len(parts) == 0 or not ((shares > 0) & shares.isfinite()).all():
            raise InputError(f"shares are {shares.tolist()}; give at least one sampler, each with a share above 0")
        sizes = [len(sampler.table) for sampler, _ in parts]
        if len(set(sizes)) > 1:
            raise InputError(f"the samplers have catalogues of {sizes} items; give samplers of one catalogue")
        tables = torch.stack([sampler.table.cpu().double() for sampler, _ in parts])  # (M, N)
        super().__init__((tables + (shares / shares.sum()).log()[:, None]).logsumexp(0), seed=seed)
        self.parts = [sampler for sampler, _ in parts]
        self.coin = (shares.cumsum(0) / shares.sum()).numpy()[:-1]  # (M - 1,)

    def draw(self, epoch: np.ndarray, example: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """One item for each combination of the broadcast counters, from a randomly selected part."""
        chance = counter_uniform(self.seed, "mixture-part", epoch, example, slot)
        part = np.searchsorted(self.coin, chance, side="right")
        items = np.stack([sampler.draw(epoch, example, slot) for sampler in self.parts])  # (M, …)
        return np.take_along_axis(items, part[None], axis=0)[0]


def in_batch_log_q(counts: Tensor) -> Tensor:
    r"""Log-probability that a random training event is on item j: :math:`\log (c_j / \sum_k c_k)`.

    Args:
        counts: ``(n_items,)`` training events of each item; 0 is raised to 1, so the logarithm is finite.

    Returns:
        ``(n_items,)`` log-probabilities.

    References:
        Yi et al. (2019), https://doi.org/10.1145/3298689.3346996.

    See: chapter 4.
    """
    counts = counts.clamp(min=1).double()  # (N,)
    return (counts / counts.sum()).log().float()  # (N,)


def slots(epoch: int | np.ndarray, example: int | np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epoch, example and slot counters that broadcast to k slots per example.

    Raises:
        InputError: If k is below 1.
    """
    if k < 1:
        raise InputError(f"k={k} draws nothing; give 1 or more")
    return np.asarray(epoch)[..., None], np.asarray(example)[..., None], np.arange(k)


def _check_counts(counts: Tensor) -> None:
    if counts.ndim != 1 or len(counts) == 0:
        raise InputError(f"counts have shape {tuple(counts.shape)}; give (n_items,) numbers of training events")
    wrong = ((counts < 0) | ~counts.isfinite()).nonzero().flatten()
    if len(wrong):
        item = int(wrong[0])
        raise InputError(f"item {item} has the count {counts[item].item()}; give numbers of events, 0 or more")
    if not counts.any():
        raise InputError(f"all {len(counts)} items have the count 0; count the training events")
