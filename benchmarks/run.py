"""Stored runs: what takes too long for a notebook, made by one command, resumable, kept with its provenance.

    python benchmarks/run.py search
    python benchmarks/run.py compare-leave-one-out

The result is book/results/NAME.json; finished parts of an interrupted run lie in benchmarks/partial/NAME.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adversarial
import claims
import fine_tuning
import llm
import loss_table
import numpy as np
import sequences
from parts import kept

from recsys_cl import workflow
from recsys_cl.data import Split, cold_item_split, leave_last_n, leave_one_out, load_movielens
from recsys_cl.evaluation import Evaluation, compare, evaluate, holm, paired_test, pool
from recsys_cl.evaluation.ratings import SQUARED_ERROR, evaluate_ratings, root_mean_square
from recsys_cl.recommenders import UserItem, create
from recsys_cl.results import write_result

HERE = Path(__file__).parent
RESULTS = HERE.parent / "book" / "results"

TRIALS = 6
SPACES: dict[str, dict[str, list[Any]]] = {
    "item-knn": {"neighbours": [20, 50, 100, 200, 400], "shrink": [0.0, 10.0, 50.0, 100.0]},
    "ease": {"l2": [30.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0]},
    "ease-recency": {"l2": [100.0, 300.0, 500.0, 1000.0, 2000.0], "decay": [0.7, 0.8, 0.9, 0.95]},
    "ials": {"factors": [32, 64, 128], "alpha": [1.0, 5.0, 10.0, 20.0, 40.0], "l2": [0.01, 0.1, 1.0, 10.0, 30.0]},
}
TOWER: dict[str, list[Any]] = {
    "learning_rate": [1e-3, 2e-3, 3e-3, 5e-3],
    "temperature": [0.05, 0.1, 0.2],
    "dropout": [0.0, 0.1, 0.2, 0.4],
    "event_dropout": [0.0, 0.1, 0.2, 0.3],
    "length": [50, 100],
}
SPACES |= {
    "two-tower-id": TOWER,
    "two-tower": TOWER | {"id_dropout": [0.0, 0.2, 0.4]},
    "two-tower-text": TOWER | {"dim": [64, 128]},
}
COLD_SPACES: dict[str, dict[str, list[Any]]] = {
    "ridge": {"l2": [1.0, 3.0, 10.0, 30.0, 100.0, 300.0]},
    "two-tower-cold": {
        "learning_rate": [5e-5, 1e-4, 2e-4, 4e-4],
        "temperature": [0.1, 0.2, 0.4],
        "dropout": [0.0, 0.2, 0.4],
        "event_dropout": [0.0, 0.3, 0.5],
    },
}


def trials_of(model: str, space: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Trial 0 is the model's defaults; the others are drawn from the space without repetition."""
    rng = np.random.default_rng(0)
    trials: list[dict[str, Any]] = [{}]
    while len(trials) < TRIALS:
        drawn = {name: values[rng.integers(len(values))] for name, values in space.items()}
        default = all(getattr(create(model), name) == value for name, value in drawn.items())
        if drawn not in trials and not default:
            trials.append(drawn)
    return trials


def search(partial: Path) -> dict[str, Any]:
    """The same number of trials for every model, judged by NDCG@10 on validation events alone."""
    data = load_movielens()
    warm = [leave_last_n(data, 5, seed=0)]
    cold = [cold_item_split(data, seed=seed) for seed in (0, 1)]
    table = {}
    for spaces, splits in ((SPACES, warm), (COLD_SPACES, cold)):
        for model, space in spaces.items():
            trials = []
            for number, settings in enumerate(trials_of(model, space)):
                file = partial / f"{model}-{number}.json"
                trial = kept(file, lambda m=model, t=settings, s=splits: one_trial(m, t, s))
                full = create(model, **settings)
                trials.append(trial | {"settings": {name: getattr(full, name) for name in space}})
            table[model] = {"split": splits[0].protocol, "draws": len(splits), "space": space, "trials": trials}
    return {"trials": TRIALS, "metric": "ndcg@10", "models": table}


def one_trial(model: str, settings: dict[str, Any], splits: list[Split]) -> dict[str, Any]:
    started = time.perf_counter()
    values = [evaluate(create(model, **settings).fit(split), split.validation).mean() for split in splits]
    return {"settings": settings, "validation": float(np.mean(values)), "seconds": time.perf_counter() - started}


def comparison(split: str, **options: Any) -> Callable[[Path], dict[str, Any]]:
    """A table of all models, or of those in ``options``, under one protocol."""

    def run(partial: Path) -> dict[str, Any]:
        data = load_movielens()
        table = workflow.compare(data, split=split, folder=partial, **options)
        runs = {row.model: [one.mean() for one in row.evaluations.values()] for row in table.rows}
        tests = {model: vars(test) for model, test in table.tests().items()}
        return {**table.as_dict(), "runs": runs, "tests": tests}

    return run


ALPHAS = {"contrast": (0.0, 0.5, 1.0), "mix": (0.0, 0.25, 0.5, 0.75, 1.0), "alternate": (0.0, 0.25, 0.5, 0.75, 1.0)}
RATING = "user-item:objective=rating"
USER_ITEM = [RATING, *(f"user-item:objective={name},alpha={alpha}" for name in ALPHAS for alpha in ALPHAS[name])]


def user_item(partial: Path) -> dict[str, Any]:
    """Contrast within and across users, with ratings and without: how well it ranks, how well it predicts ratings."""
    data = load_movielens()
    protocol = {"data": data.name, "split": "leave-one-out", "users": data.n_users, "events": data.n_users, "draws": 3}
    table = workflow.Comparison(protocol, [workflow.Row(model) for model in USER_ITEM])
    validation: dict[str, list[list[float]]] = {model: [] for model in USER_ITEM}
    for seed in range(3):
        split = leave_one_out(data, seed=seed)
        for row in table.rows:
            file = partial / f"{row.model.replace(':', '-')}-{seed}.npz"
            if not file.exists():
                ranked_and_rated(row.model, split, seed).save(file)
                print(file.stem, flush=True)
            metrics = dict(Evaluation.load(file).metrics)
            row.seconds += float(metrics.pop("seconds")) / 3
            validation[row.model].append(metrics.pop("validation rmse").tolist())
            row.evaluations[seed] = Evaluation(split.test.user, metrics)
    pooled = {row.model: pool(list(row.evaluations.values())) for row in table.rows}
    result = table.as_dict()
    result["runs"] = {row.model: [one.mean() for one in row.evaluations.values()] for row in table.rows}
    result["tests"] = {model: vars(test) for model, test in table.tests().items()}
    against_rating = compare(pooled, metric=SQUARED_ERROR, against=RATING)
    result["rating"] = {
        "runs": {row.model: [root_mean_square(one)[0] for one in row.evaluations.values()] for row in table.rows},
        "tests": {model: vars(test) for model, test in against_rating.items()},
        "validation": validation,
    }
    result["mix against"] = {metric: mix_against(pooled, metric) for metric in ("ndcg@10", SQUARED_ERROR)}
    for entry in result["rows"]:
        runs = result["rating"]["runs"][entry["model"]]
        _, low, high = root_mean_square(pooled[entry["model"]])
        entry["metrics"]["rmse"] = {"mean": np.mean(runs), "sd": np.std(runs, ddof=1), "low": low, "high": high}
    return result


def mix_against(pooled: dict[str, Evaluation], metric: str) -> list[dict[str, Any]]:
    """Mixing minus contrast alone and minus taking turns, at the same alpha, p-values corrected by Holm together."""
    rows = []
    for other in ("contrast", "alternate"):
        for alpha in ALPHAS[other]:
            mix, rival = (pooled[f"user-item:objective={name},alpha={alpha}"] for name in ("mix", other))
            test = paired_test(mix.metrics[metric], rival.metrics[metric], mix.user)
            rows.append({"mix against": other, "alpha": alpha} | vars(test))
    corrected = holm(np.array([row["p_value"] for row in rows])).tolist()
    return [row | {"p_value": p_value} for row, p_value in zip(rows, corrected, strict=True)]


def ranked_and_rated(model: str, split: Split, seed: int) -> Evaluation:
    """Test metrics of one fit, with its seconds and its validation RMSE after every epoch."""
    started = time.perf_counter()
    recommender = create(model, seed=seed)
    assert isinstance(recommender, UserItem)
    recommender.fit(split)
    seconds = time.perf_counter() - started
    ranked, rated = evaluate(recommender, split.test), evaluate_ratings(recommender, split.test)
    epochs = np.array([-epoch["negative rmse"] for epoch in recommender.report.history])
    fit = {"seconds": np.array(seconds), "validation rmse": epochs}
    return Evaluation(ranked.user, {**ranked.metrics, **rated.metrics, **fit})


WARM = ["popularity", "item-knn", "ease", "ease-recency", "ials", "tfidf", "minilm", "two-tower-id", "two-tower"]
TEXTS = ["minilm-raw", "ridge", "two-tower-text", "two-tower-cold"]
TOWERS = ["two-tower-id", "two-tower-id:user_tower=mean,length=1000", "two-tower-id:user_tower=mlp,length=1000"]

RUNS: dict[str, Callable[[Path], dict[str, Any]]] = (
    {
        "search": search,
        "compare-leave-one-out": comparison("leave-one-out", models=["random", *WARM, *TEXTS], seeds=3, draws=5),
        # n as in the search: with a larger n, events that chose hyperparameters would come back as test events
        "compare-leave-last-n": comparison("leave-last-n", n=5, models=WARM, seeds=3, draws=3),
        "compare-temporal": comparison("temporal", models=WARM, seeds=3, draws=3),
        "compare-cold-items": comparison("cold-items", models=["random", *WARM, *TEXTS], seeds=5, draws=5),
        "user-towers": comparison("leave-one-out", models=TOWERS, seeds=3, draws=3),
        "user-item": user_item,
    }
    | llm.RUNS
    | fine_tuning.RUNS
    | sequences.RUNS
    | adversarial.RUNS
    | claims.RUNS
    | loss_table.RUNS
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RUNS)
    name = parser.parse_args().name
    warnings.filterwarnings("ignore", message=".*BLAS is configured.*")
    partial = HERE / "partial" / name
    partial.mkdir(parents=True, exist_ok=True)
    clock = partial / "seconds"
    before = float(clock.read_text()) if clock.exists() else 0.0
    started = time.perf_counter()
    try:
        result = RUNS[name](partial)
    finally:
        seconds = before + time.perf_counter() - started
        clock.write_text(str(seconds))
    write_result(name, result, command=f"python benchmarks/run.py {name}", seconds=seconds, folder=RESULTS)


if __name__ == "__main__":
    main()
