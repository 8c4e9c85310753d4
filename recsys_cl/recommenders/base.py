"""The one protocol of everything that recommends: fit, score, save, load."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import ClassVar, Self

from datasets import Dataset
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys_cl import __version__
from recsys_cl.data import Sequences, Split
from recsys_cl.errors import InputError


class Recommender(ABC):
    """Base class; a subclass is a dataclass whose fields are its hyperparameters.

    A user *is* a history: someone who was not there at training is scored like anybody else. What
    training found out is in :attr:`state`, tensors by name, so that saving and loading are the same for all.

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
        config = {"recommender": type(self).__name__, "version": __version__, "hyperparameters": asdict(self)}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        self.items.to_parquet(folder / "items.parquet")
        save_file({name: tensor.contiguous() for name, tensor in self.state.items()}, folder / "state.safetensors")

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
        recommender.items = Dataset.from_parquet(str(folder / "items.parquet"), keep_in_memory=True)
        try:
            recommender.state = load_file(folder / "state.safetensors")
        except SafetensorError as error:
            raise InputError(f"{str(folder / 'state.safetensors')!r} is damaged ({error}); train again") from error
        return recommender


def read_config(folder: Path) -> dict:
    """The saved configuration of a recommender.

    Raises:
        InputError: If a file is missing or not readable.
    """
    for name in ("config.json", "items.parquet", "state.safetensors"):
        if not (folder / name).is_file():
            raise InputError(f"{str(folder)!r} holds no saved recommender ({name} is missing); write one with train")
    try:
        return json.loads((folder / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{str(folder / 'config.json')!r} is not JSON ({error.msg}); train again") from error
