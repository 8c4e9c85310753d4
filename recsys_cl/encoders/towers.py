"""Item and user towers: encoders of item ids, item texts and user histories for two-tower models.

See: chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys_cl.errors import InputError
from recsys_cl.registry import Registry


class ItemTower(nn.Module):
    r"""Item vector = projected text embedding + id embedding, each optional.

    .. math:: v_i = W t_i + z_i\, e_i

    with the language model's embedding :math:`t_i` frozen. :math:`z_i` is 0 for an item without training events, whose
    id vector is untrained, and for ids dropped in training: both leave only the text.

    Args:
        warm: ``(n_items,)`` mask, true for items with training events.
        text: ``(n_items, text_dim)`` text embeddings, centred and normalised, or ``None``.
        dim: Width of the item vectors.
        ids: Whether to use an id embedding.

    Attributes:
        shift: ``(n_items, dim)`` perturbation :math:`\delta_i` relative to the norms of the vectors, or ``None``:
            :math:`v_i + \lVert v_i \rVert\, \delta_i` wherever items are read or scored (adversarial training,
            chapter 9).

    Raises:
        InputError: If there are neither texts nor ids.

    See: chapter 5.
    """

    def __init__(self, warm: Tensor, text: Tensor | None, *, dim: int, ids: bool) -> None:
        super().__init__()
        if text is None and not ids:
            raise InputError("an item tower needs text embeddings or ids; switch one of them on")
        self.warm: Tensor
        self.text: Tensor | None
        self.dim = dim
        self.register_buffer("warm", warm.float())
        self.register_buffer("text", text)
        self.shift: Tensor | None = None
        self.ids = nn.Embedding(len(warm), dim) if ids else None
        if self.ids is not None:
            nn.init.normal_(self.ids.weight, std=0.05)
        self.project = None
        if text is not None:
            self.project = nn.Linear(text.shape[1], dim, bias=False)
            if text.any():
                self._project_on(text)

    @classmethod
    def of_size(cls, n_items: int, text_dim: int, *, dim: int, ids: bool) -> Self:
        """An empty tower, to be filled with saved weights or by :meth:`read`.

        Args:
            n_items: Size of the catalogue.
            text_dim: Width of the text embeddings, 0 for none.
            dim: Width of the item vectors.
            ids: Whether to use an id embedding.
        """
        text = torch.zeros(n_items, text_dim) if text_dim else None  # (N, t)
        return cls(torch.zeros(n_items), text, dim=dim, ids=ids)

    def read(self, warm: Tensor, text: Tensor | None) -> None:
        """Set the catalogue: the mask of warm items ``(n_items,)`` and the text embeddings ``(n_items, t)``."""
        self.warm.copy_(warm)
        if text is not None:
            assert self.text is not None
            self.text.copy_(text)
            self._project_on(text)

    @torch.no_grad()
    def _project_on(self, text: Tensor) -> None:
        assert self.project is not None
        self.project.weight.copy_(principal_directions(text, self.dim))

    def of_text(self, items: Tensor) -> Tensor:
        """Text part of the vectors of items ``(...)``: ``(..., dim)``."""
        assert self.project is not None
        assert self.text is not None
        return self.project(self.text[items])  # (..., d)

    def of_ids(self, items: Tensor, keep_id: Tensor | None = None) -> Tensor:
        """Id part of the vectors of items ``(...)``: ``(..., dim)``, zeros for dropped ids."""
        assert self.ids is not None
        known = self.warm[items] if keep_id is None else self.warm[items] * keep_id  # (...)
        return self.ids(items) * known[..., None]  # (..., d)

    def forward(self, items: Tensor, keep_id: Tensor | None = None) -> Tensor:
        """Vectors of items.

        Args:
            items: ``(...)`` item numbers.
            keep_id: ``(...)`` mask, false for dropped ids; by default all ids are kept.

        Returns:
            ``(..., dim)``, not normalised.
        """
        parts = []
        if self.project is not None:
            parts.append(self.of_text(items))  # (..., d)
        if self.ids is not None:
            parts.append(self.of_ids(items, keep_id))  # (..., d)
        vectors = torch.stack(parts).sum(0)  # (..., d)
        if self.shift is None:
            return vectors
        return vectors + vectors.norm(dim=-1, keepdim=True).detach() * self.shift[items]  # (..., d)

    @contextmanager
    def shifted(self, shift: Tensor) -> Iterator[None]:
        """Context manager: perturb the vectors by ``shift`` within the block."""
        before, self.shift = self.shift, shift
        try:
            yield
        finally:
            self.shift = before


def principal_directions(vectors: Tensor, dim: int) -> Tensor:
    """Projection onto the ``dim`` leading principal directions; rotation and zero padding if ``dim`` is larger.

    It preserves distances and cosines as well as ``dim`` directions can, so training starts from what the language
    model knows rather than from noise.

    Args:
        vectors: ``(n, width)``.
        dim: Number of directions.

    Returns:
        Projection matrix ``(dim, width)``.
    """
    right = torch.linalg.svd(vectors.double(), full_matrices=True).Vh if len(vectors) < 5_000 else _gram_basis(vectors)
    kept = right[:dim].float()  # (min(d, w), w)
    return F.pad(kept, (0, 0, 0, dim - len(kept)))  # (d, w)


def _gram_basis(vectors: Tensor) -> Tensor:
    values = vectors.double()
    return torch.linalg.eigh(values.T @ values).eigenvectors.flip(1).T


class MeanPooling(nn.Module):
    """User vector = mean of the history's item vectors, without parameters; order is ignored."""

    def forward(self, vectors: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Pool rows of ``vectors`` as :class:`AttentionPooling` does; an empty history gives zeros."""
        weights = mask / mask.sum(1, keepdim=True).clamp(min=1)  # (B, L)
        return weighted_sum(vectors, history, weights)  # (B, d)


class AttentionPooling(nn.Module):
    r"""User vector = attention over the recent history, with a learned bias by recency.

    .. math:: a_k = \operatorname{softmax}_k (w^\top v_k + b_k), \qquad u = W \sum_k a_k v_k

    where k = 0 is the latest event. :math:`b_k` starts at :math:`-0.1\,k`, :math:`W` at the identity.

    Args:
        dim: Width of the vectors.
        length: Maximum length of a history.

    See: chapter 5.
    """

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.content = nn.Linear(dim, 1, bias=False)
        self.recency = nn.Parameter(-0.1 * torch.arange(length - 1, -1, -1.0))
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.content.weight)
        nn.init.eye_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def weights(self, vectors: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Attention weights :math:`a`, ``(batch, length)``: each row sums to 1, or to 0 if it is empty."""
        logits = self.content(vectors).squeeze(-1)[history] + self.recency  # (B, L)
        return logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(1) * mask  # (B, L)

    def forward(self, vectors: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Pool histories to user vectors.

        Args:
            vectors: ``(n, dim)`` item vectors.
            history: ``(batch, length)`` row numbers of ``vectors``, oldest first.
            mask: ``(batch, length)`` false in empty positions.

        Returns:
            ``(batch, dim)``; an empty history gives the bias of the output layer.
        """
        return self.out(weighted_sum(vectors, history, self.weights(vectors, history, mask)))  # (B, d)


def weighted_sum(vectors: Tensor, history: Tensor, weights: Tensor) -> Tensor:
    """Sum ``(n, dim)`` vectors with ``(batch, length)`` weights, without a ``(batch, length, dim)`` tensor."""
    vectors = vectors.to(weights.dtype)  # under autocast the projection returns half precision, the softmax float32
    return F.embedding_bag(history, vectors, per_sample_weights=weights, mode="sum")  # (B, d)


class BehaviourMLP(nn.Module):
    r"""User vector = MLP over normalised behaviour counts and user attributes.

    .. math:: u = W_2 \operatorname{ReLU}\Big(W_1 \frac{x}{\lVert x \rVert_1} + A\,a + b\Big)

    with :math:`x` the counts over the catalogue. :math:`W_1 x` is a sum of columns, so the counts are never
    materialised.

    Args:
        n_items: Size of the catalogue.
        n_attributes: Number of user attributes, 0 for none.
        dim: Width of the user vector.
        hidden: Width of the hidden layer.

    See: chapter 5.
    """

    def __init__(self, n_items: int, n_attributes: int, *, dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.counts = nn.Embedding(n_items, hidden)
        nn.init.normal_(self.counts.weight, std=0.05)
        self.attributes = nn.Linear(n_attributes, hidden) if n_attributes else None
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, items: Tensor, mask: Tensor, attributes: Tensor | None) -> Tensor:
        """Map histories and attributes to user vectors.

        Args:
            items: ``(batch, length)`` item numbers.
            mask: ``(batch, length)`` false in empty positions.
            attributes: ``(batch, n_attributes)``, or ``None`` if unknown, which stands for the average user.

        Returns:
            ``(batch, dim)``
        """
        hidden = MeanPooling()(self.counts.weight, items, mask)  # (B, h)
        if self.attributes is not None:
            if attributes is None:
                attributes = hidden.new_zeros(len(items), self.attributes.in_features)  # (B, a)
            hidden = hidden + self.attributes(attributes)  # (B, h)
        return self.out(hidden)  # (B, d)


USER_TOWERS: Registry[Callable[..., AttentionPooling | MeanPooling | BehaviourMLP]] = Registry("user tower")
"""Name to a factory ``(sizes, *, dim, length)``: ``two-tower:user_tower=mean``."""


@USER_TOWERS.add("attention")
def attention_tower(sizes: Mapping[str, int], *, dim: int, length: int) -> AttentionPooling:
    """Attention over the recent history."""
    return AttentionPooling(dim, length)


@USER_TOWERS.add("mean")
def mean_tower(sizes: Mapping[str, int], *, dim: int, length: int) -> MeanPooling:
    """Mean of the recent history."""
    return MeanPooling()


@USER_TOWERS.add("mlp")
def behaviour_tower(sizes: Mapping[str, int], *, dim: int, length: int) -> BehaviourMLP:
    """MLP over behaviour counts and user attributes."""
    return BehaviourMLP(sizes["items"], sizes["attributes"], dim=dim)
