"""The transformer inside an encoder: loaded when it is first asked for, adapted, in the precision asked for.

See: chapter 6.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import peft
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from recsys_cl.encoders.adapters import Adapter, adapt, merge, without_known_warnings
from recsys_cl.encoders.loading import file_digests, find_pretrained
from recsys_cl.encoders.packing import packed_weights
from recsys_cl.encoders.saving import SavedAdapter, save_adapter, save_model
from recsys_cl.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]


class Backbone:
    """A transformer without head, from token ids to hidden states.

    Args:
        model: See :class:`~recsys_cl.encoders.language.LanguageEncoder`.
        revision: Of a hub name.
        saved: Adapter that ``model`` is the base of.
        adapter: Adapter to add.
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        checkpointing: Whether blocks are computed again in the backward pass.
        device: Where it runs.

    Attributes:
        config: Configuration of the whole model.
        tokenizer: Its tokenizer.
        dim: Length of a hidden state.
        context: Tokens that positions and tokenizer allow; a prefix takes some of the former.
    """

    def __init__(
        self,
        model: str,
        revision: str | None,
        *,
        saved: SavedAdapter | None,
        adapter: Adapter | None,
        precision: Precision,
        checkpointing: bool,
        device: torch.device,
    ) -> None:
        found = find_pretrained(model, revision)
        self.config = found.load(AutoConfig)
        self._pretrained = found.at_commit(getattr(self.config, "_commit_hash", None))
        self.tokenizer = self._pretrained.load(AutoTokenizer)
        text = self.config.get_text_config(**({"encoder": True} if self.config.is_encoder_decoder else {}))
        self.dim = int(text.hidden_size)
        prefix = saved.virtual_tokens if saved else adapter.rank if adapter and adapter.kind == "prefix" else 0
        positions = getattr(text, "max_position_embeddings", None)
        limits = (self.tokenizer.model_max_length, positions and positions - prefix)
        self.context = int(min(limit for limit in limits if limit and limit > 0))
        self._saved, self._adapter, self._checkpointing = saved, adapter, checkpointing
        self._precision, self._device = precision, device
        self._module: nn.Module | None = None

    @property
    def module(self) -> nn.Module:
        """The transformer, in evaluation mode when it has just been loaded."""
        if self._module is None:
            self._whole = self._pretrained.load(AutoModel, use_safetensors=True, dtype=torch.float32)
            module = self._whole.get_encoder() if self.config.is_encoder_decoder else self._whole
            caches = "use_cache" in inspect.signature(module.forward).parameters
            self._arguments = {"use_cache": False} if caches else {}  # keys and values of a decoder: never asked for
            if self._checkpointing:
                _checkpoint(module)
            if self._saved:
                module = self._saved.load(module)
            if self._adapter:
                module = adapt(module, self._adapter)
            self._module = module.to(self._device).eval()
        return self._module

    @property
    def half(self) -> torch.dtype | None:
        """What autocast computes in; None without it."""
        if self._precision == "bfloat16":
            return torch.bfloat16
        if self._precision == "float32" or self._device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states of the last layer, ``(batch, tokens, dim)`` float32, with gradient."""
        module = self.module
        autocast: AbstractContextManager[Any] = nullcontext()
        if self.half:
            autocast = torch.autocast(self._device.type, dtype=self.half)
        with autocast:
            output = module(input_ids=input_ids, attention_mask=attention_mask, **self._arguments)
        return output.last_hidden_state.float()  # (B, T, d)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Neither gradient nor dropout, and the fastest arithmetic there is; the mode is as it was afterwards."""
        module = self.module
        training = module.training
        module.eval()
        try:
            with torch.inference_mode(), nullcontext() if self.half else packed_weights(module):
                yield
        finally:
            module.train(training)

    def merge(self) -> None:
        """Fold the adapter into the weights.

        Raises:
            InputError: If there is no adapter, or it is a prefix.
        """
        self._module = merge(self.module)
        self._saved = self._adapter = None

    def save(self, folder: Path) -> None:
        """Write the adapter, where there is one, else the whole model and its tokenizer."""
        if isinstance(self.module, peft.PeftModel):
            base, revision = self._pretrained.reference, self._pretrained.revision
            save_adapter(self.module, folder, base=base, revision=revision)
        else:
            save_model(self._whole, self.tokenizer, folder)

    def identity(self) -> list[object]:
        """What differs whenever a hidden state may: the model's content, its adapter, the arithmetic."""
        added = file_digests(self._saved.folder) if self._saved else None
        return [self._pretrained.identity(), added, repr(self._adapter), str(self.half), self._device.type]


def _checkpoint(module: Any) -> None:
    try:
        with without_known_warnings():
            module.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"{type(module).__name__} has no gradient checkpointing: leave checkpointing out") from error
