"""Counter-based random numbers: each draw is a hash of its purpose and example, independent of all other draws.

A stateful generator gives an example different numbers after a resume, in another batch or on another worker. A hash
of (seed, epoch, example, …) always gives it the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27))

PURPOSES: Mapping[str, int] = {
    "event-dropout": 0,
    "id-dropout": 1,
    "objective-turn": 2,
    "other-item": 16,
    "other-user": 17,
    "neighbouring-item": 18,
    "negative": 32,
    "mixture-part": 33,
    "block-target": 48,
    "block-users": 49,
    "dropped-fragment": 50,
    "replaced-word": 51,
    "synonym": 52,
    "masked-event": 64,
    "last-masked": 65,
    "view-start": 66,
    "picked-event": 67,
    "reordered-event": 68,
    "similar-item": 69,
    "view": 70,
    "window-offset": 96,
    "window-id-dropout": 97,
    "added-event": 100,
    "dropped-event": 101,
    "swapped-event": 102,
    "random-item": 103,
    "added-time": 104,
    "filler-item": 110,
    "fake-rating": 111,
    "fake-time": 112,
    "mistyped-word": 120,
    "typo-kind": 121,
    "typo-place": 122,
    "typo-key": 123,
} | {"masked-token": 0, "token-fate": 1, "token-replacement": 2}  # language models draw for nothing else
"""Numbers of the purposes that stored results were drawn with. A new purpose needs no entry: its name is hashed."""


def purpose_number(name: str) -> int:
    """Number of a purpose: from :data:`PURPOSES`, or else a hash of the name, at least :math:`2^{63}`.

    >>> purpose_number("window-offset"), purpose_number("my-own-purpose") >= 2**63
    (96, True)
    """
    if name in PURPOSES:
        return PURPOSES[name]
    return 2**63 | int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def counter_hash(*counters: int | str | np.ndarray) -> np.ndarray:
    """Hash whole numbers, broadcast against each other, to uniform 64-bit integers.

    Each counter is absorbed by one round of the SplitMix64 finaliser. A string names the purpose of the draw and
    stands for its :func:`purpose_number`, so two purposes with the same seed draw independent numbers.

    References:
        Steele, Lea and Flood (2014), https://doi.org/10.1145/2660193.2660195.

    >>> bool(counter_hash(0, 1) == counter_hash(0, 1)), bool(counter_hash(0, 1) == counter_hash(1, 0))
    (True, False)
    """
    numbers = [purpose_number(counter) if isinstance(counter, str) else counter for counter in counters]
    key = np.zeros(np.broadcast_shapes(*(np.shape(counter) for counter in numbers)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for counter in numbers:
            key = key ^ np.asarray(counter).astype(np.uint64)
            key = key + _INCREMENT
            for shift, factor in zip(_SHIFTS, _FACTORS, strict=True):
                key = (key ^ (key >> shift)) * factor
            key = key ^ (key >> np.uint64(31))
    return key


def counter_uniform(*counters: int | str | np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), one per combination of the broadcast counters; a string names the purpose.

    >>> bool(counter_uniform(7, "window-offset", 3, 5) == counter_uniform(7, 96, 3, 5))
    True
    """
    return (counter_hash(*counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53
