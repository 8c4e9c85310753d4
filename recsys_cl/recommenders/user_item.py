"""Contrast within users and across users, with ratings or without: one set of vectors, up to three losses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import set_seed

from recsys_cl.data import PAD, Sequences, Split
from recsys_cl.encoders.towers import ItemTower, MeanPooling, weighted_sum
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.evaluation.ratings import evaluate_ratings, root_mean_square
from recsys_cl.objectives.contrastive.loss import LOSSES
from recsys_cl.objectives.known import KnownPositives
from recsys_cl.objectives.negatives import in_batch_log_q
from recsys_cl.objectives.user_item import cross_user_loss, user_item_loss, within_user_loss
from recsys_cl.recommenders.ratings import RatingBaseline
from recsys_cl.recommenders.trained import TrainedRecommender
from recsys_cl.recommenders.two_tower import TwoTowerModel
from recsys_cl.training.distributed import gather_items
from recsys_cl.training.user_item_examples import UserItemExamples

Objective = Literal["contrast", "rating", "mix", "alternate"]


class UserItemModel(nn.Module):
    r"""Item vectors and one gain, trained by contrast, by ratings, or by both.

    .. math:: s_{ui} = \cos(u, v_i),\quad u = \frac{1}{n} \sum_k v_{i_k}, \qquad
        \hat r_{ui} = \mu + b_i + b_u + g\, \frac{1}{\sqrt n} \sum_k e_k \cos(v_{i_k}, v_i)

    over the recent history :math:`i_1, \dots, i_n`. The history is read twice: what was chosen ranks, and how far
    each rating was from expected, :math:`e_k`, predicts ratings. Users are sums of item vectors without a layer
    of their own: no term of the contrast compares a user with an item, so a layer between the two would be free
    to turn users away from the items.

    .. math:: L_\text{total} = L_\text{rating} + \lambda \big(\alpha L_\text{within} + (1 - \alpha) L_\text{cross}\big)

    with :math:`L_\text{rating}` the mean squared error.

    Args:
        counts: ``(n_items,)`` training events of each item.
        known: What users are known to have; ``None`` for a model that does not train.
        objective: ``"mix"`` for the sum; ``"alternate"`` for one of the two per batch, by the toss of a coin;
            ``"rating"`` without contrast; ``"contrast"`` where the ratings teach the gain and no vector.
        alpha: :math:`\alpha`.
        weight: :math:`\lambda`.
        dim: Dimension of the vectors.
        temperature: Where :math:`\tau` starts; it is learned.
        dropout: Dropout on the history's item vectors.

    References:
        Paterek (2007), KDD Cup and Workshop, for users as sums of the vectors of what they rated.

    See: chapter 5.
    """

    def __init__(
        self,
        counts: Tensor,
        known: KnownPositives | None,
        *,
        objective: Objective,
        alpha: float,
        weight: float,
        dim: int,
        temperature: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.towers = TwoTowerModel(
            ItemTower(counts > 0, None, dim=dim, ids=True),
            MeanPooling(),
            loss=LOSSES["info-nce"](),
            log_q=in_batch_log_q(counts),
            similarity="cosine",
            temperature=temperature,
            dropout=dropout,
            known=known,
        )
        self.baseline = RatingBaseline(len(counts))
        self.gain = nn.Parameter(torch.tensor(0.1))
        self.objective, self.alpha, self.weight = objective, alpha, weight

    def taste(self, history: Tensor, surprise: Tensor) -> Tensor:
        """Vectors of a history's items, weighed by how far their ratings were from expected: ``(batch, dim)``."""
        there = history != PAD  # (B, L)
        items, rows = torch.unique(history.clamp(min=0), return_inverse=True)  # (n,), (B, L)
        weights = surprise * there / there.sum(1, keepdim=True).clamp(min=1).sqrt()  # (B, L)
        return weighted_sum(self.towers.embed_items(items), rows, weights)  # (B, d)

    def forward(
        self,
        user: Tensor,
        item: Tensor,
        surprise: Tensor,
        other_user: Tensor,
        other_item: Tensor,
        history: Tensor,
        history_surprise: Tensor,
        other_history: Tensor,
        turn: Tensor,
    ) -> dict[str, Tensor]:
        """Loss of a collated batch (see :class:`~recsys_cl.training.user_item_examples.UserItemExamples`).

        Every term is computed whatever its weight, so that all devices have gradients of the same parameters.
        """
        known, log_q, temperature = self.towers.known, self.towers.log_q, self.towers.temperature()
        assert known is not None
        assert log_q is not None
        items = self.towers.embed_items(item)  # (B, d)
        other_items = gather_items(other_item)  # (N,) of all processes, own first
        other_users = gather_items(other_user)  # (N,)
        within = within_user_loss(
            items,
            gather_items(self.towers.embed_items(other_item)),
            temperature=temperature,
            mask=known.mask(user, other_items),
            log_q=log_q[other_items],
        )
        cross = cross_user_loss(
            self.towers.embed_users(history),
            gather_items(self.towers.embed_users(other_history)),
            temperature=temperature,
            mask=known.mask(other_users, item).T,
        )
        contrast = user_item_loss(within, cross, alpha=self.alpha)
        closeness = (self.taste(history, history_surprise) * items).sum(1)  # (B,)
        if self.objective == "contrast":
            closeness = closeness.detach()
        rating = F.mse_loss(self.gain * closeness, surprise)
        rating_weight, contrast_weight = self._weights(turn)
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
class UserItem(TrainedRecommender):
    """Item vectors that agree within users and across users, and that predict ratings.

    Items are ranked by their cosine with the mean of the recent history's items: whatever goes with what the user
    chose. Trained on ratings alone, the model ranks by predicted rating, for it has learned nothing else.

    Attributes:
        objective: ``"contrast"``, ``"rating"``, ``"mix"`` or ``"alternate"``.
        alpha: Share of the contrast within users; the rest is across users.
        weight: Weight of the contrast beside the rating loss.
        dim: Dimension of the vectors.
        length: So many latest events are the user.
        temperature: Where the temperature starts.
        dropout: Dropout on the history's item vectors.
        epochs: At most this many passes.
        batch_size: Examples per step.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        patience: Epochs without a better validation NDCG@10 (for ``"rating"``, RMSE) before training stops.
        seed: Seed of weights, order, dropout, pairs and turns.

    See: chapter 5.
    """

    objective: Objective = "mix"
    alpha: float = 0.5
    weight: float = 0.3
    dim: int = 64
    length: int = 10
    temperature: float = 0.1
    dropout: float = 0.2
    epochs: int = 3
    batch_size: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    patience: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: Naming the hyperparameter, its value and what is valid.
        """
        super().__post_init__()
        if self.alpha > 1:
            raise InputError(
                f"alpha={self.alpha!r} is out of range; give 0 (across users only) to 1 (within users only)"
            )

    def fit(self, split: Split, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Train on ``split.train``, stop by NDCG@10 on ``split.validation``, or by RMSE if ratings are all it learns.

        Args:
            split: The data.
            folder: Where checkpoints, logs and ``run.json`` go; by default nowhere that stays.
            resume: Go on from the newest intact checkpoint in ``folder``.

        Raises:
            InputError: If a setting is not valid, there is nothing to train on, or nothing to resume.
        """
        set_seed(self.seed)
        self.items = split.data.items
        self.network = self._build(torch.from_numpy(split.counts), KnownPositives(split.train, split.n_items))
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
        self.state = self.network.state_dict()
        return self

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Similarity of each history to every item, or predicted ratings: ``(batch, n_items)``."""
        if self.objective == "rating":
            return self.predict_ratings(histories)
        network = self._restored()
        return network.towers.embed_users(self._recent(histories)) @ self._catalogue().T  # (B, N)

    @torch.no_grad()
    def predict_ratings(self, histories: Sequences) -> Tensor:
        """Expected rating of every item, ``(batch, n_items)``, given the ratings in the histories."""
        network = self._restored()
        surprise = replace(histories, items=network.baseline.surprise(histories))
        taste = network.taste(self._recent(histories), self._recent(surprise))  # (B, d)
        return network.baseline(histories) + network.gain * taste @ self._catalogue().T  # (B, N)

    def _recent(self, histories: Sequences) -> Tensor:
        return torch.from_numpy(histories.recent(self.length)).to(self._restored().gain.device)  # (B, L)

    def _catalogue(self) -> Tensor:
        network = self._restored()
        everything = torch.arange(len(network.baseline.item), device=network.gain.device)  # (N,)
        return network.towers.embed_items(everything)  # (N, d)

    def _validate(self, split: Split) -> dict[str, float]:
        error, _, _ = root_mean_square(evaluate_ratings(self, split.validation))
        return {"ndcg@10": evaluate(self, split.validation).mean("ndcg@10"), "negative rmse": -error}

    def _build(self, counts: Tensor, known: KnownPositives | None = None) -> UserItemModel:
        return UserItemModel(
            counts,
            known,
            objective=self.objective,
            alpha=self.alpha,
            weight=self.weight,
            dim=self.dim,
            temperature=self.temperature,
            dropout=self.dropout,
        )

    def _restored(self) -> UserItemModel:
        """The network; after :meth:`load`, rebuilt from the state."""
        if not hasattr(self, "network"):
            self.network = self._build(self.state["towers.items.warm"])  # log q comes with the state
            self.network.load_state_dict(self.state)
            self.network.eval()
        return self.network
