"""Two towers: a vector per user history, a vector per item, trained to meet by InfoNCE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import set_seed

from recsys_cl.data import PAD, Sequences, Split
from recsys_cl.encoders.language import LanguageEncoder
from recsys_cl.encoders.towers import AttentionPooling, BehaviourMLP, ItemTower, MeanPooling, UserTowerName
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.objectives.contrastive import LearnedTemperature, info_nce_loss
from recsys_cl.objectives.known import KnownPositives
from recsys_cl.objectives.negatives import in_batch_log_q
from recsys_cl.recommenders.trained import TrainedRecommender
from recsys_cl.training.distributed import gather_items
from recsys_cl.training.examples import NextItemExamples

Similarity = Literal["cosine", "dot"]


class TwoTowerModel(nn.Module):
    r"""Towers, temperature and loss.

    .. math:: s_{ui} = \frac{u^\top v_i}{\tau},\qquad u, v_i\ \text{normalised for cosine}

    Args:
        items: Item tower.
        user: User tower.
        log_q: ``(n_items,)`` logQ correction, or ``None`` to go without.
        similarity: ``"cosine"`` or ``"dot"``.
        temperature: Where :math:`\tau` starts; it is learned.
        dropout: Dropout on the history's item vectors.
        known: What must not count as a negative; only training needs it.

    See: chapter 5.
    """

    def __init__(
        self,
        items: ItemTower,
        user: AttentionPooling | MeanPooling | BehaviourMLP,
        *,
        log_q: Tensor | None,
        similarity: Similarity,
        temperature: float,
        dropout: float,
        known: KnownPositives | None = None,
    ) -> None:
        super().__init__()
        self.items, self.user = items, user
        self.log_q: Tensor | None
        self.register_buffer("log_q", log_q)
        self.known = known
        self.similarity = similarity
        self.temperature = LearnedTemperature(temperature)
        self.dropout = nn.Dropout(dropout)

    def embed_items(self, items: Tensor, keep_id: Tensor | None = None) -> Tensor:
        """Item vectors ``(n, dim)``, normalised for cosine."""
        return self._comparable(self.items(items, keep_id))  # (n, d)

    def embed_users(self, history: Tensor, attributes: Tensor | None = None, keep_id: Tensor | None = None) -> Tensor:
        """User vectors of histories ``(batch, length)`` with ``PAD`` in empty places: ``(batch, dim)``."""
        mask = history != PAD  # (B, L)
        if isinstance(self.user, BehaviourMLP):
            return self._comparable(self.user(history.clamp(min=0), mask, attributes))  # (B, d)
        items, rows = torch.unique(history.clamp(min=0), return_inverse=True)  # (n,), (B, L)
        vectors = self.dropout(self.items(items, None if keep_id is None else keep_id[items]))  # (n, d)
        return self._comparable(self.user(vectors, rows, mask))  # (B, d)

    def embed_text(self, embedding: Tensor) -> Tensor:
        """User vector of someone whose only event has this text embedding, ``(1, text_dim)`` to ``(1, dim)``."""
        length = len(self.user.recency) if isinstance(self.user, AttentionPooling) else 1
        latest = torch.arange(length)[None] == length - 1  # (1, L)
        assert self.items.project is not None
        vectors = self.items.project(embedding)  # (1, d)
        return self._comparable(self.user(vectors, torch.zeros(1, length, dtype=torch.int64), latest))  # (1, d)

    def forward(
        self,
        history: Tensor,
        target: Tensor,
        user: Tensor,
        keep_id: Tensor,
        attributes: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """InfoNCE of a collated batch (see :class:`~recsys_cl.training.examples.NextItemExamples`).

        The targets of all processes are the columns.

        Raises:
            InputError: If the model was built without known positives.
        """
        known = self.known
        if known is None:
            raise InputError("a two-tower model without known positives can only score; build it with known= to train")
        users = self.embed_users(history, attributes, keep_id)  # (B, d)
        items = self.embed_items(target, keep_id[target])  # (B, d)
        targets = gather_items(target)  # (N,), own first
        log_q = None if self.log_q is None else self.log_q[targets]  # (N,)
        loss = info_nce_loss(
            users,
            gather_items(items.float()),
            temperature=self.temperature(),
            mask=lambda rows: known.mask(user[rows], targets),
            log_q=log_q,
        )
        return {"loss": loss}

    def _comparable(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.similarity == "cosine" else vectors


@dataclass
class TwoTower(TrainedRecommender):
    """Two towers on ids, texts or both.

    Attributes:
        ids: Whether items have an id embedding.
        model: Language model for the items' texts, ``""`` for none.
        user_tower: ``"attention"`` over the recent history, ``"mean"`` of it, or ``"mlp"`` over behaviour
            counts and user attributes.
        dim: Dimension of the vectors.
        length: Longest history.
        similarity: ``"cosine"`` or ``"dot"``.
        temperature: Where the temperature starts.
        log_q: Whether in-batch negatives are corrected for their popularity.
        dropout: Dropout on the history's item vectors.
        id_dropout: Share of the items whose ids a batch does not see.
        event_dropout: Share of the history's events left out of an example.
        epochs: At most this many passes.
        batch_size: Examples per step.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        patience: Epochs without a better validation NDCG@10 before training stops.
        seed: Seed of weights, order, dropout and augmentations.

    See: chapter 5.
    """

    reads_text: ClassVar[bool] = True

    ids: bool = True
    model: str = "minilm"
    user_tower: UserTowerName = "attention"
    dim: int = 64
    length: int = 50
    similarity: Similarity = "cosine"
    temperature: float = 0.1
    log_q: bool = True
    dropout: float = 0.2
    id_dropout: float = 0.0
    event_dropout: float = 0.0
    epochs: int = 10
    batch_size: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    patience: int = 2
    seed: int = 0

    def fit(self, split: Split, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Train on ``split.train``, stop by NDCG@10 on ``split.validation``.

        Args:
            split: The data.
            folder: Where checkpoints, logs and ``run.json`` go; by default nowhere that stays.
            resume: Go on from the newest intact checkpoint in ``folder``.

        Raises:
            InputError: If a setting is not valid, there is nothing to train on, or nothing to resume.
        """
        set_seed(self.seed)
        self.items = split.data.items
        embeddings = LanguageEncoder(self.model).encode(split.data.texts) if self.model else None  # (N, t)
        mean = torch.zeros(0) if embeddings is None else embeddings.mean(0)  # (t,)
        text = None if embeddings is None else F.normalize(embeddings - mean, dim=1)  # (N, t)
        counts = torch.from_numpy(split.counts)  # (N,)
        attributes = 0 if split.train.attributes is None else split.train.attributes.shape[1]
        log_q = in_batch_log_q(counts) if self.log_q else None  # (N,)
        known = KnownPositives(split.train, split.n_items)
        self.network = self._build(counts > 0, text, log_q, attributes, known)
        examples = NextItemExamples(
            split.train,
            split.n_items,
            length=self.length,
            id_dropout=self.id_dropout,
            event_dropout=self.event_dropout,
            seed=self.seed,
        )
        self._train(
            split,
            self.network,
            examples,
            lambda: {"ndcg@10": evaluate(self, split.validation).mean("ndcg@10")},
            folder=folder,
            resume=resume,
            patience=self.patience,
        )
        weights = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        self.state = {**weights, "text_mean": mean}
        return self

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Similarity of each history to every item, ``(batch, n_items)``."""
        network = self._restored()
        device = network.items.warm.device
        attributes = None if histories.attributes is None else torch.from_numpy(histories.attributes).to(device)
        users = network.embed_users(torch.from_numpy(histories.recent(self.length)).to(device), attributes)  # (B, d)
        everything = torch.arange(len(network.items.warm), device=device)  # (N,)
        return users @ network.embed_items(everything).T  # (B, N)

    @torch.no_grad()
    def score_text(self, text: str) -> Tensor:
        """Score the catalogue as if the sentence were the text of the only item in the history: ``(1, n_items)``."""
        if not self.model or self.user_tower == "mlp":
            raise InputError("this two-tower model does not read text; use two-tower or two-tower-text")
        network = self._restored()
        embedding = LanguageEncoder(self.model, cache=False).encode([text]) - self.state["text_mean"]  # (1, t)
        everything = torch.arange(len(network.items.warm))  # (N,)
        return network.embed_text(F.normalize(embedding, dim=1)) @ network.embed_items(everything).T  # (1, N)

    def _build(
        self,
        warm: Tensor,
        text: Tensor | None,
        log_q: Tensor | None,
        n_attributes: int,
        known: KnownPositives | None = None,
    ) -> TwoTowerModel:
        user: AttentionPooling | MeanPooling | BehaviourMLP
        match self.user_tower:
            case "attention":
                user = AttentionPooling(self.dim, self.length)
            case "mean":
                user = MeanPooling()
            case "mlp":
                user = BehaviourMLP(len(warm), n_attributes, dim=self.dim)
        return TwoTowerModel(
            ItemTower(warm, text, dim=self.dim, ids=self.ids),
            user,
            log_q=log_q,
            similarity=self.similarity,
            temperature=self.temperature,
            dropout=self.dropout,
            known=known,
        )

    def _restored(self) -> TwoTowerModel:
        """The network; after :meth:`load`, rebuilt from the state."""
        if not hasattr(self, "network"):
            state = {
                name.removeprefix("network."): tensor for name, tensor in self.state.items() if name != "text_mean"
            }
            attributes = state.get("user.attributes.weight", torch.zeros(0, 0)).shape[1]
            self.network = self._build(state["items.warm"], state.get("items.text"), state.get("log_q"), attributes)
            self.network.load_state_dict(state)
            self.network.eval()
        return self.network
