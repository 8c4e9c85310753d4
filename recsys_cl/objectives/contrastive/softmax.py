r"""Losses that compare a positive with everything else at once: a log-partition less the positive's score.

.. math:: L_b = \log Z_b - s_b^+

They differ in who is in :math:`Z`, and in how many positives there are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.objectives.contrastive.masks import Mask, itself, others, rows_of
from recsys_cl.objectives.contrastive.partition import (
    log_partition,
    negative_log_likelihood,
    nothing,
    paired_scores,
    scores,
    symmetric_negative_log_likelihoods,
)
from recsys_cl.objectives.contrastive.vectors import (
    Reduction,
    check_pairs,
    check_positive,
    comparable,
    own_negatives,
    reduce,
    unit,
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
    r"""InfoNCE: pick each query's own item out of all items of the batch.

    .. math:: L_b = -\log \frac{\exp(s_{bb} - \log q_b)}{\sum_{j \notin M_b} \exp(s_{bj} - \log q_j)},
        \qquad s_{bj} = u_b^\top v_j / \tau

    Row ``b`` of the logits has its positive in column ``b``; the other columns, up to those masked, are its
    negatives: ``n - 1`` of them. Vectors are compared as they come: normalise both for cosine similarity.

    With negatives drawn in proportion to :math:`q` (in a batch of interactions: to popularity) the loss
    without ``log_q`` learns :math:`s = \log p(j \mid b) - \log q_j + c`, a ranking in which what is popular
    is held down; subtracting :math:`\log q_j` restores :math:`s = \log p(j \mid b) + c`. That needs every draw to
    stay in the sum; masks make it an approximation, good while ``n`` times :math:`q_j` is well below 1.

    Beyond a million logits the loss is computed in blocks of rows, exact, in memory that does not grow with the
    square of the batch.

    Args:
        query: ``(batch, dim)`` anchors.
        item: ``(n, dim)`` with ``n >= batch``: the positives in the queries' order, then extra negatives.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, n)``, true where an item is *not* to count as a negative (a duplicate of the positive,
            something the user is known to like, padding); the positive itself is never masked. For batches whose
            mask should not exist as a whole, a function from a slice of rows to their ``(rows, n)``.
        log_q: ``(n,)`` log of each item's chance of being drawn, up to a constant.
        negative: ``(batch, dim)`` or ``(batch, k, dim)``: further negatives of each query's own.
        negative_mask: ``(batch, k)``, true where one of them is not to count; so a query may have fewer than k.
        negative_log_q: ``(batch, k)``, like ``log_q``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, the latter giving ``(batch,)``.

    Returns:
        The loss in nats; 0 for a query without any negative.

    Raises:
        InputError: If shapes do not fit (of vectors, mask or log q), an anchor has no positive, the temperature is
            not above 0, or a vector or log q is not finite.

    References:
        van den Oord, Li and Vinyals (2018), https://arxiv.org/abs/1807.03748;
        Yi et al. (2019), https://doi.org/10.1145/3298689.3346996 (sampling bias, :math:`\log q`).

    See: chapter 4; chapter 5 uses it.

    >>> anchors = torch.eye(2)
    >>> round(float(info_nce_loss(anchors, anchors, temperature=1.0)), 4)  # log(1 + exp(-1))
    0.3133
    """
    query, item = _check_candidates(query, item, temperature)
    if negative is None and not (negative_mask is None and negative_log_q is None):
        raise InputError("negative_mask and negative_log_q are about `negative`, which is missing; give it as well")
    log_q = None if log_q is None else _check_log_q("log_q", log_q, item)
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
    r"""InfoNCE in both directions: each query picks its item, each item its query (CLIP).

    .. math:: L_b = -\tfrac12 \log \frac{e^{s_{bb} - \log q_b}}{\sum_j e^{s_{bj} - \log q_j}}
        - \tfrac12 \log \frac{e^{s_{bb} - \log q'_b}}{\sum_i e^{s_{ib} - \log q'_i}}

    Args:
        query: ``(batch, dim)``.
        item: ``(batch, dim)``, row by row the queries' positives.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, batch)`` or a function of a slice of rows, true where neither is to count as the other's
            negative.
        log_q: ``(batch,)`` log of each item's chance of being drawn.
        query_log_q: ``(batch,)`` log of each query's chance of being drawn.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit (of vectors, mask or log q), the temperature is not above 0, or a vector or
            log q is not finite.

    References:
        Radford et al. (2021), https://arxiv.org/abs/2103.00020.

    See: chapter 4.

    >>> round(float(symmetric_info_nce_loss(torch.eye(2), torch.eye(2), temperature=1.0)), 4)
    0.3133
    """
    check_pairs(query, item)
    query, item = _check_candidates(query, item, temperature)
    even = torch.zeros(len(item)).to(item)  # (B,)
    log_q = even if log_q is None else _check_log_q("log_q", log_q, item)  # (B,)
    query_log_q = even if query_log_q is None else _check_log_q("query_log_q", query_log_q, query)  # (B,)
    by_query, by_item = symmetric_negative_log_likelihoods(
        query, item, temperature, mask=mask, log_q=log_q, query_log_q=query_log_q
    )  # (B,) both
    return reduce((by_query + by_item) / 2, reduction)


def nt_xent_loss(
    first: Tensor, second: Tensor, *, temperature: float | Tensor = 0.5, reduction: Reduction = "mean"
) -> Tensor:
    r"""NT-Xent: two views of each example find each other among all views of the batch (SimCLR).

    .. math:: L_i = -\log \frac{\exp(\cos(z_i, z_{i'}) / \tau)}{\sum_{k \neq i} \exp(\cos(z_i, z_k) / \tau)}

    N pairs give 2N anchors. Each has one positive :math:`i'`, its other view, and 2N − 2 negatives, both views of
    all other examples.

    Args:
        first: ``(batch, dim)`` one view; normalised here.
        second: ``(batch, dim)`` the other.
        temperature: :math:`\tau > 0`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, the latter giving ``(2 * batch,)``: the first views' losses,
            then the second's.

    Returns:
        The loss in nats; 0 for a batch of one.

    Raises:
        InputError: If shapes do not fit, the temperature is not above 0, or a vector is not finite.

    References:
        Chen et al. (2020), https://arxiv.org/abs/2002.05709.

    See: chapter 4.

    >>> views = torch.eye(2)
    >>> round(float(nt_xent_loss(views, views, temperature=1.0)), 4)  # log(1 + 2 exp(-1))
    0.5514
    """
    first, second = comparable(first=first, second=second)
    check_pairs(first, second, names=("first", "second"))
    check_positive("temperature", temperature)
    views = unit(torch.cat([first, second]))  # (2B, d)
    other = torch.arange(len(views), device=views.device).roll(len(first))  # (2B,)
    rows = negative_log_likelihood(views, views, other, temperature, mask=itself(len(views), views.device))  # (2B,)
    return reduce(rows, reduction)


def supervised_contrastive_loss(
    embedding: Tensor, label: Tensor, *, temperature: float | Tensor = 0.1, reduction: Reduction = "mean"
) -> Tensor:
    r"""Supervised contrastive loss: every other example of the same label is a positive ("out" form).

    .. math:: L_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
        \log \frac{\exp(\cos(z_i, z_p) / \tau)}{\sum_{a \neq i} \exp(\cos(z_i, z_a) / \tau)}
        = \log Z_i - \frac{1}{\tau\,|P_i|} \sum_{p \in P_i} \cos(z_i, z_p)

    The sum over positives is a dot product with the sum of a label's vectors, so only :math:`Z` needs all pairs.
    The positives other than the one being pulled stand in the denominator: they are pushed too.

    Args:
        embedding: ``(batch, dim)``, normalised here.
        label: ``(batch,)`` whole numbers.
        temperature: :math:`\tau > 0`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, an example has no other of its label, the temperature is not above 0, or
            a vector is not finite.

    References:
        Khosla et al. (2020), equation 2, https://arxiv.org/abs/2004.11362.

    See: chapter 4.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> round(float(supervised_contrastive_loss(z, torch.tensor([0, 0, 1, 1]), temperature=1.0)), 4)
    0.5514
    """
    (embedding,) = comparable(embedding=embedding)
    check_positive("temperature", temperature)
    fits = embedding.ndim == 2 and label.shape == embedding.shape[:1] and len(label) > 0
    if not fits or label.is_floating_point():
        raise InputError(
            f"embedding {tuple(embedding.shape)} and label {tuple(label.shape)} of {label.dtype} do not fit; "
            "give (batch, dim) and (batch,) whole numbers"
        )
    _, group, size = label.unique(return_inverse=True, return_counts=True)  # (B,), (G,)
    alone = (size[group] == 1).nonzero().flatten()
    if len(alone):
        raise InputError(
            f"rows {alone[:5].tolist()} have no other example of their label, so no positive; "
            "draw at least two of each label, or leave them out"
        )
    z = unit(embedding)  # (B, d)
    total = z.new_zeros(len(size), z.shape[1]).index_add(0, group, z)  # (G, d)
    mean = (total[group] - z) / (size[group] - 1)[:, None]  # (B, d)
    log_z = log_partition(z, z, temperature, mask=itself(len(z), z.device))  # (B,)
    return reduce(log_z - paired_scores(z, mean, temperature), reduction)


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

    The gradient of InfoNCE has the factor :math:`1 - p_{bb}`: once the positive wins, the row stops teaching,
    which small batches reach soon. Without the positive in the sum the factor is gone. The loss has no lower bound,
    except on vectors of bounded length. (The paper has both views of the others in the sum; this is one direction.)

    Args:
        query: ``(batch, dim)`` anchors, compared as they come.
        item: ``(n, dim)`` with ``n >= batch``: the positives in the queries' order, then extra negatives.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: Like :func:`info_nce_loss`.
        log_q: ``(n,)``, like :func:`info_nce_loss`; it corrects the negatives alone, the positive's has no gradient.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats; 0 for a query without any negative, which has nothing to be compared with.

    Raises:
        InputError: As :func:`info_nce_loss`.

    References:
        Yeh et al. (2022), https://arxiv.org/abs/2110.06848.

    See: chapter 4.

    >>> round(float(decoupled_contrastive_loss(torch.eye(3), torch.eye(3), temperature=1.0)), 4)  # log 2 - 1
    -0.3069
    """
    query, item = _check_candidates(query, item, temperature)
    log_q = None if log_q is None else _check_log_q("log_q", log_q, item)
    positive = paired_scores(query, item[: len(query)], temperature)  # (B,)
    log_z = log_partition(query, item, temperature, mask=others(mask, query, item), log_q=log_q)  # (B,)
    return reduce(torch.where(log_z > _NONE_LEFT, log_z - positive, 0), reduction)


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
    r"""Sampled softmax: each query's item against k sampled ones, corrected for how they were sampled.

    .. math:: L_b = -\log \frac{e^{s_b^+ - \log q_b}}{e^{s_b^+ - \log q_b} + \sum_k e^{s_{bk} - \log q_{bk}}}

    It estimates cross-entropy over the whole catalogue; in-batch negatives with ``log_q`` are the same with the
    other rows' items as the sample (:func:`info_nce_loss`). The samplers in
    :mod:`recsys_cl.objectives.negatives` return the log-probabilities that this takes.

    Args:
        query: ``(batch, dim)``.
        item: ``(batch, dim)`` the queries' positives.
        negative: ``(k, dim)`` shared by the batch, or ``(batch, k, dim)``.
        log_q: ``(batch,)`` log of the chance that the sampler draws the positive.
        negative_log_q: ``(k,)`` or ``(batch, k)``, the same for the negatives.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, k)``, true where a negative is not to count (it hit the positive, or something known).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats; 0 for a query all of whose negatives are masked.

    Raises:
        InputError: If shapes do not fit (of vectors, mask or log q), the temperature is not above 0, or a vector or
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
    log_q = _check_log_q("log_q", log_q, item)
    positive = paired_scores(query, item, temperature) - log_q  # (B,)
    return reduce(
        F.softplus(_own_log_partition(query, negative, temperature, mask, negative_log_q) - positive), reduction
    )


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

    Negatives drawn from everything are positives with probability :math:`\pi`. The difference estimates the mean
    over true negatives; below :math:`e^{-1/\tau}`, the least a cosine can give, it is cut off. :math:`\beta = 0`
    weighs all alike (Chuang), :math:`\beta > 0` draws towards what is similar (Robinson). The weights are
    differentiated with the scores, so that negatives clearly less similar than the hardest are pulled. With both at
    0 it is InfoNCE on normalised vectors.

    Args:
        query: ``(batch, dim)``, normalised here.
        item: ``(n, dim)`` with ``n >= batch``, normalised here: the positives, then extra negatives.
        prior: :math:`\pi` in [0, 1), the chance that a negative is false.
        hardness: :math:`\beta \ge 0`.
        temperature: :math:`\tau > 0`.
        mask: Like :func:`info_nce_loss`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats; 0 for a query without any negative.

    Raises:
        InputError: As :func:`info_nce_loss`, or if ``prior`` or ``hardness`` is out of range.

    References:
        Chuang et al. (2020), https://arxiv.org/abs/2007.00224;
        Robinson et al. (2021), https://arxiv.org/abs/2010.04592.

    See: chapter 4.

    >>> round(float(debiased_contrastive_loss(torch.eye(2), torch.eye(2), prior=0.0, temperature=1.0)), 4)
    0.3133
    """
    query, item = _check_candidates(query, item, temperature)
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
        false = positive + math.log(prior) - mean  # (B,), log of the share of the mean that is not negative
        left = torch.log(-torch.expm1(false.masked_fill(false >= 0, -1)))  # (B,)
        mean = torch.where(false < 0, mean + left - math.log1p(-prior), floor)  # (B,)
    rows = F.softplus(log_n + torch.maximum(mean, floor) - positive)  # (B,)
    return reduce(torch.where(log_n > _NONE_LEFT, rows, 0), reduction)


_NONE_LEFT = torch.finfo(torch.float32).min / 2
"""A log-partition below this has no term."""


def _check_candidates(query: Tensor, item: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    query, item = comparable(query=query, item=item)
    check_positive("temperature", temperature)
    if query.ndim != 2 or item.ndim != 2 or query.shape[1] != item.shape[1] or not 0 < len(query) <= len(item):
        raise InputError(
            f"query {tuple(query.shape)} and item {tuple(item.shape)} do not fit; "
            "give (batch, dim) and (n, dim) with n >= batch: each anchor needs its positive, in its row"
        )
    return query, item


def _check_log_q(name: str, log_q: Tensor, vectors: Tensor) -> Tensor:
    shape = tuple(vectors.shape[:-1])
    if tuple(log_q.shape) != shape:
        raise InputError(f"{name} {tuple(log_q.shape)} does not fit; give one entry per vector, {shape}")
    if not log_q.isfinite().all():
        raise InputError(f"{name} has an entry that is not finite; give log-chances, and mask what cannot be drawn")
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
        logits = logits - _check_log_q("negative_log_q", log_q, negative)  # (B, K)
    if mask is not None:
        excluded = rows_of(mask, slice(0, len(query)), shape, query.device)  # (B, K)
        logits = logits.masked_fill(excluded, nothing(logits.dtype))  # (B, K)
    empty = logits.new_full((len(query), 1), nothing(logits.dtype))  # (B, 1)
    return torch.cat([logits, empty], dim=1).logsumexp(1)  # (B,)
