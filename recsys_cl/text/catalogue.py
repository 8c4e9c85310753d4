"""Nearest words: those that a language model embeds close to each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from recsys_cl.text.encoder import LanguageEncoder


def nearest_words(
    encoder: LanguageEncoder, texts: Sequence[str], *, n: int = 3, similarity: float = 0.5
) -> dict[str, list[str]]:
    r"""Replacements for the words of some texts: nearest neighbours among the model's input embeddings.

    .. math:: \operatorname{near}(w) = \operatorname*{top}_{w' \neq w} \cos(e_w, e_{w'})

    No thesaurus is needed, and none is had: neighbours are words of the same use, antonyms and inflections among them.

    Args:
        encoder: Its words are tokens of the vocabulary that are whole words of at least three letters.
        texts: Where the words are taken from.
        n: Replacements per word, at most.
        similarity: Least cosine of a replacement.

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
