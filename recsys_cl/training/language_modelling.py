"""A transformer with the head and the loss of its pre-training: masked for encoders, causal for decoders.

Both heads compare hidden states with the input embeddings, tied as a function (``h @ E.T``), so that the weights
exist once and a checkpoint holds them once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys_cl.objectives.language import IGNORED, causal_language_loss, masked_language_loss


class MaskedLanguageModel(nn.Module):
    r"""An encoder that predicts hidden tokens, with BERT's head.

    .. math:: \text{logits}_t = \operatorname{LN}(\operatorname{gelu}(W h_t + c))\, E^\top + b

    Args:
        transformer: Maps token ids to ``last_hidden_state`` and has input embeddings :math:`E`; trained in place.
        share: Chance of a token to be hidden in training. Small models and short trainings learn faster from more.

    References:
        Devlin et al. (2019), BERT, NAACL;
        Wettig et al. (2023), Should You Mask 15% in Masked Language Modeling?, EACL.

    See: chapter 1.
    """

    def __init__(self, transformer: nn.Module, *, share: float = 0.15) -> None:
        super().__init__()
        self.transformer, self.share = transformer, share
        vocabulary, dim = input_embeddings(transformer).shape
        self.dense = nn.Linear(dim, dim)
        nn.init.eye_(self.dense.weight)  # a start close to the hidden state itself
        nn.init.zeros_(self.dense.bias)
        self.norm = nn.LayerNorm(dim)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, ``(..., dim)`` to ``(..., vocabulary)``."""
        transformed = self.norm(F.gelu(self.dense(hidden)))  # (..., d)
        return transformed @ input_embeddings(self.transformer).T + self.bias  # (..., V)

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of every place, ``(batch, tokens, vocabulary)``."""
        return self.head(_hidden(self.transformer, input_ids, attention_mask))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The mean loss of the hidden tokens; nothing is computed for the others."""
        predicted = labels != IGNORED  # (B, T)
        hidden = _hidden(self.transformer, input_ids, attention_mask)  # (B, T, d)
        return {"loss": masked_language_loss(self.head(hidden[predicted]), labels[predicted])}


class CausalLanguageModel(nn.Module):
    r"""A decoder that predicts the next token, its output tied to its input.

    .. math:: \text{logits}_t = h_t E^\top

    Args:
        transformer: Maps token ids to ``last_hidden_state``, each place seeing only those before it, and has input
            embeddings :math:`E`; trained in place.

    References:
        Radford et al. (2018), Improving Language Understanding by Generative Pre-Training.

    See: chapter 1.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of what follows every place, ``(batch, tokens, vocabulary)``."""
        return _hidden(self.transformer, input_ids, attention_mask) @ input_embeddings(self.transformer).T

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The mean loss of the next tokens."""
        return {"loss": causal_language_loss(self.logits(input_ids, attention_mask), labels)}


def _hidden(transformer: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    return transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def input_embeddings(transformer: Any) -> Tensor:
    """The vectors that stand for the tokens, ``(vocabulary, dim)``."""
    return transformer.get_input_embeddings().weight
