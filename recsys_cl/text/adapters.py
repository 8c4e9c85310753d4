"""Parameter-efficient fine-tuning (LoRA, AdaLoRA, IA³, prefix tuning): a few new weights on a frozen language model.

The layers to adapt are found by inspecting the transformer.

See: chapter 6.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import peft
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.pytorch_utils import Conv1D

from recsys_cl.errors import InputError

Linear = nn.Linear | Conv1D
"""A linear layer, with weights stored as ``(out, in)`` or, by GPT-2, as ``(in, out)``."""


def linear_layers(module: nn.Module) -> dict[str, Linear]:
    """Linear layers of the repeated blocks, by name, which excludes poolers and heads.

    Raises:
        InputError: If there are none.
    """
    blocks = [f"{name}." for name, part in module.named_modules() if isinstance(part, nn.ModuleList)]
    layers = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, Linear) and name.startswith(tuple(blocks))
    }
    if not layers:
        raise InputError(f"{type(module).__name__} has no linear layer in a list of blocks: only a prefix may work")
    return layers


def chosen_layers(layers: dict[str, Linear], targets: tuple[str, ...]) -> list[str]:
    """Names of the layers that end in one of the targets; without targets, all layers.

    Raises:
        InputError: If a target matches no layer.
    """
    for target in targets:
        if not any(_ends_in(name, target) for name in layers):
            known = ", ".join(dict.fromkeys(_within_block(name) for name in layers))
            raise InputError(f"adapter target {target!r} matches no linear layer: choose among {known}")
    return [name for name in layers if not targets or any(_ends_in(name, target) for target in targets)]


def keys_values_and_feed_forward(layers: dict[str, Linear]) -> list[str]:
    """Names of the layers that IA³ scales: keys, values, and the last layer of the feed-forward network.

    Raises:
        InputError: If name and shape do not identify them.
    """
    read = [name for name in layers if "att" in _within_block(name).lower() and name.rpartition(".")[2][0] in "kv"]
    last = [name for name, layer in layers.items() if closes_feed_forward(name, layer)]
    if not (read and last):
        known = ", ".join(dict.fromkeys(_within_block(name) for name in layers))
        raise InputError(f"IA³ cannot tell keys, values and feed-forward apart: give targets, among {known}")
    return read + last


def closes_feed_forward(name: str, layer: Linear) -> bool:
    """Whether a layer is the feed-forward network's down-projection; IA³ scales its input."""
    into, out = layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.T.shape
    return "att" not in _within_block(name).lower() and into > out


def _ends_in(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _within_block(name: str) -> str:
    """Name within the block: ``encoder.layer.11.attention.self.query`` becomes ``attention.self.query``."""
    parts = name.split(".")
    return ".".join(parts[max(place for place, part in enumerate(parts) if part.isdigit()) + 1 :])


AdapterKind = Literal["lora", "adalora", "ia3", "prefix"]

PREFIX_SCALE = 0.02
"""Scale of a new prefix: its vectors differ, but are small compared with a text's own keys and values."""


@dataclass(frozen=True)
class Adapter:
    r"""Adapter settings: what to add to a frozen layer :math:`W` or, by a prefix, to its attention.

    .. math::
        \text{lora:} \quad & W + \tfrac{\alpha}{r} B A, \qquad A \in \mathbb{R}^{r \times d}, B = 0 \\
        \text{adalora:} \quad & W + \tfrac{\alpha}{r} P \Lambda Q, \qquad
            \text{the least important } \lambda_i \text{ are set to 0 as training goes on} \\
        \text{ia3:} \quad & \operatorname{diag}(\ell) W, \qquad \ell = 1, \text{ on keys, values, feed-forward} \\
        \text{prefix:} \quad & r \text{ learned keys and values per layer, in front of the text's own}

    All except the prefix start as the identity: the adapted model initially computes what the original does.

    Attributes:
        kind: ``"lora"``, ``"adalora"``, ``"ia3"`` or ``"prefix"``.
        rank: :math:`r`, rank of the update (AdaLoRA starts with 1.5 times as much and ends with this on average), or
            the number of learned keys per layer of a prefix; IA³ ignores it.
        alpha: :math:`\alpha`, scale of the update of LoRA and AdaLoRA.
        dropout: Dropout probability on the input of the update of LoRA and AdaLoRA.
        targets: Suffixes of the names of the layers to adapt, such as ``("query", "value")``; by default the linear
            layers of all blocks (IA³: keys, values, and the last layer of the feed-forward network).
        steps: Optimiser steps of the whole run, over which AdaLoRA removes ranks.
        seed: Seed of the new weights.

    Raises:
        InputError: If the kind is unknown or a number is out of range.

    References:
        Hu et al. (2022), https://arxiv.org/abs/2106.09685; Zhang et al. (2023), https://arxiv.org/abs/2303.10512;
        Liu et al. (2022), https://arxiv.org/abs/2205.05638; Li & Liang (2021), https://arxiv.org/abs/2101.00190.

    See: chapter 6.
    """

    kind: AdapterKind = "lora"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    steps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(AdapterKind):
            raise InputError(f"unknown adapter {self.kind!r}: choose one of {', '.join(get_args(AdapterKind))}")
        if isinstance(self.targets, str):
            raise InputError(f"targets={self.targets!r} is one string: give a tuple, ({self.targets!r},)")
        if self.rank < 1:
            raise InputError(f"rank={self.rank} is too small: give 1 or more")
        if not self.alpha > 0:
            raise InputError(f"alpha={self.alpha} must be above 0; twice the rank is usual")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout} must be at least 0 and below 1")


def adapt(module: nn.Module, adapter: Adapter) -> peft.PeftModel:
    """Freeze a transformer and add an adapter, the only trainable part from then on.

    Args:
        module: A transformer without a head, such as ``LanguageEncoder.model``; changed in place.
        adapter: Settings of the adapter.

    Returns:
        The adapted transformer, with the interface of the original.

    Raises:
        InputError: If a target matches no layer, no layer can be found, AdaLoRA has no ``steps``, the network
            has an adapter already, or a prefix is combined with targets or gradient checkpointing.

    See: chapter 6.

    >>> from transformers import BertConfig, BertModel
    >>> size = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> bert = BertModel(BertConfig(**size, vocab_size=10, max_position_embeddings=8))
    >>> parameter_counts(adapt(bert, Adapter(rank=2, targets=("query", "value"))))[0]  # 2 layers x 2 x (8 + 8)
    64
    """
    if isinstance(module, peft.PeftModel):
        raise InputError("the model has an adapter already: merge it first, or load the model again")
    with without_known_warnings(), torch.random.fork_rng():
        if adapter.kind == "prefix" and getattr(module, "is_gradient_checkpointing", False):
            raise InputError("a prefix does not work with gradient checkpointing: switch one of them off")
        torch.manual_seed(adapter.seed)
        adapted = peft.get_peft_model(module, _configuration(module, adapter))
    if adapter.kind == "prefix":
        for weight in filter(lambda weight: weight.requires_grad, adapted.parameters()):
            weight.data.mul_(PREFIX_SCALE)
        del adapted.word_embeddings  # an unused alias of the base's embeddings: checkpoints reject shared tensors
    return adapted


def merge(module: nn.Module) -> nn.Module:
    """Merge an adapter into the weights that it changes: the same function without the extra computation.

    Args:
        module: Result of :func:`adapt`, trained or not; changed in place.

    Returns:
        The plain transformer.

    Raises:
        InputError: If there is no adapter, or it is a prefix, which changes no weight.
    """
    if not isinstance(module, peft.PeftModel):
        raise InputError("there is no adapter to merge: this model has none")
    if module.active_peft_config.is_prompt_learning:
        raise InputError("a prefix cannot be merged: it adds keys and values, not weights; save it as an adapter")
    merged: nn.Module = module.merge_and_unload()
    return merged


def parameter_counts(module: nn.Module) -> tuple[int, int]:
    """Number of trainable parameters, and of all parameters.

    >>> parameter_counts(nn.Linear(2, 3))
    (9, 9)
    """
    sizes = [(weight.numel(), weight.requires_grad) for weight in module.parameters()]
    return sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)


def orthogonality_penalty(module: nn.Module) -> Tensor:
    r"""AdaLoRA's regulariser, to be added to the loss: keeps the factors of an update close to orthogonal.

    .. math:: R = \frac{1}{2n} \sum_{k=1}^{n} \lVert P_k^\top P_k - I \rVert_F + \lVert Q_k Q_k^\top - I \rVert_F

    Only then are the magnitudes of the :math:`\lambda_i` comparable within an update. The authors use weights of 0.1 to
    0.5.

    Args:
        module: A network that may contain AdaLoRA layers.

    Returns:
        A scalar; 0 without such layers.

    References:
        Zhang et al. (2023), equation 4, https://arxiv.org/abs/2303.10512.
    """
    factors = [
        rows
        for tuner in _rank_allocating(module)
        for name, weight in tuner.named_parameters()
        for rows in ([weight] if ".lora_A." in name else [weight.T] if ".lora_B." in name else [])
    ]  # each (r, d)
    if not factors:
        return torch.zeros(())
    gaps = [rows @ rows.T - torch.eye(len(rows), device=rows.device) for rows in factors]  # each (r, r)
    return torch.stack([torch.linalg.matrix_norm(gap) for gap in gaps]).mean()


def allocate_ranks(module: nn.Module, step: int) -> None:
    r"""AdaLoRA's rank allocation: remove the least important ranks, over the whole network.

    The importance of a triplet is the running mean of :math:`|w \, \partial L / \partial w|` over its weights. Between
    a tenth and two thirds of the run the budget falls along a cubic from the initial rank to the final one.

    Args:
        module: A network that may contain AdaLoRA layers; without them nothing happens.
        step: Number of the optimiser step just made, from 1; its gradients must still be present.
    """
    for tuner in _rank_allocating(module):
        tuner.update_and_allocate(step)


class RankAllocation(TrainerCallback):
    """Call :func:`allocate_ranks` after each step of ``transformers.Trainer``, while the gradients are present.

    A resumed run keeps removed ranks removed, and restarts the running means of the importance of the others.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the ranks of a resumed run from its weights, where removed ranks are exactly 0."""
        for tuner in _rank_allocating(kwargs["model"]) if state.global_step else ():
            scales = {name: weight for name, weight in tuner.model.named_parameters() if ".lora_E." in name}
            config: Any = tuner.peft_config[tuner.trainable_adapter_name]
            config.rank_pattern = {name: (weight != 0).flatten().tolist() for name, weight in scales.items()}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove ranks."""
        allocate_ranks(kwargs["model"], state.global_step + 1)


def _rank_allocating(module: nn.Module) -> Iterator[peft.AdaLoraModel]:
    return (part for part in module.modules() if isinstance(part, peft.AdaLoraModel))


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """Suppress warnings that no caller can act on.

    Transformers announces new names for gradient checkpointing that neither peft nor its own version 5.0 uses; peft
    looks for the ranks of a saved AdaLoRA under wrong names before it finds them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*rank_pattern keys did not match", category=RuntimeWarning)
        yield


def _configuration(module: nn.Module, adapter: Adapter) -> peft.PeftConfig:
    task = peft.TaskType.FEATURE_EXTRACTION
    if adapter.kind == "prefix":
        if adapter.targets:
            raise InputError(f"a prefix has no targets, {adapter.targets} was given: omit them")
        return peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=adapter.rank)
    layers = linear_layers(module)
    if adapter.kind == "ia3":
        names = chosen_layers(layers, adapter.targets) if adapter.targets else keys_values_and_feed_forward(layers)
        last = [name for name in names if closes_feed_forward(name, layers[name])]
        return peft.IA3Config(task_type=task, target_modules=names, feedforward_modules=last)
    names = chosen_layers(layers, adapter.targets)
    common: dict[str, Any] = {
        "task_type": task,
        "target_modules": names,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "fan_in_fan_out": any(isinstance(layers[name], Conv1D) for name in names),
    }
    if adapter.kind == "lora":
        return peft.LoraConfig(r=adapter.rank, **common)
    if adapter.steps < 1:
        raise InputError(f"steps={adapter.steps}: AdaLoRA removes ranks over a run; give its number of steps")
    return peft.AdaLoraConfig(
        init_r=adapter.rank + math.ceil(adapter.rank / 2),
        target_r=adapter.rank,
        tinit=adapter.steps // 10,
        tfinal=adapter.steps // 3,
        deltaT=max(1, adapter.steps // 100),
        total_step=adapter.steps,
        **common,
    )
