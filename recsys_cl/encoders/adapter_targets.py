"""Which layers of a transformer an adapter changes, found by looking at it.

See: chapter 6.
"""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from recsys_cl.errors import InputError

Linear = nn.Linear | Conv1D
"""A matrix, stored as ``(out, in)`` or, by GPT-2, as ``(in, out)``."""


def linear_layers(module: nn.Module) -> dict[str, Linear]:
    """Linear layers of the repeated blocks, by name; so neither a pooler nor a head is among them.

    Raises:
        InputError: If there is none.
    """
    blocks = [f"{name}." for name, part in module.named_modules() if isinstance(part, nn.ModuleList)]
    layers = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, Linear) and name.startswith(tuple(blocks))
    }
    if not layers:
        raise InputError(f"{type(module).__name__} has no linear layer in a list of blocks: only a prefix may fit it")
    return layers


def chosen_layers(layers: dict[str, Linear], targets: tuple[str, ...]) -> list[str]:
    """Names of the layers that end in one of the targets; all if there are none.

    Raises:
        InputError: If a target matches no layer.
    """
    for target in targets:
        if not any(_ends_in(name, target) for name in layers):
            known = ", ".join(dict.fromkeys(_within_block(name) for name in layers))
            raise InputError(f"adapter target {target!r} matches no linear layer: choose among {known}")
    return [name for name in layers if not targets or any(_ends_in(name, target) for target in targets)]


def keys_values_and_feed_forward(layers: dict[str, Linear]) -> list[str]:
    """Names of the layers that IA³ scales: keys, values, and what closes the feed-forward.

    Raises:
        InputError: If they cannot be told apart by name and shape.
    """
    read = [name for name in layers if "att" in _within_block(name).lower() and name.rpartition(".")[2][0] in "kv"]
    last = [name for name, layer in layers.items() if closes_feed_forward(name, layer)]
    if not (read and last):
        known = ", ".join(dict.fromkeys(_within_block(name) for name in layers))
        raise InputError(f"IA³ cannot tell keys, values and feed-forward apart: give targets, among {known}")
    return read + last


def closes_feed_forward(name: str, layer: Linear) -> bool:
    """Whether a layer leads back from the feed-forward's larger width; IA³ scales what goes into it."""
    into, out = layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.T.shape
    return "att" not in _within_block(name).lower() and into > out


def _ends_in(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _within_block(name: str) -> str:
    """``encoder.layer.11.attention.self.query`` is ``attention.self.query``, whatever the block."""
    parts = name.split(".")
    return ".".join(parts[max(place for place, part in enumerate(parts) if part.isdigit()) + 1 :])
