"""Training: stateless randomness, exact resume after kill -9, damaged checkpoints."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

from recsys_cl.data import PAD, Sequences, leave_one_out, synthetic
from recsys_cl.errors import InputError, TrainingError
from recsys_cl.negatives import KnownPositives
from recsys_cl.recommenders import Sequential, TwoTower
from recsys_cl.recommenders.base import TrainedRecommender
from recsys_cl.training import (
    EpochShuffle,
    Execution,
    NextItemExamples,
    TrainingConfig,
    TrainingReport,
    newest_checkpoint,
    train,
    trainer,
)
from recsys_cl.training.examples import Examples, HistoryPairs

SETTINGS = dict(  # noqa: C408
    model="", dim=16, length=10, epochs=8, batch_size=64, patience=1, dropout=0.3, id_dropout=0.2, event_dropout=0.3
)

RUN = """
import json, sys, torch
from recsys_cl.data import leave_one_out, synthetic
from recsys_cl.evaluation import evaluate
from recsys_cl.negatives import KnownPositives
from recsys_cl.recommenders import TwoTower

torch.set_num_threads(1)
split = leave_one_out(synthetic(200, 100, seed=3), seed=0)
model = TwoTower(**json.loads(sys.argv[1])).fit(split, folder=sys.argv[2], resume=sys.argv[3] == "resume")
model.save(sys.argv[2] + "/model")
print(json.dumps(evaluate(model, split.test).mean()))
"""


def start(folder: Path, mode: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, json.dumps(SETTINGS), str(folder), mode]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> float:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return float(json.loads(out.splitlines()[-1]))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float]:
    """A run that went through, and one that was killed once its second checkpoint stood."""
    whole, killed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed")
    metric = finish(start(whole, "fresh"))
    process = start(killed, "fresh")
    deadline = time.monotonic() + 200
    while len(list(killed.glob("checkpoint-*/trainer_state.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (killed / "model").exists()
    return whole, killed, metric


def test_killed_and_resumed_ends_where_the_uninterrupted_run_ends(interrupted: tuple[Path, Path, float]) -> None:
    whole, killed, metric = interrupted
    resumed = finish(start(killed, "resume"))
    assert resumed == metric
    expected, found = (load_file(folder / "model" / "state.safetensors") for folder in (whole, killed))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("damaged", ["model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"])
def test_truncated_newest_checkpoint_falls_back_to_the_one_before(
    interrupted: tuple[Path, Path, float], tmp_path: Path, damaged: str
) -> None:
    whole, _, _ = interrupted
    checkpoints = sorted(whole.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in checkpoints:
        copy = tmp_path / checkpoint.name
        copy.mkdir()
        for file in checkpoint.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    newest = tmp_path / checkpoints[-1].name
    whole_bytes = (newest / damaged).read_bytes()
    (newest / damaged).write_bytes(whole_bytes[: len(whole_bytes) // 2])
    with pytest.warns(UserWarning, match=rf"{newest.name} is damaged .* falling back"):
        found = newest_checkpoint(tmp_path)
    assert found.name == checkpoints[-2].name


DISTRIBUTED = """
import json, os, sys
from recsys_cl.data import leave_one_out, synthetic
from recsys_cl.evaluation import evaluate
from recsys_cl.negatives import KnownPositives
from recsys_cl.recommenders import TwoTower

split = leave_one_out(synthetic(200, 100, seed=3), seed=0)
model = TwoTower(**json.loads(sys.argv[1])).fit(split, folder=sys.argv[2])
result = {"test": evaluate(model, split.test).mean(), "best": model.report.best}
if os.environ["RANK"] == "0":
    model.save(sys.argv[2])
open(sys.argv[2] + "/rank" + os.environ["RANK"], "w").write(json.dumps(result))
"""


def start_two(folder: Path, settings: dict) -> None:
    """Run ``DISTRIBUTED`` in two processes."""
    (folder / "run.py").write_text(DISTRIBUTED)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, str(folder / "run.py"), json.dumps(settings), str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_share_every_epoch_and_end_with_the_same_model(tmp_path: Path) -> None:
    start_two(tmp_path, SETTINGS)
    first, second = (json.loads((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1))
    assert first == second
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    examples = NextItemExamples(leave_one_out(synthetic(200, 100, seed=3), seed=0).train, 100, length=10)
    assert steps[-1] == SETTINGS["epochs"] * -(-len(examples) // (2 * SETTINGS["batch_size"]))


@pytest.mark.slow
def test_two_processes_train_as_one_does_with_batches_twice_as_large(tmp_path: Path) -> None:
    """Because each compares its rows with the targets of both; with its own alone the negatives would be half."""
    settings = {**SETTINGS, "epochs": 2, "dropout": 0.0, "id_dropout": 0.0}
    split = leave_one_out(synthetic(200, 100, seed=3), seed=0)
    assert len(NextItemExamples(split.train, 100, length=10)) % 100 == 0, "a batch that is not full would be filled up"
    alone = TwoTower(**{**settings, "batch_size": 100}).fit(split)
    start_two(tmp_path, {**settings, "batch_size": 50})
    together = load_file(tmp_path / "state.safetensors")
    for name, tensor in alone.state.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-5)


def test_several_processes_without_a_folder_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes must share"):
        TwoTower(model="").fit(leave_one_out(synthetic(100, 80)))


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no intact checkpoint"):
        newest_checkpoint(tmp_path)
    split = leave_one_out(synthetic(100, 80))
    with pytest.raises(InputError, match="without a folder"):
        TwoTower(model="").fit(split, resume=True)


def test_run_is_described_on_disk(interrupted: tuple[Path, Path, float]) -> None:
    run = json.loads((interrupted[0] / "run.json").read_text())
    assert run["config"]["epochs"] == SETTINGS["epochs"]
    assert len(run["report"]["history"]) == run["report"]["epochs"]
    assert run["report"]["best"] == max(epoch["ndcg@10"] for epoch in run["report"]["history"])
    assert run["device"]


def test_same_seed_same_scores_other_seed_other_scores() -> None:
    split = leave_one_out(synthetic(100, 80))
    settings = {**SETTINGS, "epochs": 1}
    first, again, other = (TwoTower(**settings, seed=seed).fit(split).score(split.test.history) for seed in (0, 0, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)


def test_training_learns_and_keeps_the_best_epoch() -> None:
    split = leave_one_out(synthetic(300, 100, seed=1))
    model = TwoTower(**{**SETTINGS, "epochs": 5}).fit(split)
    losses = [epoch["loss"] for epoch in model.report.history]
    assert losses[-1] < losses[0]
    from recsys_cl.evaluation import evaluate

    assert evaluate(model, split.validation).mean() == pytest.approx(model.report.best, abs=1e-9)


class TestExamples:
    train = Sequences.from_lists([[0, 1, 2, 3], [4], [1, 4, 0]])

    def test_every_event_with_a_past_is_an_example(self) -> None:
        examples = NextItemExamples(self.train, 5, length=2)
        batch = examples.collate([(0, example) for example in range(len(examples))])
        assert batch["target"].tolist() == [1, 2, 3, 4, 0]
        assert batch["history"].tolist() == [[PAD, 0], [0, 1], [1, 2], [PAD, 1], [1, 4]]

    def test_each_row_names_its_user(self) -> None:
        examples = NextItemExamples(self.train, 5, length=2)
        batch = examples.collate([(0, 0), (0, 3), (0, 4)])
        assert batch["user"].tolist() == [0, 2, 2]
        known = KnownPositives(self.train, 5).mask(batch["user"], batch["target"])  # targets 1, 4, 0
        assert known.tolist() == [[True, False, True], [True, True, True], [True, True, True]]

    def test_randomness_depends_on_epoch_and_example_alone(self) -> None:
        examples = NextItemExamples(self.train, 5, length=3, event_dropout=0.5, seed=7)
        alone = examples.collate([(2, 2)])["history"][0]
        together = examples.collate([(2, 0), (2, 2), (2, 4)])["history"][1]
        assert alone.tolist() == together.tolist()
        seen = {tuple(examples.collate([(epoch, 2)])["history"][0].tolist()) for epoch in range(30)}
        assert len(seen) > 3

    def test_dropout_rates_are_the_rates_asked_for(self) -> None:
        long = Sequences.from_lists([list(range(100))])
        examples = NextItemExamples(long, 10_000, length=50, event_dropout=0.3, id_dropout=0.2)
        batch = examples.collate([(0, example) for example in range(49, 99)])
        assert (batch["history"] == PAD).float().mean().item() == pytest.approx(0.3, abs=0.03)
        assert (~batch["keep_id"]).float().mean().item() == pytest.approx(0.2, abs=0.02)

    def test_nothing_to_train_on_is_an_error(self) -> None:
        with pytest.raises(InputError, match="no user has two training events"):
            NextItemExamples(Sequences.from_lists([[1], [2]]), 5, length=2)


class TestHistoryPairs:
    train = Sequences.from_lists([[0, 1, 2, 3], [4], [1, 4, 0]])

    def test_all_pairs_are_the_next_item_examples(self) -> None:
        keys = [(0, row) for row in range(5)]
        pairs = HistoryPairs(self.train, 5, length=2).collate(keys)
        examples = NextItemExamples(self.train, 5, length=2).collate(keys)
        assert pairs.keys() == {"history", "target", "user"}
        for name, tensor in pairs.items():
            assert torch.equal(tensor, examples[name])

    def test_a_sample_of_the_pairs_is_a_function_of_the_seed(self) -> None:
        train = Sequences.from_lists([list(range(40))])
        first, again, other = (HistoryPairs(train, 40, length=2, pairs=10, seed=seed) for seed in (0, 0, 1))
        assert len(first) == 10
        assert len(set(first.event)) == 10
        assert first.event.tolist() == again.event.tolist() != other.event.tolist()
        batch = first.collate([(3, row) for row in range(10)])
        assert torch.equal(batch["target"], batch["history"][:, -1] + 1)

    def test_more_pairs_than_there_are_means_all(self) -> None:
        assert len(HistoryPairs(self.train, 5, length=2, pairs=100)) == 5


class Downhill(nn.Module):
    """A weight that each step moves by the learning rate: Adam's steps under a constant gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, number: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.weight + 0 * number.sum()}


class Numbers(Examples):
    def __len__(self) -> int:
        return 10

    def count(self, batch: Mapping[str, torch.Tensor]) -> int:
        return len(batch["number"])

    def collate(self, keys: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        return {"number": torch.tensor(keys)}


class Recorder(TrainerCallback):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])


def trained_downhill(metrics: list[float], **options: Any) -> tuple[Downhill, Recorder, TrainingReport]:
    """One step an epoch, each with the validation metric that it is told."""
    model, recorder, told = Downhill(), Recorder(), iter(metrics)
    config = TrainingConfig(epochs=len(metrics), batch_size=10, learning_rate=0.1, weight_decay=0.0, **options)
    report = train(model, Numbers(), validate=lambda: {"ndcg@10": next(told)}, config=config, callbacks=[recorder])
    return model, recorder, report


def test_a_linear_schedule_rises_and_falls_to_zero_and_a_constant_one_stays() -> None:
    _, linear, _ = trained_downhill([0.1] * 6, warmup=2, schedule="linear", keep="last")
    assert linear.rates == pytest.approx([0.0, 0.05, 0.1, 0.075, 0.05, 0.025])
    _, constant, _ = trained_downhill([0.1] * 6, warmup=2, keep="last")
    assert constant.rates == pytest.approx([0.0, 0.05, 0.1, 0.1, 0.1, 0.1])


def test_keep_last_runs_all_epochs_and_keeps_the_last_whatever_validation_says() -> None:
    falling = [0.5, 0.4, 0.3, 0.2, 0.1]
    model, _, report = trained_downhill(falling, warmup=0, keep="last", patience=1)
    assert report.epochs == 5
    assert report.best == 0.5
    assert float(model.weight.detach()) == pytest.approx(-0.5, abs=1e-3)
    model, _, report = trained_downhill(falling, warmup=0, keep="best", patience=1)
    assert report.epochs == 2
    assert float(model.weight.detach()) == pytest.approx(-0.1, abs=1e-3)


def test_epoch_shuffle_is_a_permutation_and_a_function_of_seed_and_epoch() -> None:
    shuffle = EpochShuffle(50, seed=1)
    first = list(shuffle)
    assert sorted(example for _, example in first) == list(range(50))
    assert list(shuffle) == first
    shuffle.set_epoch(1)
    second = list(shuffle)
    assert [example for _, example in second] != [example for _, example in first]
    assert {epoch for epoch, _ in second} == {1}
    assert np.mean([a == b for (_, a), (_, b) in zip(first, second, strict=True)]) < 0.2


def test_no_progress_bar_is_left_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TwoTower(**{**SETTINGS, "epochs": 1}).fit(leave_one_out(synthetic(100, 80)))
    assert capsys.readouterr().out == ""


class Cliff(nn.Module):
    """Downhill from 1 until, below .35, the loss is no number any more."""

    def __init__(self, edge: float = 0.35) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.edge = edge

    def forward(self, number: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.weight + (torch.nan if self.weight < self.edge else 0.0) + 0 * number.sum()}


class TestNumbersThatEnd:
    config = TrainingConfig(epochs=12, batch_size=10, learning_rate=0.1, warmup=0, keep="last")

    def walk(self, model: nn.Module, config: TrainingConfig, **options: Any) -> Recorder:
        recorder = Recorder()
        train(model, Numbers(), validate=lambda: {"ndcg@10": 0.0}, config=config, callbacks=[recorder], **options)
        return recorder

    def test_a_loss_that_is_nan_names_the_step_the_rate_and_the_last_good_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError) as caught:
            self.walk(Cliff(), self.config, folder=tmp_path)
        for part in ("loss is nan", "step 8", "rate 0.1", str(tmp_path / "checkpoint-7"), "--resume --set"):
            assert part in str(caught.value)

    def test_a_run_without_a_folder_is_told_to_start_afresh(self) -> None:
        with pytest.raises(TrainingError, match=r"loss is nan at step 8.*start again with a lower learning rate"):
            self.walk(Cliff(), self.config)

    def test_it_goes_on_from_there_with_a_smaller_rate(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError):
            self.walk(Cliff(), self.config, folder=tmp_path)
        model = Cliff(edge=0.2)
        slower = TrainingConfig(**{**vars(self.config), "learning_rate": 0.01})
        recorder = self.walk(model, slower, folder=tmp_path, resume=True)
        assert recorder.rates == pytest.approx([0.01] * 5)
        assert float(model.weight.detach()) == pytest.approx(1 - 7 * 0.1 - 5 * 0.01, abs=1e-3)

    def test_a_gradient_that_is_infinite_does_not_reach_the_weights(self) -> None:
        class Root(Cliff):
            def forward(self, number: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"loss": (0.0 * number.sum() + self.weight - 1).abs().sqrt()}

        model = Root()
        with pytest.raises(TrainingError, match=r"norm of the gradient is .* at step 1"):
            self.walk(model, self.config)
        assert float(model.weight.detach()) == 1

    def test_weights_without_bounds_are_named_even_where_the_loss_refuses_them(self) -> None:
        class Refusing(Cliff):
            def forward(self, number: torch.Tensor) -> dict[str, torch.Tensor]:
                if not self.weight.isfinite():
                    raise InputError("a vector is not finite")
                return super().forward(number)

        steep = TrainingConfig(**{**vars(self.config), "learning_rate": 1e39})
        with pytest.raises(
            TrainingError, match=r"a weight is not finite at step 2, learning rate 1e\+39; .*lower learning rate"
        ):
            self.walk(Refusing(edge=-torch.inf), steep)

    def test_other_errors_stay_what_they_are(self) -> None:
        class Wrong(Cliff):
            def forward(self, number: torch.Tensor) -> dict[str, torch.Tensor]:
                raise InputError("temperature=0")

        with pytest.raises(InputError, match="temperature=0"):
            self.walk(Wrong(), self.config)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"dim": 8}, r"network.* is \(16,\) there and \(8,\) here"), ({"blocks": 1}, r"blocks\.1\..* and absent here")],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, change: dict, word: str) -> None:
    split = leave_one_out(synthetic(100, 80))
    settings = {"dim": 16, "length": 10, "epochs": 1}
    Sequential(**settings).fit(split, folder=tmp_path)
    with pytest.raises(InputError, match=r"has (dim=16, not 8|blocks=2, not 1)"):
        Sequential(**{**settings, **change}).fit(split, folder=tmp_path, resume=True)
    stored = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps({**stored, **change}))  # somebody's edit
    with pytest.raises(InputError, match=word):
        Sequential(**{**settings, **change}).fit(split, folder=tmp_path, resume=True)


def test_another_catalogue_is_refused(tmp_path: Path) -> None:
    settings = {"dim": 8, "length": 10, "epochs": 1}
    Sequential(**settings).fit(leave_one_out(synthetic(100, 80)), folder=tmp_path)
    other = leave_one_out(synthetic(100, 96))
    with pytest.raises(InputError, match=r"has data='.*', not '.*'"):
        Sequential(**settings).fit(other, folder=tmp_path, resume=True)
    stored = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps({**stored, **other.identity}))
    with pytest.raises(InputError, match=r"catalogue: .* is \(80, 8\) there and \(96, 8\) here"):
        Sequential(**settings).fit(other, folder=tmp_path, resume=True)


class TestExecution:
    settings: ClassVar[dict[str, Any]] = {"dim": 8, "length": 6, "dropout": 0.0, "epochs": 2}

    def fitted(self, model: TrainedRecommender, **execution: Any) -> TrainedRecommender:
        model.execution = Execution(**execution)
        return model.fit(leave_one_out(synthetic(100, 80)))

    @pytest.mark.parametrize(
        "options", [{}, {"loss": {"name": "bce", "negatives": 4}}, {"encoder": "bidirectional", "loss": "cloze"}]
    )
    def test_two_accumulated_batches_of_ragged_windows_are_one_of_both(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = self.fitted(Sequential(**self.settings, **options, batch_size=32))
        halves = self.fitted(Sequential(**self.settings, **options, batch_size=16), accumulate=2)
        weights, of_halves = (model.network.state_dict() for model in (whole, halves))
        assert [*weights] == [*of_halves]
        for name, tensor in weights.items():
            torch.testing.assert_close(of_halves[name], tensor, rtol=1e-4, atol=1e-5)
        losses = [[epoch["loss"] for epoch in model.report.history] for model in (whole, halves)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        monkeypatch.setattr(trainer, "_weights", lambda batches, device: torch.ones(len(batches)))
        means = self.fitted(Sequential(**self.settings, **options, batch_size=16), accumulate=2)
        moved = [float((means.network.state_dict()[name] - tensor).abs().sum()) for name, tensor in weights.items()]
        assert max(moved) > 1e-2

    @pytest.mark.parametrize(
        "model",
        [
            lambda: Sequential(dim=8, length=6, epochs=1),
            lambda: Sequential(dim=8, length=6, epochs=1, encoder="bidirectional", loss="cloze"),
            lambda: Sequential(dim=8, length=6, epochs=1, encoder="gru"),
            lambda: Sequential(dim=8, length=6, epochs=1, loss={"name": "gbce", "negatives": 8}),
            lambda: Sequential(dim=8, length=6, epochs=1, loss="sampled-softmax"),
            lambda: Sequential(dim=8, length=6, epochs=1, auxiliary="views"),
            lambda: TwoTower(model="", dim=8, length=6, epochs=1),
        ],
    )
    def test_half_the_bits_train_on_the_cpu_as_well(self, model: Any) -> None:
        full, half = self.fitted(model(), precision="float32"), self.fitted(model(), precision="bfloat16")
        of_half, of_full = ({one.dtype for one in model.network.state_dict().values()} for model in (half, full))
        assert of_half == of_full
        losses = [one.report.history[0]["loss"] for one in (full, half)]
        assert losses[0] != losses[1]
        assert losses[0] == pytest.approx(losses[1], rel=0.02)

    def test_auto_on_a_cpu_is_full_precision(self) -> None:
        auto, full = (self.fitted(Sequential(**self.settings), precision=name) for name in ("auto", "float32"))
        for name, tensor in full.network.state_dict().items():
            torch.testing.assert_close(auto.network.state_dict()[name], tensor, rtol=0, atol=0)

    def test_as_many_checkpoints_as_asked_for_are_kept(self, tmp_path: Path) -> None:
        model = Sequential(**{**self.settings, "epochs": 4})
        model.execution = Execution(checkpoints=1)
        model.fit(leave_one_out(synthetic(100, 80)), folder=tmp_path)
        assert len(list(tmp_path.glob("checkpoint-*"))) <= 2  # the newest, and the best

    def test_no_batch_is_no_step(self) -> None:
        with pytest.raises(InputError, match="accumulate=0"):
            self.fitted(Sequential(**self.settings), accumulate=0)


def test_checkpoints_of_several_processes_hold_the_chance_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}")
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth"):
        torch.save({}, folder / name)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert newest_checkpoint(tmp_path) == folder
    (folder / "rng_state_1.pth").unlink()
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(InputError, match="no intact checkpoint"):
        newest_checkpoint(tmp_path)
