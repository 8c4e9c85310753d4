"""Training by ``transformers.Trainer``: early stopping on a ranking metric, exact resume, safe checkpoints."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from tqdm.auto import tqdm
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from recsys_cl.errors import InputError
from recsys_cl.evaluation.ranking import SLOW
from recsys_cl.provenance import provenance
from recsys_cl.training.examples import EpochShuffle, Key


@dataclass(frozen=True)
class TrainingConfig:
    """How to optimise; what to optimise is the model's business.

    Attributes:
        epochs: At most this many passes over the examples.
        batch_size: Examples per step and device.
        learning_rate: Peak of AdamW's learning rate.
        warmup: Steps over which it rises from zero.
        schedule: What it does after that: ``"constant"``, or ``"linear"`` decay to zero at the last epoch.
        weight_decay: Decoupled weight decay.
        patience: Epochs without a better validation metric before training stops.
        accumulate: Steps whose gradients are summed before the optimiser acts.
        seed: Seed of weights, order, dropout and augmentations.
        metric: Validation metric, the larger, the better.
        keep: ``"best"`` stops by the validation metric and keeps the best epoch; ``"last"`` trains for all epochs and
            keeps the last, which is wiser where validation has too few queries to tell epochs apart.
    """

    epochs: int = 20
    batch_size: int = 512
    learning_rate: float = 3e-3
    warmup: int = 50
    weight_decay: float = 0.0
    patience: int = 3
    accumulate: int = 1
    seed: int = 0
    metric: str = "ndcg@10"
    schedule: Literal["constant", "linear"] = "constant"
    keep: Literal["best", "last"] = "best"


class Examples(Protocol):
    """A data set of keys that cuts whole batches."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Key: ...

    def collate(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """The batch that the model's ``forward`` takes."""
        ...


@dataclass(frozen=True)
class TrainingReport:
    """What a training run did.

    Attributes:
        best: Best validation metric.
        epochs: Epochs run.
        seconds: Wall time.
        history: One entry per epoch: its number, training loss and validation metrics.
    """

    best: float
    epochs: int
    seconds: float
    history: list[dict[str, float]]


class RankingTrainer(Trainer):
    """A ``Trainer`` that shuffles without state and validates by ranking.

    The model's ``forward`` takes a collated batch and returns ``{"loss": ...}``.
    """

    model: nn.Module
    train_dataset: Examples

    def __init__(self, *, validate: Callable[[], dict[str, float]], **options: Any) -> None:
        super().__init__(**options)
        self.validate = validate

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[Key]:
        return EpochShuffle(len(self.train_dataset), seed=self.args.seed)

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Rank the validation queries; ``config.metric`` steers early stopping and the choice of checkpoint."""
        self.model.eval()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.validate().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class EpochBar(TrainerCallback):
    """A bar over epochs with the validation metric, on standard error, for runs of more than a few seconds."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar."""
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="training",
            delay=SLOW,
            leave=False,
            disable=not state.is_world_process_zero,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move it."""
        self.bar.update(1)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the latest validation metric."""
        metric = args.metric_for_best_model
        self.bar.set_postfix_str(f"validation {metric} {state.log_history[-1][f'eval_{metric}']:.4f}", refresh=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close it."""
        self.bar.close()


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
    """Train a model in place and leave it with the weights of its best epoch, or of its last.

    A checkpoint is written after every epoch. With the same seed, device and number of threads, a run that
    was killed and resumed ends with the same weights as one that was not.

    Args:
        model: ``forward(**batch)`` gives ``{"loss": ...}``.
        examples: Training examples.
        validate: Metrics of the model as it is, among them ``ndcg@10``.
        config: How to optimise.
        settings: What else the run depends on (the model's hyperparameters); kept beside the checkpoints.
        folder: Where checkpoints, TensorBoard logs and ``run.json`` go; by default nowhere that stays.
        resume: Go on from the newest intact checkpoint in ``folder``.
        callbacks: What else the trainer calls, such as AdaLoRA's allocation of ranks.

    Raises:
        InputError: If asked to resume without a folder, where there is no intact checkpoint, or with other
            settings; if a fresh run is given the folder of another; if several processes are given no folder.

    See: chapter 5.
    """
    if resume and folder is None:
        raise InputError("there is nothing to resume without a folder; pass the folder of the interrupted run")
    if folder is None and _several_processes():
        raise InputError("several processes must share their checkpoints; pass a folder that all of them see")
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        checkpoint = newest_checkpoint(place) if resume else None
        if folder is not None:
            _claim(Path(folder), {**asdict(config), **(settings or {})}, resume=resume)
        trainer = _trainer(model, examples, validate, config, Path(place), callbacks, keep_logs=folder is not None)
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        report = _report(trainer.state, time.perf_counter() - started, config.metric)
        if folder is not None and trainer.is_world_process_zero():
            _write_run(Path(folder), config, report)
    return report


def _claim(folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Write the settings of a fresh run, or check that a resumed run has the same."""
    file = folder / "settings.json"
    if resume:
        try:
            before = dict(json.loads(file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{str(file)!r} is missing or damaged, so the run cannot be resumed; start afresh"
            ) from error
        for name in settings:
            if before.get(name) != settings[name]:
                raise InputError(
                    f"the run in {str(folder)!r} has {name}={before.get(name)!r}, not {settings[name]!r}; "
                    "resume it with its own settings, or start in another folder"
                )
        return
    if int(os.environ.get("RANK", "0")) > 0:
        return
    if any(folder.glob("checkpoint-*")):
        raise InputError(f"{str(folder)!r} holds the checkpoints of another run; pass --resume or another folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n")


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
        bf16=cuda and torch.cuda.is_bf16_supported(),
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=3,
        load_best_model_at_end=config.keep == "best",
        metric_for_best_model=config.metric,
        greater_is_better=True,
        report_to=["tensorboard"] if keep_logs else [],
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping survives a resume
        disable_tqdm=True,
        log_level="error",
        seed=config.seed,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process per device: DataParallel would cut batches apart
    trainer = RankingTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        eval_dataset=examples,  # asked for by Trainer, read by nobody: RankingTrainer.evaluate ranks instead
        data_collator=examples.collate,
        validate=validate,
        callbacks=[
            *([EarlyStoppingCallback(config.patience)] if config.keep == "best" else []),
            EpochBar(),
            *callbacks,
        ],
    )
    for printer in [one for one in trainer.callback_handler.callbacks if type(one).__name__ == "PrinterCallback"]:
        trainer.remove_callback(printer)
    return trainer


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


def newest_checkpoint(folder: str | Path) -> Path:
    """The newest checkpoint that can be read to its end; damaged ones are passed over with a warning.

    Raises:
        InputError: If there is none.
    """
    folder = Path(folder)
    numbered = [
        (int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := re.search(r"-(\d+)$", path.name))
    ]
    for _, checkpoint in sorted(numbered, reverse=True):
        fault = _fault(checkpoint)
        if fault is None:
            return checkpoint
        warnings.warn(f"{checkpoint.name} is damaged ({fault}); falling back to the one before", stacklevel=2)
    raise InputError(f"no intact checkpoint in {str(folder)!r}; train without --resume")


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or ``None``."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
        with safe_open(checkpoint / "model.safetensors", framework="pt") as tensors:
            tensors.keys()
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            with zipfile.ZipFile(checkpoint / name) as archive:  # what torch.save writes
                if (broken := archive.testzip()) is not None:
                    return f"{name}: {broken} fails its checksum"
    except (OSError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None
