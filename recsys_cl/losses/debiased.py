"""Debiased and decoupled contrastive losses: false-negative correction, or no positive in InfoNCE's denominator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import Reduction, reduce, unit
from recsys_cl.losses.info_nce import check_candidates, check_log_q
from recsys_cl.losses.partition import (
    Mask,
    log_partition,
    others,
    paired_scores,
)


def decoupled_contrastive_loss(
    query: Tensor,
    item: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    mask: Mask | None = None,
    log_q: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Decoupled contrastive loss: InfoNCE whose denominator leaves the positive out.

    .. math:: L_b = -s_{bb} + \log \sum_{j \neq b,\, j \notin M_b} \exp(s_{bj} - \log q_j)

    The gradient of InfoNCE has the factor :math:`1 - p_{bb}`: once the positive wins, the row has almost no gradient.
    Small batches get there soon. Without the positive in the sum the factor disappears. The loss has no lower bound
    unless the vectors have bounded length. (The paper sums over both views of the other examples; this is one
    direction.)

    Args:
        query: ``(batch, dim)`` anchors, not normalised here.
        item: ``(n, dim)`` with ``n >= batch``: the positives in the queries' order, then extra negatives.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, n)``, true where an item is not a negative; see InfoNCE.
        log_q: ``(n,)`` log-probability of each item, see InfoNCE; it corrects only the negatives, since
            the positive's correction would have no gradient.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats; 0 for a query without negatives.

    Raises:
        InputError: Under the conditions of InfoNCE.

    References:
        Yeh et al. (2022), https://arxiv.org/abs/2110.06848.

    See: chapter 4.

    >>> round(float(decoupled_contrastive_loss(torch.eye(3), torch.eye(3), temperature=1.0)), 4)  # log 2 - 1
    -0.3069
    """
    query, item = check_candidates(query, item, temperature)
    log_q = None if log_q is None else check_log_q("log_q", log_q, item)
    positive = paired_scores(query, item[: len(query)], temperature)  # (B,)
    log_z = log_partition(query, item, temperature, mask=others(mask, query, item), log_q=log_q)  # (B,)
    return reduce(torch.where(log_z > _NONE_LEFT, log_z - positive, 0), reduction)


def debiased_contrastive_loss(
    query: Tensor,
    item: Tensor,
    *,
    prior: float = 0.1,
    hardness: float = 0.0,
    temperature: float | Tensor = 0.5,
    mask: Mask | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""InfoNCE corrected for false negatives, and optionally weighted towards hard ones.

    .. math:: L_b = \log\bigl(1 + N g_b\, e^{-s_b^+}\bigr), \qquad
        g_b = \max\Bigl\{\frac{1}{1 - \pi} \Bigl(\sum_j w_{bj} e^{s_{bj}} - \pi e^{s_b^+}\Bigr),\; e^{-1/\tau}\Bigr\},
        \qquad w_{bj} = \frac{e^{\beta s_{bj}}}{\sum_k e^{\beta s_{bk}}}

    A negative drawn from the whole catalogue is a false one with probability :math:`\pi`. The difference estimates the
    mean over true negatives; it is clipped at :math:`e^{-1/\tau}`, the minimum that a cosine allows. :math:`\beta = 0`
    weights all negatives equally (Chuang et al.); :math:`\beta > 0` weights similar ones more (Robinson et al.). The
    gradient flows through the weights as well, so negatives clearly less similar than the hardest are attracted. With
    :math:`\pi = \beta = 0` it is InfoNCE on normalised vectors.

    Args:
        query: ``(batch, dim)``, normalised here.
        item: ``(n, dim)`` with ``n >= batch``, normalised here: the positives, then extra negatives.
        prior: :math:`\pi` in [0, 1), the probability that a negative is false.
        hardness: :math:`\beta \ge 0`, how strongly hard negatives are weighted.
        temperature: :math:`\tau > 0`.
        mask: ``(batch, n)``, true where an item is not a negative; see InfoNCE.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats; 0 for a query without negatives.

    Raises:
        InputError: Under the conditions of InfoNCE, or if ``prior`` or ``hardness`` is out of range.

    References:
        Chuang et al. (2020), https://arxiv.org/abs/2007.00224;
        Robinson et al. (2021), https://arxiv.org/abs/2010.04592.

    See: chapter 4.

    >>> round(float(debiased_contrastive_loss(torch.eye(2), torch.eye(2), prior=0.0, temperature=1.0)), 4)
    0.3133
    """
    query, item = check_candidates(query, item, temperature)
    if not 0 <= prior < 1:
        raise InputError(f"prior is {prior}; give a probability in [0, 1)")
    if not 0 <= hardness < float("inf"):
        raise InputError(f"hardness is {hardness}; give a number of at least 0")
    query, item = unit(query), unit(item)  # (B, d), (N, d)
    mask = others(mask, query, item)
    positive = paired_scores(query, item[: len(query)], temperature)  # (B,)
    log_n = log_partition(torch.zeros_like(query), item.detach(), 1.0, mask=mask)  # (B,)
    if hardness:
        tilted = log_partition(query, item, temperature / (1 + hardness), mask=mask)  # (B,)
        mean = tilted - log_partition(query, item, temperature / hardness, mask=mask)  # (B,)
    else:
        mean = log_partition(query, item, temperature, mask=mask) - log_n  # (B,)
    floor = torch.full_like(mean, -1) / temperature  # (B,)
    if prior:
        false = positive + math.log(prior) - mean  # (B,), log of the false negatives' share of the mean
        left = torch.log(-torch.expm1(false.masked_fill(false >= 0, -1)))  # (B,)
        mean = torch.where(false < 0, mean + left - math.log1p(-prior), floor)  # (B,)
    rows = F.softplus(log_n + torch.maximum(mean, floor) - positive)  # (B,)
    return reduce(torch.where(log_n > _NONE_LEFT, rows, 0), reduction)


_NONE_LEFT = torch.finfo(torch.float32).min / 2
"""A log-partition below this is a sum over no terms."""
