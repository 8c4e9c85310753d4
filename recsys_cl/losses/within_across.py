"""Within-user and cross-user contrastive losses: item pairs of the same user, and user pairs of the same item."""

from __future__ import annotations

from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import Reduction, unit
from recsys_cl.losses.info_nce import info_nce_loss
from recsys_cl.losses.partition import Mask


def within_user_loss(
    item: Tensor,
    other: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    mask: Mask | None = None,
    log_q: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Within-user contrast: two items of one user are closer than items of other users.

    .. math:: L_\text{within} = -\frac{1}{B} \sum_b \log
        \frac{\exp(\cos(v_{i_b}, v_{j_b}) / \tau - \log q_{j_b})}
        {\sum_{c \notin M_b} \exp(\cos(v_{i_b}, v_{j_c}) / \tau - \log q_{j_c})},
        \qquad i_b, j_b \in \text{history of } u_b

    The negatives of row ``b`` are the second items of the other pairs. Without negatives, identical vectors would
    minimise the loss.

    Args:
        item: ``(batch, dim)`` vectors of :math:`i_b`, normalised here.
        other: ``(n, dim)`` vectors of :math:`j_b`, then of further negatives if ``n > batch``, normalised here.
        temperature: :math:`\tau > 0`.
        mask: :math:`M`, ``(batch, n)``, true where the row's user is known to like the column's item.
        log_q: ``(n,)`` log-probability that :math:`j_b` is drawn, up to a constant.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If the shapes do not fit.

    See: chapter 5.

    >>> import torch
    >>> pairs = torch.eye(2)
    >>> round(float(within_user_loss(pairs, pairs, temperature=1.0)), 4)  # log(1 + exp(-1))
    0.3133
    """
    return info_nce_loss(
        unit(item),
        unit(other),
        temperature=temperature,
        mask=mask,
        log_q=log_q,
        reduction=reduction,
    )


def cross_user_loss(
    user: Tensor,
    other: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    mask: Mask | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-user contrast: two users of one item are closer than users who did not choose it.

    .. math:: L_\text{cross} = -\frac{1}{B} \sum_b \log
        \frac{\exp(\cos(u_b, w_b) / \tau)}{\sum_{c \notin M_b} \exp(\cos(u_b, w_c) / \tau)},
        \qquad u_b, w_b \text{ both chose } i_b

    Args:
        user: ``(batch, dim)`` vectors of :math:`u_b`, normalised here.
        other: ``(n, dim)`` vectors of :math:`w_b`, then of further negatives if ``n > batch``, normalised here.
        temperature: :math:`\tau > 0`.
        mask: :math:`M`, ``(batch, n)``, true where the column's user is known to like the row's item.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss in nats.

    Raises:
        InputError: If the shapes do not fit.

    See: chapter 5.

    >>> import torch
    >>> alike = torch.ones(4, 2)
    >>> round(float(cross_user_loss(alike, alike)), 4)  # collapsed vectors: guessing among four, log(4)
    1.3863
    """
    return info_nce_loss(
        unit(user),
        unit(other),
        temperature=temperature,
        mask=mask,
        reduction=reduction,
    )


def user_item_loss(within: Tensor, cross: Tensor, *, alpha: float = 0.5) -> Tensor:
    r"""Weighted sum of both contrasts: :math:`L = \alpha L_\text{within} + (1 - \alpha) L_\text{cross}`.

    Args:
        within: Value of :func:`within_user_loss`.
        cross: Value of :func:`cross_user_loss`.
        alpha: Weight of the contrast within users, :math:`\alpha \in [0, 1]`.

    Raises:
        InputError: If alpha is out of range.

    See: chapter 5.

    >>> import torch
    >>> float(user_item_loss(torch.tensor(4.0), torch.tensor(2.0), alpha=0.25))
    2.5
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha={alpha} is out of range; give 0 (across users only) to 1 (within users only)")
    return alpha * within + (1 - alpha) * cross
