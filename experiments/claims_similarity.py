"""Claims ledger experiment on similarity: AUC of related items over unrelated ones of equal popularity."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from claims import CONTRAST, NO_CONTRAST, TWINS
from common import Experiment, Make, Parts, Runs, against, genre_flags, named, table, world

from recsys_cl.data import Split
from recsys_cl.evaluation import Evaluation
from recsys_cl.recommenders import LanguageContent, Recommender, TwoTower

DRAWS = 3
WINDOW = 10
"""Maximum distance, in ranks of popularity, of an item that counts as equally popular."""

PARTNERS = 20
"""Films of a common genre drawn per film."""

OF_USER, OF_GENRE, NEXT = "chosen by one user", "of one genre", "the user's next film"
Wins = dict[str, Evaluation]
"""Relation to the comparisons that the related item wins: 1, or 1/2 for a tie, or 0."""


SPACES: dict[str, Make] = {
    "minilm-raw": named("minilm-raw"),
    "minilm": named("minilm"),
    CONTRAST: TWINS[CONTRAST],
    NO_CONTRAST: TWINS[NO_CONTRAST],
    "popularity": named("popularity"),
}


def related(parts: Parts) -> dict[str, Any]:
    """Measure how often a related item has the higher cosine or score.

    Only held-out events make items related, and no item of the user's counts as unrelated.
    """
    runs: dict[str, Runs] = {}
    for draw in range(DRAWS):
        split = world(draw)
        for name, make in SPACES.items():
            for relation, values in parts.keep(f"{name}-{draw}", partial(compared, make, split, draw)).items():
                runs.setdefault(relation, {}).setdefault(name, []).append(values)
    return {
        "protocol": {"data": split.data.name, "split": split.protocol, "window": WINDOW, "draws": DRAWS},
        "relations": {relation: table(found, ["auc"]) for relation, found in runs.items()},
        "paired": {relation: against(found, CONTRAST, ["auc"])["auc"] for relation, found in runs.items()},
    }


def compared(make: Make, split: Split, draw: int) -> Wins:
    """Fit a model, and return the comparisons of each relation."""
    return wins_of(make(draw).fit(split), split, np.random.default_rng(draw))


def wins_of(model: Recommender, split: Split, rng: np.random.Generator) -> Wins:
    """Return the comparisons in the model's space; without item vectors, only those of the user's next film."""
    had = all_events(split)  # (U, N)
    queries = split.test
    scores = model.score(queries.history).numpy()  # (Q, N)
    target = queries.target.items[queries.target.start]  # (Q,)
    found = {NEXT: decided(scores, queries.user, np.arange(len(queries)), target, had[queries.user], split, rng)}
    vectors = item_vectors(model, split.n_items)
    if vectors is not None:
        cosines = (vectors @ vectors.T).numpy()  # (N, N)
        user, earlier, later = pairs_of_users(split).T  # (P,) all
        found[OF_USER] = decided(cosines, user, earlier, later, had[user], split, rng)
        together = common_genre(split)  # (N, N)
        film, other = pairs_of(together, rng).T  # (P,) both
        found[OF_GENRE] = decided(cosines, film, film, other, together[film], split, rng)
    return found


def decided(
    scores: np.ndarray,
    cluster: np.ndarray,
    row: np.ndarray,
    item: np.ndarray,
    barred: np.ndarray,
    split: Split,
    rng: np.random.Generator,
) -> Evaluation:
    """Return whether each item beats one of equal popularity in its row; items without a rival are left out."""
    rival = as_popular(item, barred, split.counts, rng)
    there = rival >= 0
    lead = scores[row, item] - scores[row, rival]
    return Evaluation(cluster[there], {"auc": np.heaviside(lead, 0.5)[there].astype(np.float64)})


def as_popular(item: np.ndarray, barred: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw an item of about equal popularity that is not barred, ``(P,)``; -1 where there is none.

    Args:
        item: ``(P,)``.
        barred: ``(P, N)``.
        counts: ``(N,)`` training events.
        rng: Chooses.
    """
    order = np.lexsort((rng.random(len(counts)), counts))  # (N,)
    place = np.empty(len(counts), dtype=np.int64)
    place[order] = np.arange(len(counts))
    near = place[item][:, None] + np.r_[-WINDOW:0, 1 : WINDOW + 1]  # (P, 2 W)
    rivals = order[near.clip(0, len(counts) - 1)]  # (P, 2 W)
    open_to = (near >= 0) & (near < len(counts)) & ~np.take_along_axis(barred, rivals, axis=1)  # (P, 2 W)
    chance = np.where(open_to, rng.random(near.shape), -1.0)  # (P, 2 W)
    best = chance.argmax(1)
    rows = np.arange(len(item))
    return np.where(open_to[rows, best], rivals[rows, best], -1)


def item_vectors(model: Recommender, n_items: int) -> torch.Tensor | None:
    """Return the unit vectors of the items, ``(n_items, dim)``, if the model has any."""
    if isinstance(model, TwoTower):
        with torch.no_grad():
            return model.network.embed_items(torch.arange(n_items))
    return model.state["vectors"] if isinstance(model, LanguageContent) else None


def all_events(split: Split) -> np.ndarray:
    """Return whether each user ever had each item, ``(users, n_items)``."""
    had = np.zeros((len(split.train), split.n_items), dtype=bool)
    had[split.data.user, split.data.item] = True
    return had


def pairs_of_users(split: Split) -> np.ndarray:
    """Return user, earlier item and later item of each pair of a user's held-out events, ``(P, 3)``."""
    queries = split.test
    target = queries.target.items[queries.target.start]
    return np.array(
        [
            (user, first, second)
            for user in np.unique(queries.user)
            for first, second in combinations(target[queries.user == user], 2)
        ]
    )


def common_genre(split: Split) -> np.ndarray:
    """Return whether two films share a genre, ``(n_items, n_items)``."""
    flags = genre_flags(split.data)  # (N, G)
    return flags @ flags.T > 0


def pairs_of(together: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw up to ``PARTNERS`` partners of each item, ``(P, 2)``."""
    chance = np.where(together & ~np.eye(len(together), dtype=bool), rng.random(together.shape), -1.0)  # (N, N)
    partner = np.argsort(-chance, axis=1)[:, :PARTNERS]  # (N, K)
    rows, places = np.nonzero(np.take_along_axis(chance, partner, axis=1) >= 0)
    return np.stack([rows, partner[rows, places]], axis=1)


RUNS: dict[str, Experiment] = {"claims-related": related}
