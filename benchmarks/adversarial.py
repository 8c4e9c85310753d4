"""Stored runs of chapters 9 and 10: training against perturbations, negatives that are made, noise and fake users."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from parts import kept
from searching import Settings, search_trials

from recsys_cl.book.results import read_result
from recsys_cl.data import Split, leave_last_n, load_movielens
from recsys_cl.data.perturb.corruption import CORRUPTIONS
from recsys_cl.data.perturb.shilling import KINDS, inject
from recsys_cl.data.perturb.text_attacks import stuff_keywords, telling_words, typos
from recsys_cl.evaluation import Evaluation, compare, evaluate, pool, top_items
from recsys_cl.evaluation.detection import detect, exposure, precision_recall
from recsys_cl.evaluation.robustness import boundary_distance
from recsys_cl.recommenders import TwoTower, create
from recsys_cl.recommenders.vector_attacks import evaluate_shifted, random_shift, worst_shift
from recsys_cl.text import LanguageEncoder

RESULTS = Path(__file__).parent.parent / "book" / "results"

TRIALS = 12
DRAWS = 5
EPOCHS = 4
VALIDATION = 3_000
"""Validation queries, a seeded sample, that stop a run and choose a trial."""

CHOSEN = 0.5
"""Length of the attack, in units of the vectors' norms, by which methods are compared; fixed beforehand."""

LENGTHS = (0.1, 0.3, 0.5)
KEPT_CLEAN = 0.98
"""Share of the best clean NDCG of plain training that a method must keep on validation."""

COMMON: dict[str, list[Any]] = {"learning_rate": [2e-3, 3e-3, 5e-3], "temperature": [0.05, 0.1]}
MOVES: dict[str, list[Any]] = {"epsilon": [0.05, 0.1, 0.2, 0.3], "attack_weight": [0.3, 1.0]}
ATTACKS: dict[str, tuple[Settings, dict[str, list[Any]]]] = {
    "plain": ({}, COMMON | {"event_dropout": [0.0, 0.1, 0.2]}),
    "weight decay": ({}, COMMON | {"weight_decay": [0.01, 0.03, 0.1, 0.3]}),
    "dropout": ({}, COMMON | {"dropout": [0.0, 0.3, 0.4, 0.5]}),
    "random noise": ({"attack": "random"}, COMMON | MOVES),
    "APR": ({"attack": "fgm"}, COMMON | MOVES),
    "VAT": ({"attack": "vat"}, COMMON | MOVES),
    "SimGCL": ({"attack": "simgcl"}, COMMON | {"epsilon": [0.05, 0.1, 0.2, 0.5], "attack_weight": [0.03, 0.1, 0.3]}),
    "APR, events dropped": (
        {"attack": "fgm"},
        COMMON | {"epsilon": [0.05, 0.1, 0.2], "attack_weight": [0.3, 1.0], "event_dropout": [0.1, 0.2]},
    ),
}
SHARES = {"hard_share": [0.125, 0.25, 0.5]}
GAME = SHARES | {"hardness": [0.0, 0.3, 1.0], "epsilon": [0.05, 0.1, 0.2]}
NEGATIVES: dict[str, tuple[Settings, dict[str, list[Any]]]] = {
    "uniform": ({"sampler": "uniform"}, COMMON | {"dropout": [0.1, 0.2]}),
    "popularity": ({"sampler": "popular"}, COMMON | SHARES | {"log_q": [True, False]}),
    "hard-mined": ({"sampler": "hard"}, COMMON | SHARES),
    "perturbed": ({"sampler": "perturbed"}, COMMON | SHARES | {"epsilon": [0.05, 0.1, 0.2]}),
    "policy (REINFORCE)": ({"sampler": "policy"}, COMMON | SHARES),
    "generator": ({"sampler": "generated"}, COMMON | GAME),
    "generator + filter": ({"sampler": "generated"}, COMMON | GAME | {"threshold": [0.48, 0.5, 0.52]}),
}


def world(draw: int) -> Split:
    """A draw of the protocol, with few enough validation queries that they cost less than an epoch."""
    split = leave_last_n(load_movielens(), seed=draw)
    return replace(split, validation=split.validation.sample(VALIDATION, seed=0))


def fitted(settings: Mapping[str, Any], split: Split, seed: int = 0) -> TwoTower:
    """The two-tower of both chapters."""
    recommender = create("two-tower", **{"epochs": EPOCHS, "seed": seed, **settings})
    assert isinstance(recommender, TwoTower)
    return recommender.fit(split)


def first_of(space: Mapping[str, list[Any]]) -> Settings:
    """Where a search begins: the two-tower's own default if the space has it, else the middle."""
    own = vars(TwoTower())
    return {name: own[name] if own[name] in values else values[len(values) // 2] for name, values in space.items()}


def search_attacks(partial_folder: Path) -> dict[str, Any]:
    """Trials of every method; robustness chooses among those that keep the clean quality of plain training."""
    split, found = world(0), {}
    for name, (fixed, space) in ATTACKS.items():
        plain = found.get("plain")
        floor = KEPT_CLEAN * max(trial["clean"] for trial in plain["trials"]) if plain else 0.0
        measure = partial(attack_trial, fixed, split, floor)
        trials = search_trials(space, first_of(space), measure, partial_folder, slug(name), trials=TRIALS)
        found[name] = {"fixed": fixed, "space": space, "trials": trials}
    return {"trials": TRIALS, "epsilon": CHOSEN, "kept clean": KEPT_CLEAN, "split": split.protocol, "models": found}


def attack_trial(fixed: Settings, split: Split, floor: float, settings: Settings) -> dict[str, Any]:
    """Clean and attacked validation NDCG@10; a trial below the floor is worth what it lacks."""
    started = time.perf_counter()
    model = fitted({**fixed, **settings}, split)
    clean = model.report.best
    shift = worst_shift(model, split.validation, CHOSEN)
    attacked = evaluate_shifted(model, split.validation, shift).mean()
    value = attacked if clean >= floor else clean - floor
    return {"value": value, "clean": clean, "attacked": attacked, "seconds": time.perf_counter() - started}


def search_negatives(partial_folder: Path) -> dict[str, Any]:
    """Trials of every source of negatives, by clean validation NDCG@10."""
    split, found = world(0), {}
    for name, (fixed, space) in NEGATIVES.items():
        measure = partial(negatives_trial, fixed, split)
        trials = search_trials(space, first_of(space), measure, partial_folder, slug(name), trials=TRIALS)
        found[name] = {"fixed": fixed, "space": space, "trials": trials}
    return {"trials": TRIALS, "negatives": TwoTower().negatives, "split": split.protocol, "models": found}


def negatives_trial(fixed: Settings, split: Split, settings: Settings) -> dict[str, Any]:
    """Validation NDCG@10, and what the players did in the last epoch."""
    started = time.perf_counter()
    model = fitted({**fixed, **settings}, split)
    watched = {key: value for key, value in model.report.history[-1].items() if key not in ("epoch", "loss", "ndcg@10")}
    return {"value": model.report.best, "seconds": time.perf_counter() - started, **watched}


def chosen(search: str) -> dict[str, Settings]:
    """Best settings of every method of a stored search."""
    models = read_result(search, RESULTS)["result"]["models"]
    best = {name: max(one["trials"], key=lambda trial: trial["value"]) for name, one in models.items()}
    return {name: {**models[name]["fixed"], **trial["settings"]} for name, trial in best.items()}


ALONE = "APR's settings, no adversary"


def with_ablation(methods: dict[str, Settings]) -> dict[str, Settings]:
    """The methods, and beside adversarial training the same settings without the adversary."""
    if "APR" not in methods:
        return methods
    of_the_adversary = {"attack", *MOVES}
    alone = {name: value for name, value in methods["APR"].items() if name not in of_the_adversary}
    return {**methods, ALONE: alone}


def table(search: str, against: str) -> Callable[[Path], dict[str, Any]]:
    """Every method at its best settings on the test events of five draws: clean, under noise, under attack."""

    def run(partial_folder: Path) -> dict[str, Any]:
        methods = with_ablation(chosen(search))
        clean: dict[str, dict[str, list[Evaluation]]] = {}
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in [*methods, "EASE, recency"]}
        for draw in range(DRAWS):
            split = world(draw)
            for name, settings in methods.items():
                file = partial_folder / f"{slug(name)}-{draw}.json"
                rows[name].append(kept(file, partial(one_draw, settings, split, draw, file)))
            rows["EASE, recency"].append(kept(partial_folder / f"ease-{draw}.json", partial(one_ease, split)))
            for name in methods:
                for part in ("clean", "attacked"):
                    stored = Evaluation.load(partial_folder / f"{slug(name)}-{draw}-{part}.npz")
                    clean.setdefault(part, {}).setdefault(name, []).append(stored)  # type: ignore[arg-type]
        pooled = {part: {name: pool(runs) for name, runs in models.items()} for part, models in clean.items()}
        return {
            "split": world(0).protocol,
            "draws": DRAWS,
            "epsilon": CHOSEN,
            "settings": methods,
            "rows": rows,
            "intervals": {p: {name: one.interval() for name, one in models.items()} for p, models in pooled.items()},
            "paired": {
                part: {name: vars(test) for name, test in compare(models, against=against).items()}
                for part, models in pooled.items()
            },
            "ablation": {part: ablation(models) for part, models in pooled.items()},
        }

    return run


def ablation(models: dict[str, Evaluation]) -> dict[str, Any]:
    """Adversarial training minus the same without the adversary, where the table has both."""
    both = {name: models[name] for name in ("APR", ALONE) if name in models}
    return vars(compare(both, against="APR")[ALONE]) if len(both) == 2 else {}


def one_draw(settings: Settings, split: Split, draw: int, file: Path) -> dict[str, Any]:
    """A method on one draw; values of every query go beside the file."""
    started = time.perf_counter()
    model = fitted(settings, split, seed=draw)
    seconds = time.perf_counter() - started
    clean = evaluate(model, split.test)
    clean.save(file.with_name(f"{file.stem}-clean.npz"))
    row: dict[str, Any] = {"clean": clean.mean(), "seconds": seconds, "epochs": model.report.epochs, "attacked": {}}
    row["random"] = {str(CHOSEN): evaluate_shifted(model, split.test, random_shift(model, CHOSEN)).mean()}
    for epsilon in LENGTHS:
        attacked = evaluate_shifted(model, split.test, worst_shift(model, split.test, epsilon))
        row["attacked"][str(epsilon)] = attacked.mean()
        if epsilon == CHOSEN:
            attacked.save(file.with_name(f"{file.stem}-attacked.npz"))
    row["boundary"] = distance(model, split)
    row["history"] = model.report.history
    return row


def one_ease(split: Split) -> dict[str, Any]:
    return {"clean": evaluate(create("ease-recency").fit(split), split.test).mean()}


@torch.no_grad()
def distance(model: TwoTower, split: Split) -> float:
    """Mean distance of users from the boundary at which a target that is found would be lost, in units of norms."""
    queries = split.test.sample(VALIDATION, seed=0)
    target = torch.from_numpy(queries.target.items[queries.target.start])  # (Q,)
    users = model.network.embed_users(torch.from_numpy(queries.history.recent(model.length)))  # (Q, d)
    items = model.network.embed_items(torch.arange(split.n_items))  # (N, d)
    seen = torch.from_numpy(queries.history.matrix(split.n_items).toarray() > 0)  # (Q, N)
    found = boundary_distance(users, items, target, exclude=seen)  # (Q,)
    return float(found[found > 0].mean())


COMPARED = ("plain", "APR")
"""Methods that are fitted anew under each kind of noise."""

RATES = (0.1, 0.4)


def noise(partial_folder: Path) -> dict[str, Any]:
    """Methods fitted anew on noisy logs."""
    methods = {name: chosen("search-attacks")[name] for name in COMPARED}
    clean = world(0)
    rows: dict[str, Any] = {
        name: {"clean": kept(partial_folder / f"{slug(name)}.json", partial(noisy_fit, settings, clean, clean))}
        for name, settings in methods.items()
    }
    for kind in CORRUPTIONS:
        for rate in RATES:
            noisy = CORRUPTIONS[kind](clean, rate, seed=0)
            for name, settings in methods.items():
                file = partial_folder / f"{slug(name)}-{kind}-{rate}.json"
                rows[name].setdefault(kind, {})[str(rate)] = kept(file, partial(noisy_fit, settings, noisy, clean))
    return {"split": clean.protocol, "rates": RATES, "settings": methods, "rows": rows}


def noisy_fit(settings: Settings, noisy: Split, clean: Split) -> dict[str, Any]:
    """What a model that learned from noise answers to clean questions, and to questions from the noisy log."""
    model = fitted(settings, noisy)
    answers = evaluate(model, clean.test)
    asked_noisily = evaluate(model, noisy.test).mean()
    return {"ndcg@10": answers.mean(), "interval": answers.interval(), "noisy histories": asked_noisily}


FAKES, PROFILE, TARGETS = 47, 10, 3


def shilling(partial_folder: Path) -> dict[str, Any]:
    """Five in a hundred users are fake and push an item: how often others then see it, and whether they are found."""
    split = world(0)
    rare = np.flatnonzero((split.counts >= 2) & (split.counts <= 5))
    targets = np.random.default_rng(0).choice(rare, TARGETS, replace=False)
    methods = {name: chosen("search-attacks")[name] for name in COMPARED}
    rows: list[dict[str, Any]] = []
    for name, settings in methods.items():
        model = None
        for target in targets.tolist():
            file = partial_folder / f"{slug(name)}-before-{target}.json"
            if not file.exists():
                model = model or fitted(settings, split)
            before = kept(file, lambda m=model, t=target: {"exposure": shown(m, split, t)})  # type: ignore[misc]
            for kind in KINDS:
                file = partial_folder / f"{slug(name)}-{kind}-{target}.json"
                made = kept(file, partial(one_push, settings, split, target, kind))
                rows.append({"method": name, "kind": kind, "target": target, "before": before["exposure"], **made})
    return {
        "fake users": FAKES,
        "profile": PROFILE,
        "users": len(split.train),
        "targets": targets.tolist(),
        "rows": rows,
    }


def one_push(settings: Settings, split: Split, target: int, kind: str) -> dict[str, Any]:
    attacked, fake = inject(split, target, kind, users=FAKES, profile=PROFILE, seed=0)
    model = fitted(settings, attacked)
    with torch.no_grad():
        vectors = model.network.embed_users(torch.from_numpy(attacked.train.recent(model.length))).numpy()  # (U, d)
    found = precision_recall(detect(vectors, FAKES / len(vectors)), fake)
    quality = evaluate(model, split.test).mean()
    return {"exposure": shown(model, split, target), "ndcg@10": quality, "detection": vars(found)}


def shown(model: TwoTower, split: Split, target: int) -> float:
    """Share of the lists of ten, one for each user who has not had the item, that show it."""
    latest = split.test[np.unique(split.test.user, return_index=True)[1]]
    rows, positions = latest.history.flat()
    had = np.unique(rows[latest.history.items[positions] == target])
    others = np.setdiff1d(np.arange(len(latest)), had)
    return exposure(top_items(model, latest[others]), target)


def texts(partial_folder: Path) -> dict[str, Any]:
    """Item texts rewritten after training: slips of the keyboard, and a seller who stuffs keywords."""
    split = world(0)
    words = split.data.texts
    stuffed = np.random.default_rng(1).choice(np.flatnonzero(split.counts <= 5), 50, replace=False)
    keywords = telling_words(words, split.counts)
    versions: dict[str, list[str]] = {f"typos {rate:g}": typos(words, rate, seed=0) for rate in (0.05, 0.1, 0.2, 0.4)}
    versions["keywords stuffed"] = stuff_keywords(words, stuffed.tolist(), keywords)
    encoder = LanguageEncoder("minilm")
    mean = encoder.encode(words).mean(0)  # (t,)
    rows: dict[str, Any] = {}
    methods = {name: chosen("search-attacks")[name] for name in COMPARED}
    methods["text alone"] = {**methods["plain"], "ids": False}
    for name, settings in methods.items():
        model = None
        for version, rewritten in {"as they are": words, **versions}.items():
            file = partial_folder / f"{slug(name)}-{slug(version)}.json"
            if not file.exists():
                model = model or fitted(settings, split)
                model.network.items.text = F.normalize(encoder.encode(rewritten) - mean, dim=1)  # (N, t)
            rows.setdefault(name, {})[version] = kept(file, lambda m=model: one_text(m, split, stuffed))  # type: ignore[misc]
    return {"keywords": keywords, "stuffed": len(stuffed), "rows": rows}


def one_text(model: TwoTower, split: Split, stuffed: np.ndarray) -> dict[str, Any]:
    lists = top_items(model, split.test)  # (Q, 10)
    promoted = float(np.isin(lists, stuffed).any(1).mean())
    return {"ndcg@10": evaluate(model, split.test).mean(), "lists with a stuffed item": promoted}


def overhead(partial_folder: Path) -> dict[str, Any]:
    """Seconds of an epoch beside plain training's, in turns, five times each."""
    split = world(0)
    contenders = {
        "in-batch": {},
        "in-batch, APR": {"attack": "fgm", "epsilon": 0.1},
        "in-batch, PGD": {"attack": "pgd", "epsilon": 0.1},
        "in-batch, VAT": {"attack": "vat", "epsilon": 0.1},
        "uniform": {"sampler": "uniform"},
        "generator + filter": {"sampler": "generated", "epsilon": 0.1, "threshold": 0.5},
        "policy (REINFORCE)": {"sampler": "policy"},
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(5):
        for name, settings in contenders.items():
            started = time.process_time()
            fitted({**settings, "epochs": 1}, split)
            seconds[name].append(time.process_time() - started)
    return {"seconds": seconds}


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


RUNS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "search-attacks": search_attacks,
    "search-negatives": search_negatives,
    "adversarial-training": table("search-attacks", against="plain"),
    "adversarial-negatives": table("search-negatives", against="uniform"),
    "robustness-noise": noise,
    "robustness-shilling": shilling,
    "robustness-texts": texts,
    "adversarial-overhead": overhead,
}
