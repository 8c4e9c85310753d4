"""Sequence augmentations: crop, mask, reorder (CL4SRec), substitute and insert (CoSeRec).

Each maps a ragged batch to a ragged batch, all rows at once. The result for a row is a function of (seed, epoch,
example), independent of the other rows. Ratios are shares of each row's n events, rounded down. *Crop*, *substitute*
and *insert* use at least one event: an empty crop would be no view, and the other two target short histories.
"""

from __future__ import annotations

import numpy as np

from recsys_cl.data import PAD, Sequences
from recsys_cl.data.sequences import Ragged, RowRandom, check_ragged, rows_and_places
from recsys_cl.errors import InputError
from recsys_cl.positives.events import check_items
from recsys_cl.positives.neighbours import nearest_rows


def crop(items: np.ndarray, lengths: np.ndarray, chance: RowRandom, *, ratio: float = 0.6) -> Ragged:
    r"""Crop: keep a contiguous part of :math:`\max(1, \lfloor \rho n \rfloor)` events.

    Args:
        items: ``(T,)`` item numbers of all rows.
        lengths: ``(B,)`` number of events of each row.
        chance: Random numbers of the rows.
        ratio: :math:`\rho` in (0, 1], the share of the events that is kept.

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
    r"""Mask: replace :math:`\lfloor \rho n \rfloor` events by a mask item.

    Args:
        items: ``(T,)`` item numbers of all rows.
        lengths: ``(B,)`` number of events of each row.
        chance: Random numbers of the rows.
        mask_id: Number of the mask item, usually one past the catalogue.
        ratio: :math:`\rho` in (0, 1], the share of the events that is masked.

    Returns:
        ``items`` and ``lengths`` of the views.

    Raises:
        InputError: Under the conditions of :func:`crop`.

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
    r"""Reorder: shuffle a contiguous part of :math:`\lfloor \rho n \rfloor` events.

    Args:
        items: ``(T,)`` item numbers of all rows.
        lengths: ``(B,)`` number of events of each row.
        chance: Random numbers of the rows.
        ratio: :math:`\rho` in (0, 1], the share of the events that is shuffled.

    Returns:
        ``items`` and ``lengths`` of the views.

    Raises:
        InputError: Under the conditions of :func:`crop`.

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
    r"""Substitute: replace the items of :math:`\max(1, \lfloor \rho n \rfloor)` events by similar ones.

    Args:
        items: ``(T,)`` item numbers of all rows, all in the catalogue.
        lengths: ``(B,)`` number of events of each row.
        chance: Random numbers of the rows.
        similar: ``(N, m)`` items similar to each item, then ``PAD`` (:func:`similar_items`); an item without similar
            ones is kept.
        ratio: :math:`\rho` in (0, 1], the share of the events that is replaced.

    Returns:
        ``items`` and ``lengths`` of the views.

    Raises:
        InputError: Under the conditions of :func:`crop`, or if an item is not in the catalogue.

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
    r"""Insert: put a similar item before :math:`\max(1, \lfloor \rho n \rfloor)` events; the latest event stays last.

    Args:
        items: ``(T,)`` item numbers of all rows, all in the catalogue.
        lengths: ``(B,)`` number of events of each row.
        chance: Random numbers of the rows.
        similar: ``(N, m)`` items similar to each item, then ``PAD`` (:func:`similar_items`); nothing is inserted before
            an item without similar ones.
        ratio: :math:`\rho` in (0, 1], the share of the events that get an inserted item.

    Returns:
        ``items`` and ``lengths`` of the views, including the inserted items.

    Raises:
        InputError: Under the conditions of :func:`substitute`.

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
    r"""Item neighbours: the k items most similar to each item by the cosine of their users.

    .. math:: \cos(i, j) = \frac{|U_i \cap U_j|}{\sqrt{|U_i|\,|U_j|}}

    Args:
        sequences: Training sequences.
        n_items: Size of the catalogue, N.
        k: Number of neighbours per item.

    Returns:
        ``(N, k)`` numbers of the most similar items, in ascending order, padded with ``PAD`` where fewer than k items
        share a user with the item.

    Raises:
        InputError: If there are no events, an item is not in the catalogue, or k is below 1.

    See: chapter 7.

    >>> similar_items(Sequences.from_lists([[0, 1], [0, 1, 2]]), n_items=4, k=1).tolist()
    [[1], [0], [0], [-1]]
    """
    if k < 1:
        raise InputError(f"k={k} leaves no similar items; give 1 or more")
    _, positions = sequences.flat()
    if len(positions) == 0:
        raise InputError(f"{len(sequences)} sequences without any event have no similar items; give training sequences")
    check_items(sequences.items[positions], n_items)
    nearest = nearest_rows(sequences.matrix(n_items).sign().T.tocsr(), k)  # (N, N) sparse
    item, place = rows_and_places(np.diff(nearest.indptr))
    table = np.full((n_items, k), PAD, dtype=np.int64)
    table[item, place] = nearest.indices
    return table


def _check(items: np.ndarray, lengths: np.ndarray, chance: RowRandom, ratio: float) -> None:
    check_ragged(items, lengths, chance)
    if not 0 < ratio <= 1:
        raise InputError(f"ratio={ratio} is out of range; give a share of the history above 0 and at most 1")


def _floor(ratio: float, lengths: np.ndarray) -> np.ndarray:
    """Number of events, ``(B,)``, rounded down: 0.29 of 100 is 29, although the floating-point product is below 29."""
    return np.floor(ratio * lengths + 1e-9).astype(np.int64)


def _at_least_one(ratio: float, lengths: np.ndarray) -> np.ndarray:
    return np.maximum(_floor(ratio, lengths), 1)


def _start(lengths: np.ndarray, size: np.ndarray, chance: RowRandom) -> np.ndarray:
    """Start of a part of the given size, uniform over all positions where it fits, ``(B,)``."""
    return (chance.by_row("view-start") * (lengths - size + 1)).astype(np.int64)


def _picked(lengths: np.ndarray, count: np.ndarray, chance: RowRandom) -> np.ndarray:
    """True for ``count`` random events of each row, those with the smallest draws, ``(T,)``."""
    row, place = rows_and_places(lengths)
    picked = np.zeros(len(row), dtype=bool)
    order = np.lexsort((chance.by_event("picked-event", lengths), row))  # sorting moves nothing across rows
    picked[order] = place < count[row]
    return picked


def _similar(items: np.ndarray, lengths: np.ndarray, similar: np.ndarray, chance: RowRandom) -> np.ndarray:
    """A random similar item for each event, ``PAD`` where there is none, ``(T,)``."""
    if len(items):
        check_items(items, len(similar))
    choices = (similar[items] != PAD).sum(1)  # (T,)
    return similar[items, (chance.by_event("similar-item", lengths) * choices).astype(np.int64)]
