"""Sentence encoder: tokenise, encode and pool texts to one vector each, for inference and fine-tuning."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from recsys_cl.errors import InputError
from recsys_cl.text.adapters import Adapter
from recsys_cl.text.backbone import Backbone, Precision
from recsys_cl.text.storage import Options, cached_vectors, choose_device, find_pretrained, saved_adapter, saved_options
from recsys_cl.text.tokens import POOLINGS, Pooling, TextTokens, batches, cut_message

CACHE_SIZED, LARGE = 1024, 32_768
"""Tokens per batch: on a CPU as many as fit its caches, elsewhere enough to keep the device busy."""

REMEMBERED = 100_000
"""Maximum number of distinct texts whose token ids are kept in memory."""


class LanguageEncoder:
    r"""Embed texts with any Hugging Face encoder or decoder, frozen or during fine-tuning.

    Weights are read from safetensors (or GGUF) only, without remote code. The model is loaded when the first uncached
    text arrives. Embeddings are cached on disk, keyed by the model's content, the options and the texts; once `model`
    has been accessed (it may be trained), the cache is neither read nor written.

    With :math:`P` parameters, of which :math:`T` are trained by Adam, weights, gradients and moments take
    :math:`4 P + 12 T` bytes. The activations kept for the backward pass come on top; ``checkpointing`` recomputes them
    instead. By this formula (of these models, only MiniLM was run here):

    ======================================= ========= ========= =======================
    model                                   frozen    full      LoRA of rank 8
    ======================================= ========= ========= =======================
    MiniLM, 22.7 M                          0.09 GB   0.36 GB   0.1 GB, 0.33 M
    Qwen/Qwen3-Embedding-0.6B, 596 M        2.4 GB    9.5 GB    2.5 GB, 5.0 M
    intfloat/e5-mistral-7b-instruct, 7.1 G  28 GB     114 GB    29 GB, 21 M
    the same stored in 4 bits               4.2 GB    no        4.5 GB, 21 M
    ======================================= ========= ========= =======================

    The last column also gives the number of trained parameters. A model stored in 4 bits needs the package
    ``bitsandbytes`` and a GPU; its weights take :math:`0.56\,P` bytes.

    Args:
        model: An asset (``"minilm"``, ``"smollm2"``), a folder (of transformers, of `save`, or with one GGUF file), or
            a hub name such as ``"Qwen/Qwen3-Embedding-0.6B"``.
        revision: Commit, tag or branch of a hub name; give a commit for reproducible results.
        pooling: ``"mean"`` (sentence encoders), ``"cls"`` (BERT, BGE) or ``"last"`` (decoders; a text then ends in
            an end-of-text token). By default that of a saved encoder, else ``"mean"``.
        normalize: Whether to scale each vector to unit length. By default as saved, else true.
        max_length: Maximum number of tokens; longer texts are truncated (capped at the model's own limit). By default
            as saved, else 256.
        adapter: Adapter to add and train; the model is frozen.
        precision: ``"float32"``, ``"bfloat16"`` autocast, or ``"auto"``: half precision on CUDA only.
        checkpointing: Gradient checkpointing: in training, keep only the input of each block and recompute the rest.
        batch_tokens: Tokens per forward pass, including padding; the result does not depend on it. By default 1,024
            on a CPU and 32,768 elsewhere.
        device: Device; ``None`` takes CUDA, then MPS, then the CPU.
        cache: Whether to cache embeddings on disk.

    Attributes:
        name: Name of the model.
        dim: Width of a vector.

    Raises:
        InputError: If the model or an option is unknown.
        AssetError: If a named asset cannot be fetched.

    See: chapter 1, chapter 3, chapter 6.

    Example:
        >>> encoder = LanguageEncoder("minilm")  # doctest: +SKIP
        >>> encoder.encode(["a film about toys", "a war drama"]).shape  # doctest: +SKIP
        torch.Size([2, 384])
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "minilm",
        *,
        revision: str | None = None,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        adapter: Adapter | None = None,
        precision: Precision = "auto",
        checkpointing: bool = False,
        batch_tokens: int | None = None,
        device: str | torch.device | None = None,
        cache: bool = True,
    ) -> None:
        found = find_pretrained(model, revision)
        self.name, saved, added = found.name, saved_options(found.folder), saved_adapter(found.folder)
        self.device = choose_device(device)
        self.pooling: Pooling = saved.pooling if pooling is None else pooling
        self.normalize = saved.normalize if normalize is None else normalize
        self.max_length = saved.max_length if max_length is None else max_length
        default = CACHE_SIZED if self.device.type == "cpu" else LARGE
        self.batch_tokens = default if batch_tokens is None else batch_tokens
        self._check(precision)
        self._backbone = Backbone(
            added.base if added else str(model),
            added.revision if added else revision,
            saved=added,
            adapter=adapter,
            precision=precision,
            checkpointing=checkpointing,
            device=self.device,
        )
        self.config, self.tokenizer, self.dim = self._backbone.config, self._backbone.tokenizer, self._backbone.dim
        self.max_length = min(self.max_length, self._backbone.context)
        closed = self.pooling == "last"
        self._tokens = TextTokens(self.tokenizer, max_length=self.max_length, closed=closed, name=self.name)
        self._remembered: dict[str, list[int]] = {}
        self._cached = cache

    @property
    def model(self) -> nn.Module:
        """The transformer itself, for fine-tuning; after access, ``encode`` bypasses the disk cache."""
        self._cached = False
        return self._backbone.module

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts, without gradient; equal texts are computed once; order and batch size do not change a vector.

        Args:
            texts: Any number of strings; an empty string is allowed. One warning counts the texts that are truncated,
                whenever they are computed.

        Returns:
            Float32 vectors on the CPU, ``(len(texts), dim)``, in the order of ``texts``.

        Raises:
            InputError: If ``texts`` is one string, or contains something that is not a string.
        """
        unique = sorted(set(_checked(texts)))
        if not unique:
            return torch.empty(0, self.dim)
        if self._cached:
            origin = {"model": self.name, "pooling": self.pooling}
            vectors = cached_vectors(self._key(unique), (len(unique), self.dim), partial(self._compute, unique), origin)
        else:
            vectors = self._compute(unique)
        row_of = {text: row for row, text in enumerate(unique)}
        return vectors[torch.tensor([row_of[text] for text in texts])]  # (n, d)

    def embed_unique(self, texts: Sequence[str]) -> Tensor:
        r"""Embed a training batch, with gradient; each distinct text is tokenised and encoded once.

        .. math:: \frac{\partial L}{\partial z_t} = \sum_{t_n = t} \frac{\partial L}{\partial v_n}, \qquad v_n = z_{t_n}

        Texts of similar length share a forward pass. Equal texts of one call share a dropout mask: two views of a text
        need two calls. Texts longer than ``max_length`` are truncated silently; :meth:`tokenize` warns.

        Args:
            texts: One or more strings.

        Returns:
            ``(len(texts), dim)`` float32 on the encoder's device, in the order of ``texts``.

        Raises:
            InputError: If ``texts`` is one string, is empty, or contains something that is not a string.
        """
        distinct = list(dict.fromkeys(_checked(texts)))
        if not distinct:
            raise InputError("there are no texts to embed: give at least one")
        order, parts = zip(*self._batches(self._remembered_ids(distinct)), strict=True)
        place = {distinct[number]: row for row, number in enumerate(itertools.chain(*order))}
        rows = torch.tensor([place[text] for text in texts], device=self.device)  # (n,)
        return torch.cat(parts)[rows]  # (n, d)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed one padded batch of tokens, with gradient: the step that fine-tuning differentiates.

        Args:
            input_ids: Token ids, ``(batch, tokens)``.
            attention_mask: 1 for a token, 0 for padding, ``(batch, tokens)``.

        Returns:
            ``(batch, dim)`` float32 on the encoder's device.
        """
        ids, mask = input_ids.to(self.device), attention_mask.to(self.device)  # (B, T)
        vectors = POOLINGS[self.pooling](self._backbone.hidden(ids, mask), mask)  # (B, d)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask of a batch, padded on the right, both ``(batch, tokens)``."""
        return self._tokens.pad(self._counted_ids(_checked(texts)))

    def merge(self) -> None:
        """Merge the adapter into the weights; afterwards this is a plain model, saved as a whole.

        Raises:
            InputError: If there is no adapter, or it is a prefix.
        """
        self._cached = False
        self._backbone.merge()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Save the encoder: ``LanguageEncoder(folder)`` then gives the same vectors.

        Args:
            folder: Folder, created if missing. It gets the options and either the model with its tokenizer or, for an
                adapted model, only the adapter with the name of its base model.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        Options(self.pooling, self.normalize, self.max_length).save(folder)
        self._backbone.save(folder)
        return folder

    def _compute(self, texts: list[str]) -> Tensor:
        """Embed without gradient and dropout, with a progress bar if it takes long."""
        rows = self._counted_ids(texts)
        out = torch.empty(len(rows), self.dim)
        with self._backbone.inference(), tqdm(total=len(rows), desc=self.name, unit="text", delay=5) as bar:
            for numbers, vectors in self._batches(rows):
                out[numbers] = vectors.cpu()  # (b, d)
                bar.update(len(numbers))
        return out

    def _batches(self, rows: list[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the numbers of texts of similar length, and their vectors ``(b, dim)``."""
        for numbers in batches([len(row) for row in rows], self.batch_tokens):
            yield numbers, self.embed(*self._tokens.pad([rows[number] for number in numbers]))

    def _counted_ids(self, texts: list[str]) -> list[list[int]]:
        rows, lengths = self._tokens(texts)
        message = cut_message(lengths, self.max_length)
        if message:
            warnings.warn(message, stacklevel=3)
        return rows

    def _remembered_ids(self, texts: list[str]) -> list[list[int]]:
        if len(self._remembered) > REMEMBERED:
            self._remembered.clear()
        new = [text for text in texts if text not in self._remembered]
        if new:
            self._remembered.update(zip(new, self._tokens(new)[0], strict=True))
        return [self._remembered[text] for text in texts]

    def _check(self, precision: str) -> None:
        for option, choice, choices in (
            ("pooling", self.pooling, tuple(POOLINGS)),
            ("precision", precision, get_args(Precision)),
        ):
            if choice not in choices:
                raise InputError(f"unknown {option} {choice!r}: choose one of {', '.join(choices)}")
        for option, value in (("max_length", self.max_length), ("batch_tokens", self.batch_tokens)):
            if value < 1:
                raise InputError(f"{option}={value} is too small: give 1 or more")

    def _key(self, texts: list[str]) -> str:
        """Hash of everything that a vector depends on."""
        options = [self.pooling, self.normalize, self.max_length]
        return hashlib.sha256(json.dumps([self._backbone.identity(), options, texts]).encode()).hexdigest()


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise InputError("texts is one string: pass a list of strings, for example [text]")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} is {text!r} ({type(text).__name__}): pass strings, '' for no text")
    return list(texts)
