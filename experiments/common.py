"""Shared code of the experiments: finished parts on disk, hyperparameter search, tables, and the default split."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys_cl import __version__, workflow
from recsys_cl.book.results import read_result
from recsys_cl.data import Interactions, Split, cold_item_split, leave_last_n, load_movielens
from recsys_cl.errors import InputError
from recsys_cl.evaluation import (
    Evaluation,
    PairedTest,
    bootstrap_interval,
    compare,
    evaluate,
    fold_test,
    holm,
    pool,
)
from recsys_cl.recommenders import Recommender, create
from recsys_cl.settings import described

HERE = Path(__file__).parent
RESULTS = HERE.parent / "book" / "results"
PARTIAL = HERE / "partial"

Settings = dict[str, Any]
Space = Mapping[str, list[Any]]
Make = Callable[[int], Recommender]
"""Seed to an untrained recommender."""


# finished parts


class Parts:
    """Finished parts of a run, kept on disk, so that an interrupted run continues with the first missing part.

    A part is a dictionary of JSON values, evaluations and arrays. Its JSON file is written last and appears complete;
    evaluations and arrays lie beside it in files of their own.

    Args:
        folder: Where the parts are kept.
        run: Name of the run. Parts of another run are refused.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, make: Callable[[], Mapping[str, Any]], *, of: Settings | None = None) -> dict[str, Any]:
        """Return the part of this name, made and written if it is missing.

        Args:
            name: Name of the part, different for each part of the run.
            make: Makes the part.
            of: Settings that the part depends on beyond its name, as JSON values.

        Raises:
            InputError: If the stored part belongs to another run, another name or other settings.
        """
        file = self.folder / f"{slug(name)}.json"
        identity = json.loads(json.dumps({"run": self.run, "part": name, "of": of or {}}))
        if not file.exists():
            self._write(file, identity, make())
        stored = json.loads(file.read_text())
        if any(stored.get(key) != value for key, value in identity.items()):
            raise InputError(
                f"{str(file)!r} is not a part {name!r} of this run {self.run!r}; remove it to make it anew"
            )
        return stored["figures"] | {
            key: _LOAD[kind](_beside(file, key, kind)) for key, kind in stored["beside"].items()
        }

    def evaluation(self, name: str, make: Callable[[], Evaluation], *, of: Settings | None = None) -> Evaluation:
        """Return the part of this name that is one evaluation, made and written if it is missing."""
        found: Evaluation = self.keep(name, lambda: {"evaluation": make()}, of=of)["evaluation"]
        return found

    def in_blocks(self, name: str, count: int, answer: Callable[[range], dict[str, list]], size: int = 20) -> Settings:
        """Return the answers to questions 0 to ``count``, kept in blocks of ``size`` questions."""
        answers: dict[str, list] = {}
        for start in range(0, count, size):
            rows = range(start, min(start + size, count))
            for key, values in self.keep(f"{name}-{start:04d}", lambda rows=rows: answer(rows)).items():  # type: ignore[misc]
                answers.setdefault(key, []).extend(values)
        return answers

    def _write(self, file: Path, identity: Settings, part: Mapping[str, Any]) -> None:
        beside = {key: _KIND[type(value)] for key, value in part.items() if type(value) in _KIND}
        for key, kind in beside.items():
            _SAVE[kind](part[key], _beside(file, key, kind))
        started = file.with_suffix(".new")
        started.write_text(json.dumps(identity | {"figures": figures(part), "beside": beside}))
        started.replace(file)
        means = {key: part[key].mean(next(iter(part[key].metrics))) for key, kind in beside.items() if kind == "npz"}
        print(f"{identity['part']}: {figures(part) | means}", flush=True)


Experiment = Callable[[Parts], dict[str, Any]]
"""Kept parts of the run to its result, as JSON values."""

_KIND: dict[type, str] = {Evaluation: "npz", np.ndarray: "npy"}
_SAVE: dict[str, Callable[[Any, Path], None]] = {
    "npz": lambda value, file: value.save(file),
    "npy": lambda value, file: np.save(file, value),
}
_LOAD: dict[str, Callable[[Path], Any]] = {"npz": Evaluation.load, "npy": np.load}


def _beside(file: Path, key: str, kind: str) -> Path:
    """File of an evaluation or array of a part."""
    return file.with_name(f"{file.stem}.{slug(key)}.{kind}")


def figures(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON values of a part, without its evaluations and arrays."""
    return {key: value for key, value in part.items() if type(value) not in _KIND}


def slug(name: str) -> str:
    """Return the name as a file name: letters, digits and hyphens."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


# the search of hyperparameters

DRAWN_AS = {
    "attack.epsilon": "epsilon",
    "attack.weight": "attack_weight",
    "auxiliary.id-dropout.share": "id_dropout",
    "auxiliary.item-alignment.weight": "align",
    "sampler.epsilon": "epsilon",
    "sampler.hardness": "hardness",
    "sampler.share": "hard_share",
    "sampler.threshold": "threshold",
}
"""Settings whose name in optuna is another: it draws in the order of names, on which the trials depend."""

Proposals = Generator[Settings, float, None]
"""Yields settings, is sent the value of each."""


def at_random(space: Space, default: Settings, trials: int) -> Proposals:
    """Propose the default, then draws from the space."""
    rng = np.random.default_rng(0)
    yield default
    while True:
        yield {name: values[rng.integers(len(values))] for name, values in space.items()}


def by_parzen(space: Space, default: Settings, trials: int) -> Proposals:
    """Propose the default, then what a tree-structured Parzen estimator (optuna) expects to be good."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(n_startup_trials=min(8, trials // 2), multivariate=True, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({DRAWN_AS.get(name, name): value for name, value in default.items()})
    while True:
        trial = study.ask()
        value = yield {
            name: trial.suggest_categorical(DRAWN_AS.get(name, name), values) for name, values in space.items()
        }
        study.tell(trial, value)


def search(
    parts: Parts,
    name: str,
    space: Space,
    default: Settings,
    measure: Callable[[Settings], dict[str, Any]],
    *,
    trials: int,
    value: str = "value",
    propose: Callable[[Space, Settings, int], Proposals] = by_parzen,
) -> list[dict[str, Any]]:
    """Try a fixed number of distinct settings, the default first; settings proposed again cost nothing.

    Args:
        parts: Where finished trials are kept.
        name: Name of the model or method, unique within the run.
        space: Hyperparameter to its values.
        default: Settings of trial 0.
        measure: Settings to the figures of a trial.
        trials: Number of distinct settings.
        value: Figure that is maximised.
        propose: How the trials after the first are chosen.

    Returns:
        One entry per trial in order: ``settings``, and what ``measure`` returned.

    Raises:
        InputError: If the space has fewer settings than trials, or a stored trial belongs to another search.
    """
    if math.prod(map(len, space.values())) < trials:
        raise InputError(f"the space of {name!r} has fewer than {trials} settings; widen it or lower the budget")
    proposals = propose(space, default, trials)
    done: list[dict[str, Any]] = []
    settings = next(proposals)
    while True:
        found = next((trial for trial in done if trial["settings"] == settings), None)
        if found is None:
            made = {"settings": settings}
            found = parts.keep(f"{name}-{len(done)}", lambda made=made: made | measure(made["settings"]), of=made)  # type: ignore[misc]
            done.append(found)
            if len(done) == trials:
                return done
        settings = proposals.send(found[value])


def best_settings(stored: str, model: str, value: str = "value") -> Settings:
    """Return the settings of the best trial of a stored search, with those that the search held fixed."""
    entry = read_result(stored, RESULTS)["result"]["models"][model]
    best = max(entry["trials"], key=lambda trial: trial[value])
    return {**entry.get("fixed", {}), **best["settings"]}


# tables

Runs = dict[str, list[Evaluation]]
"""Name of a model to its evaluation on each draw."""


def table(runs: Runs, metrics: Sequence[str]) -> dict[str, Any]:
    """Return each model's mean over draws, its standard deviation, its interval over users, and the mean per draw."""
    rows = []
    for name, draws in runs.items():
        wanted = [Evaluation(one.user, {metric: one.metrics[metric] for metric in metrics}) for one in draws]
        row = workflow.Row(name, dict(enumerate(wanted)))
        rows.append({"model": name, "seeds": len(draws), "metrics": row.metrics()})
    means = {metric: {name: [one.mean(metric) for one in draws] for name, draws in runs.items()} for metric in metrics}
    return {"rows": rows, "runs": means}


def comparison(found: workflow.Comparison) -> dict[str, Any]:
    """Return a comparison as plain data, with the NDCG@10 of each run and paired tests against the best model."""
    runs = {row.model: [one.mean() for one in row.evaluations.values()] for row in found.rows}
    return {**found.as_dict(), "runs": runs, "tests": {model: vars(test) for model, test in found.tests().items()}}


def paired(evaluations: Mapping[str, Evaluation], against: str, metric: str = "ndcg@10") -> dict[str, dict[str, Any]]:
    """Return the paired tests of one model minus each other model, corrected by Holm, as plain data."""
    return {name: vars(test) for name, test in compare(evaluations, metric=metric, against=against).items()}


def pooled(runs: Runs) -> dict[str, Evaluation]:
    """Return all draws of each model as one evaluation."""
    return {name: pool(draws) for name, draws in runs.items()}


def against(runs: Runs, reference: str, metrics: Sequence[str]) -> dict[str, Any]:
    """Return, by metric, the paired tests of the reference minus each other model over all draws."""
    return {metric: paired(pooled(runs), reference, metric) for metric in metrics}


def corrected(tests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the tests with p-values corrected by Holm."""
    p_values = holm(np.array([test["p_value"] for test in tests.values()]))
    return {name: {**test, "p_value": float(p)} for (name, test), p in zip(tests.items(), p_values, strict=True)}


def mean_with_interval(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Return the mean over independent values with its 95 % bootstrap interval."""
    array = np.asarray(values, dtype=np.float64)
    low, high = bootstrap_interval(array, np.arange(len(array)))
    return {"mean": float(array.mean()), "low": low, "high": high, "n": len(array)}


# data and models

VALIDATION = 3_000
"""Validation queries, a seeded sample: few enough to cost less than an epoch of training."""


def world(draw: int) -> Split:
    """Return a draw of leave-last-n on MovieLens-100K, validated on a sample of its queries."""
    return quickly_validated(leave_last_n(load_movielens(), seed=draw))


FOLDS, REPETITIONS = 10, 1


def item_folds(data: Interactions) -> Iterator[tuple[str, Split, int]]:
    """Yield disjoint folds of the items as cold items, repeated with another assignment: name, split and seed."""
    for repetition in range(REPETITIONS):
        for fold in range(FOLDS):
            yield f"{repetition}.{fold}", cold_item_split(data, seed=repetition, fold=fold), repetition


def paired_by_fold(first: Sequence[Evaluation], second: Sequence[Evaluation], metric: str = "ndcg@10") -> PairedTest:
    """Test the first minus the second with folds as the unit; both in the order of :func:`item_folds`."""
    differences = np.array([one.mean(metric) - other.mean(metric) for one, other in zip(first, second, strict=True)])
    return fold_test(differences.reshape(REPETITIONS, FOLDS))


def quickly_validated(split: Split) -> Split:
    """Return the split with a sample of its validation queries."""
    return replace(split, validation=split.validation.sample(VALIDATION, seed=0))


def with_users(split: Split, share: float) -> Split:
    """Return the split with the training events of a share of its users; a smaller share is part of a larger one."""
    train = split.train
    drawn = np.random.default_rng(split.seed).permutation(len(train)) < share * len(train)  # (users,)
    return replace(split, train=replace(train, stop=np.where(drawn, train.stop, train.start)))


def genres_of(data: Interactions) -> list[set[str]]:
    """Return the genres of each item."""
    return [set(filter(None, str(genres).split(", "))) for genres in data.items["genres"]]


def genre_flags(data: Interactions) -> np.ndarray:
    """Return ``(n_items, genres)``, 1 where a film has the genre."""
    genres = genres_of(data)
    return np.array([[genre in own for genre in sorted(set().union(*genres))] for own in genres], dtype=np.float64)


def settings_of(model: Recommender) -> Settings:
    """Return all settings of a model by name, those of its components as in ``loss.negatives``."""
    settings: Settings = {}
    for name, value in described(model).items():
        match value:
            case {"name": component, **own}:
                settings |= {name: component} | {f"{name}.{key}": one for key, one in own.items()}
            case _:
                settings[name] = value
    return settings


def record(arm: str | Settings) -> Settings:
    """Return what a reader needs to know of an arm: its recommender and all of its settings, and the release.

    Args:
        arm: A model in the notation of tables or, for a method that is no recommender of the package, its settings.
    """
    if not isinstance(arm, str):
        return {"recommender": "", "settings": arm, "version": __version__}
    model = create(arm)
    settings = {key: value for key, value in settings_of(model).items() if key != "seed"}
    return {"spec": arm, "recommender": type(model).__name__, "settings": settings, "version": __version__}


def with_settings(model: str, /, **settings: Any) -> str:
    """Return a model in the notation of tables, ``NAME:FIELD=VALUE,...``, with these settings added or replaced.

    With a component, the settings of the one that it replaces go.
    """
    name, _, fields = model.partition(":")
    before = dict(field.split("=") for field in fields.split(",") if field)
    kept = {key: value for key, value in before.items() if "." not in key or key.partition(".")[0] not in settings}
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in {**kept, **settings}.items())


def named(model: str) -> Make:
    """Return the maker of a registered model, which passes the seed to models that have one."""
    return lambda seed: create(model, **({"seed": seed} if create(model).trained else {}))


def fit_and_test(make: Make, split: Split, seed: int) -> Evaluation:
    """Fit a model on a split, and test it."""
    return evaluate(make(seed).fit(split), split.test)


def percent(share: float) -> str:
    """Return the share in whole percent."""
    return f"{share:.0%}"
