"""One query, several positives at once: what a user's whole basket says against a list of candidates."""

from __future__ import annotations

from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.objectives.contrastive.partition import dense_logits
from recsys_cl.objectives.contrastive.vectors import Reduction, check_positive, comparable, reduce


def multi_positive_loss(
    query: Tensor,
    item: Tensor,
    positive: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""InfoNCE averaged over a query's positives, all of them and the negatives in one denominator.

    .. math:: L_b = -\frac{1}{|P_b|} \sum_{p \in P_b} \log
        \frac{e^{u_b^\top v_p / \tau}}{\sum_{j \notin M_b} e^{u_b^\top v_j / \tau}}

    Of one positive it is InfoNCE. Of many it is, up to the factor :math:`|P_b|`, the multinomial log-likelihood of the
    user's events, and the "out" form of supervised contrastive learning with users for anchors. If the candidates are
    a uniform sample of the catalogue, all have the same chance to be there, so that no logQ correction is due.

    Args:
        query: ``(batch, dim)``.
        item: ``(n, dim)`` the candidates, the same for all queries.
        positive: ``(batch, n)`` true where a candidate is one of the query's positives; at least one a row.
        temperature: :math:`\tau > 0`, a number or a learned scalar tensor.
        mask: ``(batch, n)`` true where a candidate does not count; a positive always counts.
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
        raise InputError("a positive is masked, so its probability is 0; take the positives out of the mask")
    logits = dense_logits(query, item, temperature, mask, None)  # (B, N)
    pulled = logits.masked_fill(~positive, 0).sum(1) / positive.sum(1)  # (B,)
    return reduce(logits.logsumexp(1) - pulled, reduction)
