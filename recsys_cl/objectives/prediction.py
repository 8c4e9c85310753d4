r"""Next-item and masked-item losses: softmax, sampled softmax, BCE, gBCE, generated negatives and Cloze (BERT4Rec).

A loss holds its settings, declares what it needs in a batch in addition to the windows (``SequenceLoss.parts``),
and computes a scalar from states, catalogue and batch (``SequenceLoss.__call__``). To add one, write and register a
class::

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
    """Training data and constants from which batch parts are built.

    Attributes:
        train: Training sequences.
        n_items: Size of the catalogue.
        length: Maximum input length of the network, in events.
        seed: Seed of all draws.
    """

    train: Sequences
    n_items: int
    length: int
    seed: int


class Network(Protocol):
    """Interface of the trained network that losses may use."""

    items: ItemTower
    temperature: LearnedTemperature

    def comparable(self, vectors: Tensor) -> Tensor:
        """Vectors as they are compared: normalised for cosine similarity."""
        ...

    def last_states(self, items: Tensor, lengths: Tensor, vectors: Tensor, *context: Tensor | None) -> Tensor:
        """State after the last event of each row, ``(B, dim)``."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """Input of a loss in one training step.

    Attributes:
        network: The trained network.
        states: ``(T, dim)`` states from which items are predicted.
        vectors: ``(N, dim)`` vectors of the catalogue, as used to encode histories.
        table: ``(N, dim)`` the same vectors in single precision, as used in scores.
        target: ``(T,)`` items to predict.
        batch: All tensors of the batch by name, including the parts of the losses.
        learned: Module with the loss's own weights, if it has any.
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
    """Base class of sequence losses and auxiliary losses."""

    def __post_init__(self) -> None:
        check_settings(self)

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Parts that a batch must hold in addition to its windows."""
        return ()

    def learned(self, dim: int, sizes: Mapping[str, int]) -> nn.Module | None:
        """Module with the loss's own weights, for states of dimension ``dim`` and data of the given sizes."""
        return None


class SequenceLoss(Objective):
    """Main loss of a sequential recommender; a subclass is a frozen dataclass of settings.

    A subclass defines :meth:`rows`, or ``__call__`` if its loss is not a mean over predictions.
    """

    masked: ClassVar[bool] = False
    """Whether the loss predicts masked events, with a bidirectional encoder, instead of next events."""

    def rows(self, step: Step) -> Tensor:
        """Loss of each prediction, ``(T,)``."""
        raise NotImplementedError(f"{type(self).__name__} defines neither rows nor __call__")

    def __call__(self, step: Step) -> Tensor:
        """Loss of a step, a scalar: by default the mean of :meth:`rows` over all processes.

        Raises:
            InputError: If :meth:`rows` does not return one number per prediction.
        """
        rows = self.rows(step)  # (T,)
        if rows.shape != step.target.shape:
            raise InputError(
                f"{type(self).__name__}.rows returns shape {tuple(rows.shape)}; return one loss per prediction, "
                f"{tuple(step.target.shape)}, without averaging"
            )
        return mean_over_processes(rows)


SEQUENCE_LOSSES: Registry[type[SequenceLoss]] = Registry("sequence loss", made=SequenceLoss)
"""Sequence losses by name: ``sasrec:loss=bce,loss.negatives=1``."""


@SEQUENCE_LOSSES.add("softmax")
@dataclass(frozen=True)
class Softmax(SequenceLoss):
    """Cross-entropy over the whole catalogue (:func:`~recsys_cl.losses.next_item.next_item_loss`).

    Attributes:
        exclude_known: Whether to exclude the user's other training items from the negatives: an item that the user
            chooses later is not a wrong prediction now.
    """

    exclude_known: bool = False

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Known positives, if they are excluded."""
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
        mask_last: Probability that a window masks its last event only, as at inference.
    """

    masked: ClassVar[bool] = True

    mask_share: Annotated[float, Range(0.01, 1)] = 0.2
    mask_last: Annotated[float, Range(0, 1)] = 0.1

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Masked windows, which replace the windows that end before their target."""
        masks = MaskedEvents(data.train, data.n_items, self.mask_share, self.mask_last, data.seed)
        return (masks, *super().parts(data))


@SEQUENCE_LOSSES.add("sampled-softmax")
@dataclass(frozen=True)
class SampledSoftmax(SequenceLoss):
    """Sampled softmax: cross-entropy over a sample of the catalogue that the batch shares.

    Attributes:
        negatives: Number of sampled items per batch.
    """

    negatives: Annotated[int, Range(1)] = 256

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Sampled items of the batch."""
        return (SharedNegatives(UniformNegatives(data.n_items, seed=data.seed), self.negatives),)

    def rows(self, step: Step) -> Tensor:
        """Negative log-likelihood of each target against the sample, ``(T,)``."""
        sample = NegativeSample(step.batch["negative"], step.batch["log_q"])
        return sampled_next_item_loss(
            step.states, step.table, step.target, sample, temperature=step.temperature, reduction="none"
        )  # (T,)


@SEQUENCE_LOSSES.add("bce")
@dataclass(frozen=True)
class BinaryCrossEntropy(SequenceLoss):
    """Binary cross-entropy with sampled negatives; the published SASRec uses one.

    Attributes:
        negatives: Number of negatives per event.
        exclude_known: Whether to draw negatives only from items that the user did not choose in training.
    """

    negatives: Annotated[int, Range(1)] = 256
    exclude_known: bool = False

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Own negatives for each event."""
        known = KnownPositives(data.train, data.n_items) if self.exclude_known else None
        return (OwnNegatives(data.train, data.n_items, self.negatives, known, data.seed),)

    def rows(self, step: Step) -> Tensor:
        """Loss of each target and its negatives, ``(T,)``."""
        return binary_next_item_loss(*self.scores(step), reduction="none")  # (T,)

    def scores(self, step: Step) -> tuple[Tensor, Tensor]:
        """Scores of the targets ``(T,)`` and of the negatives ``(T, k)``."""
        positive = paired_scores(step.states, step.table[step.target], step.temperature)  # (T,)
        return positive, scores(step.states, step.table[step.batch["negative"]], step.temperature)  # (T,), (T, k)


@SEQUENCE_LOSSES.add("gbce")
@dataclass(frozen=True)
class GeneralisedBinaryCrossEntropy(BinaryCrossEntropy):
    """Generalised binary cross-entropy (gSASRec): scale the positive term down to undo negative sampling.

    Attributes:
        calibration: From 0 (binary cross-entropy) to 1 (sigmoids are probabilities).
    """

    calibration: Annotated[float, Range(0, 1)] = 0.75

    def rows(self, step: Step) -> Tensor:
        """Loss of each target and its negatives, ``(T,)``."""
        return gbce_loss(
            *self.scores(step), n_items=len(step.table), calibration=self.calibration, reduction="none"
        )  # (T,)


@SEQUENCE_LOSSES.add("generated")
@dataclass(frozen=True)
class Generated(BinaryCrossEntropy):
    """Sampled softmax against each event's own negatives, a share of which a GAN generates.

    Attributes:
        share: Share of the negatives that are generated.
        epsilon: Maximum move of an item by the generator, in units of its vector's norm.
        hardness: Weight of the cosine with the user in the generator's loss.
        threshold: Minimum probability of being real for a generated negative to be kept; 0 keeps all.

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
        """Sampled softmax plus the losses of generator and discriminator."""
        assert isinstance(step.learned, GanNegatives)
        even = step.states.new_zeros(len(step.table))  # (N,), uniform up to a constant
        drawn = step.batch["negative"]  # (T, k)
        negatives = step.learned(
            Candidates(
                step.states,
                step.table,
                step.target,
                NegativeSample(drawn, even[drawn]),
                lambda rows, items: torch.zeros_like(items, dtype=torch.bool),  # OwnNegatives excludes known items
                step.temperature.detach(),
            )
        )
        rows = sampled_softmax_loss(
            step.states,
            step.table[step.target],
            negatives.vectors,
            log_q=even[step.target],
            negative_log_q=negatives.log_q,
            temperature=step.temperature,
            reduction="none",
        )  # (T,)
        return mean_over_processes(rows) + negatives.loss


def known_mask(step: Step) -> Mask:
    """Mask of known positives ``(T, N)``, as a function from a slice of predictions to their rows."""
    lengths, n_items = step.batch["lengths"], len(step.table)
    row = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)  # (T,)
    row = row[step.batch["masked"]] if "masked" in step.batch else row  # (M,)
    known = torch.zeros(len(lengths), n_items, dtype=torch.bool, device=lengths.device)  # (W, N)
    known[step.batch["known_row"], step.batch["known_item"]] = True
    return lambda predictions: known[row[predictions]]  # (R, N)
