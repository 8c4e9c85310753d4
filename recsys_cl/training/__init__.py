"""Training: stateless examples, the trainer, adversarial training, pre-training, and batches larger than memory."""

from recsys_cl.training.adversarial import ATTACKS, AdversarialTraining, Attack
from recsys_cl.training.checkpoints import newest_checkpoint
from recsys_cl.training.examples import CatalogueBlocks, EpochShuffle, Examples, NextItemExamples
from recsys_cl.training.large_batches import encode_in_chunks, gather_items
from recsys_cl.training.run import Execution, TrainingConfig, TrainingReport, train
from recsys_cl.training.trainer import RankingTrainer

__all__ = [
    "ATTACKS",
    "AdversarialTraining",
    "Attack",
    "CatalogueBlocks",
    "EpochShuffle",
    "Examples",
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
