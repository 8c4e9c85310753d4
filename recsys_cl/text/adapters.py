"""Parameter-efficient fine-tuning: a few new weights learn, the language model's own stay as they are.

Which layers of a transformer an adapter changes is found by looking at it.

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


AdapterKind = Literal["lora", "adalora", "ia3", "prefix"]

PREFIX_SCALE = 0.02
"""Standard deviation of a new prefix: unlike each other, but small beside a text's own keys and values."""


@dataclass(frozen=True)
class Adapter:
    r"""What is added to a frozen layer :math:`W` (or, by a prefix, to its attention).

    .. math::
        \text{lora:} \quad & W + \tfrac{\alpha}{r} B A, \qquad A \in \mathbb{R}^{r \times d}, B = 0 \\
        \text{adalora:} \quad & W + \tfrac{\alpha}{r} P \Lambda Q, \qquad
            \text{the least important } \lambda_i \text{ are set to 0 as training goes on} \\
        \text{ia3:} \quad & \operatorname{diag}(\ell) W, \qquad \ell = 1, \text{ on keys, values, feed-forward} \\
        \text{prefix:} \quad & r \text{ learned keys and values per layer, in front of the text's own}

    All but the prefix begin as the identity: the adapted model starts where the original stands.

    Attributes:
        kind: ``"lora"``, ``"adalora"``, ``"ia3"`` or ``"prefix"``.
        rank: :math:`r`: of the update (AdaLoRA begins with half as much again and ends with this on average), or
            the number of learned keys per layer; IA³ has none.
        alpha: Scale of the update of LoRA and AdaLoRA.
        dropout: On the input of the update of LoRA and AdaLoRA.
        targets: Ends of the names of the layers to adapt, such as ``("query", "value")``; by default the linear layers
            of all blocks (IA³: keys, values, and the feed-forward's last).
        steps: Optimiser steps of the whole run, over which AdaLoRA takes away ranks.
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
            raise InputError(f"alpha={self.alpha} has to be above 0; twice the rank is usual")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout} has to be at least 0 and below 1")


def adapt(module: nn.Module, adapter: Adapter) -> peft.PeftModel:
    """Freeze a transformer and add an adapter, the only part that learns from here on.

    Args:
        module: A transformer without head, as ``LanguageEncoder.model`` gives it; changed in place.
        adapter: What to add, and where.

    Returns:
        The adapted transformer, which is called like the original.

    Raises:
        InputError: If a target matches no layer, no layer can be found, AdaLoRA has no ``steps``, or a prefix meets
            targets, a network that is adapted already or gradient checkpointing.

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
        del adapted.word_embeddings  # a second name of the base's, which a prefix never reads: no checkpoint takes two
    return adapted


def merge(module: nn.Module) -> nn.Module:
    """Fold an adapter into the weights that it changes: the same function without the extra work.

    Args:
        module: What :func:`adapt` gave, trained or not; changed in place.

    Returns:
        The plain transformer.

    Raises:
        InputError: If there is no adapter, or it is a prefix, which changes no weight.
    """
    if not isinstance(module, peft.PeftModel):
        raise InputError("there is no adapter to merge: this is a model as it was loaded")
    if module.active_peft_config.is_prompt_learning:
        raise InputError("a prefix cannot be merged: it adds keys and values, not weights; save it as an adapter")
    merged: nn.Module = module.merge_and_unload()
    return merged


def parameter_counts(module: nn.Module) -> tuple[int, int]:
    """Numbers of parameters: those that learn, and all.

    >>> parameter_counts(nn.Linear(2, 3))
    (9, 9)
    """
    sizes = [(weight.numel(), weight.requires_grad) for weight in module.parameters()]
    return sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)


def orthogonality_penalty(module: nn.Module) -> Tensor:
    r"""AdaLoRA's regulariser, to be added to the loss: keeps the triplets of an update apart.

    .. math:: R = \frac{1}{2n} \sum_{k=1}^{n} \lVert P_k^\top P_k - I \rVert_F + \lVert Q_k Q_k^\top - I \rVert_F

    Only so is the size of :math:`\lambda_i` comparable within an update. The authors weigh it by 0.1 to 0.5.

    Args:
        module: A network with AdaLoRA layers somewhere in it.

    Returns:
        A scalar; 0 where there is no such layer.

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
    r"""AdaLoRA's step: take ranks from the updates that need them least, over the whole network.

    A triplet counts as much as the running mean of :math:`|w \, \partial L / \partial w|` over its weights. Between a
    tenth and two thirds of the run the budget falls along a cubic from the first rank to the last.

    Args:
        module: A network with AdaLoRA layers somewhere in it; without them nothing happens.
        step: Number of the optimiser step just made, from 1; the gradients have to be there still.
    """
    for tuner in _rank_allocating(module):
        tuner.update_and_allocate(step)


class RankAllocation(TrainerCallback):
    """Calls :func:`allocate_ranks` when ``transformers.Trainer`` has made a step and still has its gradients.

    A resumed run keeps the ranks that were taken away, and begins anew to average what the others are worth.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read the ranks of a resumed run off its weights, where those taken away are exactly 0."""
        for tuner in _rank_allocating(kwargs["model"]) if state.global_step else ():
            scales = {name: weight for name, weight in tuner.model.named_parameters() if ".lora_E." in name}
            config: Any = tuner.peft_config[tuner.trainable_adapter_name]
            config.rank_pattern = {name: (weight != 0).flatten().tolist() for name, weight in scales.items()}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take away ranks."""
        allocate_ranks(kwargs["model"], state.global_step + 1)


def _rank_allocating(module: nn.Module) -> Iterator[peft.AdaLoraModel]:
    return (part for part in module.modules() if isinstance(part, peft.AdaLoraModel))


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """Leave out warnings that no caller can do anything about.

    Transformers announces new names for gradient checkpointing, of which peft and its own 5.0 do not know; peft looks
    for the ranks of a saved AdaLoRA under names that are not theirs, before it finds them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*rank_pattern keys did not match", category=RuntimeWarning)
        yield


def _configuration(module: nn.Module, adapter: Adapter) -> peft.PeftConfig:
    task = peft.TaskType.FEATURE_EXTRACTION
    if adapter.kind == "prefix":
        if adapter.targets:
            raise InputError(f"a prefix has no targets, {adapter.targets} was given: leave them out")
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
        raise InputError(f"steps={adapter.steps}: AdaLoRA takes ranks away over a run; give its number of steps")
    return peft.AdaLoraConfig(
        init_r=adapter.rank + math.ceil(adapter.rank / 2),
        target_r=adapter.rank,
        tinit=adapter.steps // 10,
        tfinal=adapter.steps // 3,
        deltaT=max(1, adapter.steps // 100),
        total_step=adapter.steps,
        **common,
    )
