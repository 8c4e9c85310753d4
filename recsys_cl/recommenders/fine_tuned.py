"""Fine-tuned language model as a recommender: full fine-tuning, an adapter, or a linear projection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import set_seed

from recsys_cl.data import Sequences, Split
from recsys_cl.data.text import drop_fragments, replace_words
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.losses.contrastive import LOSSES
from recsys_cl.negatives import in_batch_log_q
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.recommenders.base import TrainedRecommender
from recsys_cl.recommenders.text_networks import (
    Augmentation,
    BlockNetwork,
    LanguageTower,
    PairNetwork,
    ProjectedTower,
    concatenate_original,
    latest_titles,
)
from recsys_cl.settings import Range
from recsys_cl.text.adapters import Adapter, AdapterKind, RankAllocation, parameter_counts
from recsys_cl.text.encoder import LanguageEncoder
from recsys_cl.text.geometry import CatalogueText, nearest_words
from recsys_cl.text.tokens import Pooling
from recsys_cl.training.examples import CatalogueBlocks, HistoryPairs

Method = Literal["full", "lora", "adalora", "ia3", "prefix", "projection"]
User = Literal["items", "text"]
AugmentName = Literal["none", "fragments", "synonyms"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass
class FineTuned(TrainedRecommender[BlockNetwork | PairNetwork]):
    """Language model fine-tuned with a contrastive loss on users' choices, to recommend items without events.

    Validation queries are too few to select an epoch (a choice made on one draw of validation items does not transfer
    to another, chapter 6), so training runs for a fixed number of epochs with a decaying learning rate.

    Attributes:
        model: Language model (see :class:`~recsys_cl.text.encoder.LanguageEncoder`).
        method: Trained weights: ``"full"`` all weights; ``"lora"``, ``"adalora"``, ``"ia3"`` or ``"prefix"`` an
            adapter; ``"projection"`` a linear map on frozen embeddings.
        rank: Rank of the adapter.
        user: User representation: the mean of the history's ``"items"``, or the embedding of a ``"text"`` with the
            latest titles.
        pooling: Pooling of hidden states into one vector: ``"mean"``, ``"cls"``, ``"last"`` for decoders.
        max_length: Maximum number of tokens per text; longer texts are truncated.
        length: Number of titles in a user's text.
        block: Number of items per step, for ``user="items"``.
        batch_size: Number of pairs per step, for ``user="text"``.
        loss: For ``user="text"``, a contrastive loss with an in-batch form, by default ``"info-nce"``; for
            ``user="items"`` the loss is always the multi-positive loss over a block.
        temperature: Initial temperature; it is learned.
        augment: Text augmentation: ``"none"``, ``"fragments"``, ``"synonyms"``.
        residual: Weight of the original model's embeddings in the item vectors, for ``user="items"``.
        views: Weight of the SimCSE loss on two dropout views of the items.
        dropout: Dropout rate in the language model.
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"`` (autocast).
        epochs: Number of passes over the examples, each followed by a validation.
        passes: Number of passes over the catalogue per epoch, for ``user="items"``.
        pairs: Maximum number of pairs per epoch, 0 for all, for ``user="text"``.
        learning_rate: Peak learning rate.
        warmup: Steps over which the learning rate rises from zero.
        weight_decay: Decoupled weight decay.
        seed: Seed of adapter, order, dropout and augmentations.

    See: chapter 6.
    """

    reads_text: ClassVar[bool] = True

    model: str = "minilm"
    method: Method = "lora"
    rank: Annotated[int, Range(1)] = 8
    user: User = "items"
    pooling: Pooling = "mean"
    max_length: Annotated[int, Range(1)] = 32
    length: Annotated[int, Range(1)] = 4
    block: Annotated[int, Range(2)] = 256
    batch_size: Annotated[int, Range(1)] = 64
    loss: Annotated[Any, LOSSES] = None
    temperature: Annotated[float, Range(0.01)] = 0.15
    augment: AugmentName = "none"
    residual: float = 0.5
    views: float = 0.0
    dropout: Annotated[float, Range(0, 0.99)] = 0.1
    precision: Precision = "auto"
    epochs: Annotated[int, Range(1)] = 2
    passes: Annotated[int, Range(1)] = 3
    pairs: int = 0
    learning_rate: float = 1e-3
    warmup: int = 10
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the hyperparameters, and that the loss fits the user representation.

        Raises:
            InputError: With the hyperparameter, its value and the valid values.
        """
        super().__post_init__()
        if self.user == "items":
            if self.loss is not None and self.loss.name != "multi-positive":
                raise InputError(
                    f"the loss {self.loss} compares pairs, but with user=items a user has many positives; use "
                    "user=text, or leave the loss out"
                )
            return
        self.loss = LOSSES["info-nce"]() if self.loss is None else self.loss
        if "in-batch" not in self.loss.forms:
            others = ", ".join(name for name in LOSSES if "in-batch" in LOSSES[name]().forms)
            raise InputError(
                f"the loss {self.loss} needs sampled negatives, but text fine-tuning encodes only the batch; "
                f"use one of {others}"
            )

    def fit(self, split: Split, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Train on ``split.train``; the validation metric is only reported.

        Args:
            split: Training and validation data.
            folder: Folder for checkpoints, logs and ``run.json``; by default a temporary one.
            resume: Continue from the newest intact checkpoint in ``folder``.

        Raises:
            InputError: If a setting is not valid, there is nothing to train on, or nothing to resume.
        """
        if self.user == "text" and self.method == "projection":
            raise InputError("a projection is trained on blocks of items; use user=items, or another method")
        set_seed(self.seed)
        self.items, self.state = split.data.items, {}
        examples = self._examples(split)
        self.encoder = self._open(steps=self.epochs * math.ceil(len(examples) / self._step))
        self.network = network = self._network(split)
        self.parameters = parameter_counts(network)

        def validate() -> dict[str, float]:
            self._index(network, split)
            return {"ndcg@10": evaluate(self, split.validation).mean("ndcg@10")}

        self._train(
            split,
            network,
            examples,
            validate,
            folder=folder,
            resume=resume,
            callbacks=[RankAllocation()],
            batch_size=self._step,
            warmup=self.warmup,
            schedule="linear",
            keep="last",
        )
        if self.method != "projection":
            self.encoder.model.to(self.encoder.device)  # training left the network on the CPU
        if not self.state:  # resumed after the last epoch, so no validation has embedded the catalogue
            self._index(network, split)
        return self

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Cosine of each user vector with every item vector, ``(batch, n_items)``."""
        vectors = self.state["vectors"]  # (N, d)
        if self.user == "items":
            users = torch.from_numpy(histories.matrix(len(vectors)) @ vectors.numpy())  # (B, d)
        else:
            titles = list(self.items["title"])
            users = self._embed([latest_titles(row, titles) for row in histories.recent(self.length)])  # (B, d)
        return F.normalize(users, dim=1) @ vectors.T  # (B, N)

    @torch.no_grad()
    def score_text(self, text: str) -> Tensor:
        """Cosine of the sentence with every item's text, ``(1, n_items)``."""
        return self.embed(text) @ self.state["vectors"].T  # (1, N)

    def embed(self, text: str) -> Tensor:
        """Vector of a text, comparable with the item vectors in ``state["vectors"]``: ``(1, dim)``."""
        return self._vectors([text])  # (1, d)

    def save(self, folder: str | Path) -> None:
        """Write hyperparameters, catalogue and vectors to ``folder``, and the language model to ``folder/encoder``."""
        super().save(folder)
        self.encoder.save(Path(folder) / "encoder")

    def _build(self) -> BlockNetwork | PairNetwork:
        raise InputError("a loaded fine-tuned language model can only score; fit it again to train further")

    def _tensors(self) -> dict[str, Tensor]:
        return self.state  # the language model has a folder of its own

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self.state = tensors

    def _load_parts(self, folder: Path) -> None:
        """Load the language model."""
        self.encoder = LanguageEncoder(folder / "encoder")

    def _open(self, steps: int) -> LanguageEncoder:
        """The language model, with a new adapter if ``method`` is one."""
        adapter = None
        if self.method in get_args(AdapterKind):
            kind = cast(AdapterKind, self.method)
            adapter = Adapter(kind, rank=self.rank, alpha=2.0 * self.rank, steps=steps, seed=self.seed)
        encoder = LanguageEncoder(
            self.model, adapter=adapter, pooling=self.pooling, max_length=self.max_length, precision=self.precision
        )
        if self.method != "projection":
            for part in encoder.model.modules():
                if isinstance(part, nn.Dropout):
                    part.p = self.dropout
        return encoder

    @property
    def _step(self) -> int:
        """Number of examples per step: one block, or a batch of pairs."""
        return 1 if self.user == "items" else self.batch_size

    def _examples(self, split: Split) -> CatalogueBlocks | HistoryPairs:
        if self.user == "items":
            return CatalogueBlocks(split.train, split.n_items, block=self.block, passes=self.passes, seed=self.seed)
        return HistoryPairs(split.train, split.n_items, length=self.length, pairs=self.pairs, seed=self.seed)

    def _network(self, split: Split) -> BlockNetwork | PairNetwork:
        texts = split.data.texts
        tower: LanguageTower | ProjectedTower
        if self.method == "projection":
            tower = ProjectedTower(self.encoder.encode(texts))
        else:
            tower = LanguageTower(self.encoder, texts, self._augmentation(texts))
        if self.user == "items":
            original = self._untouched.encode(texts) if self._has_original else None
            return BlockNetwork(
                tower, temperature=self.temperature, original=original, residual=self.residual, views=self.views
            )
        assert isinstance(tower, LanguageTower)
        return PairNetwork(
            tower,
            split.data.titles,
            loss=self.loss or LOSSES["info-nce"](),
            temperature=self.temperature,
            log_q=in_batch_log_q(torch.from_numpy(split.counts)),
            known=KnownPositives(split.train, split.n_items),
        )

    def _augmentation(self, texts: Sequence[str]) -> Augmentation | None:
        match self.augment:
            case "fragments":
                return partial(drop_fragments, seed=self.seed)
            case "synonyms":
                return partial(replace_words, synonyms=nearest_words(self.encoder, texts), seed=self.seed)
            case _:
                return None

    @torch.no_grad()
    def _index(self, network: BlockNetwork | PairNetwork, split: Split) -> None:
        """Embed the catalogue with the current network; means are over the items seen in training."""
        texts, warm = split.data.texts, torch.from_numpy(split.counts > 0)  # (N,)
        projection = getattr(network.tower, "project", None)
        self.state = {} if projection is None else {"project": projection.weight.detach().cpu()}
        tuned = CatalogueText(self._embed, torch.zeros(()))
        vectors = tuned.fit(texts, warm) if self.user == "items" else tuned.encode(texts)  # (N, d)
        if self._has_original:
            original = CatalogueText(self._untouched.encode)
            vectors = concatenate_original(vectors, original.fit(texts, warm), self.residual)  # (N, 2d)
            self.state["original_mean"] = original.mean  # (d,)
        self.state |= {"mean": tuned.mean, "vectors": vectors}

    @property
    def _has_original(self) -> bool:
        return self.residual > 0 and self.user == "items"

    @property
    def _untouched(self) -> LanguageEncoder:
        return LanguageEncoder(self.model, pooling=self.pooling)

    def _embed(self, texts: Sequence[str]) -> Tensor:
        embeddings = self.encoder.encode(texts)  # (n, d)
        return embeddings @ self.state["project"].T if "project" in self.state else embeddings  # (n, d)

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        vectors = CatalogueText(self._embed, self.state["mean"]).encode(texts)  # (n, d)
        if not self._has_original:
            return vectors
        original = CatalogueText(self._untouched.encode, self.state["original_mean"]).encode(texts)  # (n, d)
        return concatenate_original(vectors, original, self.residual)  # (n, 2d)
