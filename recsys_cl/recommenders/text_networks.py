"""Language-model fine-tuning networks: multi-positive loss on catalogue blocks, or in-batch loss on text pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys_cl.data import PAD
from recsys_cl.losses import LearnedTemperature, multi_positive_loss, nt_xent_loss
from recsys_cl.losses.contrastive import Loss
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.text.adapters import orthogonality_penalty
from recsys_cl.text.encoder import LanguageEncoder
from recsys_cl.text.geometry import centre
from recsys_cl.training.large_batches import gather_items

Augmentation = Callable[[Sequence[str], int], list[str]]
"""Text augmentation: maps texts and the number of a variant to texts with the same meaning."""

ORTHOGONALITY = 0.1
"""Weight of AdaLoRA's orthogonality penalty, the minimum that its authors tried; other methods have no such penalty."""


def centred(vectors: Tensor, mean: Tensor | None = None) -> Tensor:
    r"""Centred unit vectors, :math:`(z - \bar z) / \lVert z - \bar z \rVert`.

    Args:
        vectors: ``(n, dim)``.
        mean: :math:`\bar z`, ``(dim,)``; by default the mean of ``vectors``.

    Returns:
        ``(n, dim)`` vectors of length 1.

    See: chapter 3.

    >>> centred(torch.tensor([[3.0, 1.0], [1.0, 1.0]])).tolist()
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    return centre(vectors, vectors.mean(0) if mean is None else mean)  # (n, d)


def concatenate_original(tuned: Tensor, original: Tensor, weight: float) -> Tensor:
    r"""Concatenate tuned and original unit vectors, :math:`(v,\, \sqrt{\rho}\, v^0) / \sqrt{1 + \rho}`.

    Dot products are weighted means of cosines, :math:`(v_i^\top v_j + \rho\, v_i^{0\top} v_j^0) / (1 + \rho)`: a
    residual path that bypasses training, so the knowledge of the language model cannot be forgotten.

    Args:
        tuned: ``(n, dim)`` unit vectors.
        original: ``(n, dim)`` unit vectors of the original model.
        weight: :math:`\rho \geq 0`.

    Returns:
        ``(n, 2 dim)`` vectors of length 1.

    See: chapter 6.

    >>> concatenate_original(torch.tensor([[1.0]]), torch.tensor([[-1.0]]), 3.0).tolist()
    [[0.5, -0.8660253882408142]]
    """
    return torch.cat([tuned, weight**0.5 * original], dim=1) / (1 + weight) ** 0.5  # (n, 2d)


class LanguageTower(nn.Module):
    """Item tower that encodes the items' texts with a trainable language model.

    Args:
        encoder: The encoder, with its adapter if it has one.
        texts: Text of every item.
        augment: Text augmentation in training; by default none.
    """

    def __init__(self, encoder: LanguageEncoder, texts: Sequence[str], augment: Augmentation | None = None) -> None:
        super().__init__()
        self.encoder, self.texts, self.augment = encoder, texts, augment
        self.language = encoder.model
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, items: Tensor) -> Tensor:
        """``(n, dim)`` for ``(n,)`` item numbers; each distinct text is encoded once."""
        texts = [self.texts[item] for item in items.tolist()]
        if self.training and self.augment is not None:
            texts = self.augment(texts, int(self.steps))
            self.steps += 1
        return self.encoder.embed_unique(texts)  # (n, d)


class ProjectedTower(nn.Module):
    """Item tower with a linear projection, initially the identity, of frozen language-model embeddings.

    Args:
        embeddings: ``(n_items, dim)`` precomputed embeddings.
    """

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings: Tensor
        self.register_buffer("embeddings", embeddings)
        self.project = nn.Linear(embeddings.shape[1], embeddings.shape[1], bias=False)
        nn.init.eye_(self.project.weight)

    def forward(self, items: Tensor) -> Tensor:
        """``(n, dim)`` for ``(n,)`` item numbers."""
        return self.project(self.embeddings[items])  # (n, d)


class BlockNetwork(nn.Module):
    r"""Multi-positive contrast within a block of the catalogue: half of a user's items predict the other half.

    .. math:: v_i = \frac{z_i - \bar z}{\lVert z_i - \bar z \rVert}, \qquad
        u = \frac{\sum_{i \in G} v_i}{\lVert \sum_{i \in G} v_i \rVert}, \qquad
        L_u = -\frac{1}{|A|} \sum_{a \in A} \log \frac{e^{u^\top v_a / \tau}}{\sum_{j \notin G} e^{u^\top v_j / \tau}}

    with the context items :math:`G`, the target items :math:`A`, and :math:`\bar z` the mean over the block. A user is
    the mean of items, in training and at inference, so only item texts are encoded.

    Args:
        tower: Item tower.
        temperature: Initial :math:`\tau`; it is learned.
        original: ``(n_items, dim)`` embeddings of the original model, added by :func:`concatenate_original`.
        residual: Weight of the original embeddings.
        views: Weight of the SimCSE loss between two dropout views of each item.

    References:
        Gao, Yao and Chen (2021), https://arxiv.org/abs/2104.08821 (SimCSE).

    See: chapter 6.
    """

    def __init__(
        self,
        tower: LanguageTower | ProjectedTower,
        *,
        temperature: float,
        original: Tensor | None = None,
        residual: float = 0.0,
        views: float = 0.0,
    ) -> None:
        super().__init__()
        self.tower, self.residual, self.views = tower, residual, views
        self.original: Tensor | None
        self.register_buffer("original", original, persistent=False)
        self.temperature = LearnedTemperature(temperature)

    def forward(self, item: Tensor, context: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Loss of a batch of :class:`~recsys_cl.training.examples.CatalogueBlocks`."""
        embedding = self.tower(item)  # (n, d)
        v = centred(embedding)  # (n, d)
        if self.original is not None:
            v = concatenate_original(v, centred(self.original[item]), self.residual)  # (n, 2d)
        u = F.normalize(context.to(v.dtype) @ v, dim=1)  # (B, d)
        loss = multi_positive_loss(u, v, target, temperature=self.temperature(), mask=context)
        if self.views:
            loss = loss + self.views * nt_xent_loss(embedding, self.tower(item), temperature=0.05)
        return {"loss": loss + ORTHOGONALITY * orthogonality_penalty(self.tower)}


class PairNetwork(nn.Module):
    r"""In-batch contrast between pairs of texts: a history and the next item.

    .. math:: u = f_\theta(\text{latest titles}), \qquad v = f_\theta(\text{text of the next item})

    This is the standard training of sentence encoders (multiple negatives ranking), with logQ correction and with known
    positives masked.

    Args:
        tower: Item tower.
        titles: Title of every item.
        loss: Contrastive loss with an in-batch form.
        temperature: Initial :math:`\tau`; it is learned if the loss has a temperature.
        log_q: ``(n_items,)`` log-probabilities for the logQ correction.
        known: Known positives, which are not negatives.

    References:
        Henderson et al. (2017), https://arxiv.org/abs/1705.00652.

    See: chapter 6.
    """

    def __init__(
        self,
        tower: LanguageTower,
        titles: Sequence[str],
        *,
        loss: Loss,
        temperature: float,
        log_q: Tensor,
        known: KnownPositives,
    ) -> None:
        super().__init__()
        self.tower, self.titles, self.known, self.loss = tower, titles, known, loss
        self.temperature = LearnedTemperature(temperature).requires_grad_(loss.has_temperature)
        self.log_q: Tensor
        self.register_buffer("log_q", log_q)

    def embed_users(self, history: Tensor) -> Tensor:
        """User vectors ``(batch, dim)`` of histories: item numbers ``(batch, length)``, padded with ``PAD``."""
        return self.tower.encoder.embed_unique([latest_titles(row, self.titles) for row in history.tolist()])  # (B, d)

    def forward(self, history: Tensor, target: Tensor, user: Tensor) -> dict[str, Tensor]:
        """Loss of a batch of histories ``(B, L)``, next items ``(B,)`` and users ``(B,)``."""
        targets = gather_items(target)  # (N,), own first
        rows = self.loss.against_batch(
            self.embed_users(history),
            gather_items(self.tower(target).float()),
            temperature=self.temperature(),
            mask=lambda rows: self.known.mask(user[rows], targets),
            log_q=self.log_q[targets],
            label=targets,
        )  # (B,)
        return {"loss": rows.mean() + ORTHOGONALITY * orthogonality_penalty(self.tower)}


def latest_titles(history: Sequence[int], titles: Sequence[str]) -> str:
    """Titles of a history as one text, the latest first, so truncation drops the oldest.

    >>> latest_titles([PAD, 1, 0], ["Heat", "Fargo"])
    'Heat; Fargo'
    """
    return "; ".join(titles[item] for item in reversed(history) if item != PAD)
