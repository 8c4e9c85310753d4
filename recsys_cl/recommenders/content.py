"""Content-based recommenders on item texts: TF-IDF, zero-shot language model, ridge regression.

See: chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import scipy.sparse as sp
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from recsys_cl.data import Sequences, Split
from recsys_cl.errors import InputError
from recsys_cl.recommenders.base import Recommender
from recsys_cl.text.encoder import LanguageEncoder
from recsys_cl.text.geometry import CatalogueText


@dataclass
class TfidfContent(Recommender):
    """TF-IDF: dot products between the sum of the history's normalised vectors and each item's vector."""

    reads_text: ClassVar[bool] = True

    def fit(self, split: Split) -> Self:
        """Store the catalogue; no behaviour is used."""
        self.__dict__.pop("_cached", None)
        self.items, self.state = split.data.items, {}
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Summed similarity to the history's texts, ``(batch, n_items)``."""
        _, vectors = self._vectors()
        profile = histories.matrix(vectors.shape[0]) @ vectors  # (B, V) sparse
        return torch.from_numpy((profile @ vectors.T).toarray()).float()  # (B, N)

    def score_text(self, text: str) -> Tensor:
        """Similarity of the sentence to the items' texts, ``(1, n_items)``."""
        vectorizer, vectors = self._vectors()
        return torch.from_numpy((vectorizer.transform([text]) @ vectors.T).toarray()).float()  # (1, N)

    def _vectors(self) -> tuple[TfidfVectorizer, sp.csr_matrix]:
        """Vectorizer and ``(n_items, vocabulary)`` vectors, computed from the texts on first use."""
        if not hasattr(self, "_cached"):
            vectorizer = TfidfVectorizer(sublinear_tf=True)
            try:
                self._cached = vectorizer, vectorizer.fit_transform(list(self.items["text"]))
            except ValueError as error:
                raise InputError(
                    f"the items' texts hold no words ({error}); give items with titles or texts"
                ) from error
        return self._cached


@dataclass
class LanguageContent(Recommender):
    """Zero-shot language model: cosine between the mean embedding of the history and each item's embedding.

    Attributes:
        model: Language model (see :class:`~recsys_cl.text.encoder.LanguageEncoder`).
        centre: Whether to subtract the catalogue's mean embedding before normalising. Sentence embeddings share a large
            common component that hides the differences between items.

    See: chapter 3.
    """

    reads_text: ClassVar[bool] = True

    model: str = "minilm"
    centre: bool = True

    def fit(self, split: Split) -> Self:
        """Encode the catalogue; no behaviour is used."""
        self.items = split.data.items
        encoder = LanguageEncoder(self.model)
        text = CatalogueText(encoder.encode, mean=torch.zeros(encoder.dim))
        vectors = text.fit(split.data.texts) if self.centre else text.encode(split.data.texts)  # (N, d)
        self.state = {"mean": text.mean, "vectors": vectors}  # (d,), (N, d)
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Cosine similarity to the mean of the history, ``(batch, n_items)``."""
        vectors = self.state["vectors"]  # (N, d)
        profile = torch.from_numpy(histories.matrix(len(vectors)) @ vectors.numpy())  # (B, d)
        return F.normalize(profile, dim=1) @ vectors.T  # (B, N)

    def score_text(self, text: str) -> Tensor:
        """Cosine similarity of the sentence to the items, ``(1, n_items)``."""
        read = CatalogueText(LanguageEncoder(self.model, cache=False).encode, self.state["mean"])
        return read.encode([text]) @ self.state["vectors"].T  # (1, N)


@dataclass
class TextRidge(Recommender):
    r"""Ridge regression from the items' embeddings to each user's behaviour.

    For a user with history :math:`x \in \{0, 1\}^N` and embeddings :math:`E` of the items seen in training,

    .. math:: w_x = \arg\min_w \lVert E w - x \rVert^2 + \lambda \lVert w \rVert^2
        = (E^\top E + \lambda I)^{-1} E^\top x, \qquad s_i = e_i^\top w_x .

    It is the zero-shot profile :math:`E^\top x` under another metric: directions in which the catalogue varies a lot
    have less weight. This is whitening, and :math:`\lambda` controls its strength.

    Attributes:
        model: Language model (see :class:`~recsys_cl.text.encoder.LanguageEncoder`).
        l2: L2 regularisation, :math:`\lambda`.

    See: chapter 5.
    """

    model: str = "minilm"
    l2: float = 30.0

    def fit(self, split: Split) -> Self:
        """Solve for the map from a history to its regression weights."""
        self.items = split.data.items
        centred = CatalogueText(LanguageEncoder(self.model).encode).fit(split.data.texts)  # (N, d)
        warm = centred * torch.from_numpy(split.counts > 0)[:, None]  # (N, d) zero rows for unseen items
        gram = warm.T @ warm + self.l2 * torch.eye(warm.shape[1])  # (d, d)
        self.state = {
            "fold_in": torch.linalg.solve(gram, warm.T).T.contiguous(),
            "vectors": centred,
        }  # (N, d) both
        return self

    def score(self, histories: Sequences) -> Tensor:
        """Regression prediction for every item, ``(batch, n_items)``."""
        fold_in, vectors = self.state["fold_in"], self.state["vectors"]  # (N, d) both
        weights = torch.from_numpy(histories.matrix(len(vectors)) @ fold_in.numpy())  # (B, d)
        return weights @ vectors.T  # (B, N)
