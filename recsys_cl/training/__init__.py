"""Training loops: examples without state, the trainer that runs them, and batches larger than memory or a device."""

from recsys_cl.training.catalogue_blocks import CatalogueBlocks
from recsys_cl.training.distributed import gather_items
from recsys_cl.training.examples import EpochShuffle, NextItemExamples
from recsys_cl.training.gradcache import encode_in_chunks
from recsys_cl.training.trainer import (
    RankingTrainer,
    TrainingConfig,
    TrainingReport,
    newest_checkpoint,
    train,
)

__all__ = [
    "CatalogueBlocks",
    "EpochShuffle",
    "NextItemExamples",
    "RankingTrainer",
    "TrainingConfig",
    "TrainingReport",
    "encode_in_chunks",
    "gather_items",
    "newest_checkpoint",
    "train",
]
