r"""Text perturbations and attacks: typos in item texts, and keyword stuffing by a seller.

For synonyms see :func:`recsys_cl.data.text.replace_words`. A word is ``\w+`` in any script.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform

T = TypeVar("T")

_WORDS = re.compile(r"\w+")

_ROWS = ((0.0, "qwertyuiop"), (0.25, "asdfghjkl"), (0.75, "zxcvbnm"))

_KEYS = {key: (row, shift + column) for row, (shift, keys) in enumerate(_ROWS) for column, key in enumerate(keys)}

NEIGHBOURS: Mapping[str, str] = {
    key: "".join(
        other
        for other, (there, right) in _KEYS.items()
        if other != key and abs(there - row) <= 1 and abs(right - left) <= 1
    )
    for key, (row, left) in _KEYS.items()
}
"""Neighbouring keys of each letter on a QWERTY keyboard: at most one row and one key's width away."""


def typos(texts: Sequence[str], rate: float, *, seed: int = 0) -> list[str]:
    """Typos: swap two letters, drop one, double one, or replace one by a neighbouring key.

    Each word is mistyped with probability ``rate`` and then has exactly one typo, drawn from those that its letters
    allow: a word of one letter drops nothing, and a letter without neighbours on a QWERTY keyboard is not replaced.

    Args:
        texts: Any number of texts, in any language.
        rate: Probability that a word is mistyped, in (0, 1].
        seed: Seed of the draws; a word mistyped at one rate gets the same typo at every higher rate.

    Raises:
        InputError: If the rate is out of range.

    See: chapter 9.

    >>> typos(["The quick change"], 1.0, seed=3)
    ['hTe quuick changee']
    """
    if not 0 < rate <= 1:
        raise InputError(f"rate={rate} is out of range; give a share of the words above 0 and at most 1")

    def mistyped(row: int, text: str) -> str:
        words = list(_WORDS.finditer(text))
        place = np.arange(len(words))
        draws = (
            counter_uniform(seed, "mistyped-word", row, place),
            counter_uniform(seed, "typo-kind", row, place),
            counter_uniform(seed, "typo-place", row, place),
            counter_uniform(seed, "typo-key", row, place),
        )
        parts, end = [], 0
        for word, hit, *slip in zip(words, *draws, strict=True):
            parts += [text[end : word.start()], _slip(word[0], *slip) if hit < rate else word[0]]
            end = word.end()
        return "".join([*parts, text[end:]])

    return [mistyped(row, text) for row, text in enumerate(texts)]


def _slip(word: str, edit: float, place: float, key: float) -> str:
    """Make one typo; its type, its place and the key are chosen by numbers in [0, 1)."""
    places = {
        "swap": [at for at in range(len(word) - 1) if word[at] != word[at + 1]],
        "drop": list(range(len(word))) if len(word) > 1 else [],
        "double": list(range(len(word))),
        "neighbour": [at for at in range(len(word)) if word[at].lower() in NEIGHBOURS],
    }
    change = _pick([name for name in places if places[name]], edit)
    at = _pick(places[change], place)
    before, letter, after = word[:at], word[at], word[at + 1 :]
    if change == "swap":
        return before + after[0] + letter + after[1:]
    if change == "drop":
        return before + after
    if change == "double":
        return before + 2 * letter + after
    hit = _pick(NEIGHBOURS[letter.lower()], key)
    return before + (hit.upper() if letter.isupper() else hit) + after


def _pick(choices: Sequence[T], draw: float) -> T:
    return choices[int(draw * len(choices))]


def stuff_keywords(texts: Sequence[str], items: Sequence[int], keywords: Sequence[str]) -> list[str]:
    """Keyword stuffing: a seller appends words to the texts of their own items to rank higher.

    Args:
        texts: Text of each item of the catalogue.
        items: Numbers of the seller's items.
        keywords: Words to append, for instance :func:`telling_words`.

    Returns:
        The texts of the catalogue; those of other items are unchanged.

    Raises:
        InputError: If there are no keywords, or an item is not in the catalogue.

    See: chapter 9.

    >>> stuff_keywords(["Heat. Crime.", "Ran. War."], [1], ["space", "robot"])
    ['Heat. Crime.', 'Ran. War. space robot']
    """
    if not keywords:
        raise InputError("no keywords to append; give at least one, for instance telling_words(texts, counts)")
    outside = [item for item in items if not 0 <= item < len(texts)]
    if outside:
        raise InputError(f"item {outside[0]} is not in the catalogue; items are numbered 0 to {len(texts) - 1}")
    mine = set(items)
    return [" ".join([text, *keywords]).strip() if item in mine else text for item, text in enumerate(texts)]


def telling_words(texts: Sequence[str], counts: np.ndarray, *, k: int = 10, popular: int = 50) -> list[str]:
    r"""Words that distinguish the most popular items from the rest, by TF-IDF.

    .. math:: \operatorname{score}(w) = \Big(\sum_{i \in P} \operatorname{tf}(w, i)\Big)
        \ln \frac{1 + N}{1 + \operatorname{df}(w)}

    with :math:`P` the popular items, :math:`N` the number of texts and :math:`\operatorname{df}(w)` the number of those
    that contain the word.

    Args:
        texts: Text of each item, :math:`N` in all.
        counts: ``(N,)`` number of events of each item, for instance :attr:`recsys_cl.data.Split.counts`.
        k: Number of words; fewer if the popular items have fewer.
        popular: Number of popular items, :math:`|P|`.

    Returns:
        Lower-case words, the highest score first, ties in alphabetical order.

    Raises:
        InputError: If texts and counts differ in length, or a number is below 1.

    See: chapter 9.

    >>> telling_words(["space war", "space robot", "a war", "a kiss"], np.array([9, 8, 1, 0]), k=2, popular=2)
    ['space', 'robot']
    """
    if len(texts) != len(counts):
        raise InputError(f"{len(texts)} texts and {len(counts)} counts; give one of each per item")
    if k < 1 or popular < 1:
        raise InputError(f"k={k} words of popular={popular} items; give 1 or more of each")
    words = [_WORDS.findall(text.lower()) for text in texts]
    document_frequency = Counter(word for text in words for word in set(text))
    first = np.argsort(-counts, kind="stable")[:popular]
    frequency = Counter(word for item in first for word in words[item])
    score = {word: n * math.log((1 + len(texts)) / (1 + document_frequency[word])) for word, n in frequency.items()}
    return sorted(score, key=lambda word: (-score[word], word))[:k]
