"""Sequence objectives: next-item and masked-item losses, auxiliary losses, and the batch parts that they require."""

from recsys_cl.objectives.auxiliary import (
    AUXILIARY_LOSSES,
    AuxiliaryLoss,
    EventType,
    IdDropout,
    ItemAlignment,
    SameTarget,
    SequenceAlignment,
    Views,
)
from recsys_cl.objectives.parts import cloze
from recsys_cl.objectives.prediction import (
    SEQUENCE_LOSSES,
    BinaryCrossEntropy,
    Cloze,
    GeneralisedBinaryCrossEntropy,
    Generated,
    SampledSoftmax,
    SequenceLoss,
    Softmax,
    Step,
    TrainingData,
)

__all__ = [
    "AUXILIARY_LOSSES",
    "SEQUENCE_LOSSES",
    "AuxiliaryLoss",
    "BinaryCrossEntropy",
    "Cloze",
    "EventType",
    "GeneralisedBinaryCrossEntropy",
    "Generated",
    "IdDropout",
    "ItemAlignment",
    "SameTarget",
    "SampledSoftmax",
    "SequenceAlignment",
    "SequenceLoss",
    "Softmax",
    "Step",
    "TrainingData",
    "Views",
    "cloze",
]
