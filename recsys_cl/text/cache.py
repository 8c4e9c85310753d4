"""Embedding cache: vectors on disk, computed once, checked whenever they are read."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recsys_cl import assets


def cached_vectors(
    key: str, shape: tuple[int, int], compute: Callable[[], Tensor], origin: Mapping[str, str]
) -> Tensor:
    """Vectors from the disk if they are there and intact, else computed and stored.

    Args:
        key: Digest of everything that the vectors depend on.
        shape: ``(n, dim)`` that they must have.
        compute: Makes them.
        origin: What to note beside them, for people who look into the cache.

    Returns:
        ``shape``. A damaged file or a disk that cannot be written costs a warning and the computation.
    """
    file = assets.cache_folder() / "embeddings" / f"{key}.safetensors"
    vectors = _read(file, shape)
    if vectors is None:
        vectors = compute()
        _write(file, vectors, dict(origin))
    return vectors


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
