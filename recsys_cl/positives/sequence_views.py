"""Views of a history: crop, mask, reorder (CL4SRec), substitute and insert (CoSeRec).

Each takes and gives a ragged batch, all rows at once; what a row becomes is a function of (seed, epoch, example),
whatever stands beside it. Ratios are shares of each row's n events, rounded down; where a view would be nothing without
at least one event, or was made for short histories, it has at least one.
"""

from __future__ import annotations

import numpy as np

from recsys_cl.data import PAD, Sequences
from recsys_cl.data.sequences import Ragged, RowRandom, check_ragged, rows_and_places
from recsys_cl.errors import InputError
from recsys_cl.positives.events import check_items
from recsys_cl.positives.neighbours import nearest_rows


def crop(items: np.ndarray, lengths: np.ndarray, chance: RowRandom, *, ratio: float = 0.6) -> Ragged:
    r"""Keep a contiguous part of :math:`\max(1, \lfloor \rho n \rfloor)` events.

    Args:
        items: ``(T,)``.
        lengths: ``(B,)``.
        chance: Of the rows.
        ratio: :math:`\rho` in (0, 1], the share that is kept.

    Returns:
        ``items`` and ``lengths`` of the parts.

    Raises:
        InputError: If the ratio is out of range, or items, lengths and examples do not fit.

    References:
        Xie et al. (2022), Contrastive Learning for Sequential Recommendation, ICDE,
        https://arxiv.org/abs/2010.14395.

    See: chapter 7.

    >>> part, lengths = crop(np.arange(10), np.array([10]), RowRandom(0, 0, np.array([4])), ratio=0.3)
    >>> np.diff(part).tolist(), lengths.tolist()
    ([1, 1], [3])
    """
    _check(items, lengths, chance, ratio)
    kept = np.minimum(_at_least_one(ratio, lengths), lengths)  # (B,)
    row, place = rows_and_places(lengths)
    first = _start(lengths, kept, chance)[row]  # (T,)
    return items[(first <= place) & (place < first + kept[row])], kept


def mask(items: np.ndarray, lengths: np.ndarray, chance: RowRandom, *, mask_id: int, ratio: float = 0.3) -> Ragged:
    r"""Put a mask in the place of :math:`\lfloor \rho n \rfloor` events.

    Args:
        items: ``(T,)``.
        lengths: ``(B,)``.
        chance: Of the rows.
        mask_id: What stands for a masked item; usually one past the catalogue.
        ratio: :math:`\rho` in (0, 1], the share that is masked.

    Returns:
        ``items`` and ``lengths``.

    Raises:
        InputError: As :func:`crop`.

    References:
        Xie et al. (2022), https://arxiv.org/abs/2010.14395.

    See: chapter 7.

    >>> masked, _ = mask(np.arange(10), np.array([10]), RowRandom(0, 0, np.array([4])), mask_id=99)
    >>> int((masked == 99).sum()), int((masked == np.arange(10)).sum())
    (3, 7)
    """
    _check(items, lengths, chance, ratio)
    return np.where(_picked(lengths, _floor(ratio, lengths), chance), mask_id, items), lengths


def reorder(items: np.ndarray, lengths: np.ndarray, chance: RowRandom, *, ratio: float = 0.6) -> Ragged:
    r"""Shuffle a contiguous part of :math:`\lfloor \rho n \rfloor` events.

    Args:
        items: ``(T,)``.
        lengths: ``(B,)``.
        chance: Of the rows.
        ratio: :math:`\rho` in (0, 1], the share that is shuffled.

    Returns:
        ``items`` and ``lengths``.

    Raises:
        InputError: As :func:`crop`.

    References:
        Xie et al. (2022), https://arxiv.org/abs/2010.14395.

    See: chapter 7.

    >>> shuffled, _ = reorder(np.arange(10), np.array([10]), RowRandom(0, 0, np.array([4])))
    >>> sorted(shuffled.tolist()) == list(range(10)), bool((shuffled == np.arange(10)).sum() >= 4)
    (True, True)
    """
    _check(items, lengths, chance, ratio)
    size = _floor(ratio, lengths)  # (B,)
    row, place = rows_and_places(lengths)
    first = _start(lengths, size, chance)[row]  # (T,)
    inside = (first <= place) & (place < first + size[row])  # (T,)
    drawn = first + size[row] * chance.by_event("reordered-event", lengths)  # (T,), somewhere in the part
    return items[np.lexsort((np.where(inside, drawn, place), row))], lengths


def substitute(
    items: np.ndarray, lengths: np.ndarray, chance: RowRandom, *, similar: np.ndarray, ratio: float = 0.3
) -> Ragged:
    r"""Replace :math:`\max(1, \lfloor \rho n \rfloor)` events by items similar to theirs.

    Args:
        items: ``(T,)``, all of them in the catalogue.
        lengths: ``(B,)``.
        chance: Of the rows.
        similar: ``(N, m)`` of each item, ``PAD`` after the last; an item without any stays. See :func:`similar_items`.
        ratio: :math:`\rho` in (0, 1], the share that is replaced.

    Returns:
        ``items`` and ``lengths``.

    Raises:
        InputError: As :func:`crop`, or if an item is not in the catalogue.

    References:
        Liu et al. (2021), Contrastive Self-supervised Sequential Recommendation with Robust Augmentation,
        https://arxiv.org/abs/2108.06479.

    See: chapter 7.

    >>> table, one = np.array([[1], [0], [PAD]]), RowRandom(0, 0, np.array([4]))
    >>> substitute(np.array([0, 1, 2]), np.array([3]), one, similar=table, ratio=1.0)[0].tolist()
    [1, 0, 2]
    """
    _check(items, lengths, chance, ratio)
    other = _similar(items, lengths, similar, chance)  # (T,)
    chosen = _picked(lengths, _at_least_one(ratio, lengths), chance) & (other != PAD)  # (T,)
    return np.where(chosen, other, items), lengths


def insert(
    items: np.ndarray, lengths: np.ndarray, chance: RowRandom, *, similar: np.ndarray, ratio: float = 0.4
) -> Ragged:
    r"""Put similar items before :math:`\max(1, \lfloor \rho n \rfloor)` events; the latest event stays the latest.

    Args:
        items: ``(T,)``, all of them in the catalogue.
        lengths: ``(B,)``.
        chance: Of the rows.
        similar: ``(N, m)`` of each item, ``PAD`` after the last; before an item without any, nothing is put.
        ratio: :math:`\rho` in (0, 1], the share of events before which an item is put.

    Returns:
        ``items`` and ``lengths``, longer by what was put in.

    Raises:
        InputError: As :func:`substitute`.

    References:
        Liu et al. (2021), https://arxiv.org/abs/2108.06479.

    See: chapter 7.

    >>> table, one = np.array([[1], [0], [PAD]]), RowRandom(0, 0, np.array([4]))
    >>> longer, lengths = insert(np.array([0, 1, 2]), np.array([3]), one, similar=table, ratio=1.0)
    >>> longer.tolist(), lengths.tolist()
    ([1, 0, 0, 1, 2], [5])
    """
    _check(items, lengths, chance, ratio)
    other = _similar(items, lengths, similar, chance)  # (T,)
    at = np.flatnonzero(_picked(lengths, _at_least_one(ratio, lengths), chance) & (other != PAD))
    row, _ = rows_and_places(lengths)
    return np.insert(items, at, other[at]), lengths + np.bincount(row[at], minlength=len(lengths))


def similar_items(sequences: Sequences, n_items: int, k: int) -> np.ndarray:
    r"""The k items that are most often chosen by the same users.

    .. math:: \cos(i, j) = \frac{|U_i \cap U_j|}{\sqrt{|U_i|\,|U_j|}}

    Args:
        sequences: Training sequences.
        n_items: Size of the catalogue, N.
        k: Items of each item.

    Returns:
        ``(N, k)`` item numbers, the most similar ones in ascending order; ``PAD`` after the last where fewer share a
        user with the item.

    Raises:
        InputError: If there are no events, an item is not in the catalogue, or k is below 1.

    See: chapter 7.

    >>> similar_items(Sequences.from_lists([[0, 1], [0, 1, 2]]), n_items=4, k=1).tolist()
    [[1], [0], [0], [-1]]
    """
    if k < 1:
        raise InputError(f"k={k} leaves nothing to put in an item's place; give 1 or more")
    _, positions = sequences.flat()
    if len(positions) == 0:
        raise InputError(f"{len(sequences)} sequences without any event make no items similar; give training sequences")
    check_items(sequences.items[positions], n_items)
    nearest = nearest_rows(sequences.matrix(n_items).sign().T.tocsr(), k)  # (N, N) sparse
    item, place = rows_and_places(np.diff(nearest.indptr))
    table = np.full((n_items, k), PAD, dtype=np.int64)
    table[item, place] = nearest.indices
    return table


def _check(items: np.ndarray, lengths: np.ndarray, chance: RowRandom, ratio: float) -> None:
    check_ragged(items, lengths, chance)
    if not 0 < ratio <= 1:
        raise InputError(f"ratio={ratio} of a history; give a share above 0 and at most 1")


def _floor(ratio: float, lengths: np.ndarray) -> np.ndarray:
    """Whole events, ``(B,)``: 0.29 of 100 are 29, although in floating point the product is a little less."""
    return np.floor(ratio * lengths + 1e-9).astype(np.int64)


def _at_least_one(ratio: float, lengths: np.ndarray) -> np.ndarray:
    return np.maximum(_floor(ratio, lengths), 1)


def _start(lengths: np.ndarray, size: np.ndarray, chance: RowRandom) -> np.ndarray:
    """Where a part of this size starts, uniform over the places where it fits, ``(B,)``."""
    return (chance.by_row("view-start") * (lengths - size + 1)).astype(np.int64)


def _picked(lengths: np.ndarray, count: np.ndarray, chance: RowRandom) -> np.ndarray:
    """True for ``count`` random events of each row, those with the least draws, ``(T,)``."""
    row, place = rows_and_places(lengths)
    picked = np.zeros(len(row), dtype=bool)
    order = np.lexsort((chance.by_event("picked-event", lengths), row))  # sorting moves nothing across rows
    picked[order] = place < count[row]
    return picked


def _similar(items: np.ndarray, lengths: np.ndarray, similar: np.ndarray, chance: RowRandom) -> np.ndarray:
    """One of the items similar to each event's, ``PAD`` where there is none, ``(T,)``."""
    if len(items):
        check_items(items, len(similar))
    choices = (similar[items] != PAD).sum(1)  # (T,)
    return similar[items, (chance.by_event("similar-item", lengths) * choices).astype(np.int64)]
