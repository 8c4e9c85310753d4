"""Two-tower recommender: user-history and item vectors, trained with a contrastive loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import set_seed

from recsys_cl.data import Sequences, Split
from recsys_cl.encoders.towers import USER_TOWERS, ItemTower
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.losses.contrastive import LOSSES
from recsys_cl.negatives import in_batch_log_q
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.negatives.strategies import SAMPLERS, InBatch, Sampler
from recsys_cl.recommenders.base import TrainedRecommender
from recsys_cl.recommenders.two_tower_network import INITIAL_TEMPERATURE, Similarity, TwoTowerNetwork
from recsys_cl.settings import Names, Range
from recsys_cl.text.encoder import LanguageEncoder
from recsys_cl.text.geometry import CatalogueText
from recsys_cl.training.adversarial import ATTACKS
from recsys_cl.training.examples import NextItemExamples


@dataclass
class TwoTower(TrainedRecommender[TwoTowerNetwork]):
    """Two-tower recommender on ids, texts or both.

    Attributes:
        ids: Whether items have an id embedding.
        model: Language model for the items' texts, ``""`` for none.
        user_tower: ``"attention"`` over the recent history, ``"mean"`` of it, or ``"mlp"`` over behaviour
            counts and user attributes.
        dim: Dimension of the vectors.
        length: Maximum length of a history, in events.
        similarity: ``"cosine"`` or ``"dot"``.
        temperature: Initial temperature; it is learned.
        loss: A name of :data:`~recsys_cl.losses.contrastive.LOSSES`, or a function.
        log_q: Whether to apply the logQ correction to negatives.
        dropout: Dropout rate on the history's item vectors.
        id_dropout: Share of the items whose ids are dropped for a batch.
        event_dropout: Share of the history's events dropped from an example.
        sampler: Negatives: ``"in-batch"``, or each example's own, ``"uniform"``, ``"popular"``, ``"hard"``,
            ``"perturbed"``, ``"generated"`` or drawn by a ``"policy"``; by default in-batch if the loss has an in-batch
            form, otherwise uniform.
        queue: Number of item vectors of previous batches that are further in-batch negatives (XBM, Wang et al. 2020).
        attack: Attack on item vectors during training: ``"none"``, or a name of
            :data:`~recsys_cl.training.adversarial.ATTACKS`.
        epochs: Maximum number of passes over the training events.
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
    user_tower: Annotated[str, Names(USER_TOWERS)] = "attention"
    dim: Annotated[int, Range(1)] = 64
    length: Annotated[int, Range(1)] = 50
    similarity: Similarity = "cosine"
    temperature: Annotated[float, Range(0.01)] = INITIAL_TEMPERATURE
    loss: Annotated[Any, LOSSES] = "info-nce"
    sampler: Annotated[Any, SAMPLERS] = None
    queue: Annotated[int, Range(0)] = 0
    log_q: bool = True
    dropout: Annotated[float, Range(0, 0.99)] = 0.2
    id_dropout: Annotated[float, Range(0, 0.99)] = 0.0
    event_dropout: Annotated[float, Range(0, 0.99)] = 0.0
    attack: Annotated[Any, ATTACKS] = None
    epochs: Annotated[int, Range(1)] = 10
    batch_size: Annotated[int, Range(1)] = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    patience: Annotated[int, Range(1)] = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the hyperparameters, and select a sampler that fits the loss if none is given."""
        super().__post_init__()
        if self.sampler is None:
            self.sampler = InBatch() if "in-batch" in self.loss.forms else Sampler()
        form = "in-batch" if isinstance(self.sampler, InBatch) else "own"
        if form not in self.loss.forms:
            wanted = "sampler=uniform" if form == "in-batch" else "sampler=in-batch"
            others = ", ".join(name for name in LOSSES if form in LOSSES[name]().forms)
            raise InputError(
                f"the loss {self.loss} cannot be computed with sampler={SAMPLERS.name_of(self.sampler)!r}; give "
                f"{wanted}, or one of the losses {others}"
            )
        if self.queue:
            self._check_queue(form)
        if not self.loss.has_temperature and self.temperature != INITIAL_TEMPERATURE:
            raise InputError(f"the loss {self.loss} has no temperature; leave temperature={self.temperature} out")

    def _check_queue(self, form: str) -> None:
        if form == "own" or self.loss.square:
            takers = (name for name in LOSSES if "in-batch" in LOSSES[name]().forms and not LOSSES[name]().square)
            raise InputError(
                f"queue={self.queue} adds in-batch negatives, which the loss {self.loss} with "
                f"sampler={SAMPLERS.name_of(self.sampler)!r} does not take; leave it out, or give sampler=in-batch and "
                f"one of the losses {', '.join(takers)}"
            )
        if self.attack is not None:
            raise InputError(f"queue={self.queue} would keep item vectors that the attack moved; leave one of them out")

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
        self.state, text = {}, None
        if self.model:
            catalogue = CatalogueText(LanguageEncoder(self.model).encode)
            text = catalogue.fit(split.data.texts)  # (N, t)
            self.state["text_mean"] = catalogue.mean  # (t,)
        counts = torch.from_numpy(split.counts)  # (N,)
        drawn = self.sampler.drawn(counts, seed=self.seed)
        log_q = (in_batch_log_q(counts) if drawn is None else drawn.table) if self.log_q else None  # (N,)
        self.sizes = {
            "items": split.n_items,
            "text": 0 if text is None else text.shape[1],
            "attributes": 0 if split.train.attributes is None else split.train.attributes.shape[1],
        }
        self.network = self._build().learn_from(KnownPositives(split.train, split.n_items), log_q, queue=self.queue)
        self.network.items.read(counts > 0, text)
        examples = NextItemExamples(
            split.train,
            split.n_items,
            length=self.length,
            id_dropout=self.id_dropout,
            event_dropout=self.event_dropout,
            seed=self.seed,
            negatives=drawn,
            k=self.sampler.negatives,
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
        self.network.queue = None  # only for training, not saved with the model
        return self

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Similarity of each history to every item, ``(batch, n_items)``."""
        return self._similarities(histories)

    def logits(self, histories: Sequences) -> Tensor:
        """Similarities over the temperature, ``(batch, n_items)``, with gradient."""
        return self._similarities(histories) / self.network.temperature()

    def _similarities(self, histories: Sequences) -> Tensor:
        network = self.network
        device = network.items.warm.device
        attributes = None if histories.attributes is None else torch.from_numpy(histories.attributes).to(device)
        users = network.embed_users(torch.from_numpy(histories.recent(self.length)).to(device), attributes)  # (B, d)
        everything = torch.arange(len(network.items.warm), device=device)  # (N,)
        return users @ network.embed_items(everything).T  # (B, N)

    @torch.no_grad()
    def score_text(self, text: str) -> Tensor:
        """Score the catalogue for a history of one item whose text is the sentence: ``(1, n_items)``."""
        if not self.model or self.user_tower == "mlp":
            raise InputError("this two-tower model does not read text; use two-tower or two-tower-text")
        network = self.network
        read = CatalogueText(LanguageEncoder(self.model, cache=False).encode, self.state["text_mean"])
        everything = torch.arange(len(network.items.warm))  # (N,)
        return network.embed_text(read.encode([text])) @ network.embed_items(everything).T  # (1, N)

    def _build(self) -> TwoTowerNetwork:
        sizes = self.sizes
        user = USER_TOWERS[self.user_tower](sizes, dim=self.dim, length=self.length)
        return TwoTowerNetwork(
            ItemTower.of_size(sizes["items"], sizes["text"], dim=self.dim, ids=self.ids),
            user,
            loss=self.loss,
            similarity=self.similarity,
            temperature=self.temperature,
            dropout=self.dropout,
            negatives=self.sampler.made(self.dim),
        )
