"""Two towers: a vector per user history, a vector per item, trained to meet by InfoNCE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import set_seed

from recsys_cl.data import PAD, Sequences, Split
from recsys_cl.encoders.language import LanguageEncoder
from recsys_cl.encoders.towers import AttentionPooling, BehaviourMLP, ItemTower, MeanPooling, UserTowerName
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.objectives.contrastive import LearnedTemperature
from recsys_cl.objectives.contrastive.loss import LOSSES, Loss
from recsys_cl.objectives.known import KnownPositives
from recsys_cl.objectives.negatives import (
    Candidates,
    DrawnNegatives,
    GanNegatives,
    HardNegatives,
    MixedNegatives,
    NegativeSample,
    NegativeSampler,
    PerturbedNegatives,
    PolicyNegatives,
    PopularityNegatives,
    UniformNegatives,
    in_batch_log_q,
)
from recsys_cl.recommenders.trained import TrainedRecommender
from recsys_cl.training.adversarial import Attack
from recsys_cl.training.distributed import gather_items
from recsys_cl.training.examples import NextItemExamples

Similarity = Literal["cosine", "dot"]
SamplerName = Literal["", "in-batch", "uniform", "popular", "hard", "perturbed", "generated", "policy"]


TEMPERATURE = 0.1
"""Where a temperature starts."""


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
        negatives: Makes negatives of each user's own; without it the other targets of the batch are negatives.

    See: chapter 5; chapter 10 for the negatives.
    """

    def __init__(
        self,
        items: ItemTower,
        user: AttentionPooling | MeanPooling | BehaviourMLP,
        *,
        loss: Loss,
        log_q: Tensor | None,
        similarity: Similarity,
        temperature: float,
        dropout: float,
        known: KnownPositives | None = None,
        negatives: DrawnNegatives | None = None,
    ) -> None:
        super().__init__()
        self.items, self.user, self.loss = items, user, loss
        self.log_q: Tensor | None
        self.register_buffer("log_q", log_q)
        self.known, self.negatives = known, negatives
        self.similarity = similarity
        self.temperature = LearnedTemperature(temperature).requires_grad_(loss.has_temperature)
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
        negative: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """InfoNCE of a collated batch (see :class:`~recsys_cl.training.examples.NextItemExamples`).

        The targets of all processes are the columns, or else negatives of each user's own are.

        Raises:
            InputError: If the model was built without known positives.
        """
        known = self.known
        if known is None:
            raise InputError("a two-tower model without known positives can only score; build it with known= to train")
        users = self.embed_users(history, attributes, keep_id)  # (B, d)
        if negative is not None:
            return {"loss": self._against_own(users, target, user, keep_id, negative, known)}
        items = self.embed_items(target, keep_id[target])  # (B, d)
        targets = gather_items(target)  # (N,), own first
        log_q = None if self.log_q is None else self.log_q[targets]  # (N,)
        rows = self.loss.against_batch(
            users.float(),
            gather_items(items.float()),
            temperature=self.temperature(),
            mask=lambda rows: known.mask(user[rows], targets),
            log_q=log_q,
            label=targets,
        )  # (B,)
        return {"loss": rows.mean()}

    def _against_own(
        self,
        users: Tensor,
        target: Tensor,
        user: Tensor,
        keep_id: Tensor,
        negative: Tensor,
        known: KnownPositives,
    ) -> Tensor:
        """Loss against negatives of each user's own, and what their makers lose."""
        assert self.negatives is not None
        everything = torch.arange(len(self.items.warm), device=target.device)  # (N,)
        table = self.embed_items(everything, keep_id)  # (N, d)
        log_q = table.new_zeros(len(table)) if self.log_q is None else self.log_q  # (N,)
        given = Candidates(
            users.float(),
            table.float(),
            target,
            NegativeSample(negative, log_q[negative]),
            known=lambda rows, items: known.mask(user[rows], items),
            temperature=self.temperature().detach(),
        )
        negatives = self.negatives(given)
        rows = self.loss.against_own(
            given.query,
            given.table[target],
            negatives.vectors,
            temperature=self.temperature(),
            mask=negatives.mask,
            log_q=log_q[target],
            negative_log_q=negatives.log_q,
        )  # (B,)
        return rows.mean() + negatives.loss

    def pairs(
        self,
        history: Tensor,
        target: Tensor,
        keep_id: Tensor,
        attributes: Tensor | None = None,
        **_: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Vectors of a batch's users ``(batch, dim)`` and of its distinct targets ``(n, dim)``."""
        items = target.unique()  # (n,)
        return self.embed_users(history, attributes, keep_id), self.embed_items(items, keep_id[items])

    def diagnostics(self) -> dict[str, float]:
        """What the makers of negatives did since the last call."""
        return {} if self.negatives is None else self.negatives.diagnostics(len(self.items.warm))

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
        sampler: Where negatives come from: ``"in-batch"`` from the other examples; or of each example's own,
            ``"uniform"`` draws, a share of which may be ``"popular"`` items, the ``"hard"`` est, ``"perturbed"`` ones,
            ``"generated"`` ones, or drawn by a learned ``"policy"``.
        negatives: Number of an example's own negatives.
        hard_share: Share of them that is not uniform.
        hardness: What closeness to the user is worth to the generator.
        threshold: Least probability of being real that the filter of generated negatives asks for, 0 for no filter.
        attack: How item vectors are moved in training, see :class:`~recsys_cl.training.adversarial.Adversary`.
        epsilon: Length of moves, of vectors under attack and of perturbed negatives, in units of their norms.
        attack_weight: Weight of the loss under attack.
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
    temperature: float = TEMPERATURE
    loss: Annotated[Loss, LOSSES] = "info-nce"  # type: ignore[assignment]
    log_q: bool = True
    dropout: float = 0.2
    id_dropout: float = 0.0
    event_dropout: float = 0.0
    sampler: SamplerName = ""
    negatives: int = 16
    hard_share: float = 0.5
    hardness: float = 1.0
    threshold: float = 0.0
    attack: Attack = "none"
    epsilon: float = 0.5
    attack_weight: float = 1.0
    epochs: int = 10
    batch_size: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    patience: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the hyperparameters, and choose the sampler that the loss asks for where none is given."""
        super().__post_init__()
        self.sampler = self.sampler or ("in-batch" if "in-batch" in self.loss.forms else "uniform")
        form = "in-batch" if self.sampler == "in-batch" else "own"
        if form not in self.loss.forms:
            wanted = "sampler=uniform" if form == "in-batch" else "sampler=in-batch"
            others = ", ".join(name for name in LOSSES if form in LOSSES[name]().forms)
            raise InputError(
                f"the loss {self.loss} cannot be computed with sampler={self.sampler!r}; give {wanted}, or one of the "
                f"losses {others}"
            )
        if not self.loss.has_temperature and self.temperature != TEMPERATURE:
            raise InputError(f"the loss {self.loss} has no temperature; leave temperature={self.temperature} out")

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
        drawn = self._sampler(counts)
        log_q = (in_batch_log_q(counts) if drawn is None else drawn.table) if self.log_q else None  # (N,)
        known = KnownPositives(split.train, split.n_items)
        self.network = self._build(counts > 0, text, log_q, attributes, known)
        examples = NextItemExamples(
            split.train,
            split.n_items,
            length=self.length,
            id_dropout=self.id_dropout,
            event_dropout=self.event_dropout,
            seed=self.seed,
            negatives=drawn,
            k=self.negatives,
        )
        self._train(
            split,
            self.network,
            examples,
            lambda: {"ndcg@10": evaluate(self, split.validation).mean("ndcg@10"), **self.network.diagnostics()},
            folder=folder,
            resume=resume,
            patience=self.patience,
        )
        weights = {
            f"network.{name}": tensor
            for name, tensor in self.network.state_dict().items()
            if not name.startswith("negatives.")
        }
        self.state = {**weights, "text_mean": mean}
        return self

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Similarity of each history to every item, ``(batch, n_items)``."""
        return self._similarities(histories)

    def logits(self, histories: Sequences) -> Tensor:
        """Similarities over the temperature, ``(batch, n_items)``, with gradient."""
        return self._similarities(histories) / self._restored().temperature()

    def _similarities(self, histories: Sequences) -> Tensor:
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
            loss=self.loss,
            log_q=log_q,
            similarity=self.similarity,
            temperature=self.temperature,
            dropout=self.dropout,
            known=known,
            negatives=None if known is None else self._negatives(),
        )

    def _sampler(self, counts: Tensor) -> NegativeSampler | None:
        """What draws each example's own negatives."""
        uniform = UniformNegatives(len(counts), seed=self.seed)
        match self.sampler:
            case "in-batch":
                return None
            case "popular":
                popular = PopularityNegatives(counts, seed=self.seed)
                return MixedNegatives([(popular, self.hard_share), (uniform, 1 - self.hard_share)], seed=self.seed)
            case _:
                return uniform

    def _negatives(self) -> DrawnNegatives | None:
        """What makes negatives of those drawn."""
        match self.sampler:
            case "in-batch":
                return None
            case "hard":
                return HardNegatives(self.hard_share)
            case "perturbed":
                return PerturbedNegatives(self.hard_share, epsilon=self.epsilon)
            case "generated":
                return GanNegatives(
                    self.dim,
                    self.hard_share,
                    epsilon=self.epsilon,
                    hardness=self.hardness,
                    threshold=self.threshold,
                )
            case "policy":
                return PolicyNegatives(self.dim, self.hard_share)
            case _:
                return DrawnNegatives()

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
