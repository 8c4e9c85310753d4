"""Single-model runs: describe a data set, train and save a model, evaluate a saved or a new one.

See: chapter 11.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recsys_cl.config import NAME, RunConfig, create_seeded
from recsys_cl.data import Interactions, Split
from recsys_cl.data.datasets import load_data
from recsys_cl.errors import InputError
from recsys_cl.recommenders import Recommender, TrainedRecommender, load_recommender
from recsys_cl.training.checkpoints import first_process
from recsys_cl.workflow.comparison import Comparison, Row, evaluate_split, protocol_of, split_data


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


def run(config: RunConfig, *, folder: str | Path, resume: bool = False) -> Comparison:
    """Train according to a config, save recommender and config, and measure on the test events.

    With several processes, all of them train; the first one saves and measures.

    Args:
        config: The run.
        folder: Folder for the recommender, its checkpoints and ``run.yaml``.
        resume: Continue from the newest intact checkpoint in ``folder``.

    Returns:
        A table with one row in the first process, without rows in the others.

    Raises:
        InputError: If the data does not validate, there is nothing to resume, or the folder holds another recommender.
        TrainingError: If the loss is NaN or infinite.
    """
    folder = Path(folder)
    data = load_data(**vars(config.data))
    held_out = split_data(data, config.split, n=config.n, seed=config.seed)
    recommender = config.recommender()
    _claim(folder, resume=resume)
    started = time.perf_counter()
    with _written(config, folder / NAME):
        _fit(recommender, held_out, folder, resume=resume)
    row = Row(config.model, seconds=time.perf_counter() - started)
    protocol = {"folder": str(folder), **protocol_of(held_out), **_truncation(recommender, held_out)}
    if not first_process():
        return Comparison(protocol, [])
    row.evaluations[config.seed] = evaluate_split(recommender, held_out)
    return Comparison(protocol, [row])


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
    """Fit one model and, if a folder is given, save it.

    Args:
        data: The data set.
        model: Name of the model.
        split: Name of the split, which holds out validation and test events.
        n: Events held out per user by ``leave-last-n``.
        seed: Seed of the split and of the training.
        folder: Folder for the recommender; checkpoints of trained models go to ``checkpoints`` inside it.
        resume: Continue from the newest intact checkpoint in ``folder``.
        hyperparameters: Values of the model's fields that differ from their defaults.

    Returns:
        The fitted recommender.

    Raises:
        InputError: If a name is unknown, there is nothing to resume, or the folder holds another recommender.
    """
    recommender = create_seeded(model, seed, hyperparameters or {})
    held_out = split_data(data, split, n=n, seed=seed)
    if folder is not None:
        _claim(Path(folder), resume=resume)
    return _fit(recommender, held_out, None if folder is None else Path(folder), resume=resume)


def measure(data: Interactions, model: str, *, split: str = "leave-one-out", n: int = 10, seed: int = 0) -> Comparison:
    """Test one model on a split.

    Args:
        data: The data set.
        model: Name of a model, which is fitted first, or folder of a saved recommender.
        split: Name of the split.
        n: Events held out per user by ``leave-last-n``.
        seed: Seed of the split and of the training.

    Returns:
        A table with one row.

    Raises:
        InputError: If the saved recommender was trained on another split, and may have seen these test events.
    """
    held_out = split_data(data, split, n=n, seed=seed)
    started = time.perf_counter()
    if Path(model).is_dir():
        recommender = load_for(data, model)
        _check_split(Path(model), held_out)
    else:
        recommender = create_seeded(model, seed).fit(held_out)
    row = Row(model, seconds=time.perf_counter() - started)
    row.evaluations[seed] = evaluate_split(recommender, held_out)
    return Comparison(protocol_of(held_out), [row])


def load_for(data: Interactions | None, folder: str | Path) -> Recommender:
    """Load a saved recommender and check that its catalogue matches the data.

    Raises:
        InputError: If the folder holds no recommender, or one with another catalogue.
    """
    recommender = load_recommender(folder)
    if data is not None and list(recommender.items["item_id"]) != list(data.items["item_id"]):
        raise InputError(
            f"the catalogue of {str(folder)!r} differs from {data.name}; give the data that the model was trained on"
        )
    return recommender


@contextmanager
def _written(config: RunConfig, file: Path) -> Iterator[None]:
    """Write a config before its run; if the run is rejected, restore the previous content of the file."""
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


def _truncation(recommender: Recommender, held_out: Split) -> dict[str, int]:
    """Numbers of histories that a model with a maximum length cannot use, or truncates."""
    length = getattr(recommender, "length", None)
    if length is None:
        return {}
    lengths = held_out.train.lengths
    return {
        "training_histories": len(lengths),
        "histories_too_short": int((lengths < 2).sum()),
        "histories_truncated": int((lengths > length).sum()),
        "max_length": length,
    }


def _claim(folder: Path, *, resume: bool) -> None:
    """Create the folder; reject one that already holds a recommender or checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = (folder / "config.json").exists() or any(folder.glob("checkpoints/checkpoint-*"))
    if taken and not resume:
        raise InputError(
            f"{str(folder)!r} holds another recommender or its checkpoints; choose another folder with --output, or "
            "continue with --resume"
        )


def _check_split(folder: Path, held_out: Split) -> None:
    """Reject testing a saved recommender on a split other than the one it was trained on."""
    file = folder / "split.json"
    trained_on = json.loads(file.read_text()) if file.is_file() else {}
    for name, value in held_out.identity.items():
        if trained_on.get(name) != value:
            raise InputError(
                f"{str(folder)!r} was trained with {name} {trained_on.get(name)!r}, not {value!r}, and may have seen "
                "these test events; evaluate it on its own split"
            )
