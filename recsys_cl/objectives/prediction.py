r"""Sequence losses: predict the next item (softmax, sampled softmax, BCE, gBCE, generated negatives) or masked ones.

A loss holds its settings, says what it needs of a batch beside the windows (:meth:`SequenceLoss.parts`), and turns
states, catalogue and batch into a number (:meth:`SequenceLoss.__call__`). A new one is a class and a line::

    @SEQUENCE_LOSSES.add("hinge")
    @dataclass(frozen=True)
    class Hinge(SequenceLoss):
        margin: float = 1.0

        def rows(self, step): ...

See: chapter 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

import torch
from torch import Tensor, nn

from recsys_cl.data import Sequences
from recsys_cl.encoders.towers import ItemTower
from recsys_cl.errors import InputError
from recsys_cl.losses import LearnedTemperature, Mask, sampled_softmax_loss
from recsys_cl.losses.next_item import binary_next_item_loss, gbce_loss, next_item_loss, sampled_next_item_loss
from recsys_cl.losses.partition import paired_scores, scores
from recsys_cl.negatives import Candidates, GanNegatives, NegativeSample, UniformNegatives
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.objectives.parts import KnownItems, MaskedEvents, OwnNegatives, SharedNegatives
from recsys_cl.registry import Registry
from recsys_cl.settings import Range, check_settings
from recsys_cl.training.large_batches import mean_over_processes
from recsys_cl.training.windows import Part


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What the parts of a batch are cut from.

    Attributes:
        train: Training sequences.
        n_items: Size of the catalogue.
        length: Longest input of the network.
        seed: Seed of all draws.
    """

    train: Sequences
    n_items: int
    length: int
    seed: int


class Network(Protocol):
    """What a loss may ask of the network that is trained."""

    items: ItemTower
    temperature: LearnedTemperature

    def comparable(self, vectors: Tensor) -> Tensor:
        """Vectors as they are compared."""
        ...

    def last_states(self, items: Tensor, lengths: Tensor, vectors: Tensor, *context: Tensor | None) -> Tensor:
        """State after the last event of each row, ``(B, dim)``."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """What a loss sees of a training step.

    Attributes:
        network: The network that is trained.
        states: ``(T, dim)`` states from which items are predicted.
        vectors: ``(N, dim)`` vectors of the catalogue, as histories read them.
        table: The same in single precision, as losses compare them.
        target: ``(T,)`` items to predict.
        batch: The whole batch by name, with what the parts of the losses added.
        learned: What the loss itself has to learn, if anything.
    """

    network: Network
    states: Tensor
    vectors: Tensor
    table: Tensor
    target: Tensor
    batch: Mapping[str, Tensor]
    learned: nn.Module | None = None

    @property
    def temperature(self) -> Tensor:
        """The temperature of the scores."""
        return self.network.temperature()


class Objective:
    """What sequence losses and auxiliary losses have in common."""

    def __post_init__(self) -> None:
        check_settings(self)

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """What a batch must hold beside its windows."""
        return ()

    def learned(self, dim: int, sizes: Mapping[str, int]) -> nn.Module | None:
        """Weights of the loss's own, for states of this width and data of these sizes."""
        return None


class SequenceLoss(Objective):
    """The main loss of a sequential recommender; a subclass is a frozen dataclass of settings.

    A subclass defines :meth:`rows`, or :meth:`__call__` if its loss is no mean over predictions.
    """

    masked: ClassVar[bool] = False
    """Whether masked events are predicted, by a bidirectional encoder, in place of the next ones."""

    def rows(self, step: Step) -> Tensor:
        """Loss of each prediction, ``(T,)``."""
        raise NotImplementedError(f"{type(self).__name__} defines neither rows nor __call__")

    def __call__(self, step: Step) -> Tensor:
        """The loss of a step, a scalar: by default the mean of :meth:`rows` over all processes.

        Raises:
            InputError: If :meth:`rows` does not give one number per prediction.
        """
        rows = self.rows(step)  # (T,)
        if rows.shape != step.target.shape:
            raise InputError(
                f"{type(self).__name__}.rows returns shape {tuple(rows.shape)}; return one loss per prediction, "
                f"{tuple(step.target.shape)}, without a mean"
            )
        return mean_over_processes(rows)


SEQUENCE_LOSSES: Registry[type[SequenceLoss]] = Registry("sequence loss", made=SequenceLoss)
"""Name to a loss: ``sasrec:loss=bce,loss.negatives=1``."""


@SEQUENCE_LOSSES.add("softmax")
@dataclass(frozen=True)
class Softmax(SequenceLoss):
    """Cross-entropy over the whole catalogue (:func:`~recsys_cl.losses.next_item.next_item_loss`).

    Attributes:
        exclude_known: Whether items that the user chose at any other time in training are no negatives: what they will
            choose later is no wrong answer now.
    """

    exclude_known: bool = False

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """The known positives, where they are excluded."""
        return (KnownItems(data.train),) if self.exclude_known else ()

    def rows(self, step: Step) -> Tensor:
        """Negative log-likelihood of each target, ``(T,)``."""
        return next_item_loss(
            step.states,
            step.table,
            step.target,
            temperature=step.temperature,
            mask=known_mask(step) if self.exclude_known else None,
            reduction="none",
        )  # (T,)


@SEQUENCE_LOSSES.add("cloze")
@dataclass(frozen=True)
class Cloze(Softmax):
    """Masked item modelling (BERT4Rec): cross-entropy over the catalogue at masked events.

    Attributes:
        mask_share: Share of the events that are masked.
        mask_last: Chance that a window's last event alone is masked, as at inference.
    """

    masked: ClassVar[bool] = True

    mask_share: Annotated[float, Range(0.01, 1)] = 0.2
    mask_last: Annotated[float, Range(0, 1)] = 0.1

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Masked windows in place of those that end before their target."""
        masks = MaskedEvents(data.train, data.n_items, self.mask_share, self.mask_last, data.seed)
        return (masks, *super().parts(data))


@SEQUENCE_LOSSES.add("sampled-softmax")
@dataclass(frozen=True)
class SampledSoftmax(SequenceLoss):
    """Cross-entropy over a sample of the catalogue that a batch shares.

    Attributes:
        negatives: Number of sampled items.
    """

    negatives: Annotated[int, Range(1)] = 256

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """The sample."""
        return (SharedNegatives(UniformNegatives(data.n_items, seed=data.seed), self.negatives),)

    def rows(self, step: Step) -> Tensor:
        """Negative log-likelihood of each target in the sample, ``(T,)``."""
        sample = NegativeSample(step.batch["negative"], step.batch["log_q"])
        return sampled_next_item_loss(
            step.states, step.table, step.target, sample, temperature=step.temperature, reduction="none"
        )  # (T,)


@SEQUENCE_LOSSES.add("bce")
@dataclass(frozen=True)
class BinaryCrossEntropy(SequenceLoss):
    """Binary cross-entropy with sampled negatives, as SASRec was published (with one).

    Attributes:
        negatives: Negatives of each event.
        exclude_known: Whether they are drawn from what the user never chose in training.
    """

    negatives: Annotated[int, Range(1)] = 256
    exclude_known: bool = False

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Negatives of each event's own."""
        known = KnownPositives(data.train, data.n_items) if self.exclude_known else None
        return (OwnNegatives(data.train, data.n_items, self.negatives, known, data.seed),)

    def rows(self, step: Step) -> Tensor:
        """Loss of each event and its negatives, ``(T,)``."""
        return binary_next_item_loss(*self.scores(step), reduction="none")  # (T,)

    def scores(self, step: Step) -> tuple[Tensor, Tensor]:
        """Scores of the targets ``(T,)`` and of the negatives ``(T, k)``."""
        positive = paired_scores(step.states, step.table[step.target], step.temperature)  # (T,)
        return positive, scores(step.states, step.table[step.batch["negative"]], step.temperature)  # (T,), (T, k)


@SEQUENCE_LOSSES.add("gbce")
@dataclass(frozen=True)
class GeneralisedBinaryCrossEntropy(BinaryCrossEntropy):
    """Binary cross-entropy whose positives are scaled down to undo the sampling (gSASRec).

    Attributes:
        calibration: From 0 (binary cross-entropy) to 1 (sigmoids are probabilities).
    """

    calibration: Annotated[float, Range(0, 1)] = 0.75

    def rows(self, step: Step) -> Tensor:
        """Loss of each event and its negatives, ``(T,)``."""
        return gbce_loss(
            *self.scores(step), n_items=len(step.table), calibration=self.calibration, reduction="none"
        )  # (T,)


@SEQUENCE_LOSSES.add("generated")
@dataclass(frozen=True)
class Generated(BinaryCrossEntropy):
    """Softmax against negatives of each event's own, of which a GAN generates a share.

    Attributes:
        share: Share of the negatives that are generated.
        epsilon: How far the generator may move an item, in units of its vector's norm.
        hardness: What closeness to the user is worth to the generator.
        threshold: Probability of being real below which the filter takes a negative back, 0 for no filter.

    See: chapter 10.
    """

    share: Annotated[float, Range(0.001, 1)] = 0.5
    epsilon: Annotated[float, Range(1e-6)] = 0.5
    hardness: float = 0.1
    threshold: Annotated[float, Range(0, 0.99)] = 0.0

    def learned(self, dim: int, sizes: Mapping[str, int]) -> GanNegatives:
        """Generator and discriminator."""
        return GanNegatives(dim, self.share, epsilon=self.epsilon, hardness=self.hardness, threshold=self.threshold)

    def __call__(self, step: Step) -> Tensor:
        """The softmax, plus what the players of the game lose."""
        assert isinstance(step.learned, GanNegatives)
        even = step.states.new_zeros(len(step.table))  # (N,), drawn uniformly
        negative = step.batch["negative"]  # (T, k)
        made = step.learned(
            Candidates(
                step.states,
                step.table,
                step.target,
                NegativeSample(negative, even[negative]),
                lambda rows, items: torch.zeros_like(items, dtype=torch.bool),  # the draws exclude what they should
                step.temperature.detach(),
            )
        )
        rows = sampled_softmax_loss(
            step.states,
            step.table[step.target],
            made.vectors,
            log_q=even[step.target],
            negative_log_q=made.log_q,
            temperature=step.temperature,
            reduction="none",
        )  # (T,)
        return mean_over_processes(rows) + made.loss


def known_mask(step: Step) -> Mask:
    """True where a prediction's user is known to have chosen an item: a function from a slice of predictions."""
    lengths, n_items = step.batch["lengths"], len(step.table)
    row = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)  # (T,)
    row = row[step.batch["masked"]] if "masked" in step.batch else row  # (M,)
    known = torch.zeros(len(lengths), n_items, dtype=torch.bool, device=lengths.device)  # (W, N)
    known[step.batch["known_row"], step.batch["known_item"]] = True
    return lambda predictions: known[row[predictions]]  # (R, N)
