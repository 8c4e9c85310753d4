"""What is optimised: contrastive losses, and what counts as a negative."""

from recsys_cl.objectives.contrastive import (
    LearnedTemperature,
    alignment,
    bpr_loss,
    debiased_contrastive_loss,
    decoupled_contrastive_loss,
    info_nce_loss,
    logistic_loss,
    nt_xent_loss,
    pairwise_contrastive_loss,
    sampled_softmax_loss,
    sigmoid_loss,
    soft_triplet_loss,
    supervised_contrastive_loss,
    symmetric_info_nce_loss,
    triplet_loss,
    uniformity,
)
from recsys_cl.objectives.known import KnownPositives
from recsys_cl.objectives.negatives import in_batch_log_q

__all__ = [
    "KnownPositives",
    "LearnedTemperature",
    "alignment",
    "bpr_loss",
    "debiased_contrastive_loss",
    "decoupled_contrastive_loss",
    "in_batch_log_q",
    "info_nce_loss",
    "logistic_loss",
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
