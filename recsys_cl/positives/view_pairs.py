"""Augmented view pairs: two random augmentations of each history, for contrastive learning.

See: chapter 7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np

from recsys_cl.data.sequences import Ragged, RowRandom, check_ragged, rows_and_places
from recsys_cl.errors import InputError
from recsys_cl.positives.sequence_views import crop, insert, mask, reorder, substitute

View = Callable[[np.ndarray, np.ndarray, RowRandom], Ragged]
"""A view with its options bound: maps ``items (T,)``, ``lengths (B,)`` and random numbers to a ragged batch."""

VIEWS: dict[str, Callable[..., Ragged]] = {
    "crop": crop,
    "mask": mask,
    "reorder": reorder,
    "substitute": substitute,
    "insert": insert,
}
"""Views by their names in a config."""


def views_named(names: str, *, mask_id: int, similar: np.ndarray | None = None) -> list[View]:
    """Parse views from a config, such as ``"crop+mask:0.5+reorder"``.

    Args:
        names: Keys of :data:`VIEWS`, joined by ``+``; a ratio other than the default follows a colon.
        mask_id: Number of the mask item.
        similar: ``(N, m)`` items similar to each item; ``substitute`` and ``insert`` require it.

    Raises:
        InputError: If a name is unknown, a ratio is not in (0, 1], or ``similar`` is missing.

    See: chapter 7.

    >>> (half,) = views_named("crop:0.5", mask_id=6)
    >>> half(np.arange(6), np.array([6]), RowRandom(0, 0, np.array([0])))[1].tolist()
    [3]
    """
    tables: dict[str, dict[str, Any]] = {
        "mask": {"mask_id": mask_id},
        "substitute": {"similar": similar},
        "insert": {"similar": similar},
    }
    views: list[View] = []
    for text in names.split("+"):
        name, _, ratio = (part.strip() for part in text.partition(":"))
        _check_name(name, similar)
        options: dict[str, Any] = {"ratio": _ratio(text, ratio)} if ratio else {}
        views.append(partial(VIEWS[name], **tables.get(name, {}), **options))
    return views


def two_views(
    items: np.ndarray, lengths: np.ndarray, chance: RowRandom, views: Sequence[View], *, longest: int
) -> tuple[Ragged, Ragged]:
    """Two views of every row, each by one of ``views``, drawn with equal probability.

    The random numbers of the two views are those of examples ``2 * example`` and ``2 * example + 1``.

    Args:
        items: ``(T,)`` item numbers of all rows.
        lengths: ``(B,)`` number of events of each row.
        chance: Random numbers of the rows.
        views: Views to draw from, such as those of :func:`views_named`.
        longest: Maximum length of a view; longer ones lose their oldest events.

    Returns:
        Two ragged batches, ``items`` and ``lengths`` each, with rows in the same order as the input.

    Raises:
        InputError: If there is no view, ``longest`` is below 1, or items, lengths and examples do not fit.

    References:
        Xie et al. (2022), https://arxiv.org/abs/2010.14395.

    See: chapter 7.

    >>> one, crops = RowRandom(0, 0, np.array([0])), views_named("crop:1", mask_id=6)
    >>> same = two_views(np.arange(6), np.array([6]), one, crops, longest=2)
    >>> [items.tolist() for items, _ in same]
    [[4, 5], [4, 5]]
    """
    check_ragged(items, lengths, chance)
    if len(views) == 0 or longest < 1:
        raise InputError(f"{len(views)} views of at most {longest} events; give at least one view, and 1 event or more")
    first, second = (RowRandom(chance.seed, chance.epoch, 2 * chance.example + number) for number in (0, 1))
    return (
        _latest(*_one_of(views, items, lengths, first), longest),
        _latest(*_one_of(views, items, lengths, second), longest),
    )


def _one_of(views: Sequence[View], items: np.ndarray, lengths: np.ndarray, chance: RowRandom) -> Ragged:
    """Apply a randomly drawn view to each row."""
    turn = (chance.by_row("view") * len(views)).astype(np.int64)  # (B,)
    changed, parts, rows = np.zeros_like(lengths), [], []
    for number, view in enumerate(views):
        own = turn == number  # (B,)
        part, changed[own] = view(items[np.repeat(own, lengths)], lengths[own], chance.of(own))
        parts.append(part)
        rows.append(np.repeat(np.flatnonzero(own), changed[own]))
    return np.concatenate(parts)[np.argsort(np.concatenate(rows), kind="stable")], changed


def _latest(items: np.ndarray, lengths: np.ndarray, longest: int) -> Ragged:
    """The ``longest`` latest events of each row."""
    row, place = rows_and_places(lengths)
    return items[place >= lengths[row] - longest], np.minimum(lengths, longest)


def _check_name(name: str, similar: np.ndarray | None) -> None:
    if name not in VIEWS:
        closest = get_close_matches(name, VIEWS, n=1)
        meant = f"did you mean {closest[0]!r}?" if closest else f"choose from {', '.join(VIEWS)}"
        raise InputError(f"there is no view {name!r}; {meant}")
    if VIEWS[name] in (substitute, insert) and similar is None:
        raise InputError(f"the view {name!r} needs similar items; give similar=similar_items(train, n_items, k)")


def _ratio(text: str, ratio: str) -> float:
    try:
        value = float(ratio)
    except ValueError:
        value = np.nan
    if not 0 < value <= 1:
        raise InputError(f"the view {text.strip()!r} needs a ratio above 0 and at most 1; write it like 'crop:0.6'")
    return value
