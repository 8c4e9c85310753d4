"""Beyond accuracy: what share of the catalogue is shown, how evenly, how new and how varied.

See: chapter 2.
"""

from __future__ import annotations

import numpy as np

from recsys_cl.data import PAD


def _shown(recommended: np.ndarray) -> np.ndarray:
    """Item numbers in all lists, flat; the empty ends of short lists left out."""
    return recommended[recommended != PAD]


def coverage(recommended: np.ndarray, n_items: int) -> float:
    """Share of the catalogue that is recommended to anybody.

    Args:
        recommended: ``(queries, k)`` item numbers.
        n_items: Size of the catalogue.

    >>> coverage(np.array([[0, 1], [0, 2]]), n_items=6)
    0.5
    """
    return len(np.unique(_shown(recommended))) / n_items


def gini(recommended: np.ndarray, n_items: int) -> float:
    """Gini index of exposure: 0 if every item is shown equally often, near 1 if few get everything.

    >>> gini(np.array([[0], [1], [2], [3]]), n_items=4)
    0.0
    """
    exposure = np.sort(np.bincount(_shown(recommended), minlength=n_items))
    place = np.arange(1, n_items + 1)
    return float(((2 * place - n_items - 1) * exposure).sum() / (n_items * exposure.sum()))


def novelty(recommended: np.ndarray, counts: np.ndarray) -> float:
    r"""Mean self-information :math:`-\log_2 p_i` of the recommended items, in bits.

    Args:
        recommended: ``(queries, k)`` item numbers.
        counts: ``(n_items,)`` training events; an item without any counts as half an event.

    References:
        Vargas and Castells (2011), https://doi.org/10.1145/2043932.2043955.
    """
    share = np.maximum(counts, 0.5) / counts.sum()
    return float(-np.log2(share[_shown(recommended)]).mean())


def intra_list_diversity(recommended: np.ndarray, embeddings: np.ndarray) -> float:
    """Mean cosine distance between two items of the same list (Ziegler et al. 2005).

    Args:
        recommended: ``(queries, k)`` item numbers, ``k`` at least 2.
        embeddings: ``(n_items, dim)`` what makes items alike; normalised here.
    """
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)  # (N, d)
    lists = unit[recommended]  # (Q, k, d)
    k = recommended.shape[1]
    summed = (lists.sum(1) ** 2).sum(1)  # (Q,) sum of all k² cosines
    own = (lists**2).sum((1, 2))  # (Q,) the k cosines of an item with itself
    return float((1 - (summed - own) / (k * (k - 1))).mean())


def popularity_lift(recommended: np.ndarray, history_items: np.ndarray, counts: np.ndarray) -> float:
    """Mean popularity of what is recommended over mean popularity of what the users had; 1 is neutral.

    Args:
        recommended: ``(queries, k)`` item numbers.
        history_items: Item numbers of all histories, flat.
        counts: ``(n_items,)`` training events.

    References:
        Abdollahpouri et al. (2020), https://doi.org/10.1145/3383313.3418487.
    """
    return float(counts[_shown(recommended)].mean() / counts[history_items].mean())
