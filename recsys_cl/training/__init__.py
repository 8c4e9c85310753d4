"""Training loops: examples without state, the trainer that runs them, and batches larger than memory or a device."""

from recsys_cl.training.adversarial import AdversarialTraining, Adversary
from recsys_cl.training.catalogue_blocks import CatalogueBlocks
from recsys_cl.training.checkpoints import newest_checkpoint
from recsys_cl.training.distributed import gather_items
from recsys_cl.training.examples import EpochShuffle, NextItemExamples
from recsys_cl.training.gradcache import encode_in_chunks
from recsys_cl.training.loop import RankingTrainer
from recsys_cl.training.trainer import Execution, TrainingConfig, TrainingReport, train

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
