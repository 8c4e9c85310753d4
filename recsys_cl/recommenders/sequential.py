"""Sequential recommenders: SASRec, BERT4Rec, GRU4Rec, and variants with contrastive losses and item texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from transformers import set_seed

from recsys_cl.data import Sequences, Split
from recsys_cl.encoders.context import Context, event_features, feature_names
from recsys_cl.encoders.sequence import SEQUENCE_ENCODERS
from recsys_cl.encoders.towers import ItemTower
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.objectives.auxiliary import (
    AUXILIARY_LOSSES,
    AuxiliaryLoss,
    EventType,
    IdDropout,
    ItemAlignment,
    SequenceAlignment,
)
from recsys_cl.objectives.prediction import SEQUENCE_LOSSES, TrainingData
from recsys_cl.recommenders.base import TrainedRecommender
from recsys_cl.recommenders.sequence_network import SequenceNetwork
from recsys_cl.recommenders.two_tower_network import INITIAL_TEMPERATURE, Similarity
from recsys_cl.settings import Names, Range
from recsys_cl.text.encoder import LanguageEncoder
from recsys_cl.text.geometry import CatalogueText
from recsys_cl.training.adversarial import ATTACKS
from recsys_cl.training.windows import EventContext, Windows

ROWS = 1024
"""Histories encoded at once when scoring."""

VALIDATION_QUERIES = 1_500
"""Maximum number of validation queries, a seeded sample, on which epochs are compared."""


@dataclass
class Sequential(TrainedRecommender[SequenceNetwork]):
    """Sequential recommender on ids, texts or both.

    The defaults are SASRec with the full softmax on cosines.

    Attributes:
        encoder: ``"causal"`` Transformer (SASRec), ``"bidirectional"`` (BERT4Rec) or ``"gru"`` (GRU4Rec).
        ids: Whether items have an id embedding.
        model: Language model for the items' texts, ``""`` for none.
        dim: Dimension of states and item vectors.
        length: Maximum number of latest events in the input.
        blocks: Number of blocks of the Transformer, or layers of the GRU.
        heads: Number of attention heads.
        similarity: ``"cosine"`` or ``"dot"``.
        temperature: Initial temperature; it is learned.
        loss: Main loss: ``"softmax"`` over the catalogue, ``"sampled-softmax"``, ``"bce"``, ``"gbce"``,
            ``"generated"`` negatives, or ``"cloze"`` (masked items, for a bidirectional encoder); or a
            :class:`~recsys_cl.objectives.prediction.SequenceLoss`.
        auxiliary: Auxiliary losses, joined by ``+``: ``"views"``, ``"same-target"``, ``"item-alignment"``,
            ``"sequence-alignment"``, ``"event-type"``, ``"id-dropout"``; or a list of
            :class:`~recsys_cl.objectives.auxiliary.AuxiliaryLoss`.
        context: Event features in addition to the item, such as ``"gap+hour+rating+event_type+user"``.
        dropout: Dropout rate of the encoder.
        attack: Attack on item vectors during training: ``"none"``, or a name of
            :data:`~recsys_cl.training.adversarial.ATTACKS`.
        epochs: Maximum number of passes over the training events.
        batch_size: Windows per step.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        patience: Epochs without a better validation NDCG@10 before training stops.
        seed: Seed of weights, order, dropout and augmentations.

    See: chapter 7; chapter 11 trains it at full size.
    """

    reads_text: ClassVar[bool] = True

    encoder: Annotated[str, Names(SEQUENCE_ENCODERS)] = "causal"
    ids: bool = True
    model: str = ""
    dim: Annotated[int, Range(1)] = 64
    length: Annotated[int, Range(1)] = 50
    blocks: Annotated[int, Range(1)] = 2
    heads: Annotated[int, Range(1)] = 2
    similarity: Similarity = "cosine"
    temperature: Annotated[float, Range(0.01)] = INITIAL_TEMPERATURE
    loss: Annotated[Any, SEQUENCE_LOSSES] = "softmax"
    auxiliary: Annotated[Any, AUXILIARY_LOSSES] = ()
    context: str = ""
    dropout: Annotated[float, Range(0, 0.99)] = 0.2
    attack: Annotated[Any, ATTACKS] = None
    epochs: Annotated[int, Range(1)] = 40
    batch_size: Annotated[int, Range(1)] = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    patience: Annotated[int, Range(1)] = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the hyperparameters and their combination.

        Raises:
            InputError: With the hyperparameter, its value and the valid values.
        """
        super().__post_init__()
        hybrid = [one for one in self.auxiliary if isinstance(one, ItemAlignment | SequenceAlignment | IdDropout)]
        if hybrid and not (self.ids and self.model):
            raise InputError(
                f"auxiliary={AUXILIARY_LOSSES.name_of(hybrid[0])} needs texts and ids; set model='minilm' and ids=true"
            )
        if self.loss.masked != (self.encoder == "bidirectional"):
            raise InputError(
                f"loss={SEQUENCE_LOSSES.describe(self.loss)['name']!r} does not train encoder={self.encoder!r}: use "
                "loss='cloze' for a bidirectional encoder, and any other loss for the other encoders"
            )
        if self.encoder == "bidirectional" and (self.context or self._has(EventType)):
            raise InputError(
                "context and event types need a unidirectional encoder; use encoder='causal' or 'gru', "
                "or leave both out"
            )

    def _has(self, kind: type[AuxiliaryLoss]) -> bool:
        return any(isinstance(one, kind) for one in self.auxiliary)

    def fit(self, split: Split, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Train on ``split.train``, with early stopping by NDCG@10 on ``split.validation``.

        Args:
            split: Training and validation data.
            folder: Folder for checkpoints, logs and ``run.json``; by default a temporary one.
            resume: Continue from the newest intact checkpoint in ``folder``.

        Raises:
            InputError: If a setting is not valid, there is nothing to train on, or nothing to resume.
        """
        set_seed(self.seed)
        self.items = split.data.items
        self.network = self._fresh(split)
        self._run(split, folder=folder, resume=resume)
        return self

    def update(self, split: Split, *, since: float, epochs: int = 3) -> Self:
        """Continue training on new events, and on up to half a window of events before them, from the current weights.

        Args:
            split: The extended data, with the catalogue that the recommender was fitted on.
            since: Time of the first new event.
            epochs: Number of passes over the new events.

        Raises:
            InputError: If the catalogue differs, or no event is new.
        """
        if list(split.data.items["item_id"]) != list(self.items["item_id"]):
            raise InputError("the new data has another catalogue, whose items have no vectors yet; fit on it again")
        network = self.network
        network.items.warm.copy_(torch.from_numpy(split.counts > 0))
        self.state["popularity"] = torch.from_numpy(split.counts).float().log1p()  # (N,)
        self._run(split, since=since, folder=None, resume=False, epochs=epochs, keep="last")
        return self

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Similarity of each history's state to every item, ``(batch, n_items)``; log-popularity for an empty history.

        Items with neither text nor training events rank last.

        Raises:
            InputError: If an item of a history is not in the catalogue.
        """
        return self.logits(histories)

    def logits(self, histories: Sequences) -> Tensor:
        """Scores as in :meth:`score`, with gradient."""
        network = self.network
        vectors = network.vectors()  # (N, d)
        filled = np.flatnonzero(histories.lengths > 0)
        scores = self.state["popularity"].to(vectors.device).repeat(len(histories), 1)  # (B, N)
        for rows in np.array_split(filled, -(-len(filled) // ROWS)) if len(filled) else ():
            states = self._last_states(histories[rows], vectors)  # (R, d)
            scores[torch.from_numpy(rows).to(vectors.device)] = states @ vectors.T / network.temperature()  # (R, N)
        return scores if self.model else unknown_last(scores, network.items.warm.bool())

    @torch.no_grad()
    def event_type_probabilities(self, histories: Sequences, items: Tensor) -> Tensor:
        """Probability of each type of the next event, given its item.

        Args:
            histories: Histories, none of them empty.
            items: ``(batch,)`` number of the next item of each history.

        Returns:
            ``(batch, types)`` probabilities, in the order of ``data.event_types``.

        Raises:
            InputError: If the recommender was not trained with ``auxiliary=event-type``, or a history is empty.
        """
        head = self.network.learned_by(EventType)
        if head is None:
            raise InputError("this recommender does not predict event types; train one with auxiliary=event-type")
        if (histories.lengths == 0).any():
            raise InputError("an empty history has no next event; leave such users out")
        network = self.network
        vectors = network.vectors()  # (N, d)
        states = self._last_states(histories, vectors)  # (B, d)
        return head(states, vectors[items]).softmax(1)  # (B, K)

    @torch.no_grad()
    def score_text(self, text: str) -> Tensor:
        """Score the catalogue for a history of one item whose text is the sentence: ``(1, n_items)``."""
        if not self.model:
            raise InputError("this sequential model does not read text; use sasrec-text or sasrec-hybrid")
        network = self.network
        assert network.items.project is not None
        vectors = network.vectors()  # (N, d)
        own = network.comparable(network.items.project(self._embed(text)))  # (1, d)
        extended = torch.cat([vectors, own])  # (N + 1, d)
        state = network.last_states(torch.tensor([len(vectors)]), torch.tensor([1]), extended)  # (1, d)
        return state @ vectors.T / network.temperature()  # (1, N)

    @property
    def _inputs(self) -> int:
        """Maximum input length, without the masked position that a bidirectional encoder predicts."""
        return self.length - 1 if self.encoder == "bidirectional" else self.length

    def _last_states(self, histories: Sequences, vectors: Tensor) -> Tensor:
        """States from which the next item is predicted, ``(batch, dim)``."""
        network, recent = self.network, histories.last(self._inputs)
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
        """Train the network on windows of the split."""
        data = TrainingData(split.train, split.n_items, self._inputs, self.seed)
        parts = [part for objective in (self.loss, *self.auxiliary) for part in objective.parts(data)]
        if self.context:
            parts.append(EventContext(split.train, feature_names(self.context)))
        examples = Windows(split.train, length=self._inputs, parts=parts, since=since, seed=self.seed)
        queries = split.validation.sample(VALIDATION_QUERIES, seed=self.seed)
        self._train(
            split,
            self.network,
            examples,
            lambda: {"ndcg@10": evaluate(self, queries).mean("ndcg@10"), **self.network.diagnostics()},
            patience=self.patience,
            **options,
        )

    def _fresh(self, split: Split) -> SequenceNetwork:
        """A new network with the split's catalogue."""
        counts = torch.from_numpy(split.counts)  # (N,)
        self.state = {"popularity": counts.float().log1p()}
        text = self._texts(split) if self.model else None  # (N, t)
        self.sizes = {
            "items": split.n_items,
            "text": 0 if text is None else text.shape[1],
            "attributes": 0 if split.train.attributes is None else split.train.attributes.shape[1],
            "event_types": len(split.data.event_types),
        }
        network = self._build()
        network.items.read(counts > 0, text)
        return network

    def _texts(self, split: Split) -> Tensor:
        """Text vectors of the items, ``(n_items, t)``, centred and of length 1."""
        catalogue = CatalogueText(LanguageEncoder(self.model).encode)
        vectors = catalogue.fit(split.data.texts)  # (N, t)
        self.state["text_mean"] = catalogue.mean  # (t,)
        return vectors

    def _embed(self, text: str) -> Tensor:
        """Text vector of a sentence, ``(1, t)``."""
        read = CatalogueText(LanguageEncoder(self.model, cache=False).encode, self.state["text_mean"])
        return read.encode([text])  # (1, t)

    def _build(self) -> SequenceNetwork:
        sizes = self.sizes
        return SequenceNetwork(
            ItemTower.of_size(sizes["items"], sizes["text"], dim=self.dim, ids=self.ids),
            SEQUENCE_ENCODERS[self.encoder](self.dim, blocks=self.blocks, heads=self.heads, dropout=self.dropout),
            similarity=self.similarity,
            temperature=self.temperature,
            loss=self.loss,
            auxiliary=self.auxiliary,
            context=self._context() if self.context else None,
            sizes=sizes,
        )

    def _context(self) -> Context:
        return Context(
            feature_names(self.context),
            n_event_types=self.sizes["event_types"],
            n_attributes=self.sizes["attributes"],
            dim=self.dim,
        )


def unknown_last(scores: Tensor, warm: Tensor) -> Tensor:
    """Give items without text and training events the minimum score of the other items, ``(batch, n_items)``.

    A zero vector scores 0. That is the middle of the list for a softmax on cosines, and its top for a loss that learns
    probabilities, whose scores are all below 0 because each item is unlikely.

    >>> unknown_last(torch.tensor([[-5.0, 0.0, -7.0]]), torch.tensor([True, False, True])).tolist()
    [[-5.0, -7.0, -7.0]]
    """
    minimum = scores[:, warm].min(1, keepdim=True).values  # (B, 1)
    return torch.where(warm, scores, minimum)  # (B, N)
