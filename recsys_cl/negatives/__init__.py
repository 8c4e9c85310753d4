"""Negative sampling: what counts as a negative, and how likely it was drawn.

Whatever says which items are negatives says their log-probability as well, ``NegativeSample(items, log_q)``, and
``sampler.log_q(items)`` gives it for the positives, so that the correction for sampling needs no code of its own::

    sample = sampler.sample(epoch, example, k)  # (B, k)
    loss = sampled_softmax_loss(
        query,
        vectors[target],
        vectors[sample.items],
        log_q=sampler.log_q(target),
        negative_log_q=sample.log_q,
        mask=known.mask(user, sample.items),
    )

A sample may hit what the user is known to like: :class:`~recsys_cl.negatives.KnownPositives` masks that, for
``(k,)`` shared negatives and ``(B, k)`` own ones alike. Drawing again until nothing known is hit would give
the same conditional distribution, at the cost of a loop.
"""

from recsys_cl.losses.next_item import NegativeSample
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.negatives.gan import GanNegatives
from recsys_cl.negatives.hard import (
    Candidates,
    DrawnNegatives,
    HardNegatives,
    Negatives,
    PerturbedNegatives,
    hard_negatives,
)
from recsys_cl.negatives.policy import PolicyNegatives
from recsys_cl.negatives.queue import NegativeQueue
from recsys_cl.negatives.samplers import (
    InBatchNegatives,
    MixedNegatives,
    NegativeSampler,
    PopularityNegatives,
    UniformNegatives,
    in_batch_log_q,
)
from recsys_cl.negatives.strategies import SAMPLERS, Sampler

__all__ = [
    "SAMPLERS",
    "Candidates",
    "DrawnNegatives",
    "GanNegatives",
    "HardNegatives",
    "InBatchNegatives",
    "KnownPositives",
    "MixedNegatives",
    "NegativeQueue",
    "NegativeSample",
    "NegativeSampler",
    "Negatives",
    "PerturbedNegatives",
    "PolicyNegatives",
    "PopularityNegatives",
    "Sampler",
    "UniformNegatives",
    "hard_negatives",
    "in_batch_log_q",
]
