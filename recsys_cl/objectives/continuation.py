r"""Contrastive language modelling: tell what continues a text, or a history, from what continues others.

Written as it often is, to find the word :math:`W` that tells two texts apart,

.. math:: \arg\max_W \log \frac{P(x_1, W \mid x_2)}{P(x_2, W \mid x_1)},

it has no answer. By the chain rule :math:`P(x_1, W \mid x_2) = P(x_1, x_2, W) / P(x_2)` and
:math:`P(x_2, W \mid x_1) = P(x_1, x_2, W) / P(x_1)`, so that the ratio is

.. math:: \frac{P(x_1, W \mid x_2)}{P(x_2, W \mid x_1)} = \frac{P(x_1)}{P(x_2)},

the same for every :math:`W`. What does tell texts apart is how much likelier a context makes a continuation than it is
by itself, their pointwise mutual information; :func:`continuation_loss` learns by it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.objectives.contrastive import Reduction
from recsys_cl.objectives.contrastive.vectors import reduce


def continuation_loss(conditional: Tensor, marginal: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""InfoNCE over pointwise mutual information: find each context's own continuation among those of the batch.

    .. math:: L_i = -\log \frac{\exp(s_{ii})}{\sum_j \exp(s_{ij})}, \qquad
        s_{ij} = \log P(x_j \mid c_i) - \log P(x_j)

    The likelihood alone would favour what is likely anywhere: short texts, popular items. With exact probabilities
    :math:`s` is the best score there is, and B independent pairs give a lower bound of the mutual information,

    .. math:: I(c; x) \ge \log B - \mathbb E\, L,

    which never exceeds :math:`\log B` and gets closer as B grows. It holds with every pair in the sum, equal
    continuations as well.

    A text's continuation has its words' log-probabilities summed, without the context for the marginal. Of behaviour
    the continuation is the next item, :math:`P(x_j)` its popularity: then this is
    :func:`~recsys_cl.objectives.contrastive.info_nce_loss` over a batch with ``log_q``.

    Args:
        conditional: ``(B, B)`` log-probability of continuation j (column) after context i (row); −∞ where it is
            impossible, which the diagonal is not.
        marginal: ``(B,)`` log-probability of continuation j by itself.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, or what happened has a log-probability that is not finite.

    References:
        van den Oord, Li and Vinyals (2018), https://arxiv.org/abs/1807.03748; Poole et al. (2019),
        https://arxiv.org/abs/1905.06922, for the bound.

    See: chapter 7.

    >>> coins = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()  # each context determines its continuation
    >>> float(continuation_loss(coins, torch.tensor([0.5, 0.5]).log()))  # log 2 - L = log 2, all there is to know
    0.0
    """
    n = len(marginal)
    if marginal.ndim != 1 or n == 0 or conditional.shape != (n, n):
        raise InputError(
            f"conditional {tuple(conditional.shape)} and marginal {tuple(marginal.shape)} do not fit; give (B, B), "
            "continuation j after context i in row i and column j, and (B,)"
        )
    happened = conditional.diagonal().isfinite() & marginal.isfinite()  # (B,)
    if not happened.all():
        pair = int((~happened).nonzero()[0])
        raise InputError(f"what happened in pair {pair} has no finite log-probability; smooth the model that gave it")
    own = torch.arange(n, device=conditional.device)  # (B,)
    return reduce(F.cross_entropy(conditional - marginal, own, reduction="none"), reduction)
