"""Chapter 5 experiments: tuning and comparison of non-sequential models, and contrast within and across users."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from common import Experiment, Parts, Settings, Space, at_random, comparison, corrected, paired, pooled, search

from recsys_cl import workflow
from recsys_cl.data import Split, cold_item_split, leave_last_n, leave_one_out, load_movielens
from recsys_cl.evaluation import Evaluation, evaluate, paired_test
from recsys_cl.evaluation.ratings import SQUARED_ERROR, evaluate_ratings, root_mean_square
from recsys_cl.recommenders import UserItem, create

TRIALS = 6
TOWER: dict[str, list[Any]] = {
    "learning_rate": [1e-3, 2e-3, 3e-3, 5e-3],
    "temperature": [0.05, 0.1, 0.2],
    "dropout": [0.0, 0.1, 0.2, 0.4],
    "event_dropout": [0.0, 0.1, 0.2, 0.3],
    "length": [50, 100],
}
WARM_SPACES: dict[str, Space] = {
    "item-knn": {"neighbours": [20, 50, 100, 200, 400], "shrink": [0.0, 10.0, 50.0, 100.0]},
    "ease": {"l2": [30.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0]},
    "ease-recency": {"l2": [100.0, 300.0, 500.0, 1000.0, 2000.0], "decay": [0.7, 0.8, 0.9, 0.95]},
    "ials": {"factors": [32, 64, 128], "alpha": [1.0, 5.0, 10.0, 20.0, 40.0], "l2": [0.01, 0.1, 1.0, 10.0, 30.0]},
    "two-tower-id": TOWER,
    "two-tower": TOWER | {"id_dropout": [0.0, 0.2, 0.4]},
    "two-tower-text": TOWER | {"dim": [64, 128]},
}
COLD_SPACES: dict[str, Space] = {
    "ridge": {"l2": [1.0, 3.0, 10.0, 30.0, 100.0, 300.0]},
    "two-tower-cold": {
        "learning_rate": [5e-5, 1e-4, 2e-4, 4e-4],
        "temperature": [0.1, 0.2, 0.4],
        "dropout": [0.0, 0.2, 0.4],
        "event_dropout": [0.0, 0.3, 0.5],
    },
}


def search_all(parts: Parts) -> dict[str, Any]:
    """Give each model the same number of trials, judged by NDCG@10 on validation events alone."""
    data = load_movielens()
    warm = [leave_last_n(data, 5, seed=0)]
    cold = [cold_item_split(data, seed=seed) for seed in (0, 1)]
    models: dict[str, Any] = {}
    for spaces, splits in ((WARM_SPACES, warm), (COLD_SPACES, cold)):
        for model, space in spaces.items():
            measure = partial(one_trial, model, splits)
            default = default_of(model, space)
            trials = search(parts, model, space, default, measure, trials=TRIALS, value="validation", propose=at_random)
            models[model] = {"split": splits[0].protocol, "draws": len(splits), "space": space, "trials": trials}
    return {"trials": TRIALS, "metric": "ndcg@10", "models": models}


def default_of(model: str, space: Space) -> Settings:
    """Return the model's own values of the hyperparameters of a space."""
    own = create(model)
    return {name: getattr(own, name) for name in space}


def one_trial(model: str, splits: list[Split], settings: Settings) -> dict[str, Any]:
    """Return mean validation NDCG@10 over the splits, and seconds."""
    started = time.perf_counter()
    values = [evaluate(create(model, **settings).fit(split), split.validation).mean() for split in splits]
    return {"validation": float(np.mean(values)), "seconds": time.perf_counter() - started}


def compared(split: str, **options: Any) -> Experiment:
    """Return the experiment that compares models under one protocol; options are those of ``workflow.compare``."""
    return lambda parts: comparison(workflow.compare(load_movielens(), split=split, folder=parts.folder, **options))


ALPHAS = {"contrast": (0.0, 0.5, 1.0), "mix": (0.0, 0.25, 0.5, 0.75, 1.0), "alternate": (0.0, 0.25, 0.5, 0.75, 1.0)}
RATING = "user-item:objective=rating"
USER_ITEM = [RATING, *(f"user-item:objective={name},alpha={alpha}" for name in ALPHAS for alpha in ALPHAS[name])]
DRAWS = 3


def user_item(parts: Parts) -> dict[str, Any]:
    """Compare contrast within and across users, with and without a rating loss, on ranking and rating prediction."""
    data = load_movielens()
    protocol = {
        "data": data.name,
        "split": "leave-one-out",
        "users": data.n_users,
        "events": data.n_users,
        "draws": DRAWS,
    }
    table = workflow.Comparison(protocol, [workflow.Row(model) for model in USER_ITEM])
    validation: dict[str, list[list[float]]] = {model: [] for model in USER_ITEM}
    for seed in range(DRAWS):
        split = leave_one_out(data, seed=seed)
        for row in table.rows:
            fit = parts.keep(f"{row.model}-{seed}", partial(ranked_and_rated, row.model, split, seed))
            row.seconds += fit["seconds"] / DRAWS
            row.evaluations[seed] = fit["test"]
            validation[row.model].append(fit["validation rmse"])
    runs = {row.model: list(row.evaluations.values()) for row in table.rows}
    everything = pooled(runs)
    result = comparison(table)
    result["rating"] = {
        "runs": {model: [root_mean_square(one)[0] for one in draws] for model, draws in runs.items()},
        "tests": paired(everything, RATING, SQUARED_ERROR),
        "validation": validation,
    }
    result["mix against"] = {metric: mix_against(everything, metric) for metric in ("ndcg@10", SQUARED_ERROR)}
    for entry in result["rows"]:
        errors = result["rating"]["runs"][entry["model"]]
        _, low, high = root_mean_square(everything[entry["model"]])
        entry["metrics"]["rmse"] = {"mean": np.mean(errors), "sd": np.std(errors, ddof=1), "low": low, "high": high}
    return result


def mix_against(everything: dict[str, Evaluation], metric: str) -> list[dict[str, Any]]:
    """Test mixing minus contrast alone, and minus alternating, at equal alpha; Holm's correction over all tests."""
    tests = {}
    for other in ("contrast", "alternate"):
        for alpha in ALPHAS[other]:
            mix, rival = (everything[f"user-item:objective={name},alpha={alpha}"] for name in ("mix", other))
            test = paired_test(mix.metrics[metric], rival.metrics[metric], mix.user)
            tests[f"{other}, {alpha}"] = {"mix against": other, "alpha": alpha} | vars(test)
    return list(corrected(tests).values())


def ranked_and_rated(model: str, split: Split, seed: int) -> dict[str, Any]:
    """Return test metrics of one fit, its seconds and its validation RMSE after each epoch."""
    started = time.perf_counter()
    recommender = create(model, seed=seed)
    assert isinstance(recommender, UserItem)
    recommender.fit(split)
    seconds = time.perf_counter() - started
    ranked, rated = evaluate(recommender, split.test), evaluate_ratings(recommender, split.test)
    return {
        "seconds": seconds,
        "validation rmse": [-epoch["negative rmse"] for epoch in recommender.report.history],
        "test": Evaluation(ranked.user, {**ranked.metrics, **rated.metrics}),
    }


WARM = ["popularity", "item-knn", "ease", "ease-recency", "ials", "tfidf", "minilm", "two-tower-id", "two-tower"]
TEXTS = ["minilm-raw", "ridge", "two-tower-text", "two-tower-cold"]
TOWERS = ["two-tower-id", "two-tower-id:user_tower=mean,length=1000", "two-tower-id:user_tower=mlp,length=1000"]

RUNS: dict[str, Experiment] = {
    "search": search_all,
    "compare-leave-one-out": compared("leave-one-out", models=["random", *WARM, *TEXTS], seeds=3, draws=5),
    # n as in the search: with a larger n, events that chose hyperparameters would come back as test events
    "compare-leave-last-n": compared("leave-last-n", n=5, models=WARM, seeds=3, draws=3),
    "compare-temporal": compared("temporal", models=WARM, seeds=3, draws=3),
    "compare-cold-items": compared("cold-items", models=["random", *WARM, *TEXTS], seeds=5, draws=5),
    "user-towers": compared("leave-one-out", models=TOWERS, seeds=3, draws=3),
    "user-item": user_item,
}
