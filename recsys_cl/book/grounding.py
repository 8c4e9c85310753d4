"""Hallucination check (grounding): which titles and labels a generated text names, and which are allowed.

See: chapter 3.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

QUOTES = "\"'“”‘’«»*_"

SENTENCE_END = re.compile(r"[.!?:;\n][\"'”’)\s]*$")


@dataclass(frozen=True)
class Grounding:
    """Titles that a text names, in the order of the text, without duplicates.

    Attributes:
        known: Named titles that are allowed.
        foreign: Named titles of the catalogue that are not allowed.
    """

    known: tuple[str, ...]
    foreign: tuple[str, ...]


def grounding(text: str, titles: Collection[str], catalogue: Collection[str]) -> Grounding:
    """Split the titles that a text names into those in ``titles`` and others of the catalogue.

    A text names a title if it contains its words in sequence, with the title's capitals. Accents and punctuation are
    ignored, and a part of the title in brackets may be missing. The longest title wins ("Batman Forever" does not name
    "Batman"). A single word may be an ordinary word: in lower case or at the beginning of a sentence it counts only in
    quotation marks. Titles outside the catalogue are not found.

    Args:
        text: Generated text.
        titles: Allowed titles: the history, and the item that the text is about.
        catalogue: All titles that the text might name.

    See: chapter 3.

    >>> grounding("Like Heat and Toy Story 2, a heist.", ["Heat"], ["Heat", "Toy Story", "Toy Story 2"])
    Grounding(known=('Heat',), foreign=('Toy Story 2',))
    """
    spelled = {key: title for title in [*catalogue, *titles] for key in _spellings(title)}
    allowed = {key for title in titles for key in _spellings(title)}
    longest = max(map(len, spelled), default=0)
    words = list(WORD.finditer(text))
    keys = [_key(word.group()) for word in words]
    known: dict[str, None] = {}
    foreign: dict[str, None] = {}
    place = 0
    while place < len(words):
        for length in range(min(longest, len(words) - place), 0, -1):
            key = tuple(keys[place : place + length])
            if key in spelled and _written_as_title(text, words[place : place + length], spelled[key]):
                (known if key in allowed else foreign)[spelled[key]] = None
                place += length
                break
        else:
            place += 1
    return Grounding(tuple(known), tuple(foreign))


def labels_named(text: str, labels: Collection[str]) -> set[str]:
    """Labels, such as genres, that a text names, in singular or plural, in any case.

    >>> sorted(labels_named("Loves comedies and sci-fi thrillers.", ["Comedy", "Sci-Fi", "Drama", "Thriller"]))
    ['Comedy', 'Sci-Fi', 'Thriller']
    """
    words = f" {' '.join(_key(word) for word in WORD.findall(text))} "
    return {
        label
        for label in labels
        if any(f" {form} " in words for form in _forms(" ".join(_key(word) for word in WORD.findall(label))))
    }


def _spellings(title: str) -> set[tuple[str, ...]]:
    """The title's words, with and without the part in brackets."""
    forms = (title, re.sub(r"\([^)]*\)", " ", title))
    return {tuple(_key(word) for word in WORD.findall(form)) for form in forms} - {()}


def _key(word: str) -> str:
    plain = unicodedata.normalize("NFKD", re.sub(r"['’]", "", word))
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()


def _forms(label: str) -> tuple[str, ...]:
    return label, f"{label}s", f"{label}es", re.sub("y$", "ies", label)


def _written_as_title(text: str, words: list[re.Match[str]], title: str) -> bool:
    capitals = {_key(word) for word in WORD.findall(title) if word[0].isupper()}
    if any(_key(word.group()) in capitals and not word.group()[0].isupper() for word in words):
        return False
    if len(words) > 1:
        return True
    before, after = text[: words[0].start()], text[words[0].end() :]
    if before[-1:] in QUOTES and after[:1] in QUOTES and before and after:
        return True
    starts_sentence = not before.strip(f"{QUOTES} \n") or SENTENCE_END.search(before)
    return not starts_sentence and not words[0].group()[0].islower()
