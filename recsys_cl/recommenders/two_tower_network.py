"""Two-tower network: user and item towers, similarity, temperature, negatives, and the training loss."""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys_cl.data import PAD
from recsys_cl.encoders.towers import AttentionPooling, BehaviourMLP, ItemTower, MeanPooling
from recsys_cl.errors import InputError
from recsys_cl.losses import LearnedTemperature
from recsys_cl.losses.contrastive import Loss
from recsys_cl.negatives import (
    Candidates,
    DrawnNegatives,
    NegativeQueue,
    NegativeSample,
)
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.training.large_batches import gather_items

Similarity = Literal["cosine", "dot"]


INITIAL_TEMPERATURE = 0.1
"""Default initial temperature."""


class TwoTowerNetwork(nn.Module):
    r"""Two-tower network: user tower, item tower, temperature and loss.

    .. math:: s_{ui} = \frac{u^\top v_i}{\tau},\qquad u, v_i\ \text{normalised for cosine}

    Args:
        items: Item tower.
        user: User tower.
        similarity: ``"cosine"`` or ``"dot"``.
        loss: Contrastive loss.
        temperature: Initial :math:`\tau`; it is learned if the loss has a temperature.
        dropout: Dropout rate on the history's item vectors.
        negatives: Module that makes each user's own negatives; ``None`` for in-batch negatives.

    See: chapter 5; chapter 10 for the negatives.
    """

    def __init__(
        self,
        items: ItemTower,
        user: AttentionPooling | MeanPooling | BehaviourMLP,
        *,
        loss: Loss,
        similarity: Similarity,
        temperature: float,
        dropout: float,
        negatives: DrawnNegatives | None = None,
    ) -> None:
        super().__init__()
        self.items, self.user, self.loss = items, user, loss
        self.log_q: Tensor | None
        self.register_buffer("log_q", None, persistent=False)
        self.known: KnownPositives | None = None
        self.queue: NegativeQueue | None = None
        self.negatives = negatives
        self.similarity = similarity
        self.temperature = LearnedTemperature(temperature).requires_grad_(loss.has_temperature)
        self.dropout = nn.Dropout(dropout)

    def learn_from(self, known: KnownPositives, log_q: Tensor | None, *, queue: int = 0) -> Self:
        """Set the data that only training needs.

        Args:
            known: Known positives, which are not negatives.
            log_q: ``(n_items,)`` log-probabilities for the logQ correction, or ``None`` for no correction.
            queue: Number of item vectors of previous batches that are further in-batch negatives.
        """
        self.known, self.log_q = known, log_q
        self.queue = NegativeQueue(queue, self.items.dim) if queue else None
        return self

    def embed_items(self, items: Tensor, keep_id: Tensor | None = None) -> Tensor:
        """Item vectors ``(n, dim)``, normalised for cosine."""
        return self._comparable(self.items(items, keep_id))  # (n, d)

    def embed_users(self, history: Tensor, attributes: Tensor | None = None, keep_id: Tensor | None = None) -> Tensor:
        """User vectors ``(batch, dim)`` of histories ``(batch, length)``, padded with ``PAD``."""
        mask = history != PAD  # (B, L)
        if isinstance(self.user, BehaviourMLP):
            return self._comparable(self.user(history.clamp(min=0), mask, attributes))  # (B, d)
        items, rows = torch.unique(history.clamp(min=0), return_inverse=True)  # (n,), (B, L)
        vectors = self.dropout(self.items(items, None if keep_id is None else keep_id[items]))  # (n, d)
        return self._comparable(self.user(vectors, rows, mask))  # (B, d)

    def embed_text(self, embedding: Tensor) -> Tensor:
        """User vector ``(1, dim)`` of a history of one item with this text embedding, ``(1, text_dim)``."""
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
        """Loss of a batch of :class:`~recsys_cl.training.examples.NextItemExamples`.

        The negatives are the targets of all processes, or each user's own negatives.

        Raises:
            InputError: If :meth:`learn_from` was not called.
        """
        known = self.known
        if known is None:
            raise InputError(
                "a two-tower network without known positives can only score; call learn_from(known, log_q) to train it"
            )
        users = self.embed_users(history, attributes, keep_id)  # (B, d)
        if negative is not None:
            return {"loss": self._against_own(users, target, user, keep_id, negative, known)}
        items = self.embed_items(target, keep_id[target])  # (B, d)
        vectors, columns = self._columns(gather_items(items.float()), gather_items(target))  # (N, d), (N,), own first
        rows = self.loss.against_batch(
            users.float(),
            vectors,
            temperature=self.temperature(),
            mask=lambda rows: known.mask(user[rows], columns.items),
            log_q=None if self.log_q is None else columns.log_q,
            label=columns.items,
        )  # (B,)
        return {"loss": rows.mean()}

    def _columns(self, vectors: Tensor, target: Tensor) -> tuple[Tensor, NegativeSample]:
        """Candidates in the batch: its targets, then the targets of previous batches if there is a queue."""
        log_q = vectors.new_zeros(len(target)) if self.log_q is None else self.log_q[target]  # (N,)
        batch = NegativeSample(target, log_q)
        if self.queue is None:
            return vectors, batch
        previous, held = self.queue.held()  # (n, d), (n,)
        if self.training:
            self.queue.put(vectors, batch)
        sample = NegativeSample(torch.cat([target, held.items]), torch.cat([log_q, held.log_q]))  # (N + n,)
        return torch.cat([vectors, previous]), sample

    def _against_own(
        self,
        users: Tensor,
        target: Tensor,
        user: Tensor,
        keep_id: Tensor,
        negative: Tensor,
        known: KnownPositives,
    ) -> Tensor:
        """Loss against each user's own negatives, plus the loss of the module that makes them."""
        assert self.negatives is not None
        catalogue = torch.arange(len(self.items.warm), device=target.device)  # (N,)
        table = self.embed_items(catalogue, keep_id)  # (N, d)
        log_q = table.new_zeros(len(table)) if self.log_q is None else self.log_q  # (N,)
        candidates = Candidates(
            users.float(),
            table.float(),
            target,
            NegativeSample(negative, log_q[negative]),
            known=lambda rows, items: known.mask(user[rows], items),
            temperature=self.temperature().detach(),
        )
        negatives = self.negatives(candidates)
        rows = self.loss.against_own(
            candidates.query,
            candidates.table[target],
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
        """Training statistics of the negatives since the last call."""
        return {} if self.negatives is None else self.negatives.diagnostics(len(self.items.warm))

    def _comparable(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.similarity == "cosine" else vectors
