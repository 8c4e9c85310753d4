"""Chapter 7 experiments: tuning and ablation of sequential models, and updates of a fitted model on new events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from common import (
    Experiment,
    Parts,
    Settings,
    Space,
    best_settings,
    comparison,
    paired,
    pooled,
    search,
    settings_of,
    with_settings,
)

from recsys_cl import workflow
from recsys_cl.data import Queries, Sequences, Split, leave_last_n, load_movielens, temporal_split
from recsys_cl.evaluation import Evaluation, evaluate
from recsys_cl.recommenders import Recommender, Sequential, TrainedRecommender, create

TRIALS = 20
SPACE: dict[str, list[Any]] = {
    "learning_rate": [1e-3, 2e-3, 3e-3, 5e-3],
    "weight_decay": [0.0, 0.03, 0.1, 0.3],
    "dropout": [0.1, 0.2, 0.3, 0.4],
    "temperature": [0.05, 0.1, 0.2],
    "batch_size": [64, 128],
    "length": [30, 50],
    "blocks": [1, 2],
}
ALIGNED, DROPPED = "auxiliary.item-alignment.weight", "auxiliary.id-dropout.share"
SPACES: dict[str, tuple[Settings, Space]] = {
    "sasrec": ({}, SPACE),
    "sasrec-hybrid": (
        {"auxiliary": "item-alignment+id-dropout"},
        SPACE | {DROPPED: [0.0, 0.1, 0.2], ALIGNED: [0.0, 0.05, 0.1]},
    ),
}
BUDGET = {"epochs": 25, "patience": 3}
QUERIES = 4_000
"""Validation queries of a trial, a seeded sample."""


def search_model(model: str) -> Experiment:
    """Return the search of a model by NDCG@10 on the validation events of one draw; trial 0 is the default."""

    def run(parts: Parts) -> dict[str, Any]:
        split = leave_last_n(load_movielens(), seed=0)
        fixed, space = SPACES[model]
        measure = partial(one_trial, model, fixed, split)
        trials = search(parts, model, space, default_of(model), measure, trials=TRIALS, value="validation")
        entry = {"split": split.protocol, "draws": 1, "fixed": fixed, "space": space, "trials": trials}
        return {"trials": TRIALS, "metric": "ndcg@10", "models": {model: entry}}

    return run


def default_of(model: str) -> Settings:
    """Return the model's own values of the hyperparameters of its space, 0 for auxiliary losses that it lacks."""
    own = settings_of(create(model))
    return {name: own.get(name, 0.0) for name in SPACES[model][1]}


def one_trial(model: str, fixed: Settings, split: Split, settings: Settings) -> dict[str, Any]:
    """Return validation NDCG@10 of the best epoch, the number of epochs, and seconds."""
    started = time.perf_counter()
    queries = split.validation.sample(QUERIES, seed=0)
    recommender = create(model, **fixed, **settings, **BUDGET)
    assert isinstance(recommender, TrainedRecommender)
    recommender.monitor = lambda: {"ndcg@10": evaluate(recommender, queries).mean()}
    report = recommender.fit(split).report
    return {"validation": report.best, "epochs": report.epochs, "seconds": time.perf_counter() - started}


def tuned(model: str) -> str:
    """Return the model with the best settings of its search, in the notation of tables."""
    return with_settings(model, **best_settings(f"search-{model}", model, "validation"))


def table(split: str, models: Callable[[], dict[str, str]], *, draws: int) -> Experiment:
    """Return the experiment that compares models under one protocol.

    Args:
        split: Name of the split.
        models: Returns the chapter's names of the models, each with its model in the notation of tables.
        draws: Draws of the split, and seeds of training.
    """

    def run(parts: Parts) -> dict[str, Any]:
        named = models()
        found = workflow.compare(
            load_movielens(), list(named.values()), split=split, seeds=draws, draws=draws, folder=parts.folder
        )
        for row, name in zip(found.rows, named, strict=True):
            row.model = name
        everything = pooled({row.model: [row.evaluations[draw] for draw in range(draws)] for row in found.rows})
        references = [name for name in ("sasrec", "minilm", "ridge") if name in named]
        return {
            **comparison(found),
            "specs": named,
            "tests against": {other: paired(everything, other) for other in references},
            "groups": groups(everything, split, draws) if split == "leave-last-n" else {},
        }

    return run


def groups(everything: dict[str, Evaluation], split: str, draws: int) -> dict[str, Any]:
    """Return NDCG@10 by the number of training events of user and item, with tests against id-only SASRec."""
    data, users, items = load_movielens(), [], []
    for draw in range(draws):
        held_out = workflow.split_data(data, split, seed=draw)
        users.append(held_out.train.lengths[held_out.test.user])
        items.append(held_out.counts[held_out.test.target.items[held_out.test.target.start]])
    user, item = np.concatenate(users), np.concatenate(items)  # (queries,) both, over the draws
    parts = {
        "users with < 15 training events": user < 15,
        "users with 15 to 49": (user >= 15) & (user < 50),
        "users with 50 or more": user >= 50,
        "items with < 10 training events": item < 10,
        "items with 10 to 49": (item >= 10) & (item < 50),
        "items with 50 or more": item >= 50,
    }
    result = {}
    for part, rows in parts.items():
        values = {
            name: Evaluation(one.user[rows], {"ndcg@10": one.metrics["ndcg@10"][rows]})
            for name, one in everything.items()
        }
        result[part] = {
            "queries": int(rows.sum()),
            "means": {name: one.mean() for name, one in values.items()},
            "tests": paired(values, "sasrec"),
        }
    return result


BCE: Settings = {"loss": "bce", "loss.negatives": 1, "loss.exclude_known": "true"}
"""Loss of SASRec as published."""


def ablation_models() -> dict[str, str]:
    """Return id-only SASRec and the hybrid, each with one change at a time."""
    sasrec, hybrid = tuned("sasrec"), tuned("sasrec-hybrid")
    gbce: Settings = {"loss": "gbce", "loss.negatives": 32}
    dots: Settings = {"similarity": "dot", "temperature": 1.0}
    ids: dict[str, Settings] = {
        "known positives spared": {"loss.exclude_known": "true"},
        "sampled softmax, 256 uniform negatives": {"loss": "sampled-softmax"},
        "BCE, 1 negative, as published": BCE,
        "gBCE, 32 negatives": gbce,
        "dot product": dots,
        "dot product and gBCE, 32 negatives": gbce | dots,
        "GRU": {"encoder": "gru"},
        "contrast of crops, masks, reorderings": {"auxiliary": "views"},
        "context: gap, rating": {"context": "gap+rating"},
    }
    texts: dict[str, Settings] = {
        "text alone": {"ids": "false", "auxiliary": ""},
        "text and ids, known positives as negatives": {"loss.exclude_known": "false"},
        "text and ids, no alignment": {ALIGNED: 0.0},
    }
    return (
        {"sasrec": sasrec}
        | {f"ids: {name}": with_settings(sasrec, **change) for name, change in ids.items()}
        | {"sasrec-hybrid": hybrid}
        | {name: with_settings(hybrid, **change) for name, change in texts.items()}
    )


def feedback(parts: Parts) -> dict[str, Any]:
    """Measure what newly arrived events are worth, and what an update on them unlearns.

    A model is fitted on the first 70 % of the events and then left as it is, updated on those between 70 % and 80 %, or
    fitted anew on the first 80 % (stopped by the next 5 %); all are asked for what comes after 85 %.
    """
    seeds = [parts.keep(f"{seed}", partial(one_feedback, seed)) for seed in range(3)]
    ways = ("updated", "left as it is", "fitted anew")
    late = pooled({way: [seed[f"{way}, new"] for seed in seeds] for way in ways})
    return {
        "protocol": {"data": load_movielens().name, "split": "temporal", "draws": len(seeds)},
        "seeds": [{way: seed[way] for way in ways} for seed in seeds],
        "paired": paired(late, "updated"),
    }


def one_feedback(seed: int) -> dict[str, Any]:
    """Return quality on new and on old events, and seconds, of each way to treat new events."""
    data = load_movielens()
    late = temporal_split(data, test=0.15, validation=0.15, seed=seed)  # trains on 70 %
    cut = float(np.quantile(data.timestamp, 0.70))
    grown = temporal_split(data, test=0.15, validation=0.05, seed=seed)  # trains on 80 %, stops by the next 5 %
    old = past_events(late.train)
    rows: dict[str, Any] = {}

    def measured(name: str, model: Recommender, seconds: float) -> None:
        new = evaluate(model, late.test)
        rows[name] = {"new": new.mean(), "old": evaluate(model, old).mean(), "seconds": seconds}
        rows[f"{name}, new"] = Evaluation(new.user, {"ndcg@10": new.metrics["ndcg@10"]})

    started = time.perf_counter()
    model = create(tuned("sasrec"), seed=seed).fit(late)
    assert isinstance(model, Sequential)
    measured("left as it is", model, time.perf_counter() - started)
    started = time.perf_counter()
    measured("updated", model.update(grown, since=cut), time.perf_counter() - started)
    started = time.perf_counter()
    anew = create(tuned("sasrec"), seed=seed).fit(grown)
    measured("fitted anew", anew, time.perf_counter() - started)
    return rows


def past_events(train: Sequences) -> Queries:
    """Return the last training event of each user, which a model that unlearned nothing still predicts."""
    user = np.flatnonzero(train.lengths > 1)
    kept_users = train[user]
    last = kept_users.stop - 1
    return Queries(user, replace(kept_users, stop=last), replace(kept_users, start=last))


RUNS: dict[str, Experiment] = {
    "search-sasrec": search_model("sasrec"),
    "search-sasrec-hybrid": search_model("sasrec-hybrid"),
    "sequence-ablation": table("leave-last-n", ablation_models, draws=1),
    "feedback": feedback,
}
