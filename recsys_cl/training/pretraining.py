"""Language-model pre-training on raw text: masked for encoders, causal for decoders.

Weights start at random or from a trained model. Both heads compare hidden states with the input embeddings, tied as a
function (``h @ E.T``), so the weights exist only once, also in a checkpoint.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recsys_cl.errors import InputError
from recsys_cl.losses.language import IGNORED, causal_language_loss, mask_tokens, masked_language_loss, perplexity
from recsys_cl.training.examples import Examples, Key
from recsys_cl.training.run import TrainingConfig, TrainingReport, train


class MaskedLanguageModel(nn.Module):
    r"""Masked language model: an encoder with BERT's head that predicts masked tokens.

    .. math:: \text{logits}_t = \operatorname{LN}(\operatorname{gelu}(W h_t + c))\, E^\top + b

    Args:
        transformer: Maps token ids to ``last_hidden_state`` and has input embeddings :math:`E`; trained in place.
        share: Probability that a token is masked in training. Small models and short runs learn faster with more.

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
        nn.init.eye_(self.dense.weight)  # initially close to the hidden state itself
        nn.init.zeros_(self.dense.bias)
        self.norm = nn.LayerNorm(dim)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, ``(..., dim)`` to ``(..., vocabulary)``."""
        transformed = self.norm(F.gelu(self.dense(hidden)))  # (..., d)
        return transformed @ input_embeddings(self.transformer).T + self.bias  # (..., V)

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits at every position, ``(batch, tokens, vocabulary)``."""
        return self.head(_hidden(self.transformer, input_ids, attention_mask))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean loss of the masked tokens; the head skips the others."""
        predicted = labels != IGNORED  # (B, T)
        hidden = _hidden(self.transformer, input_ids, attention_mask)  # (B, T, d)
        return {"loss": masked_language_loss(self.head(hidden[predicted]), labels[predicted])}


class CausalLanguageModel(nn.Module):
    r"""Causal language model: a decoder that predicts the next token, with tied input and output embeddings.

    .. math:: \text{logits}_t = h_t E^\top

    Args:
        transformer: Maps token ids to ``last_hidden_state`` with causal attention, and has input embeddings
            :math:`E`; trained in place.

    References:
        Radford et al. (2018), Improving Language Understanding by Generative Pre-Training.

    See: chapter 1.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the token after every position, ``(batch, tokens, vocabulary)``."""
        return _hidden(self.transformer, input_ids, attention_mask) @ input_embeddings(self.transformer).T

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean loss of the next tokens."""
        return {"loss": causal_language_loss(self.logits(input_ids, attention_mask), labels)}


def _hidden(transformer: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    return transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def input_embeddings(transformer: Any) -> Tensor:
    """Token embeddings, ``(vocabulary, dim)``."""
    return transformer.get_input_embeddings().weight


METRIC = "log_likelihood"


class TextExamples(Examples):
    """Tokenised texts as training examples.

    Args:
        tokenizer: A Hugging Face tokenizer.
        texts: Texts to predict.
        max_length: Maximum number of tokens; longer texts are truncated.
        seed: Seed of the masks.

    Attributes:
        rounds: Number of epochs whose labels a validation averages over.
    """

    rounds = 1

    def __init__(self, tokenizer: Any, texts: Sequence[str], *, max_length: int, seed: int) -> None:
        encoded = tokenizer(
            list(texts), truncation=True, max_length=max_length, return_special_tokens_mask=True, verbose=False
        )
        self.ids = [torch.tensor(row, dtype=torch.long) for row in encoded["input_ids"]]
        self.special = [torch.tensor(row, dtype=torch.bool) for row in encoded["special_tokens_mask"]]
        self.tokenizer, self.seed = tokenizer, seed
        self.pad_id = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id  # masked out, so any id works

    def __len__(self) -> int:
        return len(self.ids)

    def count(self, batch: Mapping[str, Tensor]) -> int:
        """Number of tokens to predict."""
        return int((batch["labels"] >= 0).sum())

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Build a batch: ``input_ids``, ``attention_mask`` and ``labels``, all ``(batch, tokens)``."""
        epoch, example = np.array(keys).T  # (B,) both
        ids = pad_sequence([self.ids[row] for row in example], batch_first=True, padding_value=self.pad_id)  # (B, T)
        special = pad_sequence([self.special[row] for row in example], batch_first=True, padding_value=True)  # (B, T)
        length = torch.tensor([len(self.ids[row]) for row in example])  # (B,)
        real = torch.arange(ids.shape[1]) < length[:, None]  # (B, T)
        inputs, labels = self.task(ids, real, special, epoch, example)
        return {"input_ids": inputs, "attention_mask": real.long(), "labels": labels}

    @abstractmethod
    def task(
        self, ids: Tensor, real: Tensor, special: Tensor, epoch: np.ndarray, example: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a batch, both ``(batch, tokens)``."""


class MaskedExamples(TextExamples):
    """Texts with masked tokens; every epoch masks other tokens.

    Args:
        tokenizer: A Hugging Face tokenizer with a mask token.
        texts: Texts to predict.
        max_length: Maximum number of tokens; longer texts are truncated.
        seed: Seed of the masks.
        share: Probability that a token is masked.
    """

    rounds = 4  # one masking predicts too few tokens to distinguish epochs

    def __init__(self, tokenizer: Any, texts: Sequence[str], *, max_length: int, seed: int, share: float) -> None:
        super().__init__(tokenizer, texts, max_length=max_length, seed=seed)
        self.share = share

    def task(
        self, ids: Tensor, real: Tensor, special: Tensor, epoch: np.ndarray, example: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """See :func:`~recsys_cl.losses.language.mask_tokens`."""
        return mask_tokens(
            ids,
            ~special,
            mask_id=self.tokenizer.mask_token_id,
            vocabulary_size=len(self.tokenizer),
            example=example,
            epoch=epoch,
            seed=self.seed,
            share=self.share,
        )


class CausalExamples(TextExamples):
    """Texts for causal prediction: every real token except the first is predicted from those before it."""

    def task(
        self, ids: Tensor, real: Tensor, special: Tensor, epoch: np.ndarray, example: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """The ids, unchanged and as labels."""
        first = torch.arange(ids.shape[1]) == 0  # (T,)
        return ids, ids.masked_fill(~real | first, IGNORED)


def pretrain(
    model: MaskedLanguageModel | CausalLanguageModel,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    validation_texts: Sequence[str],
    config: TrainingConfig,
    max_length: int = 64,
    folder: str | Path | None = None,
    resume: bool = False,
) -> TrainingReport:
    """Train a language model in place and keep the weights of the epoch that predicts the validation texts best.

    Parameters that do not require a gradient stay unchanged: freeze the transformer to train only the head.

    Args:
        model: A transformer with its head; the class determines the objective.
        tokenizer: Hugging Face tokenizer of the transformer.
        texts: Training texts.
        validation_texts: Texts of other items; their mean log-likelihood decides when to stop.
        config: Optimisation settings; the metric is always ``log_likelihood``.
        max_length: Maximum number of tokens; longer texts are truncated.
        folder: Folder for checkpoints, logs and ``run.json``; by default a temporary one.
        resume: Continue from the newest intact checkpoint in ``folder``.

    Returns:
        The report; each epoch of its history has ``log_likelihood`` (nats per token) and ``perplexity``.

    Raises:
        InputError: If there is no training or validation text, if the tokenizer has no mask token, or if it has more
            tokens than the model.

    See: chapter 1; chapter 6 uses it.
    """
    _check(model, tokenizer, {"texts": texts, "validation_texts": validation_texts})
    learn, held_out = (
        _examples(model, tokenizer, some, max_length=max_length, seed=config.seed) for some in (texts, validation_texts)
    )
    home = next(model.parameters()).device
    report = train(
        model,
        learn,
        validate=lambda: log_likelihood(model, held_out, batch_size=config.batch_size),
        config=replace(config, metric=METRIC),
        settings={"max_length": max_length, "texts": len(learn), "share": getattr(model, "share", None)},
        folder=folder,
        resume=resume,
    )
    model.to(home).eval()
    return report


def _examples(
    model: MaskedLanguageModel | CausalLanguageModel,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_length: int,
    seed: int,
) -> TextExamples:
    if isinstance(model, MaskedLanguageModel):
        return MaskedExamples(tokenizer, texts, max_length=max_length, seed=seed, share=model.share)
    return CausalExamples(tokenizer, texts, max_length=max_length, seed=seed)


@torch.inference_mode()
def log_likelihood(model: nn.Module, examples: TextExamples, *, batch_size: int = 64) -> dict[str, float]:
    """Mean log-likelihood in nats of the predicted tokens, with the same masks at every call, and the perplexity."""
    device = next(model.parameters()).device
    nats, tokens = 0.0, 0
    keys = [(epoch, row) for epoch in range(examples.rounds) for row in range(len(examples))]
    for start in range(0, len(keys), batch_size):
        batch = examples.collate(keys[start : start + batch_size])
        count = int((batch["labels"] != IGNORED).sum())
        nats += count * float(model(**{name: tensor.to(device) for name, tensor in batch.items()})["loss"])
        tokens += count
    return {METRIC: -nats / max(tokens, 1), "perplexity": perplexity(nats, max(tokens, 1))}


def _check(
    model: MaskedLanguageModel | CausalLanguageModel, tokenizer: Any, texts: Mapping[str, Sequence[str]]
) -> None:
    for name, some in texts.items():
        if not any(map(str.strip, some)):
            raise InputError(f"{name} has {len(some)} texts and no word to predict; give texts with words")
    if isinstance(model, MaskedLanguageModel) and tokenizer.mask_token_id is None:
        raise InputError("the tokenizer has no mask token; add one, or train a CausalLanguageModel")
    rows = len(input_embeddings(model.transformer))
    if len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the model embeds {rows}; "
            "give the model its own tokenizer, or resize its embeddings"
        )
