r"""Negatives by chance: items drawn with replacement from a known distribution over the catalogue.

A draw is a function of (seed, epoch, example, slot), so that neither the other examples of a batch, nor the number
of slots, nor a resumption changes it.

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
    r"""Draws from :math:`q_j = e^{w_j} / \sum_i e^{w_i}`; its subclasses say what :math:`w` is.

    There is nothing to learn and nothing to save, but as a module it follows a model to its device.

    Args:
        log_weight: ``(n_items,)``, double precision.
        seed: Seed of the draws; two samplers that serve the same examples want two seeds.
    """

    table: Tensor

    def __init__(self, log_weight: Tensor, *, seed: int) -> None:
        super().__init__()
        self.seed = seed
        log_q = log_weight.cpu().log_softmax(0)  # (N,)
        self.register_buffer("table", log_q.float(), persistent=False)
        self.edges = log_q.exp().cumsum(0).numpy()  # (N,)
        self.edges /= self.edges[-1]  # rounding must not leave a gap below 1

    def log_q(self, items: Tensor) -> Tensor:
        """Log-probability of any items, of their shape."""
        return self.table[items]

    def sample(self, epoch: int | np.ndarray, example: int | np.ndarray, k: int) -> NegativeSample:
        """Draw k items for each example.

        Args:
            epoch: One epoch, or ``(batch,)``.
            example: ``(batch,)`` numbers of the examples for negatives of each one's own; one number, say that of
                the batch's first, for negatives that the batch shares.
            k: Number of negatives.

        Returns:
            ``(batch, k)``, or ``(k,)`` for one number.

        Raises:
            InputError: If k is below 1.
        """
        items = torch.from_numpy(self.draw(*slots(epoch, example, k))).to(self.table.device)  # (…, K)
        return NegativeSample(items, self.log_q(items))

    def draw(self, epoch: np.ndarray, example: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """One item for each combination of the broadcast counters."""
        return np.searchsorted(self.edges, counter_uniform(self.seed, "negative", epoch, example, slot), side="right")


class UniformNegatives(NegativeSampler):
    r"""Every item alike: :math:`q_j = 1 / N`. The correction is then a constant and changes nothing.

    Args:
        n_items: N.
        seed: Seed of the draws.

    Raises:
        InputError: If there is no item.

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
    r"""The more popular, the more often: :math:`q_j \propto c_j^\beta`.

    :math:`\beta = 1` draws like the data, :math:`\beta = 0` uniformly, and ¾ is the compromise of word2vec. An item
    without events counts as one, so that it can be drawn and has a logarithm.

    Args:
        counts: ``(n_items,)`` training events of each item.
        power: :math:`\beta \ge 0`; below 0 the rarest would be the commonest negatives, which is refused.
        seed: Seed of the draws.

    Raises:
        InputError: If a count is negative or not finite, all are 0, or the power is not a number of at least 0.

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
    """The positives of a batch as everybody's negatives: drawn like the data, :func:`in_batch_log_q`.

    Args:
        counts: ``(n_items,)`` training events of each item.
        seed: Seed of ``sample``, which draws what another batch might have held.

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
        """The sample that a batch is, ``(batch,)``: row b's own positive is in column b."""
        return NegativeSample(target, self.log_q(target))


class MixedNegatives(NegativeSampler):
    r"""Some slots from one sampler, some from another; all are corrected by the mixture.

    .. math:: q_j = \sum_m w_m\, q_{mj}

    Each slot tosses a coin of its own, so that all slots have this q, and the share of a sampler is :math:`w_m` in
    the mean. Popular negatives alone leave rare items wherever they were initialised; a uniform part finds them.

    For the positives of a batch of B and K uniform ones beside them, ``MixedNegatives([(in_batch, B), (uniform, K)])``
    gives the ``log_q`` of both.

    Args:
        parts: Samplers with their shares :math:`w_m`, which are divided by their sum.
        seed: Seed of the coins; the items are those that the parts draw.

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
        self.parts = [sampler for sampler, _ in parts]  # only their draws are used from here on
        self.coin = (shares.cumsum(0) / shares.sum()).numpy()[:-1]  # (M - 1,)

    def draw(self, epoch: np.ndarray, example: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """One item for each combination of the broadcast counters, from the part that its coin says."""
        chance = counter_uniform(self.seed, "mixture-part", epoch, example, slot)
        part = np.searchsorted(self.coin, chance, side="right")
        items = np.stack([sampler.draw(epoch, example, slot) for sampler in self.parts])  # (M, …)
        return np.take_along_axis(items, part[None], axis=0)[0]


def in_batch_log_q(counts: Tensor) -> Tensor:
    r"""Log-probability that a random training interaction has item j: :math:`\log (c_j / \sum_k c_k)`.

    Args:
        counts: ``(n_items,)`` training events; an item without any counts as one, so that the log exists.

    Returns:
        ``(n_items,)``

    References:
        Yi et al. (2019), https://doi.org/10.1145/3298689.3346996.

    See: chapter 4.
    """
    counts = counts.clamp(min=1).double()  # (N,)
    return (counts / counts.sum()).log().float()  # (N,)


def slots(epoch: int | np.ndarray, example: int | np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counters whose broadcast shape is that of k slots for each example.

    Raises:
        InputError: If k is below 1.
    """
    if k < 1:
        raise InputError(f"k={k} draws nothing; give 1 or more")
    return np.asarray(epoch)[..., None], np.asarray(example)[..., None], np.arange(k)


def _check_counts(counts: Tensor) -> None:
    if counts.ndim != 1 or len(counts) == 0:
        raise InputError(f"counts have shape {tuple(counts.shape)}; give (n_items,) training events")
    wrong = ((counts < 0) | ~counts.isfinite()).nonzero().flatten()
    if len(wrong):
        item = int(wrong[0])
        raise InputError(f"item {item} has the count {counts[item].item()}; give numbers of events, 0 or more")
    if not counts.any():
        raise InputError(f"all {len(counts)} items have the count 0; count the training events")
