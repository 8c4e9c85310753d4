"""Sentence encoder: tokenise, encode, pool; tokens in, one vector per text out."""

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
"""Tokens of a batch: on a CPU what its caches hold, elsewhere what keeps the device busy."""

REMEMBERED = 100_000
"""Distinct texts whose token ids are kept in memory."""


class LanguageEncoder:
    r"""Turn texts into vectors with any Hugging Face encoder or decoder, as it is or while it learns.

    Weights are read from safetensors (or GGUF) only, without remote code. The model is loaded when the first text
    that is not cached arrives. Embeddings are cached on disk, keyed by the model's content, the options and
    the texts; once `model` has been handed out (it may be trained), the cache is neither read nor written.

    With :math:`P` parameters, of which :math:`T` learn under Adam, weights, gradients and moments take
    :math:`4 P + 12 T` bytes; what the layers keep for the backward pass comes on top, and is what ``checkpointing``
    computes twice instead. By this formula (of these, only MiniLM was run here):

    ======================================= ========= ========= =======================
    model                                   as it is  all learn LoRA of rank 8
    ======================================= ========= ========= =======================
    MiniLM, 22.7 M                          0.09 GB   0.36 GB   0.1 GB, 0.33 M learn
    Qwen/Qwen3-Embedding-0.6B, 596 M        2.4 GB    9.5 GB    2.5 GB, 5.0 M learn
    intfloat/e5-mistral-7b-instruct, 7.1 G  28 GB     114 GB    29 GB, 21 M learn
    the same stored in 4 bits               4.2 GB    no        4.5 GB, 21 M learn
    ======================================= ========= ========= =======================

    A model stored in 4 bits needs the package ``bitsandbytes`` and a GPU; its weights take :math:`0.56\,P` bytes.

    Args:
        model: An asset (``"minilm"``, ``"smollm2"``), a folder (of transformers, of `save`, or with one GGUF file), or
            a hub name such as ``"Qwen/Qwen3-Embedding-0.6B"``.
        revision: Commit, tag or branch of a hub name; give a commit for results that can be repeated.
        pooling: ``"mean"`` (sentence encoders), ``"cls"`` (BERT, BGE) or ``"last"`` (decoders; a text then ends in
            an end-of-text token). By default what a saved encoder had, else ``"mean"``.
        normalize: Scale each vector to unit length. By default as saved, else true.
        max_length: Longer texts are cut after this many tokens (or the model's own limit). By default as saved, else
            256.
        adapter: Freeze the model and add these weights, which alone learn.
        precision: ``"float32"``, ``"bfloat16"`` autocast, or ``"auto"``: half precision on CUDA alone.
        checkpointing: In training, keep the input of each block only, and compute the rest again.
        batch_tokens: Tokens per forward pass, padding included; the result does not depend on it. By default 1,024
            on a CPU and 32,768 elsewhere.
        device: ``None`` takes CUDA, then MPS, then the CPU.
        cache: Keep embeddings on disk.

    Attributes:
        name: The model's name.
        dim: Length of a vector.

    Raises:
        InputError: The model or an option is unknown.
        AssetError: A named asset cannot be fetched.

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
        """The transformer itself, for fine-tuning; from here on ``encode`` bypasses the disk cache."""
        self._cached = False
        return self._backbone.module

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts; equal texts are computed once, and neither order nor batch size changes a vector.

        Args:
            texts: Any number of strings; an empty string is allowed. Those that have to be cut are counted in one
                warning, whenever they are computed.

        Returns:
            Float32 vectors on the CPU, ``(len(texts), dim)``, in the order of ``texts``.

        Raises:
            InputError: ``texts`` is one string, or holds something that is not a string.
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
        r"""Vectors of a training batch, with gradient; each distinct text is tokenised and encoded once.

        .. math:: \frac{\partial L}{\partial z_t} = \sum_{t_n = t} \frac{\partial L}{\partial v_n}, \qquad v_n = z_{t_n}

        Texts of similar length share a forward pass. Under dropout, equal texts of one call have one mask: two views
        of a text need two calls. What is longer than ``max_length`` is cut without a word; :meth:`tokenize` counts.

        Args:
            texts: At least one string.

        Returns:
            ``(len(texts), dim)`` float32 on the encoder's device, in the order of ``texts``.

        Raises:
            InputError: ``texts`` is one string, is empty, or holds something that is not a string.
        """
        distinct = list(dict.fromkeys(_checked(texts)))
        if not distinct:
            raise InputError("there are no texts to embed: give at least one")
        order, parts = zip(*self._batches(self._remembered_ids(distinct)), strict=True)
        place = {distinct[number]: row for row, number in enumerate(itertools.chain(*order))}
        rows = torch.tensor([place[text] for text in texts], device=self.device)  # (n,)
        return torch.cat(parts)[rows]  # (n, d)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors of one padded batch, with gradient: the step that fine-tuning differentiates.

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
        """Fold the adapter into the weights; from here on this is a plain model, saved as a whole.

        Raises:
            InputError: If there is no adapter, or it is a prefix.
        """
        self._cached = False
        self._backbone.merge()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write what ``LanguageEncoder(folder)`` needs to give the same vectors.

        Args:
            folder: Made if it is missing. It gets the options, and the model with its tokenizer or, of an adapted
                model, the adapter alone with the name of the model that it belongs to.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        Options(self.pooling, self.normalize, self.max_length).save(folder)
        self._backbone.save(folder)
        return folder

    def _compute(self, texts: list[str]) -> Tensor:
        """Vectors without gradient and without dropout, with a bar if it takes long."""
        rows = self._counted_ids(texts)
        out = torch.empty(len(rows), self.dim)
        with self._backbone.inference(), tqdm(total=len(rows), desc=self.name, unit="text", delay=5) as bar:
            for numbers, vectors in self._batches(rows):
                out[numbers] = vectors.cpu()  # (b, d)
                bar.update(len(numbers))
        return out

    def _batches(self, rows: list[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers of texts of similar length, and their vectors ``(b, dim)``."""
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
        """Digest of everything that a vector depends on."""
        options = [self.pooling, self.normalize, self.max_length]
        return hashlib.sha256(json.dumps([self._backbone.identity(), options, texts]).encode()).hexdigest()


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise InputError("texts is one string: pass a list of strings, for example [text]")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} is {text!r} ({type(text).__name__}): pass strings, '' for no text")
    return list(texts)
