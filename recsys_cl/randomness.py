"""Counter-based random numbers: each draw is a hash of its purpose and example, independent of all other draws.

A stateful generator gives an example different numbers after a resume, in another batch or on another worker. A hash
of (seed, epoch, example, …) always gives it the same.
"""

from __future__ import annotations

import numpy as np

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27))


def counter_hash(*counters: int | np.ndarray) -> np.ndarray:
    """Hash whole numbers, broadcast against each other, to uniform 64-bit integers.

    Each counter is absorbed by one round of the SplitMix64 finaliser.

    References:
        Steele, Lea and Flood (2014), https://doi.org/10.1145/2660193.2660195.

    >>> bool(counter_hash(0, 1) == counter_hash(0, 1)), bool(counter_hash(0, 1) == counter_hash(1, 0))
    (True, False)
    """
    key = np.zeros(np.broadcast_shapes(*(np.shape(counter) for counter in counters)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for counter in counters:
            key = key ^ np.asarray(counter).astype(np.uint64)
            key = key + _INCREMENT
            for shift, factor in zip(_SHIFTS, _FACTORS, strict=True):
                key = (key ^ (key >> shift)) * factor
            key = key ^ (key >> np.uint64(31))
    return key


def counter_uniform(*counters: int | np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), one per combination of the broadcast counters."""
    return (counter_hash(*counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53
