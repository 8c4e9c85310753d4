"""Cold-start sequential recommender: a hybrid for warm items, with scores of unseen items imputed from their texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from torch import Tensor

from recsys_cl.data import Sequences, Split, validated_on_warm_items
from recsys_cl.objectives.prediction import SEQUENCE_LOSSES, Softmax
from recsys_cl.recommenders.fine_tuned import FineTuned
from recsys_cl.recommenders.sequential import Sequential


def impute(scores: Tensor, content: Tensor, warm: Tensor) -> Tensor:
    r"""Impute the scores of unseen items from content scores, by a regression per user.

    .. math:: s_{uj} \leftarrow \bar s_u + b_u (c_{uj} - \bar c_u), \qquad
        b_u = \max\Big(\frac{\sum_i (s_{ui} - \bar s_u)(c_{ui} - \bar c_u)}{\sum_i (c_{ui} - \bar c_u)^2},\,
        10^{-2}\, \frac{\operatorname{sd}(s_u)}{\operatorname{sd}(c_u)}\Big)

    with sums and means over the items i seen in training, and j unseen: the least-squares estimate of the model's
    scores. Unseen items keep the order of their content scores. Estimates have a lower variance than the scores that
    they estimate, so few of them reach the top of the whole catalogue.

    Args:
        scores: ``(batch, n_items)`` scores of a model that knows seen items.
        content: ``(batch, n_items)`` scores of a model that reads texts.
        warm: ``(n_items,)``, true for items seen in training.

    Returns:
        ``(batch, n_items)`` scores.

    See: chapter 11.

    >>> seen = torch.tensor([True, True, False])
    >>> impute(torch.tensor([[2.0, 4.0, -9.0]]), torch.tensor([[0.1, 0.2, 0.3]]), seen).round().tolist()
    [[2.0, 4.0, 6.0]]
    """
    s, c = scores[:, warm], content[:, warm]  # (B, W) both
    s_mean, c_mean = s.mean(1, keepdim=True), c.mean(1, keepdim=True)  # (B, 1) both
    spread = (c - c_mean).square().sum(1, keepdim=True).clamp(min=1e-12)  # (B, 1)
    slope = ((s - s_mean) * (c - c_mean)).sum(1, keepdim=True) / spread  # (B, 1)
    floor = 1e-2 * ((s - s_mean).square().sum(1, keepdim=True) / spread).sqrt()  # (B, 1), keeps the order at any scale
    slope = torch.maximum(slope, floor)  # (B, 1)
    return torch.where(warm, scores, s_mean + slope * (content - c_mean))  # (B, N)


@dataclass
class ColdSequential(Sequential):
    """Sequential hybrid with texts encoded by a fine-tuned language model, which also scores unseen items.

    First the language model is fine-tuned with a contrastive loss on blocks of the catalogue
    (:class:`~recsys_cl.recommenders.fine_tuned.FineTuned`). Then the sequence model is trained on ids and on the tuned
    text vectors. Items without training events have no id and were never a target of the sequence model; their scores
    are imputed from the tuned text scores for the user's whole history (:func:`impute`). If all validation targets are
    unseen items, early stopping of the sequence model uses each user's last training event instead; the language model
    was tuned on those events as well.

    See: chapter 11.
    """

    model: str = "minilm"
    loss: Annotated[Any, SEQUENCE_LOSSES] = field(default_factory=lambda: Softmax(exclude_known=True))

    def fit(self, split: Split, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Fine-tune the language model on ``split.train``, then train the sequence model as ``Sequential`` does."""
        content = None if folder is None else Path(folder) / "content"
        self.content = FineTuned(model=self.model, seed=self.seed)
        self.content.execution = self.execution
        self.content.fit(split, folder=content, resume=resume and content is not None and content.exists())
        if split.validation.candidates is not None:  # unseen items, which the sequence model cannot score
            split = validated_on_warm_items(split)
        return super().fit(split, folder=folder, resume=resume and any(Path(folder or "").glob("checkpoint-*")))

    @torch.no_grad()
    def score(self, histories: Sequences) -> Tensor:
        """Scores of ``Sequential`` for items seen in training, imputed scores for the others, ``(batch, n_items)``."""
        scores, warm = super().score(histories), self.network.items.warm.bool()
        if warm.all():
            return scores
        return impute(scores, self.content.score(histories).to(scores.device), warm)  # (B, N)

    @torch.no_grad()
    def score_text(self, text: str) -> Tensor:
        """Scores as in :meth:`score`, for a sentence: ``(1, n_items)``."""
        scores, warm = super().score_text(text), self.network.items.warm.bool()
        return scores if warm.all() else impute(scores, self.content.score_text(text).to(scores.device), warm)  # (1, N)

    def save(self, folder: str | Path) -> None:
        """Write the sequence model to ``folder`` and the language model to ``folder/content``."""
        super().save(folder)
        self.content.save(Path(folder) / "content")

    def _load_parts(self, folder: Path) -> None:
        """Load the language model."""
        self.content = FineTuned.load(folder / "content")

    def _texts(self, split: Split) -> Tensor:
        return self.content.state["vectors"]  # (N, t)

    def _embed(self, text: str) -> Tensor:
        return self.content.embed(text)  # (1, t)
