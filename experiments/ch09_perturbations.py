"""Chapter 9 experiments: adversarial training against other regularisers, on clean, noisy and attacked item vectors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from common import (
    RESULTS,
    VALIDATION,
    Experiment,
    Parts,
    Settings,
    Space,
    best_settings,
    figures,
    paired,
    pooled,
    search,
    settings_of,
    world,
)

from recsys_cl.book.results import read_result
from recsys_cl.data import Split
from recsys_cl.evaluation import Evaluation, evaluate
from recsys_cl.evaluation.robustness import boundary_distance
from recsys_cl.recommenders import TwoTower, create
from recsys_cl.recommenders.vector_attacks import evaluate_shifted, random_shift, worst_shift

TRIALS = 12
DRAWS = 5
EPOCHS = 4
CHOSEN = 0.5
"""Length of the attack in units of the vectors' norms at which methods are compared, fixed beforehand."""

LENGTHS = (0.1, 0.3, 0.5)
KEPT_CLEAN = 0.98
"""Share of the best clean NDCG of plain training that a method must keep on validation."""

COMMON: dict[str, list[Any]] = {"learning_rate": [2e-3, 3e-3, 5e-3], "temperature": [0.05, 0.1]}
MOVES: dict[str, list[Any]] = {"attack.epsilon": [0.05, 0.1, 0.2, 0.3], "attack.weight": [0.3, 1.0]}
ATTACKS: dict[str, tuple[Settings, dict[str, list[Any]]]] = {
    "plain": ({}, COMMON | {"event_dropout": [0.0, 0.1, 0.2]}),
    "weight decay": ({}, COMMON | {"weight_decay": [0.01, 0.03, 0.1, 0.3]}),
    "dropout": ({}, COMMON | {"dropout": [0.0, 0.3, 0.4, 0.5]}),
    "random noise": ({"attack": "random"}, COMMON | MOVES),
    "APR": ({"attack": "fgm"}, COMMON | MOVES),
    "VAT": ({"attack": "vat"}, COMMON | MOVES),
    "SimGCL": (
        {"attack": "simgcl"},
        COMMON | {"attack.epsilon": [0.05, 0.1, 0.2, 0.5], "attack.weight": [0.03, 0.1, 0.3]},
    ),
    "APR, events dropped": (
        {"attack": "fgm"},
        COMMON | MOVES | {"attack.epsilon": [0.05, 0.1, 0.2], "event_dropout": [0.1, 0.2]},
    ),
}


def fitted(settings: Mapping[str, Any], split: Split, seed: int = 0) -> TwoTower:
    """Return a fitted two-tower model, with the budget of chapters 9 and 10."""
    recommender = create("two-tower", **{"epochs": EPOCHS, "seed": seed, **settings})
    assert isinstance(recommender, TwoTower)
    return recommender.fit(split)


def first_of(fixed: Settings, space: Space) -> Settings:
    """Return the first trial: the model's default where the space has it, otherwise the middle of the space."""
    own = settings_of(create("two-tower", **fixed))
    return {name: own[name] if own[name] in values else values[len(values) // 2] for name, values in space.items()}


def search_attacks(parts: Parts) -> dict[str, Any]:
    """Search each method for robustness among the trials that keep the clean quality of plain training."""
    split, floor = world(0), 0.0
    found: dict[str, dict[str, Any]] = {}
    for name, (fixed, space) in ATTACKS.items():
        measure = partial(attack_trial, fixed, split, floor)
        trials = search(parts, name, space, first_of(fixed, space), measure, trials=TRIALS)
        found[name] = {"fixed": fixed, "space": space, "trials": trials}
        floor = KEPT_CLEAN * max(trial["clean"] for trial in found["plain"]["trials"])
    return {"trials": TRIALS, "epsilon": CHOSEN, "kept clean": KEPT_CLEAN, "split": split.protocol, "models": found}


def chosen(stored: str) -> dict[str, Settings]:
    """Return the best settings of each method of a stored search."""
    return {name: best_settings(stored, name) for name in read_result(stored, RESULTS)["result"]["models"]}


def attack_trial(fixed: Settings, split: Split, floor: float, settings: Settings) -> dict[str, Any]:
    """Return clean and attacked validation NDCG@10; below the clean floor, the value is the shortfall."""
    started = time.perf_counter()
    model = fitted({**fixed, **settings}, split)
    clean = model.report.best
    shift = worst_shift(model, split.validation, CHOSEN)
    attacked = evaluate_shifted(model, split.validation, shift).mean()
    value = attacked if clean >= floor else clean - floor
    return {"value": value, "clean": clean, "attacked": attacked, "seconds": time.perf_counter() - started}


ALONE = "APR's settings, no adversary"


def with_ablation(methods: dict[str, Settings]) -> dict[str, Settings]:
    """Return the methods, with the settings of adversarial training but no adversary as one more."""
    if "APR" not in methods:
        return methods
    of_the_adversary = {"attack", *MOVES}
    alone = {name: value for name, value in methods["APR"].items() if name not in of_the_adversary}
    return {**methods, ALONE: alone}


def table(stored: str, against: str) -> Experiment:
    """Return the experiment that tests the methods of a stored search on five draws: clean, under noise and attack."""

    def run(parts: Parts) -> dict[str, Any]:
        methods = with_ablation(chosen(stored))
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in [*methods, "EASE, recency"]}
        values: dict[str, dict[str, list[Evaluation]]] = {
            state: {name: [] for name in methods} for state in ("clean", "attacked")
        }
        for draw in range(DRAWS):
            split = world(draw)
            for name, settings in methods.items():
                part = parts.keep(f"{name}-{draw}", partial(one_draw, settings, split, draw), of=settings)
                rows[name].append(figures(part))
                for state, of_models in values.items():
                    of_models[name].append(part[f"{state} queries"])
            rows["EASE, recency"].append(parts.keep(f"ease-{draw}", partial(one_ease, split)))
        everything = {state: pooled(of_models) for state, of_models in values.items()}
        return {
            "split": world(0).protocol,
            "draws": DRAWS,
            "epsilon": CHOSEN,
            "settings": methods,
            "rows": rows,
            "intervals": {
                state: {name: one.interval() for name, one in models.items()} for state, models in everything.items()
            },
            "paired": {state: paired(models, against) for state, models in everything.items()},
            "ablation": {state: ablation(models) for state, models in everything.items()},
        }

    return run


def ablation(models: dict[str, Evaluation]) -> dict[str, Any]:
    """Test adversarial training against its settings without the adversary, where the table has both."""
    both = {name: models[name] for name in ("APR", ALONE) if name in models}
    return paired(both, "APR")[ALONE] if len(both) == 2 else {}


def one_draw(settings: Settings, split: Split, draw: int) -> dict[str, Any]:
    """Return the figures of a method on one draw, with the values of each query."""
    started = time.perf_counter()
    model = fitted(settings, split, seed=draw)
    seconds = time.perf_counter() - started
    clean = evaluate(model, split.test)
    row: dict[str, Any] = {"clean": clean.mean(), "seconds": seconds, "epochs": model.report.epochs, "attacked": {}}
    row["clean queries"] = clean
    row["random"] = {str(CHOSEN): evaluate_shifted(model, split.test, random_shift(model, CHOSEN)).mean()}
    for epsilon in LENGTHS:
        attacked = evaluate_shifted(model, split.test, worst_shift(model, split.test, epsilon))
        row["attacked"][str(epsilon)] = attacked.mean()
        if epsilon == CHOSEN:
            row["attacked queries"] = attacked
    row["boundary"] = distance(model, split)
    row["history"] = model.report.history
    return row


def one_ease(split: Split) -> dict[str, Any]:
    """Return the clean quality of a linear baseline."""
    return {"clean": evaluate(create("ease-recency").fit(split), split.test).mean()}


@torch.no_grad()
def distance(model: TwoTower, split: Split) -> float:
    """Return the mean distance, in units of norms, to the decision boundary at which a correct target is lost."""
    queries = split.test.sample(VALIDATION, seed=0)
    target = torch.from_numpy(queries.target.items[queries.target.start])  # (Q,)
    users = model.network.embed_users(torch.from_numpy(queries.history.recent(model.length)))  # (Q, d)
    items = model.network.embed_items(torch.arange(split.n_items))  # (N, d)
    seen = torch.from_numpy(queries.history.matrix(split.n_items).toarray() > 0)  # (Q, N)
    found = boundary_distance(users, items, target, exclude=seen)  # (Q,)
    return float(found[found > 0].mean())


RUNS: dict[str, Experiment] = {
    "search-attacks": search_attacks,
    "adversarial-training": table("search-attacks", against="plain"),
}
