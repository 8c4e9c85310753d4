"""Negative sampling: samplers, exclusion of known positives, hard, perturbed and generated negatives, a queue.

Every sampler returns items together with their log-probabilities, ``NegativeSample(items, log_q)``, and
``sampler.log_q(items)`` gives those of the positives, so the logQ correction needs no extra code::

    sample = sampler.sample(epoch, example, k)  # (B, k)
    loss = sampled_softmax_loss(
        query,
        vectors[target],
        vectors[sample.items],
        log_q=sampler.log_q(target),
        negative_log_q=sample.log_q,
        mask=known.mask(user, sample.items),
    )

A sample may contain items that the user is known to like: :class:`~recsys_cl.negatives.KnownPositives` masks them, for
shared negatives ``(k,)`` and own negatives ``(B, k)`` alike. Redrawing until no known item is hit would give the same
conditional distribution, at the cost of a loop.
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
