"""Do related items score above unrelated ones that are as popular? In trained spaces, and in untrained ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adversarial import slug, world
from llm_parts import genres_of
from parts import kept
from tables import Runs, against, table

from recsys_cl.data import Interactions, Split
from recsys_cl.evaluation import Evaluation
from recsys_cl.recommenders import LanguageContent, Recommender, TwoTower

DRAWS = 3
WINDOW = 10
"""An item of equal popularity is at most so many places away in the order of popularity."""

PARTNERS = 20
"""Films of a common genre that are drawn for every film."""

OF_USER, OF_GENRE, NEXT = "chosen by one user", "of one genre", "the user's next film"
Wins = dict[str, Evaluation]
"""Relation to the comparisons that the related item wins: 1, or 1/2 for a tie, or 0."""


def related(spaces: Mapping[str, Callable[[int], Recommender]], reference: str) -> Callable[[Path], dict[str, Any]]:
    """How often what is related has the higher cosine, or score.

    Held-out events alone make items related, and nothing that a user ever had counts as unrelated.
    """

    def run(partial: Path) -> dict[str, Any]:
        runs: dict[str, Runs] = {}
        for draw in range(DRAWS):
            split = world(draw)
            for name, make in spaces.items():
                stem = partial / f"{slug(name)}-{draw}"
                made = kept(stem.with_suffix(".json"), lambda m=make, s=split, d=draw, f=stem: compared(m(d), s, d, f))
                for relation in made["relations"]:
                    values = Evaluation.load(of_relation(stem, relation))
                    runs.setdefault(relation, {}).setdefault(name, []).append(values)
        return {
            "protocol": {"data": split.data.name, "split": split.protocol, "window": WINDOW, "draws": DRAWS},
            "relations": {relation: table(found, ["auc"]) for relation, found in runs.items()},
            "paired": {relation: against(found, reference, ["auc"])["auc"] for relation, found in runs.items()},
        }

    return run


def compared(model: Recommender, split: Split, draw: int, stem: Path) -> dict[str, Any]:
    """Fit, compare, and keep the values of every relation beside the file."""
    found = wins_of(model.fit(split), split, np.random.default_rng(draw))
    for relation, values in found.items():
        values.save(of_relation(stem, relation))
    return {"relations": {relation: values.mean("auc") for relation, values in found.items()}}


def of_relation(stem: Path, relation: str) -> Path:
    return stem.with_name(f"{stem.name}-{slug(relation)}.npz")


def wins_of(model: Recommender, split: Split, rng: np.random.Generator) -> Wins:
    """Comparisons in the model's space; a model without vectors of items can only score the user's next film."""
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
    """Whether each item beats one of equal popularity in its row of scores; without such a one it is left out."""
    rival = as_popular(item, barred, split.counts, rng)
    there = rival >= 0
    lead = scores[row, item] - scores[row, rival]
    return Evaluation(cluster[there], {"auc": np.heaviside(lead, 0.5)[there].astype(np.float64)})


def as_popular(item: np.ndarray, barred: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random item near each one in the order of popularity and not barred, ``(P,)``; -1 where there is none.

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
    """Unit vectors of the items, ``(n_items, dim)``, if the model has any."""
    if isinstance(model, TwoTower):
        with torch.no_grad():
            return model.network.embed_items(torch.arange(n_items))
    return model.state["vectors"] if isinstance(model, LanguageContent) else None


def all_events(split: Split) -> np.ndarray:
    """What each user ever had, ``(users, n_items)``."""
    had = np.zeros((len(split.train), split.n_items), dtype=bool)
    had[split.data.user, split.data.item] = True
    return had


def pairs_of_users(split: Split) -> np.ndarray:
    """User, earlier and later item of every pair of held-out events of one user, ``(P, 3)``."""
    queries = split.test
    target = queries.target.items[queries.target.start]
    return np.array(
        [
            (user, first, second)
            for user in np.unique(queries.user)
            for first, second in combinations(target[queries.user == user], 2)
        ]
    )


def genre_flags(data: Interactions) -> np.ndarray:
    """``(n_items, genres)``, 1 where a film has the genre."""
    genres = genres_of(data)
    return np.array([[genre in own for genre in sorted(set().union(*genres))] for own in genres], dtype=np.float64)


def common_genre(split: Split) -> np.ndarray:
    """Whether two films have a genre in common, ``(n_items, n_items)``."""
    flags = genre_flags(split.data)  # (N, G)
    return flags @ flags.T > 0


def pairs_of(together: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every item with some of those it goes together with, ``(P, 2)``."""
    chance = np.where(together & ~np.eye(len(together), dtype=bool), rng.random(together.shape), -1.0)  # (N, N)
    partner = np.argsort(-chance, axis=1)[:, :PARTNERS]  # (N, K)
    rows, places = np.nonzero(np.take_along_axis(chance, partner, axis=1) >= 0)
    return np.stack([rows, partner[rows, places]], axis=1)
