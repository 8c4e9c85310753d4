"""Claims-ledger experiments: fit both arms of each comparison under one protocol, and test them on paired units.

The comparisons are the evidence in book/claims.yml that has ``arms``. Each protocol has one unit of chance: users where
the held-out events are the same in every draw, folds of items where the items are new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ch06_fine_tuning import chosen
from ch07_sequences import tuned
from ch09_perturbations import CHOSEN, EPOCHS
from common import (
    FOLDS,
    HERE,
    REPETITIONS,
    Experiment,
    Parts,
    Settings,
    Space,
    at_random,
    best_settings,
    item_folds,
    named,
    paired_by_fold,
    quickly_validated,
    record,
    search,
    settings_of,
    with_settings,
    world,
)

from recsys_cl.book.claims import Claim, comparisons, read_claims
from recsys_cl.book.evidence import Comparison
from recsys_cl.data import Split, leave_one_out, load_movielens, temporal_split
from recsys_cl.evaluation import Evaluation, evaluate, paired_test, pool
from recsys_cl.recommenders import TwoTower, create
from recsys_cl.recommenders.vector_attacks import evaluate_shifted, random_shift, worst_shift

CLAIMS = HERE.parent / "book" / "claims.yml"
DRAWS = 2
ADVERSARIES = ("hard-mined", "perturbed", "policy (REINFORCE)", "generator", "generator + filter")
SIGN_PATTERNS = 50_000
"""So many that a p-value can survive Holm's correction over the whole ledger."""


def without(model: str, *prefixes: str) -> str:
    """Return the model without the settings whose names begin so."""
    name, _, fields = model.partition(":")
    return f"{name}:" + ",".join(field for field in fields.split(",") if not field.startswith(prefixes))


def fine_tuned(method: str) -> str:
    """Return a fine-tuned encoder at its best settings, in the notation of tables."""
    return with_settings("minilm-tuned", **chosen(method))


def text_free(hybrid: str) -> str:
    """Return the model without its text, and without the auxiliary losses that need one."""
    return with_settings(without(hybrid, "auxiliary."), model="", auxiliary="")


def against_perturbations(method: str, stored: str) -> Settings:
    """Return the settings of a two-tower model that a search against perturbations chose."""
    return {"epochs": EPOCHS, **best_settings(stored, method)}


def adversary(method: str) -> str:
    """Return a two-tower model with negatives of an adversary, at the settings of its search."""
    return with_settings("two-tower", **against_perturbations(method, "search-negatives"))


def no_adversary(method: str) -> str:
    """Return the same model with uniform negatives, everything else equal."""
    return with_settings(without(adversary(method), "sampler"), sampler="uniform")


def apr() -> str:
    """Return the two-tower model with adversarial personalised ranking, at the settings of its search."""
    return with_settings("two-tower", **against_perturbations("APR", "search-attacks"))


ARMS: Mapping[str, Callable[[], str]] = {
    "two-tower, uniform negatives": lambda: searched("contrast"),
    "two-tower, pointwise": lambda: searched("pointwise"),
    "markov": lambda: searched("markov"),
    "session-knn": lambda: searched("session-knn"),
    "sasrec": lambda: tuned("sasrec"),
    "sasrec, known positives spared": lambda: with_settings(tuned("sasrec"), **{"loss.exclude_known": "true"}),
    "sasrec, views": lambda: with_settings(tuned("sasrec"), auxiliary="views"),
    "sasrec, as bert4rec": lambda: "sasrec",
    "sasrec-hybrid": lambda: tuned("sasrec-hybrid"),
    "sasrec-hybrid, no text": lambda: text_free(tuned("sasrec-hybrid")),
    "lora": lambda: fine_tuned("lora"),
    "full": lambda: fine_tuned("full"),
    "projection": lambda: fine_tuned("projection"),
    "two-tower, four epochs": lambda: f"two-tower:epochs={EPOCHS}",
    "two-tower, weight decay 0.1": lambda: f"two-tower:epochs={EPOCHS},weight_decay=0.1",
    "two-tower, no dropout": lambda: f"two-tower:epochs={EPOCHS},dropout=0.0",
    "two-tower, dropout 0.4": lambda: f"two-tower:epochs={EPOCHS},dropout=0.4",
    "APR": apr,
    "APR, no adversary": lambda: without(apr(), "attack"),
    **{method: partial(adversary, method) for method in ADVERSARIES},
    **{f"{method}, no adversary": partial(no_adversary, method) for method in ADVERSARIES},
}
"""Arms by name, in the notation of tables; any other name is a registered model."""


def spec(name: str) -> str:
    """Return an arm in the notation of tables."""
    return ARMS[name]() if name in ARMS else name


# baselines and pointwise training, tuned like their rivals

TRIALS = 6
TWINS: dict[str, list[Any]] = {"learning_rate": [1e-3, 2e-3, 3e-3, 5e-3], "temperature": [0.05, 0.1, 0.2, 0.5]}
SEARCHED: dict[str, tuple[str, Settings, Space]] = {
    "contrast": ("two-tower", {"sampler": "uniform"}, TWINS),
    "pointwise": ("two-tower", {"sampler": "uniform", "loss": "logistic"}, TWINS),
    "markov": ("markov", {}, {"smoothing": [1.0, 10.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0]}),
    "session-knn": ("session-knn", {}, {"neighbours": [20, 50, 100, 200], "length": [3, 5, 10, 20, 50]}),
}


def search_rivals(parts: Parts) -> dict[str, Any]:
    """Give each model the same number of trials, judged by NDCG@10 on the validation events of one draw."""
    split, found = world(0), {}
    for name, (model, fixed, space) in SEARCHED.items():
        own = settings_of(create(model, **fixed))
        measure = partial(one_trial, model, fixed, split)
        trials = search(parts, name, space, {key: own[key] for key in space}, measure, trials=TRIALS, propose=at_random)
        found[name] = {"fixed": fixed, "space": space, "trials": trials}
    return {"trials": TRIALS, "metric": "ndcg@10", "split": split.protocol, "models": found}


def one_trial(model: str, fixed: Settings, split: Split, settings: Settings) -> dict[str, Any]:
    """Return validation NDCG@10 of one trial, and seconds."""
    started = time.perf_counter()
    value = evaluate(create(model, **fixed, **settings).fit(split), split.validation).mean()
    return {"value": value, "seconds": time.perf_counter() - started}


def searched(name: str) -> str:
    """Return a model at the best settings of its search, in the notation of tables."""
    return with_settings(SEARCHED[name][0], **best_settings("search-rivals", name))


ATTACKED = "ndcg@10, attacked"
CHAPTERS: Sequence[Comparison] = (
    *(Comparison("last-ten", (method, f"{method}, no adversary"), ATTACKED, ATTACKED) for method in ADVERSARIES),
    Comparison("last-ten", ("sasrec, known positives spared", "sasrec")),
    Comparison("cold-items", ("lora", "full")),
    *(Comparison("cold-items", (arm, "minilm")) for arm in ("ridge", "projection", "full")),
)
"""Comparisons that chapters show beyond those of the claims."""


# protocols


@dataclass(frozen=True)
class Protocol:
    """How the arms of a comparison are tested.

    Attributes:
        splits: Yields the name of each draw or fold, with its split and the seed of training.
        unit: What varies by chance between the tested values: ``users`` or ``folds of items``.
        attacked: Whether models with item vectors are tested under moves of these vectors, too.
    """

    splits: Callable[[], Iterator[tuple[str, Split, int]]]
    unit: str = "users"
    attacked: bool = False


def draws_of(split: Callable[[int], Split]) -> Iterator[tuple[str, Split, int]]:
    """Yield the draws of a split; the order within ties and the seeds of training differ between them."""
    for draw in range(DRAWS):
        yield f"draw {draw}", split(draw), draw


PROTOCOLS: Mapping[str, Protocol] = {
    "last-ten": Protocol(lambda: draws_of(world), attacked=True),
    "last-one": Protocol(lambda: draws_of(lambda draw: leave_one_out(load_movielens(), seed=draw))),
    "one-cut": Protocol(lambda: draws_of(lambda draw: quickly_validated(temporal_split(load_movielens(), seed=draw)))),
    "cold-items": Protocol(lambda: item_folds(load_movielens()), unit="folds of items"),
}


# fits


def fit_arm(name: str, split: Split, seed: int, *, attacked: bool) -> dict[str, Any]:
    """Fit one arm and test it; its seconds, and the metrics of each query."""
    started = time.perf_counter()
    model = named(spec(name))(seed).fit(split)
    seconds = time.perf_counter() - started
    clean = evaluate(model, split.test)
    metrics = {"ndcg@10": clean.metrics["ndcg@10"]}
    if attacked and isinstance(model, TwoTower):
        worst, random = worst_shift(model, split.test, CHOSEN), random_shift(model, CHOSEN)
        for state, shift in (("attacked", worst), ("random", random)):
            metrics[f"ndcg@10, {state}"] = evaluate_shifted(model, split.test, shift).metrics["ndcg@10"]
    return {"seconds": seconds, "test": Evaluation(clean.user, metrics)}


def fitted(parts: Parts, protocol: str, names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the settings, seconds and evaluations of each arm, one per draw or fold."""
    chosen = PROTOCOLS[protocol]
    records = {name: record(spec(name)) for name in names}
    found: dict[str, dict[str, Any]] = {name: {"seconds": [], "test": []} | one for name, one in records.items()}
    for draw, split, seed in chosen.splits():
        for name, arm in found.items():
            fit = partial(fit_arm, name, split, seed, attacked=chosen.attacked)
            part = parts.keep(f"{arm['spec']}-{draw}", fit, of=records[name])
            arm["seconds"].append(part["seconds"])
            arm["test"].append(part["test"])
    return found


# tests


def ledger(protocol: str, claims: Sequence[Claim] | None = None) -> Experiment:
    """Return the experiment that makes the comparisons of claims, by default of all, under one protocol."""

    def run(parts: Parts) -> dict[str, Any]:
        of_claims = comparisons(claims) if claims else [*comparisons(read_claims(CLAIMS)), *CHAPTERS]
        wanted = list(dict.fromkeys(one for one in of_claims if one.under == protocol))
        names = list(dict.fromkeys(name for one in wanted for name in one.arms))
        found = fitted(parts, protocol, names)
        splits = list(PROTOCOLS[protocol].splits())
        return {
            "protocol": protocol_of(protocol, splits[0][1]),
            "arms": {name: summary(arm) for name, arm in found.items()},
            "comparisons": {one.key: test(one, found, splits) for one in wanted},
        }

    return run


def protocol_of(protocol: str, split: Split) -> dict[str, Any]:
    """Return how the arms were tested."""
    unit = PROTOCOLS[protocol].unit
    counted = {"draws": DRAWS} if unit == "users" else {"folds": FOLDS, "repetitions": REPETITIONS}
    return {"data": split.data.name, "split": split.protocol, "unit": unit, **counted}


def summary(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of an arm: its record, and its mean in each draw or fold."""
    kept = {key: value for key, value in arm.items() if key != "test"}
    metrics = arm["test"][0].metrics
    return {
        **kept,
        "seconds": float(np.mean(arm["seconds"])),
        "runs": {metric: [one.mean(metric) for one in arm["test"]] for metric in metrics},
    }


def test(one: Comparison, found: Mapping[str, Mapping[str, Any]], splits: list[tuple[str, Split, int]]) -> Settings:
    """Test the first arm minus the second on the unit of chance of the protocol."""
    rows = [GROUPS[one.group](split) for _, split, _ in splits]
    first = selected(found[one.arms[0]]["test"], one.metric, rows)
    second = selected(found[one.arms[1]]["test"], one.rival_metric, rows)
    if PROTOCOLS[one.under].unit == "folds of items":
        return vars(paired_by_fold(first, second, VALUE)) | {"units": FOLDS}
    both = pool(first), pool(second)
    values = [arm.metrics[VALUE] for arm in both]
    user = both[0].user
    return vars(paired_test(values[0], values[1], user, samples=SIGN_PATTERNS)) | {"units": len(np.unique(user))}


VALUE = "value"


def selected(draws: Sequence[Evaluation], metric: str, rows: Sequence[np.ndarray]) -> list[Evaluation]:
    """Return one metric of some queries of each draw or fold."""
    return [Evaluation(one.user[own], {VALUE: one.metrics[metric][own]}) for one, own in zip(draws, rows, strict=True)]


GROUPS: Mapping[str, Callable[[Split], np.ndarray]] = {
    "": lambda split: np.ones(len(split.test), dtype=bool),
    "users with < 15 training events": lambda split: split.train.lengths[split.test.user] < 15,
    "items with < 10 training events": lambda split: (
        split.counts[split.test.target.items[split.test.target.start]] < 10
    ),
}
"""Queries of a split that a comparison is about."""


RUNS: dict[str, Experiment] = {"search-rivals": search_rivals} | {
    f"ledger-{protocol}": ledger(protocol) for protocol in PROTOCOLS
}
