"""What fine-tuning costs: how much a sentence encoder still knows of everyday English, which it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.evaluation.paraphrases import TRIPLES, Triple

Encode = Callable[[list[str]], Tensor]
"""Texts to one vector each, ``(len(texts), dim)``; ``LanguageEncoder.encode`` is one."""


def paraphrase_accuracy(encode: Encode, triples: Sequence[Triple] = TRIPLES) -> float:
    r"""Share of the sentences that are closer to their paraphrase than to a distractor of nearly the same words.

    .. math:: \frac{1}{n} \sum_{k=1}^{n} \mathbb{1}\left[\cos(f(a_k), f(p_k)) > \cos(f(a_k), f(d_k))\right]

    A tie counts as wrong, so that an encoder that gives every sentence the same vector gets nothing.

    Args:
        encode: :math:`f`.
        triples: Anchors :math:`a`, paraphrases :math:`p` and distractors :math:`d`.

    Raises:
        InputError: If there is not one finite vector per text.

    References:
        Zhang, Baldridge and He (2019), https://arxiv.org/abs/1904.01130, on paraphrases against shared words.

    See: chapter 6.

    >>> bag_of_words = lambda texts: torch.tensor([[float("cat" in t), float("ran" in t)] for t in texts])
    >>> paraphrase_accuracy(bag_of_words, [Triple("the cat ran", "cat, it ran", "the man ran"), Triple("a", "b", "c")])
    0.5
    """
    vectors = _vectors(encode, [text for triple in triples for text in triple])  # (3n, d)
    anchor, paraphrase, distractor = vectors.view(len(triples), 3, -1).unbind(1)  # (n, d) each
    closer = (anchor * paraphrase).sum(1) > (anchor * distractor).sum(1)  # (n,)
    return float(closer.double().mean())


def similarity_correlation(encode: Encode, original: Encode, triples: Sequence[Triple] = TRIPLES) -> float:
    r"""How much of the order of similarities is left: 1 is all, 0 none.

    Spearman's rank correlation between :math:`\cos(f(s), f(t))` and :math:`\cos(f^0(s), f^0(t))` over all pairs of
    distinct sentences :math:`s, t` of the triples. Scaling and rotation of the vectors do not count as forgetting.

    Args:
        encode: The fine-tuned :math:`f`.
        original: The untouched :math:`f^0`.
        triples: Where the sentences come from.

    Raises:
        InputError: If there is not one finite vector per text.

    See: chapter 6.

    >>> original = lambda texts: torch.tensor([[1.0, float(len(text))] for text in texts])
    >>> round(similarity_correlation(lambda texts: -2 * original(texts), original), 6)
    1.0
    """
    texts = list(dict.fromkeys(text for triple in triples for text in triple))
    above = torch.triu_indices(len(texts), len(texts), 1)  # (2, pairs)
    now, before = (
        (vectors @ vectors.T)[above[0], above[1]].numpy()  # (pairs,)
        for vectors in (_vectors(encode, texts), _vectors(original, texts))
    )
    return float(spearmanr(now, before).statistic) if np.ptp(now) > 0 else 0.0


def _vectors(encode: Encode, texts: list[str]) -> Tensor:
    """Unit vectors in double precision, ``(len(texts), dim)``."""
    vectors = encode(texts).detach().cpu().double()  # (n, d)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise InputError(f"encode gave {tuple(vectors.shape)} for {len(texts)} texts; give one vector per text")
    if not vectors.isfinite().all():
        raise InputError("encode gave a vector that is not finite; train with a lower learning rate")
    return F.normalize(vectors, dim=1)
