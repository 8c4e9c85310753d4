"""Recommender base classes: fit, score, save and load, and training shared by all gradient-trained recommenders.

See: chapter 2 (fitting and scoring), chapter 5 (training).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import pyarrow.parquet as pq
from datasets import Dataset
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from recsys_cl import __version__
from recsys_cl.data import Sequences, Split
from recsys_cl.errors import InputError
from recsys_cl.registry import Registry
from recsys_cl.settings import check_settings, described
from recsys_cl.training.adversarial import AdversarialTraining, Attack
from recsys_cl.training.examples import Examples
from recsys_cl.training.run import Execution, TrainingConfig, TrainingReport, train

MODELS: Registry[Callable[..., Recommender]] = Registry("model")
"""Classes, or factories that take hyperparameters as keywords, by name; a saved model stores the name of its class."""


class Recommender(ABC):
    """Base class of recommenders; a subclass is a dataclass whose fields are its hyperparameters.

    A user *is* a history: users unseen in training are scored like all others. Fitted values are in ``state``, tensors
    by name, so saving and loading are the same for all subclasses.

    Attributes:
        items: Catalogue that the scores refer to, with columns ``item_id``, ``title``, ``text`` and attributes.
        state: Fitted tensors by name, without the weights of a network.
        sizes: Sizes of the data that determine the shapes of a network, such as the numbers of items and attributes.
    """

    reads_text: ClassVar[bool] = False
    """Whether :meth:`score_text` ranks the catalogue for a sentence."""

    trained: ClassVar[bool] = False
    """Whether the model is trained by gradient, so its result depends on the seed."""

    items: Dataset
    state: dict[str, Tensor]
    sizes: dict[str, int]

    def __post_init__(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: With the hyperparameter, its value and the valid values.
        """
        check_settings(self)

    @abstractmethod
    def fit(self, split: Split) -> Self:
        """Fit on ``split.train``; ``split.validation`` may decide when to stop, ``split.test`` is not used."""

    @abstractmethod
    def score(self, histories: Sequences) -> Tensor:
        """Score the whole catalogue for each history: ``(batch, n_items)``, larger is better."""

    def score_text(self, text: str) -> Tensor:
        """Score the catalogue for a user described by a sentence: ``(1, n_items)``.

        Raises:
            InputError: If the recommender does not read text.
        """
        raise InputError(f"{type(self).__name__} does not read text; use a model that does (tfidf, minilm, two-tower)")

    def save(self, folder: str | Path) -> None:
        """Write hyperparameters, catalogue and state to a folder."""
        assert is_dataclass(self)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "recommender": MODELS.name_of(type(self)),
            "version": __version__,
            "hyperparameters": described(self),
            "sizes": getattr(self, "sizes", {}),
        }
        (folder / "config.json").unlink(missing_ok=True)  # written last: a folder without it is incomplete
        self.items.to_parquet(folder / "items.parquet")
        save_file({name: tensor.contiguous() for name, tensor in self._tensors().items()}, folder / "state.safetensors")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a recommender that :meth:`save` wrote.

        Raises:
            InputError: If the folder is incomplete, or holds another recommender.
        """
        folder = Path(folder)
        config = read_config(folder)
        if MODELS[config["recommender"]] is not cls:
            raise InputError(f"{str(folder)!r} holds a {config['recommender']!r}, not a {cls.__name__}")
        known = {field.name for field in fields(cls)} if is_dataclass(cls) else set[str]()
        unknown = sorted(set(config["hyperparameters"]) - known)
        if unknown:
            raise InputError(f"{str(folder)!r} has the hyperparameter {unknown[0]!r}, unknown to version {__version__}")
        recommender = cls(**config["hyperparameters"])
        recommender.sizes = config["sizes"]
        recommender._load_parts(folder)
        try:
            recommender.items = Dataset(pq.read_table(folder / "items.parquet"))
        except (OSError, ValueError) as error:
            raise InputError(f"{str(folder / 'items.parquet')!r} is damaged ({_line(error)}); train again") from error
        try:
            recommender._restore(load_file(folder / "state.safetensors"))
            recommender.score(Sequences.from_lists([[0]]))
        except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{str(folder / 'state.safetensors')!r} is damaged or of another model ({_line(error)}); train again"
            ) from error
        return recommender

    def _tensors(self) -> dict[str, Tensor]:
        """All fitted tensors by name."""
        return self.state

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore the tensors of :meth:`_tensors`."""
        self.state = tensors

    def _load_parts(self, folder: Path) -> None:  # noqa: B027 - most have none
        """Load what :meth:`save` of a subclass wrote in addition to the state."""


OPTIMISATION = ("epochs", "batch_size", "learning_rate", "weight_decay", "seed")
"""Hyperparameters of every gradient-trained model that are passed on to its training."""

Network = TypeVar("Network", bound=nn.Module)


class TrainedRecommender(Recommender, Generic[Network]):
    """Base class of gradient-trained recommenders, with checkpoints, early stopping and resumption.

    A subclass is a dataclass that has the fields annotated here.

    Attributes:
        execution: Execution settings, set before :meth:`fit`. Not a hyperparameter: it changes the cost of a run, and
            hardly its result.
        monitor: Validation metrics of the model as it is, called after each epoch in place of the model's own
            validation; to be set before :meth:`fit`. It returns the metric that chooses the best epoch, ``ndcg@10``
            unless the model says otherwise; to end the training, it raises an exception.
        report: Summary of the training run.
        network: The network that computes scores.
    """

    trained: ClassVar[bool] = True

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    attack: Attack | None = None
    execution: Execution = Execution()
    monitor: Callable[[], dict[str, float]] | None = None
    report: TrainingReport
    network: Network

    @abstractmethod
    def fit(self, split: Split, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Train on ``split.train``, with early stopping on ``split.validation``.

        Args:
            split: Training and validation data.
            folder: Folder for checkpoints, logs and ``run.json``; by default a temporary one.
            resume: Continue from the newest intact checkpoint in ``folder``.
        """

    @abstractmethod
    def _build(self) -> Network:
        """A new network for the hyperparameters and ``sizes``, without the catalogue."""

    def _tensors(self) -> dict[str, Tensor]:
        weights = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return {**self.state, **weights}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        weights = {
            name.removeprefix("network."): tensor for name, tensor in tensors.items() if name.startswith("network.")
        }
        self.state = {name: tensor for name, tensor in tensors.items() if not name.startswith("network.")}
        self.network = self._build()
        self.network.load_state_dict(weights)
        self.network.eval()

    def _train(
        self,
        split: Split,
        network: nn.Module,
        examples: Examples,
        validate: Callable[[], dict[str, float]],
        *,
        folder: str | Path | None,
        resume: bool,
        callbacks: Sequence[TrainerCallback] = (),
        **settings: Any,
    ) -> None:
        """Train the network with this recommender's settings, then move it to the CPU, ready to score.

        ``settings`` are fields of :class:`~recsys_cl.training.run.TrainingConfig` that override or supplement the
        hyperparameters of the same name.
        """
        assert is_dataclass(self)
        if self.attack is not None:
            network = AdversarialTraining(network, self.attack)
        own = {name: getattr(self, name) for name in OPTIMISATION}
        self.report = train(
            network,
            examples,
            validate=self.monitor or validate,
            config=TrainingConfig(**{**own, **asdict(self.execution), **settings}),
            settings=None
            if folder is None
            else {**described(self), **split.identity, "seed": self.seed, "split_seed": split.seed},
            folder=folder,
            resume=resume,
            callbacks=callbacks,
        )
        network.cpu().eval()


def read_config(folder: Path) -> dict:
    """Read the saved configuration of a recommender.

    Raises:
        InputError: If a file is missing or damaged.
    """
    for name in ("config.json", "items.parquet", "state.safetensors"):
        if not (folder / name).is_file():
            raise InputError(f"{str(folder)!r} holds no saved recommender ({name} is missing); write one with train")
    try:
        config = json.loads((folder / "config.json").read_text())
        return {
            "recommender": config["recommender"],
            "hyperparameters": dict(config["hyperparameters"]),
            "sizes": dict(config["sizes"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder / 'config.json')!r} is damaged ({_line(error)}); train again") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
