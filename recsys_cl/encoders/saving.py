"""What a saved encoder's folder holds besides weights: the options that its vectors depend on, and an adapter.

An adapter's folder holds the adapter alone, with the name of the model that it belongs to.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
from safetensors import SafetensorError
from torch import nn

from recsys_cl.encoders.adapters import without_known_warnings
from recsys_cl.encoders.pooling import Pooling
from recsys_cl.errors import InputError

OPTIONS = "encoder.json"
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Options:
    """How an encoder reads a text and what it makes of the hidden states.

    Attributes:
        pooling: ``"mean"``, ``"cls"`` or ``"last"``.
        normalize: Whether vectors have unit length.
        max_length: Tokens after which a text is cut.
    """

    pooling: Pooling = "mean"
    normalize: bool = True
    max_length: int = 256

    def save(self, folder: Path) -> None:
        """Write them to a folder."""
        (folder / OPTIONS).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def saved_options(folder: Path | None) -> Options:
    """The options in a folder; the defaults for one that somebody else made, or for none.

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
    """An adapter in a folder.

    Attributes:
        folder: Where it lies.
        base: The model that it belongs to.
        revision: Of that model.
        virtual_tokens: How many places in the context a prefix takes.
    """

    folder: Path
    base: str
    revision: str | None
    virtual_tokens: int

    def load(self, module: nn.Module) -> peft.PeftModel:
        """Add it to the model that it belongs to, ready to be trained further.

        Raises:
            InputError: If it does not fit.
        """
        try:
            with without_known_warnings():
                adapted = peft.PeftModel.from_pretrained(module, str(self.folder), is_trainable=not self.virtual_tokens)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(f"the adapter in {str(self.folder)!r} does not fit {self.base!r} ({reason})") from error
        if self.virtual_tokens:  # peft loads a prefix for use alone
            adapted.prompt_encoder.requires_grad_(True)
        return adapted


def saved_adapter(folder: Path | None) -> SavedAdapter | None:
    """The adapter in a folder; None where there is none.

    Raises:
        InputError: If its description cannot be read, or its weights are missing.
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
    """Write an adapter and the name of the model that it belongs to."""
    config = module.active_peft_config
    config.base_model_name_or_path, config.revision = base, revision
    module.save_pretrained(str(folder), save_embedding_layers=False)


def save_model(module: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model of transformers as a whole, with its tokenizer."""
    (folder / ADAPTER).unlink(missing_ok=True)  # of an earlier save: it would be taken for this one's
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
