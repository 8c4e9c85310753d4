"""A language model fine-tuned to recommend: all of it, an adapter, or a projection on top."""

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
    beside,
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
    """A language model trained by contrast on what people chose, for items that nobody has chosen yet.

    Validation queries are too few to choose among epochs (the verdict of one draw of validation items does not carry
    over to another, chapter 6), so that training runs for a fixed time, under a decaying learning rate.

    Attributes:
        model: Language model (see :class:`~recsys_cl.text.encoder.LanguageEncoder`).
        method: What learns: ``"full"`` all weights, ``"lora"``, ``"adalora"``, ``"ia3"`` or ``"prefix"`` an adapter,
            ``"projection"`` a linear map on top of embeddings that stay as they are.
        rank: Rank of the adapter.
        user: A user is the mean of the history's ``"items"``, or the embedding of a ``"text"`` of its latest titles.
        pooling: How hidden states become one vector: ``"mean"``, ``"cls"``, ``"last"`` for decoders.
        max_length: Tokens of a text; longer ones are cut.
        length: Titles in the text of a user.
        block: Items in a step, where users are means of items.
        batch_size: Pairs in a step, where users are texts.
        loss: Where users are texts, a contrastive loss with an in-batch form, by default ``"info-nce"``; where they are
            means of items, the multi-positive loss over a block, which takes no other.
        temperature: Where the temperature starts; it is learned.
        augment: Other words for the same text: ``"none"``, ``"fragments"``, ``"synonyms"``.
        residual: Weight of the untouched model's embeddings beside the trained ones, where users are means of items.
        views: Weight of SimCSE's loss on two dropout views of the items.
        dropout: Dropout in the language model.
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"`` (autocast).
        epochs: How often to train on all examples, and validate.
        passes: Passes over the catalogue in an epoch, where users are means of items.
        pairs: At most this many pairs in an epoch, 0 for all, where users are texts.
        learning_rate: Peak learning rate.
        warmup: Steps over which it rises.
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
        """Check the hyperparameters, and that the loss can be computed on what is encoded.

        Raises:
            InputError: Naming the hyperparameter, its value and what is valid.
        """
        super().__post_init__()
        if self.user == "items":
            if self.loss is not None and self.loss.name != "multi-positive":
                raise InputError(
                    f"the loss {self.loss} compares pairs, and users as means of items have many positives; use "
                    "user=text, or leave the loss out"
                )
            return
        self.loss = LOSSES["info-nce"]() if self.loss is None else self.loss
        if "in-batch" not in self.loss.forms:
            others = ", ".join(name for name in LOSSES if "in-batch" in LOSSES[name]().forms)
            raise InputError(
                f"the loss {self.loss} needs sampled negatives, and text fine-tuning encodes only a batch; "
                f"use one of {others}"
            )

    def fit(self, split: Split, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Train on ``split.train``; the validation metric is reported, and decides nothing.

        Args:
            split: The data.
            folder: Where checkpoints, logs and ``run.json`` go; by default nowhere that stays.
            resume: Go on from the newest intact checkpoint in ``folder``.

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
        if not self.state:  # resumed after the last validation, which embeds the catalogue for good
            self._index(network, split)
        return self

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Cosine of each user's vector and every item's, ``(batch, n_items)``."""
        vectors = self.state["vectors"]  # (N, d)
        if self.user == "items":
            users = torch.from_numpy(histories.matrix(len(vectors)) @ vectors.numpy())  # (B, d)
        else:
            titles = list(self.items["title"])
            users = self._embed([latest_titles(row, titles) for row in histories.recent(self.length)])  # (B, d)
        return F.normalize(users, dim=1) @ vectors.T  # (B, N)

    @torch.no_grad()
    def score_text(self, text: str) -> Tensor:
        """Cosine of the sentence and every item's text, ``(1, n_items)``."""
        return self.embed(text) @ self.state["vectors"].T  # (1, N)

    def embed(self, text: str) -> Tensor:
        """Vector of a text, to be compared with the items' in ``state["vectors"]``: ``(1, dim)``."""
        return self._vectors([text])  # (1, d)

    def save(self, folder: str | Path) -> None:
        """Write hyperparameters, catalogue, vectors, and the language model, in ``folder/encoder``."""
        super().save(folder)
        self.encoder.save(Path(folder) / "encoder")

    def _build(self) -> BlockNetwork | PairNetwork:
        raise InputError("a fine-tuned language model that was loaded can only score; fit it anew to train further")

    def _tensors(self) -> dict[str, Tensor]:
        return self.state  # the language model has a folder of its own

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self.state = tensors

    def _load_parts(self, folder: Path) -> None:
        """Read the language model."""
        self.encoder = LanguageEncoder(folder / "encoder")

    def _open(self, steps: int) -> LanguageEncoder:
        """The language model, with a fresh adapter where one is asked for."""
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
        """Examples in a step: one block, or a batch of pairs."""
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
            original = self._untouched.encode(texts) if self._beside else None
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
        """Embed the catalogue with the network as it is now; means are those of the items that training knows."""
        texts, warm = split.data.texts, torch.from_numpy(split.counts > 0)  # (N,)
        projection = getattr(network.tower, "project", None)
        self.state = {} if projection is None else {"project": projection.weight.detach().cpu()}
        tuned = CatalogueText(self._embed, torch.zeros(()))
        vectors = tuned.fit(texts, warm) if self.user == "items" else tuned.encode(texts)  # (N, d)
        if self._beside:
            original = CatalogueText(self._untouched.encode)
            vectors = beside(vectors, original.fit(texts, warm), self.residual)  # (N, 2d)
            self.state["original_mean"] = original.mean  # (d,)
        self.state |= {"mean": tuned.mean, "vectors": vectors}

    @property
    def _beside(self) -> bool:
        return self.residual > 0 and self.user == "items"

    @property
    def _untouched(self) -> LanguageEncoder:
        return LanguageEncoder(self.model, pooling=self.pooling)

    def _embed(self, texts: Sequence[str]) -> Tensor:
        embeddings = self.encoder.encode(texts)  # (n, d)
        return embeddings @ self.state["project"].T if "project" in self.state else embeddings  # (n, d)

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        vectors = CatalogueText(self._embed, self.state["mean"]).encode(texts)  # (n, d)
        if not self._beside:
            return vectors
        original = CatalogueText(self._untouched.encode, self.state["original_mean"]).encode(texts)  # (n, d)
        return beside(vectors, original, self.residual)  # (n, 2d)
