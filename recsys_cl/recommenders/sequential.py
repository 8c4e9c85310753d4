"""Recommenders that read the order of events: SASRec, BERT4Rec, GRU4Rec and their contrastive and textual relatives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from transformers import set_seed

from recsys_cl.data import Sequences, Split
from recsys_cl.encoders.context import Context, event_features, feature_names
from recsys_cl.encoders.sequence import SequenceEncoderName, sequence_encoder
from recsys_cl.encoders.towers import ItemTower
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.negatives import GanNegatives, UniformNegatives
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.positives.sequence_views import similar_items
from recsys_cl.positives.view_pairs import views_named
from recsys_cl.recommenders.base import TrainedRecommender
from recsys_cl.recommenders.sequence_network import ObjectiveName, SequenceNetwork
from recsys_cl.recommenders.two_tower_network import Similarity
from recsys_cl.text.encoder import LanguageEncoder
from recsys_cl.text.geometry import centre
from recsys_cl.training.adversarial import Attack
from recsys_cl.training.window_parts import (
    EventContext,
    ForgottenIds,
    HiddenEvents,
    KnownItems,
    NextKinds,
    OwnNegatives,
    SameTarget,
    SharedNegatives,
    TwoViews,
)
from recsys_cl.training.windows import Part, Windows

ROWS = 1024
"""Histories that are encoded at once when scoring."""

OWN = ("bce", "gbce", "generated")
"""Objectives with negatives of each event's own."""

SIMILAR = 10
"""Similar items of each item that the views *substitute* and *insert* draw from."""


@dataclass
class Sequential(TrainedRecommender):
    """A model of the sequence of a user's events, on ids, texts or both.

    The defaults are SASRec with the full softmax on cosines.

    Attributes:
        encoder: ``"causal"`` Transformer (SASRec), ``"bidirectional"`` (BERT4Rec) or ``"gru"`` (GRU4Rec).
        ids: Whether items have an id embedding.
        model: Language model for the items' texts, ``""`` for none.
        dim: Width.
        length: Events that are read, the latest.
        blocks: Blocks of the Transformer, or layers of the GRU.
        heads: Attention heads.
        similarity: ``"cosine"`` or ``"dot"``.
        temperature: Where the temperature starts; it is learned.
        objective: ``"softmax"`` over the catalogue, ``"sampled-softmax"``, ``"bce"`` or ``"gbce"``, or the softmax
            against ``"generated"`` negatives.
        negatives: Negatives of the sampled objectives: a batch shares those of the softmax, binary ones are of each
            event's own.
        calibration: Of ``"gbce"``, from 0 (``"bce"``) to 1.
        hard_share: Share of the negatives that are generated.
        hardness: What closeness to the user is worth to their generator.
        threshold: Least probability of being real that their filter asks for, 0 for no filter.
        spare_known: Whether what a user chose at any other time in training is no negative of theirs: what they will
            choose later is no wrong answer now, and what they have is not asked for again.
        mask_share: Share of the events that a bidirectional encoder must guess.
        mask_last: Chance that it must guess the last event alone, as at use.
        views: Changes that make two views of a window, such as ``"crop+mask+reorder"``, or ``"same-target"`` for
            another history with the same next item; ``""`` for none.
        contrast: Weight of the contrast between the views.
        align: Weight of the alignment of each item's text with its id.
        align_sequences: Weight of the alignment of histories read as texts with the same read as ids.
        context: What is known of events beside the item, such as ``"gap+hour+rating+kind+user"``.
        next_kind: Whether the type of the next event is predicted beside the item.
        dropout: Dropout of the encoder.
        id_dropout: Share of the items whose ids a batch does not see.
        attack: How item vectors are moved in training, see :class:`~recsys_cl.training.adversarial.Adversary`.
        epsilon: Length of moves, under attack and of generated negatives, in units of the vectors' norms.
        attack_weight: Weight of the loss under attack.
        epochs: At most this many passes.
        batch_size: Windows per step.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        patience: Epochs without a better validation NDCG@10 before training stops.
        validation_queries: At most this many of the validation queries, a seeded sample, tell epochs apart.
        seed: Seed of weights, order, dropout and augmentations.

    See: chapter 7; chapter 11 trains it at full size.
    """

    reads_text: ClassVar[bool] = True

    encoder: SequenceEncoderName = "causal"
    ids: bool = True
    model: str = ""
    dim: int = 64
    length: int = 50
    blocks: int = 2
    heads: int = 2
    similarity: Similarity = "cosine"
    temperature: float = 0.1
    objective: ObjectiveName = "softmax"
    negatives: int = 256
    calibration: float = 0.75
    hard_share: float = 0.5
    hardness: float = 0.1
    threshold: float = 0.0
    spare_known: bool = False
    mask_share: float = 0.2
    mask_last: float = 0.1
    views: str = ""
    contrast: float = 0.1
    align: float = 0.0
    align_sequences: float = 0.0
    context: str = ""
    next_kind: bool = False
    dropout: float = 0.2
    id_dropout: float = 0.0
    attack: Attack = "none"
    epsilon: float = 0.5
    attack_weight: float = 1.0
    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    patience: int = 4
    validation_queries: int = 1_500
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        both = self.ids and self.model
        if (self.align or self.align_sequences) and not both:
            raise InputError("there is nothing to align without texts and ids; set model='minilm' and ids=true")
        if self.id_dropout and not both:
            raise InputError("ids can be dropped only beside texts; set model='minilm' and ids=true, or id_dropout=0")
        if self.encoder == "bidirectional" and self.objective in OWN:
            raise InputError(
                f"objective={self.objective!r} draws negatives of what comes next, and a bidirectional encoder guesses "
                "what is hidden; use objective='softmax' or encoder='causal'"
            )
        if self.spare_known and self.objective == "sampled-softmax":
            raise InputError("negatives that a batch shares cannot spare what one user chose; use another objective")
        if (self.context or self.next_kind) and self.encoder == "bidirectional":
            raise InputError(
                "context and next_kind are for encoders that read forwards; use encoder='causal' or 'gru', or neither"
            )

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
        self.network = self._build(split)
        self._run(split, folder=folder, resume=resume)
        return self

    def update(self, split: Split, *, since: float, epochs: int = 3) -> Self:
        """Train further on newly arrived events, and on up to half a window before them, from the weights as they are.

        Args:
            split: The grown data, with the catalogue that the recommender was fitted on.
            since: Time of the first event that is new.
            epochs: Passes over the events.

        Raises:
            InputError: If the catalogue is another one, or no event is new.
        """
        if list(split.data.items["item_id"]) != list(self.items["item_id"]):
            raise InputError("the grown data has another catalogue, whose items have no vectors yet; fit on it anew")
        network = self._restored()
        network.items.warm.copy_(torch.from_numpy(split.counts > 0))
        self.state["popularity"] = torch.from_numpy(split.counts).float().log1p()  # (N,)
        self._run(split, since=since, folder=None, resume=False, epochs=epochs, keep="last")
        return self

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Similarity of each history's state to every item, ``(batch, n_items)``; for an empty one, log-popularity.

        Items that have neither text nor training events come last.

        Raises:
            InputError: If an item of a history is not in the catalogue.
        """
        return self.logits(histories)

    def logits(self, histories: Sequences) -> Tensor:
        """As :meth:`score`, with gradient."""
        network = self._restored()
        vectors = network.vectors()  # (N, d)
        filled = np.flatnonzero(histories.lengths > 0)
        scores = self.state["popularity"].to(vectors.device).repeat(len(histories), 1)  # (B, N)
        for rows in np.array_split(filled, -(-len(filled) // ROWS)) if len(filled) else ():
            states = self._last_states(histories[rows], vectors)  # (R, d)
            scores[torch.from_numpy(rows).to(vectors.device)] = states @ vectors.T / network.temperature()  # (R, N)
        return scores if self.model else unknown_last(scores, network.items.warm.bool())

    @torch.no_grad()
    def kind_probabilities(self, histories: Sequences, items: Tensor) -> Tensor:
        """Of which type the next event is, if it is on the item given for each history.

        Args:
            histories: None of them empty.
            items: ``(batch,)`` item numbers.

        Returns:
            ``(batch, kinds)``; rows add up to 1, columns are in the order of ``data.event_types``.

        Raises:
            InputError: If the recommender was not trained with ``next_kind``, or a history is empty.
        """
        if not self.next_kind:
            raise InputError("this recommender does not predict event types; train one with next_kind=true")
        if (histories.lengths == 0).any():
            raise InputError("an empty history has no next event; leave such people out")
        network = self._restored()
        vectors = network.vectors()  # (N, d)
        states = self._last_states(histories, vectors)  # (B, d)
        return network.kind_logits(states, vectors[items]).softmax(1)  # (B, K)

    @torch.no_grad()
    def score_text(self, text: str) -> Tensor:
        """Score the catalogue as if the sentence were the text of the only item in the history: ``(1, n_items)``."""
        if not self.model:
            raise InputError("this sequential model does not read text; use sasrec-text or sasrec-hybrid")
        network = self._restored()
        assert network.items.project is not None
        vectors = network.vectors()  # (N, d)
        own = network.comparable(network.items.project(self._embed(text)))  # (1, d)
        read = torch.cat([vectors, own])  # (N + 1, d)
        state = network.last_states(torch.tensor([len(vectors)]), torch.tensor([1]), read)  # (1, d)
        return state @ vectors.T / network.temperature()  # (1, N)

    @property
    def _inputs(self) -> int:
        """Longest input beside the place that a bidirectional encoder is to guess."""
        return self.length - 1 if self.encoder == "bidirectional" else self.length

    def _last_states(self, histories: Sequences, vectors: Tensor) -> Tensor:
        """States from which the next item is predicted, ``(batch, dim)``."""
        network, recent = self._restored(), histories.last(self._inputs)
        rows, positions = recent.flat()
        items, lengths = recent.items[positions], recent.lengths
        if len(items) and not 0 <= items.min() <= items.max() < len(vectors):
            wrong = items[(items < 0) | (items >= len(vectors))][0]
            raise InputError(f"a history holds item {wrong}, but items are numbered from 0 to {len(vectors) - 1}")
        if self.encoder == "bidirectional":
            items, lengths = np.insert(items, np.cumsum(lengths), len(vectors)), lengths + 1
        context: list[Tensor] = []
        if network.context is not None and histories.logged:
            names = feature_names(self.context)
            context.append(torch.from_numpy(event_features(histories, rows, positions, names)).to(vectors.device))
            if recent.attributes is not None:
                context.append(torch.from_numpy(recent.attributes).to(vectors.device))
        ragged_batch = (torch.from_numpy(items).to(vectors.device), torch.from_numpy(lengths).to(vectors.device))
        return network.last_states(*ragged_batch, vectors, *context)  # (B, d)

    def _run(self, split: Split, *, since: float | None = None, **options: Any) -> None:
        """Train the network on windows of the split, and keep what it became."""
        examples = Windows(split.train, length=self._inputs, parts=self._parts(split), since=since, seed=self.seed)
        queries = split.validation.sample(self.validation_queries, seed=self.seed)
        self._train(
            split,
            self.network,
            examples,
            lambda: {"ndcg@10": evaluate(self, queries).mean("ndcg@10"), **self.network.diagnostics()},
            patience=self.patience,
            **options,
        )
        weights = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        self.state = {**weights, **{name: self.state[name] for name in ("popularity", "text_mean")}}

    def _parts(self, split: Split) -> list[Part]:
        """What the objectives need of a batch beside its windows."""
        train, n_items, seed = split.train, split.n_items, self.seed
        parts: list[Part] = []
        if self.encoder == "bidirectional":
            parts.append(HiddenEvents(train, n_items, self.mask_share, self.mask_last, seed))
        if self.objective == "sampled-softmax":
            parts.append(SharedNegatives(UniformNegatives(n_items, seed=seed), self.negatives))
        if self.objective in OWN:
            known = KnownPositives(train, n_items) if self.spare_known else None
            parts.append(OwnNegatives(train, n_items, self.negatives, known, seed))
        if self.spare_known and self.objective == "softmax":
            parts.append(KnownItems(train))
        if self.views == "same-target":
            parts.append(SameTarget(train, n_items, self.length, seed))
        elif self.views:
            swaps = "substitute" in self.views or "insert" in self.views
            similar = similar_items(train, n_items, SIMILAR) if swaps else None
            views = views_named(self.views, mask_id=n_items, similar=similar)
            parts.append(TwoViews(train, views, self.length, seed))
        if self.id_dropout:
            parts.append(ForgottenIds(n_items, self.id_dropout, seed))
        if self.context:
            parts.append(EventContext(train, feature_names(self.context)))
        if self.next_kind:
            parts.append(NextKinds(train))
        return parts

    def _build(self, split: Split) -> SequenceNetwork:
        """A fresh network for the split's catalogue."""
        counts = torch.from_numpy(split.counts)  # (N,)
        n_kinds = len(split.data.event_types)
        if self.next_kind and n_kinds < 2:
            raise InputError(f"next_kind on data with {n_kinds} event types; it takes two to tell one from another")
        self.state = {"popularity": counts.float().log1p(), "text_mean": torch.zeros(0)}
        attributes = 0 if split.train.attributes is None else split.train.attributes.shape[1]
        return self._network(counts > 0, self._texts(split) if self.model else None, n_kinds, attributes)

    def _texts(self, split: Split) -> Tensor:
        """Vectors of the items' texts, ``(n_items, t)``, centred and of length 1."""
        embeddings = LanguageEncoder(self.model).encode(split.data.texts)  # (N, t)
        self.state["text_mean"] = embeddings.mean(0)  # (t,)
        return centre(embeddings, self.state["text_mean"])  # (N, t)

    def _embed(self, text: str) -> Tensor:
        """Vector of a text that is no item's, ``(1, t)``."""
        return centre(LanguageEncoder(self.model, cache=False).encode([text]), self.state["text_mean"])  # (1, t)

    def _network(self, warm: Tensor, text: Tensor | None, n_kinds: int, n_attributes: int) -> SequenceNetwork:
        names = feature_names(self.context)
        return SequenceNetwork(
            ItemTower(warm, text, dim=self.dim, ids=self.ids),
            sequence_encoder(self.encoder, self.dim, blocks=self.blocks, heads=self.heads, dropout=self.dropout),
            dim=self.dim,
            similarity=self.similarity,
            temperature=self.temperature,
            objective=self.objective,
            hides=self.encoder == "bidirectional" or "mask" in self.views,
            calibration=self.calibration,
            contrast=self.contrast,
            align=self.align,
            align_sequences=self.align_sequences,
            context=Context(names, n_kinds=n_kinds, n_attributes=n_attributes, dim=self.dim) if names else None,
            n_kinds=n_kinds if self.next_kind else 0,
            game=self._game() if self.objective == "generated" else None,
        )

    def _game(self) -> GanNegatives:
        return GanNegatives(
            self.dim, self.hard_share, epsilon=self.epsilon, hardness=self.hardness, threshold=self.threshold
        )

    def _restored(self) -> SequenceNetwork:
        """The network; after :meth:`load`, rebuilt from the state."""
        if not hasattr(self, "network"):
            state = {name.removeprefix("network."): tensor for name, tensor in self.state.items() if "network." in name}
            names = feature_names(self.context)
            sizes = {
                name: len(state[f"context.tables.{k}.weight"]) for k, name in enumerate(n for n in names if n != "user")
            }
            n_kinds = len(state["kinds.bias"]) if self.next_kind else sizes.get("kind", 0)
            n_attributes = state["context.attributes.weight"].shape[1] if "user" in names else 0
            self.network = self._network(state["items.warm"], state.get("items.text"), n_kinds, n_attributes)
            self.network.load_state_dict(state)
            self.network.eval()
        return self.network


def unknown_last(scores: Tensor, warm: Tensor) -> Tensor:
    """Scores ``(batch, n_items)`` in which items that a model knows nothing about share the least score of the others.

    A vector of zeros scores 0, which is the middle of the list for a softmax on cosines, and its top for a loss that
    learns probabilities: where each item is unlikely, all scores are below 0.

    >>> unknown_last(torch.tensor([[-5.0, 0.0, -7.0]]), torch.tensor([True, False, True])).tolist()
    [[-5.0, -7.0, -7.0]]
    """
    least = scores[:, warm].min(1, keepdim=True).values  # (B, 1)
    return torch.where(warm, scores, least)  # (B, N)
