"""Claims ledger experiments that no chapter covers: list diversity, robustness to noisy logs, and text cleaning.

Models have their registered settings, and nothing is searched. "Pointwise" is the same network with uniform
negatives and binary cross-entropy instead of the contrast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from common import (
    FOLDS,
    REPETITIONS,
    Experiment,
    Make,
    Parts,
    Runs,
    corrected,
    fit_and_test,
    genre_flags,
    item_folds,
    named,
    paired_by_fold,
    percent,
    pooled,
    table,
    world,
)
from scipy.stats import ttest_rel

from recsys_cl.data import Interactions, Split, load_movielens
from recsys_cl.data.perturb.corruption import swap_items
from recsys_cl.data.text import CLEANING, clean
from recsys_cl.evaluation import Evaluation, evaluate, paired_test, pool, top_items
from recsys_cl.evaluation.metrics import coverage, gini, intra_list_diversity, novelty
from recsys_cl.evaluation.robustness import retention
from recsys_cl.recommenders import create

CONTRAST, SAME_NEGATIVES = "two-tower", "two-tower, negatives of the pointwise"
NO_CONTRAST = "two-tower, pointwise"
TWINS: dict[str, Make] = {
    CONTRAST: named("two-tower"),
    SAME_NEGATIVES: named("two-tower:sampler=uniform"),
    NO_CONTRAST: named("two-tower:loss=logistic,sampler=uniform"),
}
"""The two-tower model with contrast and without, by its name in tables."""

LINEAR: dict[str, Make] = {name: named(name) for name in ("popularity", "ease", "ease-recency")}


# diversity, and contrast against pointwise supervision

DRAWS = 5
PAIRS = [(CONTRAST, NO_CONTRAST), (SAME_NEGATIVES, NO_CONTRAST), (CONTRAST, "ease"), (CONTRAST, "popularity")]
OF_LIST = ("novelty", "diversity of genres", "diversity of texts")
OF_LISTS = ("coverage", "gini")
"""Metrics of all lists together, which vary between trainings rather than between users."""


def diversity(parts: Parts) -> dict[str, Any]:
    """Measure quality and variety of each user's current list of ten, with and without contrast."""
    data = load_movielens()
    alike = {"diversity of genres": genre_flags(data), "diversity of texts": minilm_vectors(data)}
    runs: Runs = {}
    shown: dict[str, dict[str, list[float]]] = {metric: {} for metric in OF_LISTS}
    splits = [world(draw) for draw in range(DRAWS)]
    for name, make in (LINEAR | TWINS).items():
        for draw, split in enumerate(splits):
            part = parts.keep(f"{name}-{draw}", partial(lists_of, make, split, draw, alike))
            runs.setdefault(name, []).append(part["users"])
            for metric in OF_LISTS:
                shown[metric].setdefault(name, []).append(part[metric])
    of_users = table(runs, ["ndcg@10", *OF_LIST])
    return {
        "protocol": {
            "data": data.name,
            "split": splits[0].protocol,
            "unit": "trainings",
            "users": data.n_users,
            "draws": DRAWS,
        },
        **of_users,
        "lists": shown,
        "paired": {metric: between_draws(values) for metric, values in (of_users["runs"] | shown).items()}
        | {"ndcg@10": between_users(runs, "ndcg@10")},
    }


def lists_of(make: Make, split: Split, seed: int, alike: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the measures of all lists together, and those of each user."""
    model = make(seed).fit(split)
    ranked = evaluate(model, split.test)
    users, row = np.unique(ranked.user, return_inverse=True)
    latest = split.test[np.searchsorted(split.test.user, users, side="right") - 1]
    lists = top_items(model, latest)  # (U, 10)
    values = {"ndcg@10": np.bincount(row, weights=ranked.metrics["ndcg@10"]) / np.bincount(row)}
    values["novelty"] = np.array([novelty(one[None], split.counts) for one in lists])
    for name, vectors in alike.items():
        values[name] = np.array([intra_list_diversity(one[None], vectors) for one in lists])
    return {
        "coverage": coverage(lists, split.n_items),
        "gini": gini(lists, split.n_items),
        "users": Evaluation(users, values),
    }


def minilm_vectors(data: Interactions) -> np.ndarray:
    """Return the centred embeddings of the texts, ``(n_items, 384)``."""
    return create("minilm").fit(world(0)).state["vectors"].numpy()


def between_users(runs: Runs, metric: str) -> dict[str, Any]:
    """Test first minus second of each pair, paired by user, with Holm's correction."""
    everything = pooled(runs)
    tests = {}
    for first, second in PAIRS:
        one, other = everything[first], everything[second]
        tests[f"{first} minus {second}"] = vars(paired_test(one.metrics[metric], other.metrics[metric], one.user))
    return corrected(tests)


def between_draws(values: Mapping[str, list[float]]) -> dict[str, Any]:
    """Test first minus second of each pair, paired by draw, with Student's interval and Holm's correction."""
    tests = {}
    for first, second in PAIRS:
        test = ttest_rel(values[first], values[second])
        low, high = test.confidence_interval()
        difference = float(np.mean(values[first]) - np.mean(values[second]))
        tests[f"{first} minus {second}"] = {
            "difference": difference,
            "low": float(low),
            "high": float(high),
            "p_value": float(test.pvalue),
        }
    return corrected(tests)


# noise

RATES = (0.0, 0.1, 0.4)
NOISE_DRAWS = 3
NOISY: dict[str, Make] = {name: TWINS[name] for name in (CONTRAST, NO_CONTRAST)} | LINEAR
HISTORIES = ("clean histories", "noisy histories")


def noise(parts: Parts) -> dict[str, Any]:
    """Fit models on logs with wrong items, and test them on clean and on noisy histories."""
    runs: dict[str, dict[float, Runs]] = {of: {rate: {} for rate in RATES} for of in HISTORIES}
    for draw in range(NOISE_DRAWS):
        clean_split = world(draw)
        for rate in RATES:
            split = swap_items(clean_split, rate, seed=draw) if rate else clean_split
            for name, make in NOISY.items():
                both = parts.evaluation(f"{name}-{rate}-{draw}", partial(asked_twice, make, split, clean_split, draw))
                for of in HISTORIES:
                    runs[of][rate].setdefault(name, []).append(Evaluation(both.user, {"ndcg@10": both.metrics[of]}))
    return {
        "protocol": {
            "data": clean_split.data.name,
            "split": clean_split.protocol,
            "noise": "swapped items",
            "draws": NOISE_DRAWS,
        },
        "rates": {of: {percent(r): table(found, ["ndcg@10"]) for r, found in by.items()} for of, by in runs.items()},
        "kept": {of: {percent(r): kept_shares(by[0.0], by[r]) for r in RATES if r} for of, by in runs.items()},
        "kept more": {
            of: {percent(r): kept_more(by[0.0], by[r], CONTRAST) for r in RATES if r} for of, by in runs.items()
        },
    }


def asked_twice(make: Make, noisy: Split, clean_split: Split, seed: int) -> Evaluation:
    """Fit on the noisy log, and return NDCG@10 of each query with its clean and with its noisy history."""
    model = make(seed).fit(noisy)
    values = [evaluate(model, split.test).metrics["ndcg@10"] for split in (clean_split, noisy)]
    return Evaluation(clean_split.test.user, dict(zip(HISTORIES, values, strict=True)))


def kept_shares(before: Runs, after: Runs) -> dict[str, Any]:
    """Return the share of NDCG@10 that each model keeps."""
    return {name: vars(retention(pool(before[name]), pool(after[name]))) for name in before}


def kept_more(before: Runs, after: Runs, first: str, *, samples: int = 10_000) -> dict[str, Any]:
    """Test the share kept by the first model minus each other's: a bootstrap over users, with Holm's correction."""
    users = len(user_sums(before[first]))
    drawn = np.random.default_rng(0).integers(users, size=(samples, users))

    def shares(name: str, rows: np.ndarray) -> np.ndarray:
        return user_sums(after[name])[rows].sum(-1) / user_sums(before[name])[rows].sum(-1)

    found = {}
    for name in before:
        if name != first:
            differences = shares(first, drawn) - shares(name, drawn)  # (samples,)
            low, high = np.quantile(differences, [0.025, 0.975]).tolist()
            beyond = int(min((differences <= 0).sum(), (differences >= 0).sum()))
            found[name] = {
                "difference": float(shares(first, np.arange(users)) - shares(name, np.arange(users))),
                "low": low,
                "high": high,
                "p_value": min(1.0, 2 * (1 + beyond) / (1 + samples)),
            }
    return corrected(found)


def user_sums(draws: list[Evaluation]) -> np.ndarray:
    """Return the sum of NDCG@10 over the queries of each user, ``(users,)``."""
    everything = pool(draws)
    return np.bincount(np.unique(everything.user, return_inverse=True)[1], weights=everything.metrics["ndcg@10"])


# cleaning

CLEANINGS: dict[str, list[str]] = {"as written": [], **{step: [step] for step in CLEANING}, "all steps": list(CLEANING)}


def cleaning(parts: Parts) -> dict[str, Any]:
    """Rank unseen films by raw and by cleaned texts, with MiniLM and with TF-IDF."""
    written = load_movielens()
    runs: dict[str, Runs] = {"minilm": {}, "tfidf": {}}
    for name, steps in CLEANINGS.items():
        data = with_texts(written, [clean(text, steps) if steps else text for text in written.texts])
        for fold, split, seed in item_folds(data):
            for model, found in runs.items():
                values = parts.evaluation(f"{model}-{name}-{fold}", partial(fit_and_test, named(model), split, seed))
                found.setdefault(name, []).append(values)
    return {
        "protocol": {
            "data": written.name,
            "split": split.protocol,
            "unit": "folds of items",
            "folds": FOLDS,
            "repetitions": REPETITIONS,
        },
        "models": {model: table(found, ["ndcg@10"]) for model, found in runs.items()},
        "paired": {model: against_written(found) for model, found in runs.items()},
    }


def against_written(runs: Runs) -> dict[str, Any]:
    """Test the texts as written minus each cleaning, paired by fold, with Holm's correction."""
    written = runs["as written"]
    return corrected({name: vars(paired_by_fold(written, one)) for name, one in runs.items() if one is not written})


def with_texts(data: Interactions, texts: list[str]) -> Interactions:
    """Return the data with other item texts."""
    return replace(data, items=data.items.remove_columns("text").add_column("text", texts))


RUNS: dict[str, Experiment] = {
    "claims-diversity": diversity,
    "claims-noise": noise,
    "claims-cleaning": cleaning,
}
