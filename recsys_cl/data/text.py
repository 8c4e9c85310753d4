"""Item and history texts: templates, cleaning and text augmentation.

Templates turn an item, or a user's history, into text for a language model. Augmentation with texts of similar meaning
keeps the model from memorising a catalogue's wording.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform

TEMPLATES: Mapping[str, str] = {
    "title": "{title}",
    "title, year": "{title} ({year})",
    "line": "{title} ({year}). {genres}.",
    "sentence": "{title} is a film from {year}. Its genres are {genres}.",
    "labels": "title: {title}; year: {year}; genres: {genres}",
}
"""Five templates for a film with a title, a year and genres."""


def item_texts(items: pd.DataFrame, template: str) -> list[str]:
    """Fill a template with each item's attributes.

    Args:
        items: One row per item.
        template: A :class:`string.Formatter` template over the columns, e.g. ``"{title} ({year})"``.

    Returns:
        One text per item; a missing value is left empty. Whole numbers are written without a decimal point, even if
        a missing value has turned the column into floats.

    Raises:
        InputError: If the template names a column that the items do not have.

    See: chapter 3.

    >>> items = pd.DataFrame({"title": ["Heat", "Ran"], "year": [1995, None]})
    >>> item_texts(items, "{title}, {year}")
    ['Heat, 1995', 'Ran,']
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise InputError(f"template {template!r} cannot be read ({error}); write columns as {{title}}") from error
    unknown = [field for field in fields if field not in items]
    if unknown:
        raise InputError(
            f"template {template!r} names {unknown[0]!r}; the items have {', '.join(map(str, items.columns))}"
        )
    columns = {field: items[field].convert_dtypes().astype("string").fillna("") for field in set(fields)}
    rows = pd.DataFrame(columns, index=items.index).to_dict("records")
    return [template.format(**row).strip() for row in rows]


def history_text(titles: Sequence[str], *, last: int = 20, opening: str = "Recently watched, latest last: ") -> str:
    """A user's history as one sentence.

    Args:
        titles: Titles, oldest first.
        last: Maximum number of titles; the latest are named.
        opening: Text before the titles.

    Returns:
        One sentence; an empty string if there are no titles.

    Raises:
        InputError: If ``last`` is below 1.

    See: chapter 3.

    >>> history_text(["Toy Story", "Heat", "Fargo"], last=2)
    'Recently watched, latest last: Heat; Fargo.'
    """
    if last < 1:
        raise InputError(f"last={last} titles of the history; give 1 or more")
    return f"{opening}{'; '.join(titles[-last:])}." if len(titles) else ""


def strip_markup(text: str) -> str:
    """Remove HTML tags and resolve character references.

    >>> strip_markup("<b>Tom &amp; Jerry</b>")
    'Tom & Jerry'
    """
    return html.unescape(re.sub(r"</?[a-zA-Z][^>]*>|<!--.*?-->", "", text, flags=re.DOTALL))


def strip_punctuation(text: str) -> str:
    """Remove apostrophes, and replace every other character that is not a letter, digit or space by a space.

    >>> strip_punctuation("Schindler's List (1993).")
    'Schindlers List  1993  '
    """
    return re.sub(r"[^\w\s]|_", " ", re.sub(r"['’]", "", text))


def drop_stop_words(text: str) -> str:
    """Remove the 318 English stop words of scikit-learn's list, ignoring case.

    References:
        Nothman, Qin and Yurchak (2018), https://doi.org/10.18653/v1/W18-2502, on such lists.

    >>> drop_stop_words("In the Line of Fire")  # "fire", as in "to fire", is on the list
    'Line'
    """
    return " ".join(word for word in text.split() if word.strip(string.punctuation).lower() not in ENGLISH_STOP_WORDS)


def s_stem(text: str) -> str:
    """S-stemmer: reduce plurals to singulars by three suffix rules (words of four letters or more).

    ============  ==========  ==================
    ending        becomes     unless it is
    ============  ==========  ==================
    ``-ies``      ``-y``      ``-eies, -aies``
    ``-es``       ``-e``      ``-aes, -ees, -oes``
    ``-s``        nothing     ``-us, -ss``
    ============  ==========  ==================

    References:
        Harman (1991), How effective is suffixing?, Journal of the American Society for Information Science 42(1).

    >>> s_stem("Memories of ghosts, aliens and a princess")
    'Memory of ghost, alien and a princess'
    """
    return re.sub(r"[^\W\d_]{4,}", lambda word: _singular(word.group()), text)


def _singular(word: str) -> str:
    """Apply the first rule whose suffix matches; its exceptions stay unchanged."""
    for ending, replacement, barred in (
        ("ies", "y", ("eies", "aies")),
        ("es", "e", ("aes", "ees", "oes")),
        ("s", "", ("us", "ss")),
    ):
        if word.endswith(ending):
            return word if word.endswith(barred) else word.removesuffix(ending) + replacement
    return word


CLEANING: Mapping[str, Callable[[str], str]] = {
    "markup": strip_markup,
    "lower": str.lower,
    "punctuation": strip_punctuation,
    "stop words": drop_stop_words,
    "stem": s_stem,
}
"""Cleaning steps by name, in their usual order."""


def clean(text: str, steps: Iterable[str] = tuple(CLEANING)) -> str:
    """Clean a text: apply cleaning steps one after another.

    Cleaning helps methods that count words. Language models were trained on running text with its stop words, capitals
    and punctuation; chapter 3 measures what cleaning costs them.

    Args:
        text: The text.
        steps: Keys of :data:`CLEANING`, in the order of application.

    Returns:
        The cleaned text with single spaces; it may be empty.

    Raises:
        InputError: If a step is unknown.

    See: chapter 3.

    >>> clean("<i>The Usual Suspects</i> (1995). Crime, Thriller.")
    'usual suspect 1995 crime thriller'
    """
    for step in steps:
        if step not in CLEANING:
            raise InputError(f"unknown cleaning step {step!r}; valid names are {', '.join(CLEANING)}")
        text = CLEANING[step](text)
    return " ".join(text.split())


_FRAGMENTS = re.compile(r"(?<=[.,;:])\s+")

_WORDS = re.compile(r"\w+")


def drop_fragments(texts: Sequence[str], step: int, *, rate: float = 0.2, seed: int = 0) -> list[str]:
    """Text augmentation: drop random fragments of each text, as a shorter template would.

    A fragment ends with a comma, colon, semicolon or full stop. The first is kept, because templates start with the
    title.

    Args:
        texts: Any number of texts.
        step: Number of the draw: the same step drops the same fragments.
        rate: Probability of dropping a fragment, in [0, 1).
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
        chance = counter_uniform(seed, "dropped-fragment", step, row, np.arange(len(rest)))
        varied.append(" ".join([first, *(part for part, drawn in zip(rest, chance, strict=True) if drawn >= rate)]))
    return varied


def replace_words(
    texts: Sequence[str], step: int, *, synonyms: Mapping[str, Sequence[str]], rate: float = 0.2, seed: int = 0
) -> list[str]:
    """Text augmentation: replace random words of each text by synonyms.

    Args:
        texts: Any number of texts.
        step: Number of the draw: the same step replaces the same words.
        synonyms: Lower-case word to its synonyms; other words stay.
        rate: Probability of replacing a word that has synonyms, in [0, 1).
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
        chance = counter_uniform(seed, "replaced-word", step, row, places)
        choice = counter_uniform(seed, "synonym", step, row, places)
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
