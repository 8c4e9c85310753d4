r"""NT-Xent, supervised contrastive and multi-positive losses: several views or several positives per anchor.

.. math:: L_b = \log Z_b - s_b^+

They differ in the terms of :math:`Z` and in the positives: the other view, all examples with the same label, or all
of a user's items among a list of candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import Reduction, check_pairs, check_positive, comparable, reduce, unit
from recsys_cl.losses.partition import (
    dense_logits,
    itself,
    log_partition,
    negative_log_likelihood,
    paired_scores,
)


def nt_xent_loss(
    first: Tensor, second: Tensor, *, temperature: float | Tensor = 0.5, reduction: Reduction = "mean"
) -> Tensor:
    r"""NT-Xent (SimCLR): the two views of an example identify each other among all views of the batch.

    .. math:: L_i = -\log \frac{\exp(\cos(z_i, z_{i'}) / \tau)}{\sum_{k \neq i} \exp(\cos(z_i, z_k) / \tau)}

    N pairs give 2N anchors. Each has one positive :math:`i'`, its other view, and 2N − 2 negatives, both views of
    all other examples.

    Args:
        first: ``(batch, dim)``, one view per example, normalised here.
        second: ``(batch, dim)``, the other view, normalised here.
        temperature: :math:`\tau > 0`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, which returns ``(2 * batch,)``: the losses of the first views,
            then those of the second.

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
    r"""Supervised contrastive loss ("out" form): every other example with the same label is a positive.

    .. math:: L_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
        \log \frac{\exp(\cos(z_i, z_p) / \tau)}{\sum_{a \neq i} \exp(\cos(z_i, z_a) / \tau)}
        = \log Z_i - \frac{1}{\tau\,|P_i|} \sum_{p \in P_i} \cos(z_i, z_p)

    The sum over positives is a dot product with the sum of a label's vectors, so only :math:`Z` needs all pairs.
    The other positives of an anchor stay in the denominator, so each term also repels them.

    Args:
        embedding: ``(batch, dim)``, normalised here.
        label: ``(batch,)`` integers.
        temperature: :math:`\tau > 0`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, a label occurs only once, the temperature is not above 0, or a vector is not
            finite.

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
            "give (batch, dim) and (batch,) integers"
        )
    _, group, size = label.unique(return_inverse=True, return_counts=True)  # (B,), (G,)
    alone = (size[group] == 1).nonzero().flatten()
    if len(alone):
        raise InputError(
            f"rows {alone[:5].tolist()} have no other example of their label, so no positive; "
            "draw at least two examples of each label, or leave these rows out"
        )
    z = unit(embedding)  # (B, d)
    total = z.new_zeros(len(size), z.shape[1]).index_add(0, group, z)  # (G, d)
    mean = (total[group] - z) / (size[group] - 1)[:, None]  # (B, d)
    log_z = log_partition(z, z, temperature, mask=itself(len(z), z.device))  # (B,)
    return reduce(log_z - paired_scores(z, mean, temperature), reduction)


def multi_positive_loss(
    query: Tensor,
    item: Tensor,
    positive: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Multi-positive InfoNCE: the mean over a query's positives, with all positives and negatives in one denominator.

    .. math:: L_b = -\frac{1}{|P_b|} \sum_{p \in P_b} \log
        \frac{e^{u_b^\top v_p / \tau}}{\sum_{j \notin M_b} e^{u_b^\top v_j / \tau}}

    With one positive it is InfoNCE. With several it is, up to the factor :math:`|P_b|`, the multinomial log-likelihood
    of the user's events, and the "out" form of supervised contrastive learning with users as anchors. If the
    candidates are a uniform sample of the catalogue, all are equally likely, so no logQ correction is needed.

    Args:
        query: ``(batch, dim)``.
        item: ``(n, dim)`` candidates, the same for all queries.
        positive: ``(batch, n)``, true where a candidate is one of the query's positives; at least one per row.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, n)``, true where a candidate is ignored; a positive must not be masked.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If shapes do not fit, a row has no positive, a positive is masked, the temperature is not above 0,
            or a vector is not finite.

    References:
        Khosla et al. (2020), equation 2, https://arxiv.org/abs/2004.11362; Liang et al. (2018),
        https://arxiv.org/abs/1802.05814 (multinomial likelihood).

    See: chapter 6.

    >>> import torch
    >>> u, v = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> p = torch.tensor([[True, False, True]])
    >>> round(float(multi_positive_loss(u, v, p, temperature=1.0)), 4)  # log(2 + 1/e)
    0.862
    """
    query, item = comparable(query=query, item=item)
    check_positive("temperature", temperature)
    shape = (len(query), len(item))
    if query.ndim != 2 or item.ndim != 2 or query.shape[1] != item.shape[1] or tuple(positive.shape) != shape:
        raise InputError(
            f"query {tuple(query.shape)}, item {tuple(item.shape)} and positive {tuple(positive.shape)} do not fit; "
            "give (batch, dim), (n, dim) and (batch, n)"
        )
    without = (~positive.any(1)).nonzero().flatten()
    if len(without):
        raise InputError(f"rows {without[:5].tolist()} have no positive; leave them out of the batch")
    if mask is not None and (mask & positive).any():
        raise InputError("a positive is masked, so its probability is 0; remove the positives from the mask")
    logits = dense_logits(query, item, temperature, mask, None)  # (B, N)
    pulled = logits.masked_fill(~positive, 0).sum(1) / positive.sum(1)  # (B,)
    return reduce(logits.logsumexp(1) - pulled, reduction)
