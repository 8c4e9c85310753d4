"""User–item recommender: within-user and cross-user contrastive learning, with or without rating prediction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import set_seed

from recsys_cl.data import PAD, Sequences, Split
from recsys_cl.encoders.towers import ItemTower, MeanPooling, weighted_sum
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.evaluation.ratings import evaluate_ratings, root_mean_square
from recsys_cl.losses.contrastive import LOSSES
from recsys_cl.losses.within_across import cross_user_loss, user_item_loss, within_user_loss
from recsys_cl.negatives import in_batch_log_q
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.recommenders.base import TrainedRecommender
from recsys_cl.recommenders.ratings import RatingBaseline
from recsys_cl.recommenders.two_tower_network import TwoTowerNetwork
from recsys_cl.settings import Range
from recsys_cl.training.examples import UserItemExamples
from recsys_cl.training.large_batches import gather_items

Objective = Literal["contrast", "rating", "mix", "alternate"]


class UserItemNetwork(nn.Module):
    r"""User–item network: item vectors and a scalar gain, trained by contrast, by ratings, or by both.

    .. math:: s_{ui} = \cos(u, v_i),\quad u = \frac{1}{n} \sum_k v_{i_k}, \qquad
        \hat r_{ui} = \mu + b_i + b_u + g\, \frac{1}{\sqrt n} \sum_k e_k \cos(v_{i_k}, v_i)

    over the recent history :math:`i_1, \dots, i_n`. The history is used twice: its items determine the ranking, and the
    deviations of its ratings from their expectation, :math:`e_k`, predict ratings. Users are sums of item vectors
    without a layer of their own: no term of the contrast compares a user with an item, so such a layer would be free to
    rotate users away from the items.

    .. math:: L_\text{total} = L_\text{rating} + \lambda \big(\alpha L_\text{within} + (1 - \alpha) L_\text{cross}\big)

    with :math:`L_\text{rating}` the mean squared error.

    Args:
        n_items: Size of the catalogue.
        objective: ``"mix"`` for the sum; ``"alternate"`` for one of the two terms per batch, drawn at random;
            ``"rating"`` for ratings only; ``"contrast"``, where ratings train only the gain, not the vectors.
        alpha: Weight of the contrast within users, :math:`\alpha`.
        weight: Weight of the contrast, :math:`\lambda`.
        dim: Dimension of the vectors.
        temperature: Initial :math:`\tau`; it is learned.
        dropout: Dropout rate on the history's item vectors.

    References:
        Paterek (2007), KDD Cup and Workshop, for users as sums of the vectors of their rated items.

    See: chapter 5.
    """

    def __init__(
        self,
        n_items: int,
        *,
        objective: Objective,
        alpha: float,
        weight: float,
        dim: int,
        temperature: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.towers = TwoTowerNetwork(
            ItemTower.of_size(n_items, 0, dim=dim, ids=True),
            MeanPooling(),
            loss=LOSSES["info-nce"](),
            similarity="cosine",
            temperature=temperature,
            dropout=dropout,
        )
        self.baseline = RatingBaseline(n_items)
        self.gain = nn.Parameter(torch.tensor(0.1))
        self.objective, self.alpha, self.weight = objective, alpha, weight

    def learn_from(self, counts: Tensor, known: KnownPositives) -> Self:
        """Set the data that only training needs: training events of each item ``(n_items,)``, and known positives."""
        self.towers.items.read(counts > 0, None)
        self.towers.learn_from(known, in_batch_log_q(counts))
        return self

    def taste(self, history: Tensor, surprise: Tensor) -> Tensor:
        """Sum of a history's item vectors, weighted by rating minus expected rating: ``(batch, dim)``."""
        there = history != PAD  # (B, L)
        items, rows = torch.unique(history.clamp(min=0), return_inverse=True)  # (n,), (B, L)
        weights = surprise * there / there.sum(1, keepdim=True).clamp(min=1).sqrt()  # (B, L)
        return weighted_sum(self.towers.embed_items(items), rows, weights)  # (B, d)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Loss of a collated batch (see :class:`~recsys_cl.training.examples.UserItemExamples`).

        Every term is computed even if its weight is 0, so all devices have gradients for the same parameters.
        """
        user, item = batch["user"], batch["item"]  # (B,) both
        known, log_q, temperature = self.towers.known, self.towers.log_q, self.towers.temperature()
        assert known is not None
        assert log_q is not None
        items = self.towers.embed_items(item)  # (B, d)
        other_items = gather_items(batch["other_item"])  # (N,) of all processes, own first
        other_users = gather_items(batch["other_user"])  # (N,)
        within = within_user_loss(
            items,
            gather_items(self.towers.embed_items(batch["other_item"])),
            temperature=temperature,
            mask=known.mask(user, other_items),
            log_q=log_q[other_items],
        )
        cross = cross_user_loss(
            self.towers.embed_users(batch["history"]),
            gather_items(self.towers.embed_users(batch["other_history"])),
            temperature=temperature,
            mask=known.mask(other_users, item).T,
        )
        contrast = user_item_loss(within, cross, alpha=self.alpha)
        closeness = (self.taste(batch["history"], batch["history_surprise"]) * items).sum(1)  # (B,)
        if self.objective == "contrast":
            closeness = closeness.detach()
        rating = F.mse_loss(self.gain * closeness, batch["surprise"])
        rating_weight, contrast_weight = self._weights(batch["turn"])
        return {"loss": rating_weight * rating + contrast_weight * contrast}

    def _weights(self, turn: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Weights of the rating loss and of the contrast in this batch."""
        match self.objective:
            case "contrast":
                return 1.0, 1.0
            case "rating":
                return 1.0, 0.0
            case "mix":
                return 1.0, self.weight
            case "alternate":
                return turn < 0.5, self.weight * (turn >= 0.5)


@dataclass
class UserItem(TrainedRecommender[UserItemNetwork]):
    """Recommender with within-user and cross-user contrast and rating prediction.

    Items are ranked by their cosine with the mean of the recent history's items. Trained on ratings only, the model
    ranks by predicted rating.

    Attributes:
        objective: ``"contrast"``, ``"rating"``, ``"mix"`` or ``"alternate"``.
        alpha: Weight of the contrast within users; the contrast across users has the rest.
        weight: Weight of the contrast relative to the rating loss.
        dim: Dimension of the vectors.
        length: Number of latest events that represent the user.
        temperature: Initial temperature; it is learned.
        dropout: Dropout rate on the history's item vectors.
        epochs: Maximum number of passes over the training events.
        batch_size: Examples per step.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        patience: Epochs without a better validation NDCG@10 (for ``"rating"``, RMSE) before training stops.
        seed: Seed of weights, order, dropout, pairs and turns.

    See: chapter 5.
    """

    objective: Objective = "mix"
    alpha: Annotated[float, Range(0, 1)] = 0.5
    weight: float = 0.3
    dim: Annotated[int, Range(1)] = 64
    length: Annotated[int, Range(1)] = 10
    temperature: Annotated[float, Range(0.01)] = 0.1
    dropout: Annotated[float, Range(0, 0.99)] = 0.2
    epochs: Annotated[int, Range(1)] = 3
    batch_size: Annotated[int, Range(1)] = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    patience: Annotated[int, Range(1)] = 2
    seed: int = 0

    def fit(self, split: Split, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Train on ``split.train``, with early stopping by validation NDCG@10, or by RMSE for ratings only.

        Args:
            split: Training and validation data.
            folder: Folder for checkpoints, logs and ``run.json``; by default a temporary one.
            resume: Continue from the newest intact checkpoint in ``folder``.

        Raises:
            InputError: If a setting is not valid, there is nothing to train on, or nothing to resume.
        """
        set_seed(self.seed)
        self.items = split.data.items
        self.sizes, self.state = {"items": split.n_items}, {}
        known = KnownPositives(split.train, split.n_items)
        self.network = self._build().learn_from(torch.from_numpy(split.counts), known)
        surprise = self.network.baseline.fit(split.train).surprise(split.train)
        if self.objective == "rating" and not surprise.any():
            raise InputError(
                "all ratings are equal, so objective='rating' has nothing to learn; use objective='contrast'"
            )
        self._train(
            split,
            self.network,
            UserItemExamples(split.train, split.n_items, surprise=surprise, length=self.length, seed=self.seed),
            lambda: self._validate(split),
            folder=folder,
            resume=resume,
            patience=self.patience,
            metric="negative rmse" if self.objective == "rating" else "ndcg@10",
        )
        return self

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Similarity of each history to every item, or predicted ratings: ``(batch, n_items)``."""
        if self.objective == "rating":
            return self.predict_ratings(histories)
        network = self.network
        return network.towers.embed_users(self._recent(histories)) @ self._catalogue().T  # (B, N)

    @torch.no_grad()
    def predict_ratings(self, histories: Sequences) -> Tensor:
        """Expected rating of every item, ``(batch, n_items)``, given the ratings in the histories."""
        network = self.network
        surprise = replace(histories, items=network.baseline.surprise(histories))
        taste = network.taste(self._recent(histories), self._recent(surprise))  # (B, d)
        return network.baseline(histories) + network.gain * taste @ self._catalogue().T  # (B, N)

    def _recent(self, histories: Sequences) -> Tensor:
        return torch.from_numpy(histories.recent(self.length)).to(self.network.gain.device)  # (B, L)

    def _catalogue(self) -> Tensor:
        network = self.network
        catalogue = torch.arange(len(network.baseline.item), device=network.gain.device)  # (N,)
        return network.towers.embed_items(catalogue)  # (N, d)

    def _validate(self, split: Split) -> dict[str, float]:
        error, _, _ = root_mean_square(evaluate_ratings(self, split.validation))
        return {"ndcg@10": evaluate(self, split.validation).mean("ndcg@10"), "negative rmse": -error}

    def _build(self) -> UserItemNetwork:
        return UserItemNetwork(
            self.sizes["items"],
            objective=self.objective,
            alpha=self.alpha,
            weight=self.weight,
            dim=self.dim,
            temperature=self.temperature,
            dropout=self.dropout,
        )
