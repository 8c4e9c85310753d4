r"""InfoNCE and sampled softmax: one positive against all negatives jointly, with logQ correction for sampling bias.

.. math:: L_b = \log Z_b - s_b^+

The losses differ in which terms enter :math:`Z`, the partition function.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import Reduction, check_pairs, check_positive, comparable, own_negatives, reduce
from recsys_cl.losses.partition import (
    Mask,
    negative_log_likelihood,
    nothing,
    paired_scores,
    rows_of,
    scores,
    symmetric_negative_log_likelihoods,
)


def info_nce_loss(
    query: Tensor,
    item: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    mask: Mask | None = None,
    log_q: Tensor | None = None,
    negative: Tensor | None = None,
    negative_mask: Tensor | None = None,
    negative_log_q: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""InfoNCE: identify each query's own item among all items of the batch.

    .. math:: L_b = -\log \frac{\exp(s_{bb} - \log q_b)}{\sum_{j \notin M_b} \exp(s_{bj} - \log q_j)},
        \qquad s_{bj} = u_b^\top v_j / \tau

    Row ``b`` of the logits has its positive in column ``b``; the other ``n - 1`` columns, except those masked, are
    its negatives. Vectors are not normalised here: normalise both for cosine similarity.

    With negatives drawn in proportion to :math:`q` (in a batch of interactions: to popularity), the loss without
    ``log_q`` learns :math:`s = \log p(j \mid b) - \log q_j + c`, a ranking that penalises popular items; subtracting
    :math:`\log q_j` restores :math:`s = \log p(j \mid b) + c`. This is exact only if no draw is masked; with masks it
    is an approximation, good while ``n`` times :math:`q_j` is well below 1.

    Beyond a million logits the loss is computed in blocks of rows. The result is exact, and memory does not grow with
    the square of the batch.

    Args:
        query: ``(batch, dim)`` anchors.
        item: ``(n, dim)`` with ``n >= batch``: the positives in the queries' order, then extra negatives.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, n)``, true where an item is *not* a negative (a duplicate of the positive, an item that the
            user is known to like, padding); the positive itself is never masked. To avoid materialising the whole
            mask, pass a function from a slice of rows to their mask, ``(rows, n)``.
        log_q: ``(n,)`` log-probability that each item is drawn, up to a constant.
        negative: ``(batch, dim)`` or ``(batch, k, dim)``: each query's own additional negatives.
        negative_mask: ``(batch, k)``, true where such a negative is ignored, so a query may have fewer than k.
        negative_log_q: ``(batch, k)`` log-probability that each such negative is drawn.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, which returns ``(batch,)``.

    Returns:
        The loss in nats; 0 for a query without negatives.

    Raises:
        InputError: If shapes do not fit (vectors, mask or log q), an anchor has no positive, the temperature is not
            above 0, or a vector or log q is not finite.

    References:
        van den Oord, Li and Vinyals (2018), https://arxiv.org/abs/1807.03748;
        Yi et al. (2019), https://doi.org/10.1145/3298689.3346996 (sampling bias, :math:`\log q`).

    See: chapter 4; chapter 5 uses it.

    >>> anchors = torch.eye(2)
    >>> round(float(info_nce_loss(anchors, anchors, temperature=1.0)), 4)  # log(1 + exp(-1))
    0.3133
    """
    query, item = check_candidates(query, item, temperature)
    if negative is None and not (negative_mask is None and negative_log_q is None):
        raise InputError("negative_mask and negative_log_q describe `negative`, which is missing; give it as well")
    log_q = None if log_q is None else check_log_q("log_q", log_q, item)
    own = torch.arange(len(query), device=query.device)  # (B,)
    rows = negative_log_likelihood(query, item, own, temperature, mask=mask, log_q=log_q)  # (B,)
    if negative is not None:
        positive = paired_scores(query, item[: len(query)], temperature)  # (B,)
        if log_q is not None:
            positive = positive - log_q[: len(query)]  # (B,)
        log_z = _own_log_partition(query, negative, temperature, negative_mask, negative_log_q)  # (B,)
        rows = torch.logaddexp(rows, log_z - positive)  # (B,)
    return reduce(rows, reduction)


def symmetric_info_nce_loss(
    query: Tensor,
    item: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    mask: Mask | None = None,
    log_q: Tensor | None = None,
    query_log_q: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Symmetric InfoNCE (CLIP): each query identifies its item, and each item its query.

    .. math:: L_b = -\tfrac12 \log \frac{e^{s_{bb} - \log q_b}}{\sum_j e^{s_{bj} - \log q_j}}
        - \tfrac12 \log \frac{e^{s_{bb} - \log q'_b}}{\sum_i e^{s_{ib} - \log q'_i}}

    Args:
        query: ``(batch, dim)``.
        item: ``(batch, dim)``, the queries' positives, row by row.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, batch)``, or a function from a slice of rows to their mask: true where query and item are not
            each other's negatives.
        log_q: ``(batch,)`` log-probability that each item is drawn.
        query_log_q: ``(batch,)`` log-probability that each query is drawn.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit (vectors, mask or log q), the temperature is not above 0, or a vector or
            log q is not finite.

    References:
        Radford et al. (2021), https://arxiv.org/abs/2103.00020.

    See: chapter 4.

    >>> round(float(symmetric_info_nce_loss(torch.eye(2), torch.eye(2), temperature=1.0)), 4)
    0.3133
    """
    check_pairs(query, item)
    query, item = check_candidates(query, item, temperature)
    even = torch.zeros(len(item)).to(item)  # (B,)
    log_q = even if log_q is None else check_log_q("log_q", log_q, item)  # (B,)
    query_log_q = even if query_log_q is None else check_log_q("query_log_q", query_log_q, query)  # (B,)
    by_query, by_item = symmetric_negative_log_likelihoods(
        query, item, temperature, mask=mask, log_q=log_q, query_log_q=query_log_q
    )  # (B,) both
    return reduce((by_query + by_item) / 2, reduction)


def sampled_softmax_loss(
    query: Tensor,
    item: Tensor,
    negative: Tensor,
    *,
    log_q: Tensor,
    negative_log_q: Tensor,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Sampled softmax: each query's item against k sampled ones, with logQ correction.

    .. math:: L_b = -\log \frac{e^{s_b^+ - \log q_b}}{e^{s_b^+ - \log q_b} + \sum_k e^{s_{bk} - \log q_{bk}}}

    It estimates cross-entropy over the whole catalogue. In-batch negatives with ``log_q`` are the special case whose
    sample is the other rows' items (:func:`info_nce_loss`). The samplers in :mod:`recsys_cl.negatives` return the
    log-probabilities needed here.

    Args:
        query: ``(batch, dim)``.
        item: ``(batch, dim)``, the queries' positives.
        negative: ``(k, dim)`` shared by the batch, or ``(batch, k, dim)``.
        log_q: ``(batch,)`` log-probability that the sampler draws the positive.
        negative_log_q: ``(k,)`` or ``(batch, k)`` log-probability that the sampler draws each negative.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, k)``, true where a negative is ignored (it is the positive, or an item the user is known to
            like).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats; 0 for a query whose negatives are all masked.

    Raises:
        InputError: If shapes do not fit (vectors, mask or log q), the temperature is not above 0, or a vector or
            log q is not finite.

    References:
        Bengio and Senécal (2008), https://doi.org/10.1109/TNN.2007.912312; Jean et al. (2015),
        https://arxiv.org/abs/1412.2007.

    See: chapter 4.

    >>> u, v = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> k = torch.tensor([[0.0, 1.0]])
    >>> equal = torch.zeros(1)
    >>> round(float(sampled_softmax_loss(u, v, k, log_q=equal, negative_log_q=equal)), 4)  # log(1 + exp(-1))
    0.3133
    """
    query, item, negative = comparable(query=query, item=item, negative=negative)
    check_pairs(query, item)
    check_positive("temperature", temperature)
    if negative.ndim == 2:
        negative = negative.expand(len(query), *negative.shape)  # (B, K, d)
        if negative_log_q.ndim == 1:
            negative_log_q = negative_log_q.expand(len(query), -1)  # (B, K)
    log_q = check_log_q("log_q", log_q, item)
    positive = paired_scores(query, item, temperature) - log_q  # (B,)
    return reduce(
        F.softplus(_own_log_partition(query, negative, temperature, mask, negative_log_q) - positive), reduction
    )


def check_candidates(query: Tensor, item: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Check that shapes fit, that each anchor has its positive in its row, and that the temperature is positive."""
    query, item = comparable(query=query, item=item)
    check_positive("temperature", temperature)
    if query.ndim != 2 or item.ndim != 2 or query.shape[1] != item.shape[1] or not 0 < len(query) <= len(item):
        raise InputError(
            f"query {tuple(query.shape)} and item {tuple(item.shape)} do not fit; "
            "give (batch, dim) and (n, dim) with n >= batch: each anchor needs its positive in the same row"
        )
    return query, item


def check_log_q(name: str, log_q: Tensor, vectors: Tensor) -> Tensor:
    """Check that there is one finite log-probability per vector, and detach it."""
    shape = tuple(vectors.shape[:-1])
    if tuple(log_q.shape) != shape:
        raise InputError(f"{name} {tuple(log_q.shape)} does not fit; give one entry per vector, {shape}")
    if not log_q.isfinite().all():
        raise InputError(
            f"{name} has an entry that is not finite; give log-probabilities, and mask items that cannot be drawn"
        )
    return log_q.detach().to(vectors)


def _own_log_partition(
    query: Tensor, negative: Tensor, temperature: float | Tensor, mask: Tensor | None, log_q: Tensor | None
) -> Tensor:
    r""":math:`\log Z` over each query's own negatives, ``(batch,)``."""
    (negative,) = comparable(negative=negative)
    negative = own_negatives(query, negative)  # (B, K, d)
    shape = (len(query), negative.shape[1])
    logits = scores(query, negative, temperature)  # (B, K)
    if log_q is not None:
        logits = logits - check_log_q("negative_log_q", log_q, negative)  # (B, K)
    if mask is not None:
        excluded = rows_of(mask, slice(0, len(query)), shape, query.device)  # (B, K)
        logits = logits.masked_fill(excluded, nothing(logits.dtype))  # (B, K)
    empty = logits.new_full((len(query), 1), nothing(logits.dtype))  # (B, 1)
    return torch.cat([logits, empty], dim=1).logsumexp(1)  # (B,)


class LearnedTemperature(nn.Module):
    r"""Temperature that is trained with the model and never falls below a minimum.

    .. math:: \tau = e^{-\theta}, \qquad \theta \le -\log \tau_{\min}

    The logarithm is the parameter, so steps are relative and :math:`\tau > 0`. Without a minimum, the temperature
    keeps falling once every positive ranks first, and a single mislabelled negative then outweighs the batch. The
    *parameter* is projected: clamping the value instead would zero its gradient below the minimum, and the
    temperature could never rise again.

    Args:
        initial: Initial :math:`\tau`.
        lowest: Minimum :math:`\tau_{\min}`; 0.01 keeps the logits of cosines within ±100, as CLIP does.

    Raises:
        InputError: If ``lowest`` is not above 0 or ``initial`` is below it.

    References:
        Radford et al. (2021), §2.5, https://arxiv.org/abs/2103.00020.

    See: chapter 4.

    >>> temperature = LearnedTemperature(0.5)
    >>> round(float(temperature().detach()), 4)
    0.5
    """

    def __init__(self, initial: float = 0.07, *, lowest: float = 0.01) -> None:
        super().__init__()
        check_positive("lowest", lowest)
        if not lowest <= initial < math.inf:
            raise InputError(f"initial is {initial}; give a temperature of at least lowest = {lowest}")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(initial)))
        self.lowest = lowest

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        with torch.no_grad():
            self.log_scale.clamp_(max=-math.log(self.lowest))
        return (-self.log_scale).exp()  # ()
