"""What recommenders trained by gradient share: their settings of the optimiser, and the call of the trainer.

See: chapter 5.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn
from transformers import TrainerCallback

from recsys_cl.data import Split
from recsys_cl.recommenders.base import Recommender
from recsys_cl.settings import described
from recsys_cl.training.adversarial import AdversarialTraining, Adversary, Attack
from recsys_cl.training.loop import Examples
from recsys_cl.training.trainer import Execution, TrainingConfig, TrainingReport, train


class TrainedRecommender(Recommender):
    """Base class of recommenders that a trainer fits, with checkpoints, early stopping and resumption.

    A subclass is a dataclass that has the fields named here.

    Attributes:
        execution: How the training is carried out; to be set before :meth:`fit`. No hyperparameter: it changes what a
            run costs, and little of what it ends with.
        report: What the training run did.
    """

    trained: ClassVar[bool] = True

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    attack: Attack = "none"
    epsilon: float = 0.5
    attack_weight: float = 1.0
    execution: Execution = Execution()
    report: TrainingReport

    @abstractmethod
    def fit(self, split: Split, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Train on ``split.train``, stop by ``split.validation``.

        Args:
            split: The data.
            folder: Where checkpoints, logs and ``run.json`` go; by default nowhere that stays.
            resume: Go on from the newest intact checkpoint in ``folder``.
        """

    def _train(
        self,
        split: Split,
        network: nn.Module,
        examples: Examples,
        validate: Callable[[], dict[str, float]],
        *,
        folder: str | Path | None,
        resume: bool,
        metric: str = "ndcg@10",
        callbacks: Sequence[TrainerCallback] = (),
        batch_size: int | None = None,
        epochs: int | None = None,
        **settings: Any,
    ) -> None:
        """Train the network by this recommender's settings, and leave it on the CPU, ready to score.

        ``settings`` are further fields of :class:`~recsys_cl.training.trainer.TrainingConfig`.
        """
        assert is_dataclass(self)
        if self.attack != "none":
            network = AdversarialTraining(network, Adversary(self.attack, self.epsilon, self.attack_weight))
        self.report = train(
            network,
            examples,
            validate=validate,
            config=TrainingConfig(
                epochs=self.epochs if epochs is None else epochs,
                batch_size=batch_size or self.batch_size,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                seed=self.seed,
                metric=metric,
                **asdict(self.execution),
                **settings,
            ),
            settings={**described(self), **split.identity, "seed": self.seed, "split_seed": split.seed},
            folder=folder,
            resume=resume,
            callbacks=callbacks,
        )
        network.cpu().eval()
