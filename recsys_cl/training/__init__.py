"""Training loops: examples without state, and the trainer that runs them."""

from recsys_cl.training.examples import EpochShuffle, NextItemExamples
from recsys_cl.training.trainer import (
    RankingTrainer,
    TrainingConfig,
    TrainingReport,
    newest_checkpoint,
    train,
)

__all__ = [
    "EpochShuffle",
    "NextItemExamples",
    "RankingTrainer",
    "TrainingConfig",
    "TrainingReport",
    "newest_checkpoint",
    "train",
]
