"""Training runs with ``transformers.Trainer``: early stopping on a ranking metric, exact resume, safe checkpoints.

See: chapter 5, chapter 11.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState, TrainingArguments

from recsys_cl.errors import InputError
from recsys_cl.provenance import provenance
from recsys_cl.training.checkpoints import check_fit, claim, newest_checkpoint
from recsys_cl.training.examples import Examples
from recsys_cl.training.trainer import EpochBar, RankingTrainer


@dataclass(frozen=True)
class Execution:
    r"""Execution settings of a run: they change its cost, and hardly its result.

    **Gradient accumulation.** The loss of a batch is a mean over its target events, whose number varies between batches
    of ragged windows. With :math:`n_m` events in batch m, each loss is weighted by its number of events, so

    .. math:: \nabla L = \frac{\sum_m n_m \nabla L_m}{\sum_m n_m}

    is the gradient of one batch that holds them all. This is exact up to rounding if the loss of an event depends on
    that event only (softmax over the catalogue, binary losses with each event's own negatives, masked items). It is not
    exact if events interact within a batch: contrasts of views or towers see only the negatives of their own part, and
    shared negatives and dropped ids are drawn once per part. Dropout draws other random numbers.

    Attributes:
        precision: ``"bfloat16"`` computes matrix products in bfloat16 and keeps weights in ``"float32"``; ``"auto"``
            does so on a GPU that supports it.
        accumulate: Number of batches per optimiser step.
        checkpoints: Number of newest checkpoints to keep.

    See: chapter 11.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    accumulate: int = 1
    checkpoints: int = 3


@dataclass(frozen=True)
class TrainingConfig(Execution):
    """Optimisation settings; the model defines the loss.

    Attributes:
        epochs: Maximum number of passes over the examples.
        batch_size: Examples per batch and device.
        learning_rate: Peak learning rate of AdamW.
        warmup: Steps over which the learning rate rises from zero.
        schedule: Learning rate after the warm-up: ``"constant"``, or ``"linear"`` decay to zero at the last epoch.
        weight_decay: Decoupled weight decay of all weights except biases and norms; it includes the logarithm of a
            temperature.
        patience: Epochs without a better validation metric before training stops.
        seed: Seed of weights, order, dropout and augmentations.
        metric: Validation metric; larger is better.
        keep: ``"best"`` stops by the validation metric and keeps the best epoch; ``"last"`` trains for all epochs and
            keeps the last, which is preferable if validation has too few queries to distinguish epochs.
    """

    epochs: int = 20
    batch_size: int = 512
    learning_rate: float = 3e-3
    warmup: int = 50
    weight_decay: float = 0.0
    patience: int = 3
    seed: int = 0
    metric: str = "ndcg@10"
    schedule: Literal["constant", "linear"] = "constant"
    keep: Literal["best", "last"] = "best"


@dataclass(frozen=True)
class TrainingReport:
    """Summary of a training run.

    Attributes:
        best: Best validation metric.
        epochs: Number of epochs trained.
        seconds: Wall time in seconds.
        history: One entry per epoch: number, training loss and validation metrics.
    """

    best: float
    epochs: int
    seconds: float
    history: list[dict[str, float]]


def train(
    model: nn.Module,
    examples: Examples,
    *,
    validate: Callable[[], dict[str, float]],
    config: TrainingConfig,
    settings: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingReport:
    """Train a model in place; it ends with the weights of its best epoch, or of its last.

    A checkpoint is written after every epoch. With the same seed, device and number of threads, a run that is killed
    and resumed ends with the same weights as an uninterrupted one.

    Args:
        model: Module whose ``forward(**batch)`` returns ``{"loss": ...}``.
        examples: Training examples.
        validate: Returns metrics of the current model, including ``config.metric``.
        config: Optimisation settings.
        settings: Other settings that the run depends on (the model's hyperparameters), stored with the checkpoints.
        folder: Folder for checkpoints, TensorBoard logs and ``run.json``; by default a temporary one.
        resume: Continue from the newest intact checkpoint in ``folder``.
        callbacks: Further callbacks of the trainer, such as AdaLoRA's rank allocation.

    Raises:
        InputError: If a run is to be resumed without a folder, without an intact checkpoint, with settings that must
            not change, or from a checkpoint of another network; if a new run is given the folder of another run; if
            several processes are given no folder; if the GPU does not support bfloat16.
        TrainingError: If the loss is NaN or infinite; names the step, the learning rate and the last good checkpoint.

    See: chapter 5.
    """
    if resume and folder is None:
        raise InputError("there is nothing to resume without a folder; pass the folder of the interrupted run")
    if folder is None and _several_processes():
        raise InputError("several processes must share their checkpoints; pass a folder that all of them see")
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        if folder is not None:
            processes = int(os.environ.get("WORLD_SIZE", "1"))
            claim(Path(folder), {**asdict(config), **(settings or {}), "processes": processes}, resume=resume)
        checkpoint = newest_checkpoint(place) if resume else None
        if checkpoint is not None:
            check_fit(checkpoint, model)
        left = _left(config, checkpoint)
        trainer = _trainer(model, examples, validate, left, Path(place), callbacks, keep_logs=folder is not None)
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        report = _report(trainer.state, time.perf_counter() - started, config.metric)
        if folder is not None and trainer.is_world_process_zero():
            _write_run(Path(folder), config, report)
    return report


def _left(config: TrainingConfig, checkpoint: Path | None) -> TrainingConfig:
    """The config, without remaining epochs if the resumed run had already stopped early."""
    if checkpoint is None:
        return config
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    stopped = state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
    return replace(config, epochs=round(state["epoch"])) if stopped else config


def _several_processes() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _trainer(
    model: nn.Module,
    examples: Examples,
    validate: Callable[[], dict[str, float]],
    config: TrainingConfig,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
    *,
    keep_logs: bool,
) -> RankingTrainer:
    if config.accumulate < 1 or config.checkpoints < 1:
        raise InputError(f"accumulate={config.accumulate}, checkpoints={config.checkpoints}; give 1 or more")
    cuda = torch.cuda.is_available()
    cpu = not cuda and not torch.backends.mps.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type="linear" if config.schedule == "linear" else "constant_with_warmup",
        warmup_steps=config.warmup,
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and _several_processes() else None,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # texts, counts and known positives are constants
        bf16=_half(config.precision, cuda=cuda),
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # NaN and infinity stop the run
        save_total_limit=config.checkpoints,
        load_best_model_at_end=config.keep == "best",
        metric_for_best_model=config.metric,
        greater_is_better=True,
        report_to=["tensorboard"] if keep_logs else [],
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping survives a resume
        disable_tqdm=True,
        log_level="error",
        seed=config.seed,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process per device: DataParallel would split batches
    trainer = RankingTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        eval_dataset=examples,  # required by Trainer but unused: RankingTrainer.evaluate ranks instead
        data_collator=examples.collate,
        validate=validate,
        keeps_checkpoints=keep_logs,
        callbacks=[
            *([EarlyStoppingCallback(config.patience)] if config.keep == "best" else []),
            EpochBar(),
            *callbacks,
        ],
    )
    for printer in [one for one in trainer.callback_handler.callbacks if type(one).__name__ == "PrinterCallback"]:
        trainer.remove_callback(printer)
    return trainer


def _half(precision: str, *, cuda: bool) -> bool:
    """Whether matrix products are computed in bfloat16."""
    able = cuda and torch.cuda.is_bf16_supported()
    if precision == "bfloat16" and cuda and not able:
        raise InputError("precision='bfloat16' is not supported by this GPU; use float32 or auto")
    return precision == "bfloat16" or (precision == "auto" and able)


def _report(state: TrainerState, seconds: float, metric: str) -> TrainingReport:
    epochs: dict[float, dict[str, float]] = {}
    for entry in state.log_history:
        row = epochs.setdefault(entry["epoch"], {"epoch": entry["epoch"]})
        row.update(
            {key.removeprefix("eval_"): value for key, value in entry.items() if key.startswith(("eval_", "loss"))}
        )
    history = [row for row in epochs.values() if metric in row]
    return TrainingReport(
        best=max(row[metric] for row in history), epochs=len(history), seconds=seconds, history=history
    )


def _write_run(folder: Path, config: TrainingConfig, report: TrainingReport) -> None:
    run = {
        "config": asdict(config),
        "report": asdict(report),
        **provenance(),
    }
    (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n")
