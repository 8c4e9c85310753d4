"""Bias baseline for rating prediction: global mean plus item bias and user bias."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from recsys_cl.data import Sequences

SHRINKAGE = 10.0
"""Number of zero deviations added to each bias estimate, so few ratings have little influence."""


class RatingBaseline(nn.Module):
    r"""Rating baseline: global mean, item bias and user bias.

    .. math:: \hat r_{ui} = \mu + b_i + b_u, \qquad b_i = \frac{\sum_u (r_{ui} - \mu)}{n_i + 10},
        \qquad b_u = \frac{\sum_i (r_{ui} - \mu - b_i)}{n_u + 10}

    :math:`\mu` and :math:`b_i` are estimated from training ratings, :math:`b_u` from the given history, so new users
    have one too. Data without ratings has :math:`r = 1` throughout, which leaves nothing to predict.

    Args:
        n_items: Size of the catalogue.

    References:
        Koren (2010), https://doi.org/10.1145/1644873.1644874.

    See: chapter 5.

    >>> history = replace(Sequences.from_lists([[0, 1]]), ratings=np.array([5.0, 3.0]))
    >>> baseline = RatingBaseline(2).fit(history)  # mean 4, item biases +1/11 and -1/11, user bias 0
    >>> [round(rating, 3) for rating in baseline(history)[0].tolist()]
    [4.091, 3.909]
    """

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.item: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("item", torch.zeros(n_items))

    def fit(self, train: Sequences) -> Self:
        """Estimate mean and item biases from training ratings."""
        _, positions = train.flat()
        items, ratings = train.items[positions], train.ratings[positions].astype(np.float64)
        mean, n_items = ratings.mean(), len(self.item)
        total = np.bincount(items, weights=ratings - mean, minlength=n_items)  # (N,)
        bias = total / (np.bincount(items, minlength=n_items) + SHRINKAGE)  # (N,)
        self.mean.fill_(float(mean))
        self.item.copy_(torch.from_numpy(bias))
        return self

    def forward(self, histories: Sequences) -> Tensor:
        """Expected rating of every item, ``(batch, n_items)``."""
        user = torch.from_numpy(self.user(histories)).to(self.item)  # (B,)
        return self.mean + self.item + user[:, None]  # (B, N)

    def user(self, histories: Sequences) -> np.ndarray:
        """Bias of each user, ``(batch,)``; 0 for an empty history."""
        left = histories.ratings - self._without_user(histories)  # (events,)
        total = np.concatenate([[0.0], np.cumsum(left, dtype=np.float64)])  # (events + 1,)
        return (total[histories.stop] - total[histories.start]) / (histories.lengths + SHRINKAGE)  # (B,)

    def surprise(self, histories: Sequences) -> np.ndarray:
        """Rating minus the rating expected from the events before it, ``(events,)`` of the log."""
        rows, positions = histories.flat()
        left = histories.ratings - self._without_user(histories)  # (events,)
        left[positions] -= self.user(replace(histories[rows], stop=positions))
        return left.astype(np.float32)

    def _without_user(self, histories: Sequences) -> np.ndarray:
        return self.mean.item() + self.item.cpu().numpy()[histories.items]  # (events,)
