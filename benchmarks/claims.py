"""Stored runs for claims of the sources that no chapter's run decides.

Models have their registered settings, and nothing is searched. "Pointwise" is the same network with the same negatives
and binary cross-entropy in the place of the contrast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from adversarial import slug, world
from latency import latency
from overfitting import overfitting
from parts import kept
from pointwise import Pointwise
from related import genre_flags, related
from scipy.stats import ttest_rel
from sequences import with_users
from tables import Runs, against, corrected, table, values_of

from recsys_cl.data import Interactions, Split, cold_item_split, load_movielens, new_user_split
from recsys_cl.data.perturb.corruption import swap_items
from recsys_cl.data.text import CLEANING, clean
from recsys_cl.evaluation import Evaluation, evaluate, paired_test, pool, top_items
from recsys_cl.evaluation.metrics import coverage, gini, intra_list_diversity, novelty
from recsys_cl.evaluation.robustness import retention
from recsys_cl.recommenders import Recommender, TwoTower, create

Make = Callable[[int], Recommender]
"""Seed to an untrained recommender."""


def named(model: str) -> Make:
    """A registered model, with the seed if it has one."""
    return lambda seed: create(model, **({"seed": seed} if create(model).trained else {}))


CONTRAST, POINTWISE = "two-tower", "two-tower, pointwise"
TWINS: dict[str, Make] = {
    CONTRAST: named("two-tower"),
    "two-tower, negatives of the pointwise": named("two-tower:sampler=uniform"),
    POINTWISE: lambda seed: Pointwise(seed=seed),
}
LINEAR: dict[str, Make] = {name: named(name) for name in ("popularity", "ease", "ease-recency")}


# diversity, and contrast against pointwise supervision

DRAWS = 5
PAIRS = [
    ("two-tower", "two-tower, pointwise"),
    ("two-tower, negatives of the pointwise", "two-tower, pointwise"),
    ("two-tower", "ease"),
    ("two-tower", "popularity"),
]
OF_LIST = ("novelty", "diversity of genres", "diversity of texts")
OF_LISTS = ("coverage", "gini")
"""Of all lists together; what a list shows, and these, vary more between trainings than between users."""


def diversity(partial: Path) -> dict[str, Any]:
    """Quality and variety of the lists of ten that every user would be shown now, with contrast and without."""
    data = load_movielens()
    alike = {"diversity of genres": genre_flags(data), "diversity of texts": minilm_vectors(data)}
    runs: Runs = {}
    shown: dict[str, dict[str, list[float]]] = {metric: {} for metric in OF_LISTS}
    splits = [world(draw) for draw in range(DRAWS)]
    for name, make in (LINEAR | TWINS).items():
        for draw, split in enumerate(splits):
            file = partial / f"{slug(name)}-{draw}.json"
            found = kept(file, lambda m=make, s=split, d=draw, f=file: lists_of(m(d).fit(s), s, alike, f))
            runs.setdefault(name, []).append(Evaluation.load(file.with_suffix(".npz")))
            for metric in OF_LISTS:
                shown[metric].setdefault(name, []).append(found[metric])
    figures = table(runs, ["ndcg@10", *OF_LIST])
    return {
        "protocol": {"data": data.name, "split": splits[0].protocol, "users": data.n_users, "draws": DRAWS},
        **figures,
        "lists": shown,
        "paired": {metric: between_draws(values) for metric, values in (figures["runs"] | shown).items()}
        | {"ndcg@10": between_users(runs, "ndcg@10")},
    }


def lists_of(model: Recommender, split: Split, alike: Mapping[str, np.ndarray], file: Path) -> dict[str, float]:
    """Measures of all lists together; those of every user go beside the file."""
    ranked = evaluate(model, split.test)
    users, row = np.unique(ranked.user, return_inverse=True)
    latest = split.test[np.searchsorted(split.test.user, users, side="right") - 1]
    lists = top_items(model, latest)  # (U, 10)
    values = {"ndcg@10": np.bincount(row, weights=ranked.metrics["ndcg@10"]) / np.bincount(row)}
    values["novelty"] = np.array([novelty(one[None], split.counts) for one in lists])
    for name, vectors in alike.items():
        values[name] = np.array([intra_list_diversity(one[None], vectors) for one in lists])
    Evaluation(users, values).save(file.with_suffix(".npz"))
    return {"coverage": coverage(lists, split.n_items), "gini": gini(lists, split.n_items)}


def minilm_vectors(data: Interactions) -> np.ndarray:
    """Centred embeddings of the texts, ``(n_items, 384)``."""
    return create("minilm").fit(world(0)).state["vectors"].numpy()


def between_users(runs: Runs, metric: str) -> dict[str, Any]:
    """First minus second of every pair, paired by user; p-values corrected by Holm."""
    tests = {
        f"{first} minus {second}": vars(
            paired_test(*(pool(runs[name]).metrics[metric] for name in (first, second)), pool(runs[first]).user)
        )
        for first, second in PAIRS
    }
    return corrected(tests)


def between_draws(values: Mapping[str, list[float]]) -> dict[str, Any]:
    """First minus second of every pair, paired by draw, with Student's interval; p-values corrected by Holm."""
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


# new users

GIVEN = (1, 3, 5, 10, 20)
ASKED = 10
NEWCOMERS: dict[str, Make] = {
    CONTRAST: TWINS[CONTRAST],
    "two-tower-text": named("two-tower-text"),
    POINTWISE: TWINS[POINTWISE],
} | {name: named(name) for name in ("sasrec", "ease-recency", "ials", "popularity", "minilm")}


def new_users(partial: Path) -> dict[str, Any]:
    """A fifth of the users is new: what their first events are worth to models that never saw them.

    The same users, those with events enough for the longest history, are asked after each number of events.
    """
    data = load_movielens()
    runs: dict[str, Runs] = {str(given): {} for given in GIVEN}
    for draw in range(DRAWS):
        splits = {given: new_user_split(data, given, asked=ASKED, seed=draw) for given in GIVEN}
        enough = splits[max(GIVEN)].test.user
        split = quickly_validated(splits[max(GIVEN)])
        for name, make in NEWCOMERS.items():
            fitted = functools.cache(lambda m=make, d=draw, s=split: m(d).fit(s))
            for given in GIVEN:
                test = splits[given].test
                queries = test[np.isin(test.user, enough)]
                file = partial / f"{slug(name)}-{draw}-{given}.npz"
                values = values_of(file, lambda f=fitted, q=queries: evaluate(f(), q))
                runs[str(given)].setdefault(name, []).append(values)
    return {
        "protocol": {
            "data": data.name,
            "split": splits[max(GIVEN)].protocol,
            "new users": [len(one.user) for one in runs[str(max(GIVEN))][CONTRAST]],
            "asked": ASKED,
            "draws": DRAWS,
        },
        "given": {given: table(found, ["ndcg@10"]) for given, found in runs.items()},
        "paired": {
            reference: {given: against(found, reference, ["ndcg@10"])["ndcg@10"] for given, found in runs.items()}
            for reference in (CONTRAST, "sasrec")
        },
    }


def quickly_validated(split: Split) -> Split:
    """The split with 3,000 of its validation queries."""
    return replace(split, validation=split.validation.sample(3_000, seed=0))


# small data

SHARES = (0.1, 0.25, 0.5, 1.0)
WITH_TEXT, WITHOUT = "two-tower", "two-tower-id"
BASELINE = "ease-recency"


def small_data(partial: Path) -> dict[str, Any]:
    """Models trained on the events of a share of the users answer the same questions: does text help most with few?"""
    runs: dict[float, Runs] = {share: {} for share in SHARES}
    users: dict[float, int] = {}
    for draw in range(DRAWS):
        split = world(draw)
        for share in SHARES:
            part = with_users(split, share)
            users[share] = int((part.train.lengths > 0).sum())
            for model in (WITH_TEXT, WITHOUT, BASELINE):
                file = partial / f"{model}-{share}-{draw}.npz"
                values = values_of(
                    file, lambda m=model, p=part, s=share, d=draw: evaluate(with_steps(m, s, d).fit(p), p.test)
                )
                runs[share].setdefault(model, []).append(values)
    gain = {share: gain_of_text(found) for share, found in runs.items()}
    whole = gain[SHARES[-1]]
    return {
        "protocol": {"data": split.data.name, "split": split.protocol, "draws": DRAWS},
        "users": {label(share): number for share, number in users.items()},
        "shares": {label(share): table(found, ["ndcg@10"]) for share, found in runs.items()},
        "paired": {label(share): against(found, WITH_TEXT, ["ndcg@10"])["ndcg@10"] for share, found in runs.items()},
        "gain of text minus that with all users": corrected(
            {
                label(share): vars(paired_test(one.metrics["gain"], whole.metrics["gain"], one.user))
                for share, one in gain.items()
                if one is not whole
            }
        ),
    }


def with_steps(model: str, share: float, seed: int) -> Recommender:
    """The model, with more and more patient epochs where fewer users make fewer steps of each."""
    if model == BASELINE:
        return create(model)
    own = TwoTower()
    return create(model, seed=seed, epochs=round(own.epochs / share), patience=round(own.patience / share))


def gain_of_text(runs: Runs) -> Evaluation:
    """What text adds to ids, by query."""
    with_text, without = (pool(runs[name]) for name in (WITH_TEXT, WITHOUT))
    return Evaluation(with_text.user, {"gain": with_text.metrics["ndcg@10"] - without.metrics["ndcg@10"]})


def label(share: float) -> str:
    return f"{share:.0%}"


# noise

RATES = (0.0, 0.1, 0.4)
NOISE_DRAWS = 3
NOISY: dict[str, Make] = {name: TWINS[name] for name in (CONTRAST, POINTWISE)} | LINEAR
HISTORIES = ("clean histories", "noisy histories")


def noise(partial: Path) -> dict[str, Any]:
    """Models fitted anew on logs with wrong items answer the clean questions, and those with their noisy histories."""
    runs: dict[str, dict[float, Runs]] = {of: {rate: {} for rate in RATES} for of in HISTORIES}
    for draw in range(NOISE_DRAWS):
        clean_split = world(draw)
        for rate in RATES:
            split = swap_items(clean_split, rate, seed=draw) if rate else clean_split
            for name, make in NOISY.items():
                file = partial / f"{slug(name)}-{rate}-{draw}.npz"
                both = values_of(file, lambda m=make, s=split, c=clean_split, d=draw: asked_twice(m(d).fit(s), s, c))
                for of in HISTORIES:
                    runs[of][rate].setdefault(name, []).append(Evaluation(both.user, {"ndcg@10": both.metrics[of]}))
    return {
        "protocol": {
            "data": clean_split.data.name,
            "split": clean_split.protocol,
            "noise": "swapped items",
            "draws": NOISE_DRAWS,
        },
        "rates": {of: {label(r): table(found, ["ndcg@10"]) for r, found in by.items()} for of, by in runs.items()},
        "kept": {of: {label(r): kept_shares(by[0.0], by[r]) for r in RATES if r} for of, by in runs.items()},
        "kept more": {
            of: {label(r): kept_more(by[0.0], by[r], CONTRAST) for r in RATES if r} for of, by in runs.items()
        },
    }


def asked_twice(model: Recommender, noisy: Split, clean_split: Split) -> Evaluation:
    """NDCG@10 of every query, with its clean and with its noisy history."""
    values = [evaluate(model, split.test).metrics["ndcg@10"] for split in (clean_split, noisy)]
    return Evaluation(clean_split.test.user, dict(zip(HISTORIES, values, strict=True)))


def kept_shares(before: Runs, after: Runs) -> dict[str, Any]:
    """Share of NDCG@10 that is left to every model."""
    return {name: vars(retention(pool(before[name]), pool(after[name]))) for name in before}


def kept_more(before: Runs, after: Runs, first: str, *, samples: int = 10_000) -> dict[str, Any]:
    """Share kept by the first model minus that of every other: bootstrap over the same users, p-values by Holm."""
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
    """Sum of NDCG@10 over the queries of every user, ``(users,)``."""
    everything = pool(draws)
    return np.bincount(np.unique(everything.user, return_inverse=True)[1], weights=everything.metrics["ndcg@10"])


# cleaning

CLEANINGS = {"as written": [], **{step: [step] for step in CLEANING}, "all steps": list(CLEANING)}


def cleaning(partial: Path) -> dict[str, Any]:
    """Unseen films judged by their texts, as written and cleaned, by a model that reads and by one that counts."""
    written = load_movielens()
    runs: dict[str, Runs] = {"minilm": {}, "tfidf": {}}
    for name, steps in CLEANINGS.items():
        data = with_texts(written, [clean(text, steps) if steps else text for text in written.texts])
        for draw in range(DRAWS):
            split = cold_item_split(data, seed=draw)
            for model, found in runs.items():
                file = partial / f"{model}-{slug(name)}-{draw}.npz"
                values = values_of(file, lambda m=model, s=split: evaluate(create(m).fit(s), s.test))
                found.setdefault(name, []).append(values)
    return {
        "protocol": {"data": written.name, "split": split.protocol, "draws": DRAWS},
        "models": {model: table(found, ["ndcg@10"]) for model, found in runs.items()},
        "paired": {model: against(found, "as written", ["ndcg@10"])["ndcg@10"] for model, found in runs.items()},
    }


def with_texts(data: Interactions, texts: list[str]) -> Interactions:
    """The data with other texts of its items."""
    return replace(data, items=data.items.remove_columns("text").add_column("text", texts))


SPACES: dict[str, Make] = {
    "minilm-raw": named("minilm-raw"),
    "minilm": named("minilm"),
    CONTRAST: TWINS[CONTRAST],
    POINTWISE: TWINS[POINTWISE],
    "popularity": named("popularity"),
}

RUNS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "claims-diversity": diversity,
    "claims-new-users": new_users,
    "claims-small-data": small_data,
    "claims-noise": noise,
    "claims-related": related(SPACES, CONTRAST),
    "claims-cleaning": cleaning,
    "claims-latency": latency,
    "claims-overfitting": overfitting,
}
