"""Language models as text encoders: tokens in, one vector per text out.

See: chapter 01 (what the vectors are), chapter 03 (recommending with them), chapter 06 (fine-tuning).
"""

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import pooch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoConfig, AutoModel, AutoTokenizer

from recsys_cl import assets
from recsys_cl.errors import InputError

Pooling = Literal["mean", "cls", "last"]


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    r"""Average the hidden states of the real tokens, wherever the padding stands.

    .. math:: z = \frac{\sum_t m_t h_t}{\max(1, \sum_t m_t)}

    Args:
        hidden: Hidden states, ``(batch, tokens, dim)``.
        mask: 1 for a token, 0 for padding, ``(batch, tokens)``.

    Returns:
        ``(batch, dim)``; a row without tokens gives zeros.

    References:
        Reimers & Gurevych (2019), Sentence-BERT, EMNLP.

    See: chapter 01.

    >>> hidden = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]])
    >>> mean_pool(hidden, torch.tensor([[1, 1, 0]]))
    tensor([[2., 1.]])
    """
    kept = hidden.masked_fill(~mask.bool().unsqueeze(-1), 0.0)  # (B, T, d); not a product: NaN · 0 = NaN
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)  # (B, d)


def cls_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Take the first real token (BERT's ``[CLS]``), under right and left padding alike.

    Args:
        hidden: Hidden states, ``(batch, tokens, dim)``.
        mask: 1 for a token, 0 for padding, ``(batch, tokens)``.

    Returns:
        ``(batch, dim)``.

    References:
        Devlin et al. (2019), BERT, NAACL.

    See: chapter 01.

    >>> hidden = torch.tensor([[[9.0], [5.0], [6.0]]])
    >>> cls_pool(hidden, torch.tensor([[0, 1, 1]]))  # left padding
    tensor([[5.]])
    """
    first = mask.int().argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(hidden), device=hidden.device), first]  # (B, d)


def last_token_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Take the last real token, the only one of a causal decoder that has read the whole text.

    Args:
        hidden: Hidden states, ``(batch, tokens, dim)``.
        mask: 1 for a token, 0 for padding, ``(batch, tokens)``.

    Returns:
        ``(batch, dim)``.

    References:
        Wang et al. (2024), Improving Text Embeddings with Large Language Models, ACL.

    See: chapter 03.

    >>> hidden = torch.tensor([[[5.0], [6.0], [9.0]]])
    >>> last_token_pool(hidden, torch.tensor([[1, 1, 0]]))  # right padding
    tensor([[6.]])
    """
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]  # (B, d)


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean_pool,
    "cls": cls_pool,
    "last": last_token_pool,
}


class LanguageEncoder:
    """Turn texts into vectors with any Hugging Face encoder or decoder.

    Weights are read from safetensors only, without remote code. The model is loaded when the first text
    that is not cached arrives. Embeddings are cached on disk, keyed by the model's content, the options and
    the texts; once `model` has been handed out (it may be trained), the cache is neither read nor written.

    Args:
        model: An asset (``"minilm"``), a folder, or a hub name such as ``"Qwen/Qwen3-Embedding-0.6B"``.
        revision: Commit, tag or branch of a hub name; give a commit for results that can be repeated.
        pooling: ``"mean"`` (sentence encoders), ``"cls"`` (BERT, BGE) or ``"last"`` (decoders).
        normalize: Scale each vector to unit length.
        max_length: Longer texts are cut after this many tokens (or the model's own limit).
        batch_size: Texts per forward pass; the result does not depend on it.
        device: ``None`` takes CUDA, then MPS, then the CPU. CUDA runs in bfloat16 (or float16) autocast.
        cache: Keep embeddings on disk.

    Attributes:
        name: The model's name.
        dim: Length of a vector.

    Raises:
        InputError: The model or an option is unknown.
        AssetError: A named asset cannot be fetched.

    See: chapter 01, chapter 03.

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
        pooling: Pooling = "mean",
        normalize: bool = True,
        max_length: int = 256,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        cache: bool = True,
    ) -> None:
        if pooling not in POOLINGS:
            raise InputError(f"unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}")
        for option, value in (("max_length", max_length), ("batch_size", batch_size)):
            if value < 1:
                raise InputError(f"{option}={value} is too small: give 1 or more")
        self.pooling, self.normalize, self.batch_size, self.cache = pooling, normalize, batch_size, cache
        self.device = _device(device)
        self._folder = _local_folder(str(model))
        self.name = self._folder.name if self._folder else str(model)
        self._source = str(self._folder or model)
        local = bool(self._folder) or assets.is_offline()
        self._options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
        if not self._folder:
            self._options["revision"] = revision
        self.config = self._load(AutoConfig)
        if not self._folder:  # the commit that "main" or a tag stands for now: all files come from one commit
            self._options["revision"] = getattr(self.config, "_commit_hash", None) or revision
        self.tokenizer = self._load(AutoTokenizer)
        self._pad_id = _pad_id(self.tokenizer, self.name)
        text_config = self.config.get_text_config(encoder=True) if self.config.is_encoder_decoder else None
        text_config = text_config or self.config.get_text_config()
        self.dim = int(text_config.hidden_size)
        limits = (self.tokenizer.model_max_length, getattr(text_config, "max_position_embeddings", None))
        self.max_length = min(max_length, *(int(limit) for limit in limits if limit and limit > 0))
        self._module: nn.Module | None = None
        self._handed_out = False

    @property
    def model(self) -> nn.Module:
        """The transformer itself, for fine-tuning; from here on ``encode`` bypasses the disk cache."""
        self._handed_out = True
        return self._loaded()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts; equal texts are computed once, and neither order nor batch size changes a vector.

        Args:
            texts: Any number of strings; an empty string is allowed.

        Returns:
            Float32 vectors on the CPU, ``(len(texts), dim)``, in the order of ``texts``.

        Raises:
            InputError: ``texts`` is one string, or holds something that is not a string.
        """
        if isinstance(texts, str):
            raise InputError("texts is one string: pass a list of strings, for example [text]")
        texts = list(texts)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {row} is {text!r} ({type(text).__name__}): pass strings, '' for no text")
        unique = sorted(set(texts))
        if not unique:
            return torch.empty(0, self.dim)
        row_of = {text: row for row, text in enumerate(unique)}
        return self._vectors(unique)[torch.tensor([row_of[text] for text in texts])]  # (n, d)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors of one padded batch, with gradient: the step that fine-tuning differentiates.

        Args:
            input_ids: Token ids, ``(batch, tokens)``.
            attention_mask: 1 for a token, 0 for padding, ``(batch, tokens)``.

        Returns:
            ``(batch, dim)`` float32 on the encoder's device.
        """
        ids, mask = input_ids.to(self.device), attention_mask.to(self.device)  # (B, T)
        with self._autocast():
            hidden = self._loaded()(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, d)
        vectors = POOLINGS[self.pooling](hidden.float(), mask)  # (B, d)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask of a batch, padded on the right, both ``(batch, tokens)``."""
        return self._pad(self._token_ids(texts))

    def _vectors(self, unique: list[str]) -> Tensor:
        """Vectors of sorted, distinct texts, from the disk cache if they are there."""
        if not self.cache or self._handed_out:
            return self._compute(unique)
        file = assets.cache_folder() / "embeddings" / f"{self._key(unique)}.safetensors"
        vectors = _read(file, (len(unique), self.dim))
        if vectors is None:
            vectors = self._compute(unique)
            _write(file, vectors, {"model": self.name, "pooling": self.pooling})
        return vectors

    def _compute(self, texts: list[str]) -> Tensor:
        """Run the model over batches of texts of similar length."""
        ids = self._token_ids(texts)
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))  # longest first: memory fails early
        out = torch.empty(len(ids), self.dim)
        module = self._loaded()
        training = module.training
        module.eval()
        try:
            with torch.inference_mode(), tqdm(total=len(ids), desc=self.name, unit="text", delay=5) as bar:
                for start in range(0, len(order), self.batch_size):
                    rows = order[start : start + self.batch_size]
                    out[rows] = self.embed(*self._pad([ids[row] for row in rows])).cpu()  # (B, d)
                    bar.update(len(rows))
        finally:
            module.train(training)
        return out

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_length, verbose=False)
        return [list(ids) or [self._pad_id] for ids in encoded["input_ids"]]  # '' may have no token at all

    def _pad(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Pad on the right, where positions stay those of the text, for encoders and decoders alike."""
        width = max(len(row) for row in rows)
        ids = torch.tensor([row + [self._pad_id] * (width - len(row)) for row in rows])  # (B, T)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])  # (B, T)
        return ids, mask

    def _loaded(self) -> nn.Module:
        if self._module is None:
            module = self._load(AutoModel, use_safetensors=True, dtype=torch.float32)
            module = module.get_encoder() if self.config.is_encoder_decoder else module
            self._module = module.to(self.device).eval()
        return self._module

    def _load(self, factory: Any, **options: Any) -> Any:
        try:
            return factory.from_pretrained(self._source, **self._options, **options)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            known = ", ".join(asset.name for asset in assets.ASSETS.values() if asset.kind == "model")
            raise InputError(
                f"cannot load model {self._source!r} ({reason}): give an asset ({known}), a folder with "
                "config.json, tokenizer and safetensors, or a hub name such as 'BAAI/bge-small-en-v1.5'"
            ) from error

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = self._half()
        return nullcontext() if dtype is None else torch.autocast("cuda", dtype=dtype)

    def _half(self) -> torch.dtype | None:
        if self.device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16

    def _key(self, texts: list[str]) -> str:
        """Digest of everything that a vector depends on."""
        identity = _folder_digest(self._folder) if self._folder else [self._source, self._options["revision"]]
        options = [self.pooling, self.normalize, self.max_length, str(self._half()), self.device.type]
        return hashlib.sha256(json.dumps([identity, options, texts]).encode()).hexdigest()


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}: give 'cpu', 'cuda', 'cuda:0' or 'mps'") from error


def _local_folder(model: str) -> Path | None:
    """The folder of an asset or of a local model; None for a name on the hub."""
    if model in assets.ASSETS and assets.ASSETS[model].kind == "model":
        return assets.fetch(model)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if model in assets.ASSETS or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        known = ", ".join(asset.name for asset in assets.ASSETS.values() if asset.kind == "model")
        raise InputError(f"unknown model {model!r}: give an asset ({known}), an existing folder, or a hub name")
    return None


def _pad_id(tokenizer: Any, name: str) -> int:
    """The id to pad with; masked out, so that any token serves when there is none for padding."""
    for token in ("pad", "eos", "unk", "bos"):
        token_id = getattr(tokenizer, f"{token}_token_id", None)
        if token_id is not None:
            return int(token_id)
    raise InputError(f"the tokenizer of {name!r} has no pad, eos, unk or bos token: set one and save it again")


def _folder_digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a model is loaded from."""
    files = (file for file in sorted(folder.iterdir()) if file.is_file() and file.name != assets.MANIFEST)
    return {file.name: pooch.file_hash(str(file)) for file in files if file.suffix != ".bin"}


def _read(file: Path, shape: tuple[int, int]) -> Tensor | None:
    """Cached vectors, or None if there are none or they are damaged."""
    if not file.is_file():
        return None
    try:
        with safe_open(str(file), framework="pt") as stored:
            vectors: Tensor = stored.get_tensor("vectors")
            digest = (stored.metadata() or {}).get("sha256")
        if tuple(vectors.shape) == shape and digest == _digest(vectors):
            return vectors
        reason = "its checksum or shape is wrong"
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
    warnings.warn(f"ignoring the damaged embedding cache {file} ({reason}); computing again", stacklevel=4)
    return None


def _write(file: Path, vectors: Tensor, metadata: dict[str, str]) -> None:
    """Store vectors by one rename; a full disk costs the cache, not the result."""
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".partial")
        os.close(handle)
        save_file({"vectors": vectors}, temporary, metadata | {"sha256": _digest(vectors)})
        os.replace(temporary, file)
    except (OSError, SafetensorError) as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        warnings.warn(f"cannot cache embeddings in {file.parent} ({error})", stacklevel=4)


def _digest(vectors: Tensor) -> str:
    return hashlib.sha256(vectors.contiguous().numpy().tobytes()).hexdigest()
