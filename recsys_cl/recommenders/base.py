"""The one protocol of everything that recommends: fit, score, save, load.

See: chapter 2 (what is fitted and scored), chapter 5 (what is trained).
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args, get_origin, get_type_hints

import pyarrow.parquet as pq
from datasets import Dataset
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys_cl import __version__
from recsys_cl.data import Sequences, Split
from recsys_cl.errors import InputError
from recsys_cl.settings import check_settings, described

RANGES = {
    **dict.fromkeys(
        (
            "neighbours",
            "factors",
            "iterations",
            "dim",
            "length",
            "epochs",
            "batch_size",
            "patience",
            "blocks",
            "heads",
            "negatives",
            "validation_queries",
        ),
        (1, None),
    ),
    **dict.fromkeys(("dropout", "id_dropout", "event_dropout"), (0, 0.99)),
    "hard_share": (0.001, 1),
    "threshold": (0, 0.99),
    "epsilon": (1e-6, None),
    "decay": (0, 1),
    "calibration": (0, 1),
    "mask_share": (0.01, 1),
    "mask_last": (0, 1),
    "temperature": (1e-4, None),
}
"""Least and greatest value of hyperparameters; any other number is at least 0."""


def _check(name: str, value: object, kind: object) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name}={value!r} is unknown; valid names are {', '.join(get_args(kind))}")
    elif kind in (bool, str):
        if not isinstance(value, kind):
            raise InputError(f"{name}={value!r} is not valid; give {'true or false' if kind is bool else 'a name'}")
    elif kind in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        low, high = RANGES.get(name, (0, None))
        if not (whole or (kind is float and isinstance(value, float) and math.isfinite(value))):
            raise InputError(f"{name}={value!r} is not valid; give a {'whole ' if kind is int else ''}number")
        if value < low or (high is not None and value > high):  # type: ignore[operator]
            raise InputError(
                f"{name}={value!r} is out of range; give {low} or more" + (f", at most {high}" if high else "")
            )


class Recommender(ABC):
    """Base class; a subclass is a dataclass whose fields are its hyperparameters.

    A user *is* a history: someone who was not there at training is scored like anybody else. What
    training found out is in ``state``, tensors by name, so that saving and loading are the same for all.

    Attributes:
        items: Catalogue that the scores refer to, ``item_id, title, text`` and attributes.
        state: What was learned.
    """

    reads_text: ClassVar[bool] = False
    """Whether :meth:`score_text` ranks the catalogue for a sentence."""

    trained: ClassVar[bool] = False
    """Whether two seeds give two models."""

    items: Dataset
    state: dict[str, Tensor]

    def __post_init__(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: Naming the hyperparameter, its value and what is valid.
        """
        check_settings(self)

    @abstractmethod
    def fit(self, split: Split) -> Self:
        """Learn from ``split.train``; ``split.validation`` may choose when to stop, ``split.test`` is untouched."""

    @abstractmethod
    def score(self, histories: Sequences) -> Tensor:
        """Score the whole catalogue for each history: ``(batch, n_items)``, larger is better."""

    def score_text(self, text: str) -> Tensor:
        """Score the catalogue for someone of whom only a sentence is known: ``(1, n_items)``.

        Raises:
            InputError: If the recommender does not read text.
        """
        raise InputError(f"{type(self).__name__} does not read text; use a model that does (tfidf, minilm, two-tower)")

    def save(self, folder: str | Path) -> None:
        """Write hyperparameters, catalogue and state to a folder."""
        assert is_dataclass(self)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"recommender": type(self).__name__, "version": __version__, "hyperparameters": described(self)}
        (folder / "config.json").unlink(missing_ok=True)  # written last: a folder without it was not finished
        self.items.to_parquet(folder / "items.parquet")
        save_file({name: tensor.contiguous() for name, tensor in self.state.items()}, folder / "state.safetensors")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: If the folder is incomplete, or holds another recommender.
        """
        folder = Path(folder)
        config = read_config(folder)
        if config["recommender"] != cls.__name__:
            raise InputError(f"{str(folder)!r} holds a {config['recommender']}, not a {cls.__name__}")
        known = {field.name for field in fields(cls)} if is_dataclass(cls) else set[str]()
        unknown = sorted(set(config["hyperparameters"]) - known)
        if unknown:
            raise InputError(f"{str(folder)!r} has the hyperparameter {unknown[0]!r}, unknown to version {__version__}")
        recommender = cls(**config["hyperparameters"])
        recommender._load_parts(folder)
        try:
            recommender.items = Dataset(pq.read_table(folder / "items.parquet"))
        except (OSError, ValueError) as error:
            raise InputError(f"{str(folder / 'items.parquet')!r} is damaged ({_line(error)}); train again") from error
        try:
            recommender.state = load_file(folder / "state.safetensors")
            recommender.score(Sequences.from_lists([[0]]))
        except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{str(folder / 'state.safetensors')!r} is damaged or of another model ({_line(error)}); train again"
            ) from error
        return recommender

    def _load_parts(self, folder: Path) -> None:  # noqa: B027 - most have none
        """Read what :meth:`save` of a subclass wrote beside the state."""


def read_config(folder: Path) -> dict:
    """The saved configuration of a recommender.

    Raises:
        InputError: If a file is missing or not readable.
    """
    for name in ("config.json", "items.parquet", "state.safetensors"):
        if not (folder / name).is_file():
            raise InputError(f"{str(folder)!r} holds no saved recommender ({name} is missing); write one with train")
    try:
        config = json.loads((folder / "config.json").read_text())
        return {"recommender": config["recommender"], "hyperparameters": dict(config["hyperparameters"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder / 'config.json')!r} is damaged ({_line(error)}); train again") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
