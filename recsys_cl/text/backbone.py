"""Transformer backbone: loaded lazily, with an optional adapter, a choice of precision and packed weights.

Packed weights are laid out once for oneDNN's kernels, for faster matrix products on a CPU. PyTorch multiplies float32
matrices with MKL, which leaves half of the speed of some processors unused (measured on one core of an AMD EPYC with
AVX-512: 85 GFLOP/s against 190 with packed weights); where MKL is as fast, nothing is lost.

See: chapter 6.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeGuard

import peft
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from recsys_cl.errors import InputError
from recsys_cl.text.adapters import Adapter, adapt, merge, without_known_warnings
from recsys_cl.text.storage import SavedAdapter, file_digests, find_pretrained, save_adapter, save_model

LARGEST = 10**9
"""Maximum number of weights for which a packed copy is made."""


@contextmanager
def packed_weights(module: nn.Module) -> Iterator[None]:
    """Context manager: run the linear layers of a float32 model on a CPU with packed weights, without gradient.

    Only the order of additions changes. The packed copies are dropped at the end, because the weights may change later.
    If oneDNN is missing or does not apply, the layers run unchanged.

    Args:
        module: Any network.

    >>> layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    >>> with torch.inference_mode(), packed_weights(layer):
    ...     packed = layer(x)
    >>> torch.testing.assert_close(packed, layer(x).detach())
    """
    layers = [part for part in module.modules() if _can_be_packed(part) and _has_onednn()]
    if sum(layer.weight.numel() for layer in layers) > LARGEST:
        layers = []
    try:
        for layer in layers:
            packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
            layer.__dict__["forward"] = partial(_linear, packed, layer.bias)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _linear(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _has_onednn() -> bool:
    """Whether the operators exist: ``torch.compile`` uses them, but they are not part of PyTorch's public API."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def _can_be_packed(part: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether this is a plain linear layer: a subclass or a patched layer may compute something else."""
    return (
        type(part) is nn.Linear
        and "forward" not in part.__dict__
        and part.weight.device.type == "cpu"
        and part.weight.dtype == torch.float32
    )


Precision = Literal["auto", "float32", "bfloat16"]


class Backbone:
    """A transformer without a head, from token ids to hidden states.

    Args:
        model: Name or path of the model; see :class:`~recsys_cl.text.encoder.LanguageEncoder`.
        revision: Commit, tag or branch of a hub name.
        saved: Saved adapter whose base is ``model``.
        adapter: New adapter to add.
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        checkpointing: Whether to recompute blocks in the backward pass (gradient checkpointing).
        device: Device to run on.

    Attributes:
        config: Configuration of the whole model.
        tokenizer: Tokenizer of the model.
        dim: Width of a hidden state.
        context: Maximum number of tokens, limited by the positions (less those of a prefix) and the tokenizer.
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
        """The transformer, loaded on first access, in evaluation mode."""
        if self._module is None:
            self._whole = self._pretrained.load(AutoModel, use_safetensors=True, dtype=torch.float32)
            module = self._whole.get_encoder() if self.config.is_encoder_decoder else self._whole
            caches = "use_cache" in inspect.signature(module.forward).parameters
            self._arguments = {"use_cache": False} if caches else {}  # a decoder's keys and values are never used
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
        """Data type of autocast; ``None`` without autocast."""
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
        """Context manager: no gradient, no dropout, fastest available arithmetic; restores the mode afterwards."""
        module = self.module
        training = module.training
        module.eval()
        try:
            with torch.inference_mode(), nullcontext() if self.half else packed_weights(module):
                yield
        finally:
            module.train(training)

    def merge(self) -> None:
        """Merge the adapter into the weights.

        Raises:
            InputError: If there is no adapter, or it is a prefix.
        """
        self._module = merge(self.module)
        self._saved = self._adapter = None

    def save(self, folder: Path) -> None:
        """Write the adapter if there is one, otherwise the whole model and its tokenizer."""
        if isinstance(self.module, peft.PeftModel):
            base, revision = self._pretrained.reference, self._pretrained.revision
            save_adapter(self.module, folder, base=base, revision=revision)
        else:
            save_model(self._whole, self.tokenizer, folder)

    def identity(self) -> list[object]:
        """Cache key of the hidden states: the model's content, its adapter and the arithmetic."""
        added = file_digests(self._saved.folder) if self._saved else None
        return [self._pretrained.identity(), added, repr(self._adapter), str(self.half), self._device.type]


def _checkpoint(module: Any) -> None:
    try:
        with without_known_warnings():
            module.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"{type(module).__name__} has no gradient checkpointing: omit checkpointing") from error
