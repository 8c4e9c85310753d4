"""Ranking trainer: ``transformers.Trainer`` with stateless shuffling, validation by ranking, and a stop at NaN.

See: chapter 5, chapter 11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recsys_cl.errors import InputError, TrainingError
from recsys_cl.evaluation.evaluate import SLOW
from recsys_cl.training.checkpoints import newest_or_none
from recsys_cl.training.examples import EpochShuffle, Examples, Key


class RankingTrainer(Trainer):
    """A ``Trainer`` that shuffles without state, validates by ranking, and stops at NaN or infinity.

    The model's ``forward`` takes a collated batch and returns ``{"loss": ...}``.
    """

    model: nn.Module
    train_dataset: Examples

    def __init__(self, *, validate: Callable[[], dict[str, float]], keeps_checkpoints: bool, **options: Any) -> None:
        super().__init__(**options)
        self.validate, self.keeps_checkpoints = validate, keeps_checkpoints

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[Key]:
        return EpochShuffle(len(self.train_dataset), seed=self.args.seed)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], None]:
        """The batches of one step; their weights are kept for :meth:`compute_loss`."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [self.train_dataset.count(batch) for batch in batches]
        self.weights = iter(_weights(counts, device))
        return batches, None

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """Loss of a batch, weighted by its number of terms."""
        return model(**inputs)["loss"] * next(self.weights)

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *rest: Any) -> Tensor:
        """Forward and backward; a loss that is NaN or infinite ends the run before the optimiser step."""
        try:
            loss = super().training_step(model, inputs, *rest)
        except InputError as error:  # losses reject vectors that are not finite
            self._check_weights(error)
            raise
        if not loss.isfinite():
            raise self._diverged(f"the loss is {loss.item()}")
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm = super()._clip_grad_norm(model)
        if not norm.isfinite():
            raise self._diverged(f"the norm of the gradient is {norm.item()}")
        return norm

    def _check_weights(self, cause: Exception | None = None) -> None:
        if not all(weight.isfinite().all() for weight in self.model.parameters()):
            raise self._diverged("a weight is not finite") from cause

    def _diverged(self, what: str) -> TrainingError:
        checkpoint = newest_or_none(str(self.args.output_dir)) if self.keeps_checkpoints else None
        remedy = "start again with a lower learning rate"
        if checkpoint is not None:
            remedy = (
                f"the last good checkpoint is {str(checkpoint)!r}: continue from it with a lower learning rate "
                "(--resume --set learning_rate=...)"
            )
        return TrainingError(
            f"{what} at step {self.state.global_step + 1}, learning rate {self._get_learning_rate():.3g}; {remedy}"
        )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both, and rescale the learning rate if this run's differs from the checkpoint's."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        assert self.lr_scheduler is not None
        assert self.optimizer is not None
        before = self.lr_scheduler.base_lrs[0]
        if before == self.args.learning_rate:
            return
        change = self.args.learning_rate / before
        self.lr_scheduler.base_lrs = [change * rate for rate in self.lr_scheduler.base_lrs]
        for group in self.optimizer.param_groups:
            group["lr"], group["initial_lr"] = change * group["lr"], change * group["initial_lr"]

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Rank the validation queries; ``config.metric`` controls early stopping and the choice of checkpoint."""
        self._check_weights()
        self.model.eval()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.validate().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _weights(counts: Sequence[int], device: torch.device) -> Tensor:
    """Weight of each batch of a step, ``(k,)``, in proportion to its terms over all processes; the mean is 1."""
    if len(counts) == 1:
        return torch.ones(1, device=device)
    terms = torch.tensor(counts, dtype=torch.float32, device=device)  # (k,)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(terms)
    return terms / terms.mean()  # (k,)


class EpochBar(TrainerCallback):
    """Progress bar over steps with the validation metric, on standard error, for runs of more than a few seconds."""

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
        """Advance the bar."""
        self.bar.update(1)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the latest validation metric."""
        metric = args.metric_for_best_model
        self.bar.set_postfix_str(f"validation {metric} {state.log_history[-1][f'eval_{metric}']:.4f}", refresh=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        self.bar.close()
