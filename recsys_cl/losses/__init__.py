"""Loss functions: contrastive, next-item, language-modelling and GAN losses, and adversarial perturbations.

Each loss is a pure function of tensors; hyperparameters are keywords.

See: chapter 4.
"""

from recsys_cl.losses.checks import Reduction
from recsys_cl.losses.contrastive import LOSSES, Loss, add_loss
from recsys_cl.losses.debiased import debiased_contrastive_loss, decoupled_contrastive_loss
from recsys_cl.losses.gan import discriminator_loss, generator_loss, gradient_penalty, saturating_generator_loss
from recsys_cl.losses.info_nce import LearnedTemperature, info_nce_loss, sampled_softmax_loss, symmetric_info_nce_loss
from recsys_cl.losses.language import causal_language_loss, continuation_loss, masked_language_loss
from recsys_cl.losses.logistic import bpr_loss, logistic_loss, sigmoid_loss
from recsys_cl.losses.margin import pairwise_contrastive_loss, soft_triplet_loss, triplet_loss
from recsys_cl.losses.next_item import binary_next_item_loss, gbce_loss, next_item_loss, sampled_next_item_loss
from recsys_cl.losses.nt_xent import multi_positive_loss, nt_xent_loss, supervised_contrastive_loss
from recsys_cl.losses.partition import Mask
from recsys_cl.losses.perturbations import pgd, random_perturbation, steepest, virtual_direction
from recsys_cl.losses.policy_gradient import gumbel_softmax_sample, reinforce_loss
from recsys_cl.losses.uniformity import alignment, uniformity
from recsys_cl.losses.within_across import cross_user_loss, user_item_loss, within_user_loss

__all__ = [
    "LOSSES",
    "LearnedTemperature",
    "Loss",
    "Mask",
    "Reduction",
    "add_loss",
    "alignment",
    "binary_next_item_loss",
    "bpr_loss",
    "causal_language_loss",
    "continuation_loss",
    "cross_user_loss",
    "debiased_contrastive_loss",
    "decoupled_contrastive_loss",
    "discriminator_loss",
    "gbce_loss",
    "generator_loss",
    "gradient_penalty",
    "gumbel_softmax_sample",
    "info_nce_loss",
    "logistic_loss",
    "masked_language_loss",
    "multi_positive_loss",
    "next_item_loss",
    "nt_xent_loss",
    "pairwise_contrastive_loss",
    "pgd",
    "random_perturbation",
    "reinforce_loss",
    "sampled_next_item_loss",
    "sampled_softmax_loss",
    "saturating_generator_loss",
    "sigmoid_loss",
    "soft_triplet_loss",
    "steepest",
    "supervised_contrastive_loss",
    "symmetric_info_nce_loss",
    "triplet_loss",
    "uniformity",
    "user_item_loss",
    "virtual_direction",
    "within_user_loss",
]
