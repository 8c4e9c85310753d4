"""Contrastive losses: bring an anchor and its positive together, push it from everything else."""

from recsys_cl.objectives.contrastive.geometry import alignment, uniformity
from recsys_cl.objectives.contrastive.logistic import bpr_loss, logistic_loss, sigmoid_loss
from recsys_cl.objectives.contrastive.margin import pairwise_contrastive_loss, soft_triplet_loss, triplet_loss
from recsys_cl.objectives.contrastive.masks import Mask
from recsys_cl.objectives.contrastive.multi_positive import multi_positive_loss
from recsys_cl.objectives.contrastive.softmax import (
    debiased_contrastive_loss,
    decoupled_contrastive_loss,
    info_nce_loss,
    nt_xent_loss,
    sampled_softmax_loss,
    supervised_contrastive_loss,
    symmetric_info_nce_loss,
)
from recsys_cl.objectives.contrastive.vectors import LearnedTemperature, Reduction

__all__ = [
    "LearnedTemperature",
    "Mask",
    "Reduction",
    "alignment",
    "bpr_loss",
    "debiased_contrastive_loss",
    "decoupled_contrastive_loss",
    "info_nce_loss",
    "logistic_loss",
    "multi_positive_loss",
    "nt_xent_loss",
    "pairwise_contrastive_loss",
    "sampled_softmax_loss",
    "sigmoid_loss",
    "soft_triplet_loss",
    "supervised_contrastive_loss",
    "symmetric_info_nce_loss",
    "triplet_loss",
    "uniformity",
]
