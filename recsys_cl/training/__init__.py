"""Training loops: examples without state, the trainer that runs them, and batches larger than memory or a device."""

from recsys_cl.training.adversarial import AdversarialTraining, Adversary
from recsys_cl.training.checkpoints import newest_checkpoint
from recsys_cl.training.examples import CatalogueBlocks, EpochShuffle, NextItemExamples
from recsys_cl.training.large_batches import encode_in_chunks, gather_items
from recsys_cl.training.run import Execution, TrainingConfig, TrainingReport, train
from recsys_cl.training.trainer import RankingTrainer

__all__ = [
    "AdversarialTraining",
    "Adversary",
    "CatalogueBlocks",
    "EpochShuffle",
    "Execution",
    "NextItemExamples",
    "RankingTrainer",
    "TrainingConfig",
    "TrainingReport",
    "encode_in_chunks",
    "gather_items",
    "newest_checkpoint",
    "train",
]
