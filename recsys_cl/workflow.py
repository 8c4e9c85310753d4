"""The verbs of the command line as functions: describe, train, evaluate, compare, recommend.

See: chapter 5 (a recommendation), chapter 11 (a run).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from recsys_cl.config import NAME, SPLITS, RunConfig
from recsys_cl.data import (
    Interactions,
    Sequences,
    Split,
    cold_item_split,
    leave_last_n,
    leave_one_out,
    load_files,
    load_movielens,
    synthetic,
    temporal_split,
)
from recsys_cl.errors import InputError
from recsys_cl.evaluation import Evaluation, PairedTest, evaluate, evaluate_unseen, pool
from recsys_cl.evaluation import compare as paired_tests
from recsys_cl.evaluation.evaluate import SLOW
from recsys_cl.recommenders import MODELS, Recommender, TrainedRecommender, create, load_recommender
from recsys_cl.training.checkpoints import first_process

DATA = ("ml-100k", "ml-1m", "ml-20m", "synthetic")


def load_data(
    name: str = "ml-100k",
    *,
    path: str | Path | None = None,
    interactions: str | Path | None = None,
    items: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    min_rating: float | None = None,
    min_events: int = 1,
) -> Interactions:
    """Load a named data set, or files of the reader's own.

    Args:
        name: ``ml-100k``, ``ml-1m``, ``ml-20m`` or ``synthetic``; ignored if ``interactions`` is given.
        path: Zip or folder of a MovieLens data set.
        interactions: File with ``user_id, item_id, timestamp`` and optionally ``rating, event``.
        items: File with ``item_id`` and optionally ``title, text``.
        columns: Our column name to the files' name.
        min_rating: Least rating of a positive.
        min_events: Least number of positives of a user.

    Raises:
        InputError: If the name is unknown, or the content does not validate.
        AssetError: If a named data set cannot be fetched.
    """
    if interactions is not None:
        data = load_files(interactions, items, columns=columns)
    elif items is not None:
        raise InputError(f"items file {str(items)!r} without interactions; give both")
    elif name == "synthetic":
        data = synthetic()
    elif name in DATA:
        data = load_movielens(name, path=path)
    else:
        raise InputError(f"unknown data set {name!r} (valid names are {', '.join(DATA)}); or give --interactions FILE")
    if min_rating is None and min_events <= 1:
        return data
    return data.filter(min_rating=min_rating, min_events=min_events)


def describe(data: Interactions) -> dict[str, Any]:
    """Size and shape of a data set: users, items, events, ties, texts, history lengths."""
    lengths = np.bincount(data.user, minlength=data.n_users)
    titles, texts = data.titles, data.texts
    return {
        "data": data.name,
        "users": data.n_users,
        "items": data.n_items,
        "items_without_events": int((np.bincount(data.item, minlength=data.n_items) == 0).sum()),
        "events": len(data),
        "density": len(data) / (data.n_users * data.n_items),
        "events_per_user": {q: float(np.quantile(lengths, p)) for q, p in (("min", 0), ("median", 0.5), ("max", 1))},
        "users_with_one_event": int((lengths == 1).sum()),
        "tied_share": data.tied_share,
        "items_with_text_beyond_title": sum(text != title for text, title in zip(texts, titles, strict=True)),
        "event_types": data.event_types,
        "user_attributes": 0 if data.user_attributes is None else data.user_attributes.shape[1],
    }


def split_data(data: Interactions, split: str = "leave-one-out", *, n: int = 10, seed: int = 0) -> Split:
    """Apply a split by name.

    Raises:
        InputError: If the name is unknown or the data is too small.
    """
    match split:
        case "leave-one-out":
            return leave_one_out(data, seed=seed)
        case "leave-last-n":
            return leave_last_n(data, n, seed=seed)
        case "temporal":
            return temporal_split(data, seed=seed)
        case "cold-items":
            return cold_item_split(data, seed=seed)
    raise InputError(f"unknown split {split!r}; valid names are {', '.join(SPLITS)}")


def evaluate_split(recommender: Recommender, split: Split) -> Evaluation:
    """Test metrics; under ``cold-items`` among the unseen items and in the full catalogue."""
    measure = evaluate_unseen if split.protocol == "cold-items" else evaluate
    return measure(recommender, split.test)


def train(
    data: Interactions,
    model: str,
    *,
    split: str = "leave-one-out",
    n: int = 10,
    seed: int = 0,
    folder: str | Path | None = None,
    resume: bool = False,
    hyperparameters: Mapping[str, Any] | None = None,
) -> Recommender:
    """Fit one model and save it.

    Args:
        data: The data set.
        model: Name of the model.
        split: Protocol that holds validation and test events out.
        n: Events held out per user under ``leave-last-n``.
        seed: Seed of the split's ties and of the training.
        folder: Where the recommender is saved, checkpoints of trained models under ``checkpoints``.
        resume: Go on from the newest intact checkpoint in ``folder``.
        hyperparameters: Fields of the model other than their defaults.

    Raises:
        InputError: If something is unknown, there is nothing to resume, or the folder holds another recommender.
    """
    recommender = create(model, **{**_seeded(model, seed), **(hyperparameters or {})})
    held_out = split_data(data, split, n=n, seed=seed)
    if folder is not None:
        _free(Path(folder), resume=resume)
    return _fit(recommender, held_out, None if folder is None else Path(folder), resume=resume)


def run(config: RunConfig, *, folder: str | Path, resume: bool = False) -> Comparison:
    """Train as a config says, keep the recommender with the config beside it, and measure it on the test events.

    With several processes, all train, and the first keeps and measures.

    Args:
        config: The run.
        folder: Where the recommender, its checkpoints and ``run.yaml`` go.
        resume: Go on from the newest intact checkpoint in ``folder``.

    Returns:
        A table of one row; of no row in the other processes.

    Raises:
        InputError: If the data does not validate, there is nothing to resume, or the folder holds another recommender.
        TrainingError: If the loss is NaN or infinite.
    """
    folder = Path(folder)
    data = load_data(**vars(config.data))
    held_out = split_data(data, config.split, n=config.n, seed=config.seed)
    recommender = config.recommender()
    _free(folder, resume=resume)
    started = time.perf_counter()
    with _written(config, folder / NAME):
        _fit(recommender, held_out, folder, resume=resume)
    row = Row(config.model, seconds=time.perf_counter() - started)
    protocol = {"folder": str(folder), "data": data.name, "split": config.split, **_reads(recommender, held_out)}
    if not first_process():
        return Comparison(protocol, [])
    row.evaluations[config.seed] = evaluate_split(recommender, held_out)
    return Comparison(protocol, [row])


@contextmanager
def _written(config: RunConfig, file: Path) -> Iterator[None]:
    """Write a config before its run; if the run is refused, what stood there before comes back."""
    if not first_process():
        yield
        return
    before = file.read_bytes() if file.is_file() else None
    config.write(file)
    try:
        yield
    except InputError:
        file.unlink() if before is None else file.write_bytes(before)
        raise


def _fit(recommender: Recommender, held_out: Split, folder: Path | None, *, resume: bool) -> Recommender:
    """Fit and save."""
    if isinstance(recommender, TrainedRecommender):
        recommender.fit(held_out, folder=None if folder is None else folder / "checkpoints", resume=resume)
    elif resume:
        raise InputError(f"a {type(recommender).__name__} is fitted in one step; there is nothing to resume")
    else:
        recommender.fit(held_out)
    if folder is not None and first_process():
        recommender.save(folder)
        (folder / "split.json").write_text(json.dumps(held_out.identity, indent=2) + "\n")
    return recommender


def _reads(recommender: Recommender, held_out: Split) -> dict[str, int]:
    """What a model that reads the latest events of a history leaves out, in histories."""
    length = getattr(recommender, "length", None)
    if length is None:
        return {}
    return {
        "training histories": len(held_out.train),
        "of fewer than 2 events, which teach no order": int((held_out.train.lengths < 2).sum()),
        f"of more than {length}, of which the latest {length} are read when scoring": int(
            (held_out.train.lengths > length).sum()
        ),
    }


def _free(folder: Path, *, resume: bool) -> None:
    """Make the folder, and refuse one that holds a recommender or checkpoints of one already."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = (folder / "config.json").exists() or any(folder.glob("checkpoints/checkpoint-*"))
    if taken and not resume:
        raise InputError(
            f"{str(folder)!r} holds another recommender or its checkpoints; choose another folder with --output, or go "
            "on with --resume"
        )


@dataclass
class Row:
    """One line of a comparison.

    Attributes:
        model: Name of the model.
        evaluations: Draw of the split (and seed of the training) to test metrics.
        seconds: Mean wall time of fitting once.
    """

    model: str
    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    seconds: float = 0.0

    def metrics(self) -> dict[str, dict[str, float]]:
        """Per metric: mean over runs, standard deviation over runs, 95 % interval over users."""
        runs = list(self.evaluations.values())
        pooled = pool(runs)
        table = {}
        for name in pooled.metrics:
            means = np.array([run.mean(name) for run in runs])
            low, high = pooled.interval(name)
            sd = float(means.std(ddof=1)) if len(means) > 1 else 0.0
            table[name] = {"mean": float(means.mean()), "sd": sd, "low": low, "high": high}
        return table


@dataclass
class Comparison:
    """Several models under one protocol.

    Attributes:
        protocol: Data set, split, numbers of users, test events and draws.
        rows: One per model.
    """

    protocol: dict[str, Any]
    rows: list[Row]

    def tests(self, metric: str = "ndcg@10") -> dict[str, PairedTest]:
        """Paired tests of every model against the best one, on the draws that they have in common."""
        best = max(self.rows, key=lambda row: row.metrics()[metric]["mean"])
        common = sorted(set.intersection(*(set(row.evaluations) for row in self.rows)))
        pooled = {row.model: pool([row.evaluations[draw] for draw in common]) for row in self.rows}
        return paired_tests(pooled, metric=metric, against=best.model)

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain data, for JSON."""
        rows = [
            {"model": row.model, "seeds": len(row.evaluations), "seconds": row.seconds, "metrics": row.metrics()}
            for row in self.rows
        ]
        return {"protocol": self.protocol, "rows": rows}


def compare(
    data: Interactions,
    models: Sequence[str] = tuple(MODELS),
    *,
    split: str = "leave-one-out",
    n: int = 10,
    seeds: int = 3,
    draws: int = 5,
    folder: str | Path | None = None,
) -> Comparison:
    """Fit and test several models under one protocol.

    A draw is a seeded order within ties (and, under ``cold-items``, a seeded choice of the items). Models that
    are not trained by gradient run once per draw; trained ones ``seeds`` times, seed ``s`` on draw ``s``.

    Args:
        data: The data set.
        models: Names of the models; ``NAME:FIELD=VALUE,...`` sets hyperparameters.
        split: Name of the split.
        n: Events held out per user under ``leave-last-n``.
        seeds: Training seeds.
        draws: Draws of the split; one is enough, and taken, where nothing is drawn.
        folder: Where finished runs are kept, so that a comparison that was interrupted goes on from there.

    Raises:
        InputError: If a name is unknown or the data is too small; before anything is fitted.
    """
    for model in models:
        create(model)
    if seeds < 1 or draws < 1:
        raise InputError(f"seeds={seeds}, draws={draws}; give 1 or more")
    if split != "cold-items" and data.tied_share == 0:
        draws = 1
    rows = {model: Row(model) for model in models}
    runs = {model: seeds if create(model).trained else draws for model in models}
    first = split_data(data, split, n=n, seed=0)
    with tqdm(total=sum(runs.values()), desc="comparing", delay=SLOW, leave=False) as bar:
        for draw in range(max(runs.values())):
            held_out = split_data(data, split, n=n, seed=draw)
            for model in (model for model in models if draw < runs[model]):
                evaluation, seconds = _kept_run(model, held_out, draw, None if folder is None else Path(folder))
                rows[model].evaluations[draw] = evaluation
                rows[model].seconds += seconds / runs[model]
                bar.update(1)
    protocol = {
        "data": data.name,
        "split": first.protocol,
        "users": len(np.unique(first.test.user)),
        "events": int(first.test.target.lengths.sum()),
        "draws": draws,
    }
    return Comparison(protocol, list(rows.values()))


def _run_key(model: str, held_out: Split, draw: int) -> str:
    """File name of a run: readable, and different whenever anything that the run depends on differs."""
    data, settings = held_out.data, vars(create(model))
    depends_on = [model, sorted(settings.items()), held_out.protocol, draw, data.name, len(data), data.n_items]
    digest = hashlib.sha256(repr(depends_on).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', model)}-{draw}-{digest}"


def _kept_run(model: str, held_out: Split, draw: int, folder: Path | None) -> tuple[Evaluation, float]:
    """Fit and test one model on one draw, or read it from ``folder`` if that was done before."""
    file = None if folder is None else folder / f"{_run_key(model, held_out, draw)}.npz"
    if file is not None and file.exists():
        stored = Evaluation.load(file)
        metrics = dict(stored.metrics)
        seconds = float(metrics.pop("seconds"))
        return Evaluation(stored.user, metrics), seconds
    started = time.perf_counter()
    recommender = create(model, **_seeded(model, draw)).fit(held_out)
    seconds = time.perf_counter() - started
    evaluation = evaluate_split(recommender, held_out)
    if file is not None:
        Evaluation(evaluation.user, {**evaluation.metrics, "seconds": np.array(seconds)}).save(file)
    return evaluation, seconds


def recommend(
    recommender: Recommender,
    *,
    history: Sequences | None = None,
    liked: Sequence[str] = (),
    text: str | None = None,
    k: int = 10,
) -> list[dict[str, Any]]:
    """The best unseen items for a known user, for someone new, or for someone who has only words.

    Args:
        recommender: A fitted recommender.
        history: One history, or
        liked: titles (or ids) that someone new likes, or
        text: a sentence about their taste.
        k: How many items.

    Returns:
        ``rank, item_id, title, score`` of each item.

    Raises:
        InputError: Unless exactly one of history, liked and text is given, if a title has no match, or the
            recommender does not read text.

    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> ease = create("ease").fit(leave_one_out(synthetic(100, 100)))
    >>> liked = ease.items["title"][:3]
    >>> [found["rank"] for found in recommend(ease, liked=liked, k=5)]
    [1, 2, 3, 4, 5]
    """
    if sum((history is not None, bool(liked), text is not None)) != 1:
        raise InputError("give exactly one of a user, liked titles and a text")
    if text is not None:
        if not text.strip():
            raise InputError("the text is empty; write a sentence about what is liked")
        scores, seen = recommender.score_text(text)[0], np.array([], dtype=np.int64)
        if (scores == scores[0]).all():
            raise InputError(f"the text {text!r} says nothing about any item; use other words or another model")
    else:
        person = history if history is not None else Sequences.from_lists([find_items(recommender, liked)])
        scores, seen = recommender.score(person)[0], person.items[person.start[0] : person.stop[0]]
    known = set(seen.tolist())
    order = [item for item in scores.argsort(descending=True, stable=True).tolist() if item not in known]
    return [
        {
            "rank": rank,
            "item_id": recommender.items[item]["item_id"],
            "title": recommender.items[item]["title"],
            "score": float(scores[item]),
        }
        for rank, item in enumerate(order[:k], start=1)
    ]


def find_items(recommender: Recommender, wanted: Sequence[str]) -> list[int]:
    """Item numbers of titles or ids.

    Raises:
        InputError: If a title matches nothing (the closest is offered) or several items.
    """
    titles = [str(title) for title in recommender.items["title"]]
    ids = [str(item_id) for item_id in recommender.items["item_id"]]
    by_title: dict[str, list[int]] = {}
    for item, title in enumerate(titles):
        by_title.setdefault(title.casefold(), []).append(item)
    found = []
    by_id = {item_id: [item] for item, item_id in enumerate(ids)}
    for wish in wanted:
        matches = by_title.get(wish.casefold().strip()) or by_id.get(wish)
        if not matches:
            close = difflib.get_close_matches(wish.casefold(), by_title, n=3, cutoff=0.5)
            hint = ", ".join(repr(titles[by_title[title][0]]) for title in close) or "none is close"
            raise InputError(f"no item is called {wish!r}; the closest titles are: {hint}")
        if len(matches) > 1:
            known_ids = ", ".join(ids[item] for item in matches)
            raise InputError(f"{len(matches)} items are called {wish!r}; give the id of one of them: {known_ids}")
        found.append(matches[0])
    return list(dict.fromkeys(found))


def history_of(data: Interactions, user_id: str, *, seed: int = 0) -> Sequences:
    """The whole history of a user, by id.

    Raises:
        InputError: If there is no such user.
    """
    ids = data.user_ids.astype(str)
    row = np.flatnonzero(ids == str(user_id))
    if len(row) == 0:
        close = difflib.get_close_matches(str(user_id), ids.tolist(), n=3)
        raise InputError(f"no user_id {user_id!r} in {data.name}; ids look like {', '.join(close or ids[:3].tolist())}")
    return data.sequences(seed=seed)[row]


def open_model(data: Interactions | None, model: str) -> Recommender:
    """A saved recommender if ``model`` is its folder, otherwise one fitted on the spot, to recommend with.

    Users with a single event cannot be held out and do not train.

    Raises:
        InputError: If it is neither a folder nor a name, or the folder's catalogue is not the data's.
    """
    if not Path(model).is_dir():
        if data is None:
            raise InputError(f"{model!r} is no folder of a saved recommender; give data to fit a model by that name")
        return train(data.filter(min_events=2), model)
    recommender = load_recommender(model)
    if data is not None and list(recommender.items["item_id"]) != list(data.items["item_id"]):
        raise InputError(f"{model!r} knows another catalogue than {data.name}; give the data it was trained on")
    return recommender


def measure(data: Interactions, model: str, *, split: str = "leave-one-out", n: int = 10, seed: int = 0) -> Row:
    """Test one model, by name or by the folder of a saved one, on a split.

    Raises:
        InputError: If the saved recommender was trained on another split, whose training may hold these tests.
    """
    held_out = split_data(data, split, n=n, seed=seed)
    started = time.perf_counter()
    if Path(model).is_dir():
        recommender = open_model(data, model)
        file = Path(model) / "split.json"
        before = json.loads(file.read_text()) if file.is_file() else {}
        for name, value in held_out.identity.items():
            if before.get(name) != value:
                raise InputError(
                    f"{model!r} was trained with {name} {before.get(name)!r}, not {value!r}, and may have trained on "
                    "these test events; evaluate it on its own split"
                )
    else:
        recommender = create(model, **_seeded(model, seed)).fit(held_out)
    row = Row(model, seconds=time.perf_counter() - started)
    row.evaluations[seed] = evaluate_split(recommender, held_out)
    return row


def _seeded(model: str, seed: int) -> dict[str, int]:
    return {"seed": seed} if create(model).trained else {}
