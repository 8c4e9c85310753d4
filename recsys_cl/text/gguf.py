"""GGUF conversion: read a quantised one-file model once and cache it as a folder of safetensors.

A GGUF file packs configuration, tokenizer and weights of a few bits each. `transformers` can open it directly, but
takes tens of seconds every time and marks the model as quantised, which prevents training and saving.

See: chapter 1.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pooch
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from recsys_cl import assets
from recsys_cl.errors import InputError

WEIGHTS = "model.safetensors"


def safetensors_folder(folder: Path) -> Path:
    r"""Folder with the model as safetensors, converted from GGUF on first use.

    The weights are stored in float32, which represents the quantised values exactly: a Q4_1 weight is
    :math:`d\,q + m` with a 4-bit :math:`q` and half-precision :math:`d` and :math:`m` shared by 32 weights, and neither
    bfloat16 nor float16 has enough digits for the sum.

    Args:
        folder: A folder with one ``.gguf`` file, or the file.

    Returns:
        A folder in the cache with ``config.json``, tokenizer, chat template and ``model.safetensors``, named after
        the file and its content; ``folder`` itself if it holds safetensors or no GGUF file.

    Raises:
        InputError: If the folder holds several GGUF files, or the file cannot be read.

    References:
        The ggml authors, GGUF (docs/gguf.md of ggml).

    See: chapter 1.
    """
    file = _gguf_file(folder)
    if file is None:
        return folder
    root = assets.cache_folder() / "converted"
    target = root / f"{file.stem}-{pooch.file_hash(str(file))[:16]}"
    if _is_whole(target):  # needs neither a lock nor write permission
        return target
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{target.name}.lock"):
        if not _is_whole(target):
            _convert(file, target)
    return target


def _gguf_file(path: Path) -> Path | None:
    """The GGUF file to convert, if there is one."""
    if path.is_file():
        return path
    files = sorted(path.glob("*.gguf"))
    if not files or any(path.glob("*.safetensors")):
        return None
    if len(files) > 1:
        raise InputError(
            f"{str(path)!r} holds {len(files)} GGUF files ({', '.join(file.name for file in files)}); give one of them"
        )
    return files[0]


def _is_whole(folder: Path) -> bool:
    """Whether the weights exist and are as long as their header says."""
    if not folder.is_dir():
        return False
    try:
        with safe_open(str(folder / WEIGHTS), framework="pt"):
            return True
    except (SafetensorError, OSError) as error:
        warnings.warn(f"{folder} is damaged ({error}); converting again", stacklevel=3)
        return False


def _convert(file: Path, target: Path) -> None:
    """Write the folder under a temporary name, then rename it; the caller holds the lock."""
    print(f"recsys_cl: converting {file.name} to safetensors, once", file=sys.stderr, flush=True)
    for stale in target.parent.glob(f".{target.name}@*"):  # left by a killed process: we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}@", dir=target.parent))
    try:
        _save(file, work / "model")
        if target.exists():
            os.replace(target, work / "damaged")
        os.replace(work / "model", target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _save(file: Path, folder: Path) -> None:
    """Move the weights into a model with a clean configuration, not marked as quantised, and save that."""
    here: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    dense: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **here)
        config = AutoConfig.from_pretrained(file.parent, **here)
        state = AutoModelForCausalLM.from_pretrained(file.parent, **here, **dense).state_dict()
    except Exception as error:  # a damaged file can break the parser anywhere
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"cannot read {str(file)!r} ({reason}); give a GGUF file of an architecture that transformers opens "
            "(it needs the package gguf), or a folder of safetensors"
        ) from error
    config.dtype = torch.float32
    with torch.device("meta"):  # no memory, and no random numbers, for weights that are replaced
        model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
