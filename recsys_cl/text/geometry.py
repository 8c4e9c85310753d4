r"""Embedding geometry: anisotropy, effective rank, centring, whitening and nearest words.

The vectors of a language model share a direction that says little about any text. Means and matrices are fitted on one
set (the catalogue) and applied to others (users, queries), so fitting and applying are separate steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.text.encoder import LanguageEncoder


def mean_cosine(vectors: Tensor) -> Tensor:
    r"""Mean cosine of all pairs, a measure of anisotropy: 0 for evenly spread directions, near 1 in a narrow cone.

    .. math:: \frac{1}{n (n - 1)} \sum_{i \neq j} \hat x_i^\top \hat x_j
        = \frac{\lVert \sum_i \hat x_i \rVert^2 - n}{n (n - 1)}

    Args:
        vectors: ``(n, dim)`` with ``n >= 2``, none of them zero; need not be normalised.

    Returns:
        A scalar.

    Raises:
        InputError: If there are fewer than two vectors.

    References:
        Ethayarajh (2019), How Contextual are Contextualized Word Representations?, EMNLP.

    See: chapter 1.

    >>> round(float(mean_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]))), 4)  # one pair of three
    0.3333
    """
    n = _count(vectors)
    total = F.normalize(vectors, dim=1).sum(0)  # (d,)
    return (total @ total - n) / (n * (n - 1))  # ()


def effective_rank(vectors: Tensor) -> Tensor:
    r"""Effective rank, the number of directions in use: exponential of the entropy of the normalised singular values.

    .. math:: \exp\Big({-\sum_k} p_k \log p_k\Big), \qquad p_k = \sigma_k / \textstyle\sum_l \sigma_l

    Args:
        vectors: ``(n, dim)``, not all zero; centre them first, or the mean counts as a direction.

    Returns:
        A scalar between 1 and the smaller of ``n`` and ``dim``.

    Raises:
        InputError: If there are fewer than two vectors.

    References:
        Roy & Vetterli (2007), The effective rank, EUSIPCO.

    See: chapter 1.

    >>> round(float(effective_rank(torch.eye(3))), 4)
    3.0
    """
    _count(vectors)
    singular = torch.linalg.svdvals(vectors)  # (min(n, d),)
    return torch.special.entr(singular / singular.sum()).sum().exp()  # ()


def centre(vectors: Tensor, mean: Tensor) -> Tensor:
    """Centring: subtract the catalogue's mean from vectors and scale them to unit length.

    Args:
        vectors: ``(n, dim)`` vectors of items, users or queries.
        mean: ``(dim,)`` mean of the catalogue.

    Returns:
        ``(n, dim)`` unit vectors.

    References:
        Mu & Viswanath (2018), All-but-the-Top, ICLR.

    See: chapter 1.

    >>> centre(torch.tensor([[5.0, 1.0], [5.0, -3.0]]), mean=torch.tensor([5.0, 0.0]))
    tensor([[ 0.,  1.],
            [ 0., -1.]])
    """
    return F.normalize(vectors - mean, dim=-1)  # (n, d)


@dataclass
class CatalogueText:
    """Texts of a catalogue as centred unit vectors: embed, subtract the catalogue's mean, normalise.

    Attributes:
        embed: Maps texts to ``(n, dim)``, such as :meth:`~recsys_cl.text.encoder.LanguageEncoder.encode`.
        mean: ``(dim,)`` mean of the catalogue, 0 before :meth:`fit`.

    See: chapter 3.

    >>> words = CatalogueText(lambda texts: torch.tensor([[float(len(text)), 1.0] for text in texts]))
    >>> words.fit(["a", "abc"]).tolist(), words.encode(["abcd"]).tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0]])
    """

    embed: Callable[[Sequence[str]], Tensor]
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))

    def fit(self, texts: Sequence[str], rows: Tensor | None = None) -> Tensor:
        """Vectors of the catalogue, ``(n, dim)``; the mean is over ``rows``, a mask ``(n,)``, or over all."""
        embeddings = self.embed(texts)  # (N, d)
        self.mean = (embeddings if rows is None else embeddings[rows]).mean(0)  # (d,)
        return centre(embeddings, self.mean)  # (N, d)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of other texts, ``(n, dim)``, centred on the mean of the catalogue."""
        return centre(self.embed(texts), self.mean)  # (n, d)


@dataclass(frozen=True)
class Whitening:
    r"""Whitening: an affine map after which a catalogue's dimensions are uncorrelated with variance 1.

    .. math:: z = (x - \mu)\, V_k (\Lambda_k + \lambda)^{-1/2}

    where :math:`V_k, \Lambda_k` are the leading eigenvectors and eigenvalues of the covariance.

    Attributes:
        mean: :math:`\mu`, ``(dim,)``.
        matrix: :math:`V_k (\Lambda_k + \lambda)^{-1/2}`, ``(dim, components)``.

    References:
        Su et al. (2021), Whitening Sentence Representations, https://arxiv.org/abs/2103.15316;
        Huang et al. (2021), WhiteningBERT, Findings of EMNLP.

    See: chapter 1; chapter 3 recommends with it.

    >>> square = torch.tensor([[2.0, 3.0], [2.0, -3.0], [-2.0, 3.0], [-2.0, -3.0]]).double()
    >>> white = Whitening.fit(square)(square)
    >>> torch.allclose(white.T @ white / 3, torch.eye(2).double())
    True
    """

    mean: Tensor
    matrix: Tensor

    @classmethod
    def fit(cls, vectors: Tensor, *, components: int | None = None, ridge: float = 0.0) -> Whitening:
        r"""Fit the map.

        Args:
            vectors: ``(n, dim)`` vectors of the catalogue.
            components: Number of directions of the largest variance to keep; by default all with nonzero variance.
            ridge: :math:`\lambda \ge 0`, relative to the mean variance: directions with less variance than this are
                not inflated to the scale of the others.

        Raises:
            InputError: If there are fewer than two vectors, if fewer directions than ``components`` have any
                variance, or if the ridge is negative.
        """
        n = _count(vectors)
        if not ridge >= 0:
            raise InputError(f"ridge={ridge} is out of range; give 0 or more")
        mean = vectors.mean(0)  # (d,)
        _, singular, directions = torch.linalg.svd(vectors - mean, full_matrices=False)  # (r,), (r, d)
        rank = int((singular > singular[0] * max(vectors.shape) * torch.finfo(vectors.dtype).eps).sum())
        kept = rank if components is None else components
        if not 1 <= kept <= rank:
            raise InputError(f"components={components}, but the vectors vary in {rank} directions; give 1 to {rank}")
        variance = singular[:kept].square() / (n - 1)  # (k,)
        level = ridge * singular.square().sum() / (n - 1) / vectors.shape[1]  # ()
        return cls(mean, directions[:kept].T / (variance + level).sqrt())

    def __call__(self, vectors: Tensor) -> Tensor:
        """Apply the map, ``(n, dim)`` to ``(n, components)``."""
        return (vectors - self.mean) @ self.matrix


def _count(vectors: Tensor) -> int:
    if vectors.ndim != 2 or len(vectors) < 2:
        raise InputError(f"vectors {tuple(vectors.shape)} have no pairs; give (n, dim) with n >= 2")
    return len(vectors)


def nearest_words(
    encoder: LanguageEncoder, texts: Sequence[str], *, n: int = 3, similarity: float = 0.5
) -> dict[str, list[str]]:
    r"""Replacement words without a thesaurus: nearest neighbours among the model's input embeddings.

    .. math:: \operatorname{near}(w) = \operatorname*{top}_{w' \neq w} \cos(e_w, e_{w'})

    Neighbours are words of similar use, not only synonyms: antonyms and inflections are among them.

    Args:
        encoder: Encoder whose vocabulary provides the words: its tokens of three or more lower-case letters.
        texts: Texts whose words get replacements.
        n: Maximum number of replacements per word.
        similarity: Minimum cosine of a replacement.

    Returns:
        Lower-case word to its replacements, nearest first; a word of several tokens or without neighbours has no entry.

    See: chapter 6.
    """
    whole = re.compile(r"[a-z]{3,}")
    vocabulary = {token: number for token, number in encoder.tokenizer.get_vocab().items() if whole.fullmatch(token)}
    tokens, ids = list(vocabulary), torch.tensor(list(vocabulary.values()))
    weights = encoder.model.get_input_embeddings().weight.detach().cpu()  # type: ignore[operator]
    table = F.normalize(weights[ids], dim=1)  # (V, d)
    words = sorted({word for text in texts for word in re.findall(r"\w+", text.lower())} & vocabulary.keys())
    place = {token: row for row, token in enumerate(tokens)}
    rows = torch.tensor([place[word] for word in words], dtype=torch.int64)  # (W,)
    cosines = (table[rows] @ table.T).scatter(1, rows[:, None], -torch.inf)  # (W, V), no word is near itself
    nearest = cosines.topk(min(n, len(tokens)))  # (W, n) both
    found = {
        word: [tokens[j] for c, j in zip(cosine, near, strict=True) if c >= similarity]
        for word, cosine, near in zip(words, *nearest, strict=True)
    }
    return {word: others for word, others in found.items() if others}
