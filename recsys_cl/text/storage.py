"""Language-model loading and storage: find models by name, save encoders and adapters, cache embeddings.

A name refers to an asset, a folder, a GGUF file or a model on the hub; safetensors only, no remote code. The folder of
a saved encoder holds its weights and the options that its vectors depend on. The folder of an adapter holds only the
adapter and the name of its base model.

See: chapter 1, chapter 3.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
import pooch
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from recsys_cl import assets
from recsys_cl.errors import InputError
from recsys_cl.text.adapters import without_known_warnings
from recsys_cl.text.gguf import safetensors_folder
from recsys_cl.text.tokens import Pooling


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model that has been found but not yet loaded.

    Attributes:
        name: Display name: an asset's name, the last part of a path, or a hub name.
        reference: Name that finds the model again: an asset's name, an absolute path, or a hub name.
        folder: Folder with its files; ``None`` for a hub name.
        revision: Commit, tag or branch of a hub name.
    """

    name: str
    reference: str
    folder: Path | None = None
    revision: str | None = None

    def load(self, factory: Any, **options: Any) -> Any:
        """Load it with one of the ``Auto`` classes of transformers.

        Args:
            factory: ``AutoConfig``, ``AutoTokenizer``, ``AutoModel``, …
            options: Options of ``factory.from_pretrained``.

        Raises:
            InputError: If loading fails; the message gives the reason in one line.
        """
        source = self.folder or self.reference
        local = bool(self.folder) or assets.is_offline()
        revision = {} if self.folder else {"revision": self.revision}
        try:
            return factory.from_pretrained(
                source, local_files_only=local, trust_remote_code=False, **revision, **options
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            raise _cannot_load(str(source), (str(error).strip() or type(error).__name__).splitlines()[0]) from error

    def at_commit(self, commit: str | None) -> Pretrained:
        """Pin the model to the commit that a branch or tag refers to now, so all files come from the same commit."""
        return self if self.folder or not commit else dataclasses.replace(self, revision=commit)

    def identity(self) -> object:
        """Cache key of the model's content, serialisable as JSON."""
        return file_digests(self.folder) if self.folder else [self.reference, self.revision]


def find_pretrained(model: str | os.PathLike[str], revision: str | None = None) -> Pretrained:
    """Find a model by name: fetches an asset, converts a GGUF file once, does not contact the hub yet.

    Args:
        model: An asset (``"minilm"``), a folder, a GGUF file, or a hub name such as ``"BAAI/bge-small-en-v1.5"``.
        revision: Commit, tag or branch of a hub name.

    Raises:
        InputError: If the model is none of these, or the folder holds no safetensors.
        AssetError: If a named asset cannot be fetched.
    """
    name = str(model)
    if name in _model_assets():
        return Pretrained(name, name, safetensors_folder(assets.fetch(name)))
    path = Path(name).expanduser().absolute()
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        folder = safetensors_folder(path)
        if not any(folder.glob("*.safetensors")):
            raise _cannot_load(name, "it holds no safetensors; pickled weights are not read")
        return Pretrained(path.name, str(path), folder)
    if name in assets.ASSETS or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        known = ", ".join(_model_assets())
        raise InputError(f"unknown model {name!r}: give an asset ({known}), an existing folder, or a hub name")
    return Pretrained(name, name, revision=revision)


def choose_device(device: str | torch.device | None) -> torch.device:
    """The requested device; by default CUDA, then MPS, then the CPU.

    Raises:
        InputError: If the type of device is unknown.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}: give 'cpu', 'cuda', 'cuda:0' or 'mps'") from error


def _model_assets() -> list[str]:
    return [asset.name for asset in assets.ASSETS.values() if asset.kind == "model"]


def _cannot_load(model: str, reason: str) -> InputError:
    return InputError(
        f"cannot load model {model!r} ({reason[:200]}): give an asset ({', '.join(_model_assets())}), a folder with "
        "config.json, tokenizer and safetensors, or a hub name such as 'BAAI/bge-small-en-v1.5'"
    )


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a model may be loaded from."""
    files = (file for file in sorted(folder.iterdir()) if file.is_file() and file.name != assets.MANIFEST)
    return {file.name: pooch.file_hash(str(file)) for file in files if file.suffix != ".bin"}


OPTIONS = "encoder.json"

ADAPTER = "adapter_config.json"

ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Options:
    """Options of a sentence encoder: pooling, normalisation and maximum length.

    Attributes:
        pooling: ``"mean"``, ``"cls"`` or ``"last"``.
        normalize: Whether vectors have unit length.
        max_length: Maximum number of tokens of a text; longer texts are truncated.
    """

    pooling: Pooling = "mean"
    normalize: bool = True
    max_length: int = 256

    def save(self, folder: Path) -> None:
        """Write the options to a folder."""
        (folder / OPTIONS).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def saved_options(folder: Path | None) -> Options:
    """Read the options in a folder; the defaults if the folder has none.

    Raises:
        InputError: If the file cannot be read.
    """
    if folder is None or not (folder / OPTIONS).is_file():
        return Options()
    try:
        return Options(**json.loads((folder / OPTIONS).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"cannot read {folder / OPTIONS} ({error}): delete it and give the options again") from error


@dataclass(frozen=True)
class SavedAdapter:
    """A saved adapter.

    Attributes:
        folder: Folder with its files.
        base: Name of its base model.
        revision: Revision of the base model.
        virtual_tokens: Number of context positions that a prefix takes; 0 for other adapters.
    """

    folder: Path
    base: str
    revision: str | None
    virtual_tokens: int

    def load(self, module: nn.Module) -> peft.PeftModel:
        """Add the adapter to its base model, trainable.

        Raises:
            InputError: If the adapter does not fit the model.
        """
        try:
            with without_known_warnings():
                adapted = peft.PeftModel.from_pretrained(module, str(self.folder), is_trainable=not self.virtual_tokens)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(f"the adapter in {str(self.folder)!r} does not fit {self.base!r} ({reason})") from error
        if self.virtual_tokens:  # peft loads a prefix for inference only
            adapted.prompt_encoder.requires_grad_(True)
        return adapted


def saved_adapter(folder: Path | None) -> SavedAdapter | None:
    """The adapter saved in a folder, or ``None``.

    Raises:
        InputError: If its configuration cannot be read, or its weights are missing.
    """
    if folder is None or not (folder / ADAPTER).is_file():
        return None
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"the adapter in {str(folder)!r} has no {ADAPTER_WEIGHTS}; pickled weights are not read")
    try:
        known = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        places = int(known.get("num_virtual_tokens") or 0)
        return SavedAdapter(folder, str(known["base_model_name_or_path"]), known.get("revision"), places)
    except (ValueError, KeyError) as error:
        raise InputError(f"cannot read {folder / ADAPTER} ({error!r}): save the adapter again") from error


def save_adapter(module: peft.PeftModel, folder: Path, *, base: str, revision: str | None) -> None:
    """Save an adapter with the name of its base model."""
    config = module.active_peft_config
    config.base_model_name_or_path, config.revision = base, revision
    module.save_pretrained(str(folder), save_embedding_layers=False)


def save_model(module: Any, tokenizer: Any, folder: Path) -> None:
    """Save a whole transformers model with its tokenizer."""
    (folder / ADAPTER).unlink(missing_ok=True)  # left by an earlier save, it would be taken for this model's
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def cached_vectors(
    key: str, shape: tuple[int, int], compute: Callable[[], Tensor], origin: Mapping[str, str]
) -> Tensor:
    """Read vectors from the disk cache if they are intact, otherwise compute and store them.

    Args:
        key: Hash of everything that the vectors depend on.
        shape: Expected shape, ``(n, dim)``.
        compute: Function that computes the vectors.
        origin: Metadata to store with the vectors, for people who inspect the cache.

    Returns:
        Vectors ``(n, dim)``. A damaged file or an unwritable disk causes a warning and a recomputation.
    """
    file = assets.cache_folder() / "embeddings" / f"{key}.safetensors"
    vectors = _read(file, shape)
    if vectors is None:
        vectors = compute()
        _write(file, vectors, dict(origin))
    return vectors


def _read(file: Path, shape: tuple[int, int]) -> Tensor | None:
    """Cached vectors, or ``None`` if they are missing or damaged."""
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
    """Store vectors by an atomic rename; a full disk costs only the cache, not the result."""
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
