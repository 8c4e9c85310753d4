"""Stored runs of chapters 7 and 11: the search, and the tables of sequential models."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from parts import kept
from searching import search_trials

from recsys_cl import workflow
from recsys_cl.book.results import read_result
from recsys_cl.data import Interactions, Queries, Sequences, Split, leave_last_n, load_movielens, temporal_split
from recsys_cl.evaluation import Evaluation, compare, evaluate, pool
from recsys_cl.recommenders import Recommender, Sequential, TrainedRecommender, create

RESULTS = Path(__file__).parent.parent / "book" / "results"

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
WITH_TEXT = SPACE | {"id_dropout": [0.0, 0.1, 0.2], "align": [0.0, 0.05, 0.1]}
SPACES = {"sasrec": SPACE, "sasrec-hybrid": WITH_TEXT}
BUDGET = {"epochs": 25, "patience": 3, "validation_queries": 4_000}

SHARES = (0.1, 0.25, 0.5, 1.0)
"""Of the users that a model is trained on, at the width of the search."""
WIDTHS = (16, 32, 64, 128)
"""Of models that are trained on all users."""


def search(model: str) -> Callable[[Path], dict[str, Any]]:
    """The same number of trials for each model, by NDCG@10 on validation events of one draw; trial 0 is the default."""

    def run(partial: Path) -> dict[str, Any]:
        split, space = leave_last_n(load_movielens(), seed=0), SPACES[model]
        default = {name: getattr(create(model), name) for name in space}
        measure = functools.partial(one_trial, model, split)
        trials = search_trials(space, default, measure, partial, model, trials=TRIALS, value="validation")
        table = {model: {"split": split.protocol, "draws": 1, "space": space, "trials": trials}}
        return {"trials": TRIALS, "metric": "ndcg@10", "models": table}

    return run


def one_trial(model: str, split: Split, settings: dict[str, Any]) -> dict[str, Any]:
    """Validation NDCG@10 of the best epoch, its number, and what it cost."""
    started = time.perf_counter()
    recommender = create(model, **settings, **BUDGET)
    assert isinstance(recommender, TrainedRecommender)
    report = recommender.fit(split).report
    return {
        "validation": report.best,
        "epochs": report.epochs,
        "seconds": time.perf_counter() - started,
    }


def tuned(model: str) -> str:
    """The model with the best settings of its search, as tables write it."""
    trials = read_result(f"search-{model}", RESULTS)["result"]["models"][model]["trials"]
    best = max(trials, key=lambda trial: trial["validation"])["settings"]
    return with_settings(model, **best)


def with_settings(model: str, **settings: Any) -> str:
    """A model with settings in the notation of tables, ``NAME:FIELD=VALUE,...``; those it has already are replaced."""
    name, _, fields = model.partition(":")
    before = dict(field.split("=") for field in fields.split(",") if field)
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in {**before, **settings}.items())


def table(split: str, models: Callable[[], dict[str, str]], *, draws: int, **options: Any) -> Callable[..., dict]:
    """Models by the names that the chapter gives them, under one protocol, with paired tests against the best."""

    def run(partial: Path) -> dict[str, Any]:
        named = models()
        found = workflow.compare(
            load_movielens(), list(named.values()), split=split, seeds=draws, draws=draws, folder=partial, **options
        )
        for row, name in zip(found.rows, named, strict=True):
            row.model = name
        pooled = {row.model: pool([row.evaluations[draw] for draw in range(draws)]) for row in found.rows}
        against = [name for name in ("sasrec", "minilm", "ridge") if name in named]
        return {
            **found.as_dict(),
            "specs": named,
            "runs": {row.model: [one.mean() for one in row.evaluations.values()] for row in found.rows},
            "tests": {name: vars(test) for name, test in found.tests().items()},
            "tests against": {
                other: {name: vars(test) for name, test in compare(pooled, against=other).items()} for other in against
            },
            "groups": groups(pooled, load_movielens(), split, draws) if split == "leave-last-n" else {},
        }

    return run


def groups(pooled: dict[str, Evaluation], data: Interactions, split: str, draws: int) -> dict[str, Any]:
    """NDCG@10 by how much training knew of the user and of the item, and tests against id-only SASRec within them."""
    users, items = [], []
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
            name: Evaluation(one.user[rows], {"ndcg@10": one.metrics["ndcg@10"][rows]}) for name, one in pooled.items()
        }
        result[part] = {
            "queries": int(rows.sum()),
            "means": {name: one.mean() for name, one in values.items()},
            "tests": {name: vars(test) for name, test in compare(values, against="sasrec").items()},
        }
    return result


def best_models() -> dict[str, str]:
    """Baselines, and sequential models at their best settings."""
    sasrec, hybrid = tuned("sasrec"), tuned("sasrec-hybrid")
    return {
        "ease-recency": "ease-recency",
        "two-tower": "two-tower",
        "sasrec": sasrec,
        "sasrec, known positives spared": with_settings(sasrec, spare_known="true"),
        "sasrec-hybrid": hybrid,
    }


def warm_and_cold_models() -> dict[str, str]:
    """What one model for seen and unseen items costs on the seen."""
    sasrec, hybrid = tuned("sasrec"), tuned("sasrec-hybrid")
    return {
        "sasrec": sasrec,
        "sasrec-hybrid": hybrid,
        "sasrec-cold": hybrid.replace("sasrec-hybrid", "sasrec-cold"),
    }


def later_models() -> dict[str, str]:
    """Those of the headline that the temporal split has to confirm."""
    return {name: best_models()[name] for name in ("ease-recency", "sasrec", "sasrec-hybrid")}


def loss_models() -> dict[str, str]:
    """What leave-one-out is asked about: softmax, binary cross-entropy, and masked items."""
    sasrec = tuned("sasrec")
    return {
        "sasrec": sasrec,
        "sasrec, BCE with one negative": with_settings(sasrec, objective="bce", negatives=1, spare_known="true"),
        "bert4rec": "bert4rec:epochs=30",
    }


def ablation_models() -> dict[str, str]:
    """One change at a time: of id-only SASRec, and of the hybrid."""
    sasrec, hybrid = tuned("sasrec"), tuned("sasrec-hybrid")
    dots = {"similarity": "dot", "temperature": 1.0}
    ids = {
        "known positives spared": {"spare_known": "true"},
        "sampled softmax, 256 uniform negatives": {"objective": "sampled-softmax"},
        "BCE, 1 negative, as published": {"objective": "bce", "negatives": 1, "spare_known": "true"},
        "gBCE, 32 negatives": {"objective": "gbce", "negatives": 32},
        "dot product": dots,
        "dot product and gBCE, 32 negatives": {"objective": "gbce", "negatives": 32, **dots},
        "GRU": {"encoder": "gru"},
        "contrast of crops, masks, reorderings": {"views": "crop+mask+reorder"},
        "context: gap, rating": {"context": "gap+rating"},
    }
    texts = {
        "text alone": {"ids": "false", "align": 0.0, "id_dropout": 0.0},
        "text and ids, known positives as negatives": {"spare_known": "false"},
        "text and ids, no alignment": {"align": 0.0},
    }
    return (
        {"sasrec": sasrec}
        | {f"ids: {name}": with_settings(sasrec, **change) for name, change in ids.items()}
        | {"sasrec-hybrid": hybrid}
        | {name: with_settings(hybrid, **change) for name, change in texts.items()}
    )


def cold_models() -> dict[str, str]:
    """Every attempt at one model for seen and unseen items, and what they have to beat."""
    hybrid = with_settings(tuned("sasrec-hybrid"), epochs=6)
    return {
        "minilm": "minilm",
        "ridge": "ridge",
        "ids dropped in training": with_settings(hybrid, align=0.0, id_dropout=0.5),
        "ids dropped, text aligned with ids": with_settings(hybrid, align=0.5, id_dropout=0.5),
        "sasrec-cold": hybrid.replace("sasrec-hybrid", "sasrec-cold"),
    }


def scaling(partial: Path) -> dict[str, Any]:
    """What more users and a wider model bring: all sizes answer the same test queries, those of all users."""
    split = leave_last_n(load_movielens(), seed=0)
    whole = (SHARES[-1], create("sasrec").dim)
    sizes = dict.fromkeys([*((share, whole[1]) for share in SHARES), *((whole[0], width) for width in WIDTHS)])
    rows, values = [], {}
    for share, width in sizes:
        name = f"{share:.0%} of the users, {width} wide"
        file = partial / f"{name}.npz"
        rows.append(kept(file.with_suffix(".json"), lambda s=share, w=width, f=file: one_size(split, s, w, f)))
        values[name] = Evaluation.load(file)
        low, high = values[name].interval()
        rows[-1] |= {"name": name, "ndcg@10": values[name].mean(), "low": low, "high": high}
    tests = compare(values, against=f"{whole[0]:.0%} of the users, {whole[1]} wide")
    protocol = {"data": split.data.name, "split": split.protocol, "events": len(split.test), "seed": split.seed}
    return {"protocol": protocol, "rows": rows, "against the whole": {name: vars(test) for name, test in tests.items()}}


def one_size(split: Split, share: float, width: int, file: Path) -> dict[str, Any]:
    """Train a model of the given width on a share of the users, and keep its test metrics in ``file``.

    Fewer users make fewer steps an epoch, so epochs and patience grow as the share falls.
    """
    part = with_users(split, share)
    started = time.perf_counter()
    budget = {name: round(BUDGET[name] / share) for name in ("epochs", "patience")}
    model = create(with_settings(tuned("sasrec"), dim=width), **budget)
    assert isinstance(model, Sequential)
    model.fit(part)
    seconds = time.perf_counter() - started
    evaluate(model, split.test).save(file)
    return {
        "share": share,
        "width": width,
        "users": int((part.train.lengths > 0).sum()),
        "events": int(part.train.lengths.sum()),
        "parameters": sum(weight.numel() for weight in model.network.parameters()),
        "epochs": model.report.epochs,
        "seconds": seconds,
    }


def with_users(split: Split, share: float) -> Split:
    """The split with training events of a seeded share of the users; a smaller share is part of a larger one."""
    train = split.train
    drawn = np.random.default_rng(split.seed).permutation(len(train)) < share * len(train)  # (users,)
    return replace(split, train=replace(train, stop=np.where(drawn, train.stop, train.start)))


def feedback(partial: Path) -> dict[str, Any]:
    """What newly arrived events are worth, and what an update on them unlearns.

    A model is fitted on the first 70 % of the events and then left as it is, updated on those between 70 % and 80 %, or
    fitted anew on the first 80 % (stopped by the next 5 %); all are asked for what comes after 85 %.
    """
    return {"seeds": [kept(partial / f"{seed}.json", lambda s=seed: one_feedback(s)) for seed in range(2)]}


def one_feedback(seed: int) -> dict[str, Any]:
    data = load_movielens()
    late = temporal_split(data, test=0.15, validation=0.15, seed=seed)  # trains on 70 %
    cut = float(np.quantile(data.timestamp, 0.70))
    grown = temporal_split(data, test=0.15, validation=0.05, seed=seed)  # trains on 80 %, stops by the next 5 %
    old = past_events(late.train)
    rows: dict[str, Any] = {}

    def measured(name: str, model: Recommender, seconds: float) -> None:
        rows[name] = {
            "new": evaluate(model, late.test).mean(),
            "old": evaluate(model, old).mean(),
            "seconds": seconds,
        }

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
    """The last training event of each user: what a model that has unlearned nothing still knows."""
    user = np.flatnonzero(train.lengths > 1)
    kept_users = train[user]
    last = kept_users.stop - 1
    return Queries(user, replace(kept_users, stop=last), replace(kept_users, start=last))


RUNS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "search-sasrec": search("sasrec"),
    "search-sasrec-hybrid": search("sasrec-hybrid"),
    "sequence-leave-last-n": table("leave-last-n", best_models, draws=5),
    "sequence-leave-one-out": table("leave-one-out", loss_models, draws=5),
    "sequence-warm-and-cold": table("leave-last-n", warm_and_cold_models, draws=2),
    "sequence-temporal": table("temporal", later_models, draws=3),
    "sequence-cold-items": table("cold-items", cold_models, draws=5),
    "sequence-ablation": table("leave-last-n", ablation_models, draws=1),
    "scaling": scaling,
    "feedback": feedback,
}
