"""Other texts of the same meaning: what keeps a language model from learning a catalogue's wording by heart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform

FRAGMENT, WORD, CHOICE = 50, 51, 52  # what a random number is for, so that no two purposes share one

_FRAGMENTS = re.compile(r"(?<=[.,;:])\s+")
_WORDS = re.compile(r"\w+")


def drop_fragments(texts: Sequence[str], step: int, *, rate: float = 0.2, seed: int = 0) -> list[str]:
    """Leave out fragments of each text, as another template of the same item would.

    A fragment ends with a comma, colon, semicolon or full stop. The first stays: templates open with the title.

    Args:
        texts: Any number of texts.
        step: Number of the draw: the same step leaves out the same fragments.
        rate: Share of the fragments left out, in [0, 1).
        seed: Seed of the draws.

    Raises:
        InputError: If the rate is out of range.

    See: chapter 6.

    >>> drop_fragments(["Heat (1995). Action, Crime, Thriller."], 0, rate=0.5)
    ['Heat (1995). Thriller.']
    """
    _check(rate)
    varied = []
    for row, text in enumerate(texts):
        first, *rest = _FRAGMENTS.split(text)
        chance = counter_uniform(seed, FRAGMENT, step, row, np.arange(len(rest)))
        varied.append(" ".join([first, *(part for part, drawn in zip(rest, chance, strict=True) if drawn >= rate)]))
    return varied


def replace_words(
    texts: Sequence[str], step: int, *, synonyms: Mapping[str, Sequence[str]], rate: float = 0.2, seed: int = 0
) -> list[str]:
    """Replace words of each text by words of similar meaning.

    Args:
        texts: Any number of texts.
        step: Number of the draw: the same step replaces the same words.
        synonyms: Lower-case word to its replacements; other words stay.
        rate: Share of the words that have replacements to be replaced, in [0, 1).
        seed: Seed of the draws.

    Raises:
        InputError: If the rate is out of range.

    See: chapter 6.

    >>> replace_words(["Crime and War"], 0, synonyms={"crime": ["felony"]}, rate=0.99)
    ['felony and War']
    """
    _check(rate)

    def varied(row: int, text: str) -> str:
        words = list(_WORDS.finditer(text))
        places = np.arange(len(words))
        chance, choice = (counter_uniform(seed, purpose, step, row, places) for purpose in (WORD, CHOICE))
        parts, end = [], 0
        for word, drawn, pick in zip(words, chance, choice, strict=True):
            others = synonyms.get(word[0].lower(), ())
            replaced = others[int(pick * len(others))] if others and drawn < rate else word[0]
            parts += [text[end : word.start()], replaced]
            end = word.end()
        return "".join([*parts, text[end:]])

    return [varied(row, text) for row, text in enumerate(texts)]


def _check(rate: float) -> None:
    if not 0 <= rate < 1:
        raise InputError(f"rate={rate} is out of range; give a share of at least 0 and below 1")
