"""The two-tower network trained without contrast: binary cross-entropy on single pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recsys_cl.data import Split
from recsys_cl.losses.next_item import binary_next_item_loss
from recsys_cl.recommenders import Recommender, TwoTower
from recsys_cl.recommenders.two_tower_network import SamplerName, TwoTowerNetwork

NO = -30.0
"""Score of a drawn item that the user is known to like: its term of the loss is then 1e-13."""


class PairByPair(nn.Module):
    """Trains two towers by binary cross-entropy on the batches of those that are trained by contrast.

    The user's own negatives do not compete with the positive: every pair is a yes-or-no question.
    """

    def __init__(self, towers: TwoTowerNetwork) -> None:
        super().__init__()
        self.towers = towers

    def forward(
        self,
        history: Tensor,
        target: Tensor,
        user: Tensor,
        keep_id: Tensor,
        negative: Tensor,
        attributes: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss of a collated batch, ``negative`` being ``(B, k)`` item numbers."""
        towers = self.towers
        assert towers.known is not None
        users = towers.embed_users(history, attributes, keep_id)  # (B, d)
        items = towers.embed_items(torch.arange(len(towers.items.warm)), keep_id)  # (N, d)
        asked = torch.cat([target[:, None], negative], dim=1)  # (B, 1 + k)
        scores = (items[asked] @ users[:, :, None])[..., 0] / towers.temperature()  # (B, 1 + k)
        liked = towers.known.mask(user, negative)  # (B, k)
        return {"loss": binary_next_item_loss(scores[:, 0], scores[:, 1:].masked_fill(liked, NO))}


@dataclass
class Pointwise(TwoTower):
    """The two-tower model with another loss; its settings are the contrastive model's own."""

    sampler: SamplerName = "uniform"

    def _train(self, split: Split, network: nn.Module, *examples: Any, **settings: Any) -> None:
        assert isinstance(network, TwoTowerNetwork)
        super()._train(split, PairByPair(network), *examples, **settings)


CONTRAST, SAME_NEGATIVES = "two-tower", "two-tower, negatives of the pointwise"
NO_CONTRAST = "two-tower, pointwise"
"""Names of the twins in tables."""


def POINTWISE(seed: int) -> Recommender:
    """Return the untrained two-tower model without contrast. It is made nowhere else."""
    return Pointwise(seed=seed)
