"""What is optimised: contrastive losses, and what counts as a negative."""

from recsys_cl.objectives.cloze import cloze
from recsys_cl.objectives.continuation import continuation_loss
from recsys_cl.objectives.contrastive import (
    LearnedTemperature,
    alignment,
    bpr_loss,
    debiased_contrastive_loss,
    decoupled_contrastive_loss,
    info_nce_loss,
    logistic_loss,
    multi_positive_loss,
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
from recsys_cl.objectives.negatives import (
    InBatchNegatives,
    MixedNegatives,
    NegativeQueue,
    NegativeSample,
    NegativeSampler,
    PopularityNegatives,
    UniformNegatives,
    hard_negatives,
    in_batch_log_q,
)
from recsys_cl.objectives.next_item import (
    binary_next_item_loss,
    gbce_loss,
    next_item_loss,
    sampled_next_item_loss,
)
from recsys_cl.objectives.positives import LikedByNeighbours, OtherItemOfUser, OtherUserOfItem, dropout_views
from recsys_cl.objectives.ragged import Chance, Ragged
from recsys_cl.objectives.sequence_views import similar_items
from recsys_cl.objectives.user_item import cross_user_loss, user_item_loss, within_user_loss
from recsys_cl.objectives.view_pairs import VIEWS, View, two_views, views_named

__all__ = [
    "VIEWS",
    "Chance",
    "InBatchNegatives",
    "KnownPositives",
    "LearnedTemperature",
    "LikedByNeighbours",
    "MixedNegatives",
    "NegativeQueue",
    "NegativeSample",
    "NegativeSampler",
    "OtherItemOfUser",
    "OtherUserOfItem",
    "PopularityNegatives",
    "Ragged",
    "UniformNegatives",
    "View",
    "alignment",
    "binary_next_item_loss",
    "bpr_loss",
    "cloze",
    "continuation_loss",
    "cross_user_loss",
    "debiased_contrastive_loss",
    "decoupled_contrastive_loss",
    "dropout_views",
    "gbce_loss",
    "hard_negatives",
    "in_batch_log_q",
    "info_nce_loss",
    "logistic_loss",
    "multi_positive_loss",
    "next_item_loss",
    "nt_xent_loss",
    "pairwise_contrastive_loss",
    "sampled_next_item_loss",
    "sampled_softmax_loss",
    "sigmoid_loss",
    "similar_items",
    "soft_triplet_loss",
    "supervised_contrastive_loss",
    "symmetric_info_nce_loss",
    "triplet_loss",
    "two_views",
    "uniformity",
    "user_item_loss",
    "views_named",
    "within_user_loss",
]
