"""A run is a file: read, checked key by key, overridden by options, and written beside what it made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from recsys_cl import cli
from recsys_cl.config import DataConfig, RunConfig, overridden, read_config
from recsys_cl.data import synthetic
from recsys_cl.errors import InputError
from recsys_cl.recommenders import Sequential
from recsys_cl.training import Execution

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of events and one of items beside it."""
    folder = tmp_path_factory.mktemp("events")
    data = synthetic(100, 80, ties=0.0, seed=2)
    data.events.to_pandas().drop(columns="event").to_csv(folder / "events.csv", index=False)
    data.items.to_pandas()[["item_id", "title", "text"]].to_csv(folder / "items.csv", index=False)
    return folder / "events.csv"


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of ``recsys-cl train ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["recsys-cl", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def metrics(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)["rows"][0]["metrics"]


def written(folder: Path, text: str) -> Path:
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return folder / "config.yaml"


SMALL = """
model: sasrec
hyperparameters: {dim: 8, length: 8, epochs: 1, learning_rate: 3e-3}
training: {accumulate: 2}
"""


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_config_of_the_project_describes_a_recommender(file: Path) -> None:
    config = RunConfig.from_dict(read_config(file))
    assert config.recommender().score
    assert file.stem in (config.model, "gpu")


def test_the_config_for_a_gpu_runs_on_a_cpu_but_for_its_size(monkeypatch, capsys, events, tmp_path) -> None:
    config = read_config(CONFIGS / "gpu.yaml")
    smaller = {"dim": 16, "length": 8, "blocks": 1, "epochs": 1, "batch_size": 16}
    options = [part for name, value in smaller.items() for part in ("--set", f"{name}={value}")]
    options += ["--interactions", events, "--precision", "bfloat16", "--output", tmp_path / "model", "--json"]
    assert metrics(run(monkeypatch, capsys, "--config", CONFIGS / "gpu.yaml", *options))["ndcg@10"]["mean"] > 0
    ran = yaml.safe_load((tmp_path / "model" / "run.yaml").read_text())
    assert ran["training"] == {"precision": "bfloat16", "accumulate": 2, "checkpoints": 3}
    assert ran["hyperparameters"]["learning_rate"] == config["hyperparameters"]["learning_rate"]
    assert ran["data"]["interactions"] == str(events)


class TestReading:
    def test_what_is_not_said_is_a_default(self, tmp_path: Path) -> None:
        config = RunConfig.from_dict(read_config(written(tmp_path, "model: ease")))
        assert config == RunConfig("ease", DataConfig(), "leave-one-out", 10, 0, {}, Execution())

    def test_all_of_it(self, tmp_path: Path) -> None:
        text = """
            model: bert4rec
            data: {interactions: café.csv, columns: {item_id: asin}, min_rating: 4, min_events: 3}
            split: leave-last-n
            n: 3
            seed: 5
            hyperparameters: {dim: 16}
            training: {precision: bfloat16, checkpoints: 1}
        """
        config = RunConfig.from_dict(read_config(written(tmp_path, text)))
        data = DataConfig(interactions="café.csv", columns={"item_id": "asin"}, min_rating=4, min_events=3)
        execution = Execution(precision="bfloat16", checkpoints=1)
        assert config == RunConfig("bert4rec", data, "leave-last-n", 3, 5, {"dim": 16}, execution)
        recommender = config.recommender()
        assert isinstance(recommender, Sequential)
        assert (recommender.encoder, recommender.dim, recommender.seed) == ("bidirectional", 16, 5)
        assert recommender.execution == execution

    def test_a_number_without_a_point_is_a_number(self, tmp_path: Path) -> None:
        config = RunConfig.from_dict(read_config(written(tmp_path, SMALL)))
        assert config.hyperparameters["learning_rate"] == 0.003

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("modell: sasrec\nmodel: sasrec", ["'modell'", "did you mean 'model'"]),
            ("model: sasrec\ndata: {intractions: a.csv}", ["key of data", "'intractions'", "'interactions'"]),
            ("model: sasrec\nhyperparameters: {learning_rat: 1}", ["'learning_rat'", "'learning_rate'", "sasrec"]),
            ("model: sasrec\ntraining: {acumulate: 2}", ["key of training", "'acumulate'", "'accumulate'"]),
            ("model: sasrec\nhyperparameters: {seed: 3}", ["--seed N"]),
            ("model: sasrek", ["'sasrek'", "did you mean 'sasrec'"]),
            ("split: temporal", ["names no model", "--model NAME"]),
            ("model: sasrec\nsplit: random", ["split", "'random'", "leave-one-out"]),
            ("model: sasrec\nn: ten", ["n: 'ten'", "whole number"]),
            ("model: sasrec\nn: true", ["n: True", "whole number"]),
            ("model: 3", ["model: 3", "a name"]),
            ("model: sasrec\ndata: ml-100k", ["data is 'ml-100k'", "below it"]),
            ("model: sasrec\ndata: {columns: [a]}", ["data.columns", "['a']"]),
            ("model: sasrec\ntraining: {precision: half}", ["training.precision", "'half'", "bfloat16"]),
            ("model: sasrec\nhyperparameters: {dim: wide}", ["dim='wide'", "number"]),
            ("model: ease\ntraining: {accumulate: 2}", ["'ease'", "one step", "training options"]),
            ("model: sasrec\nmodel: ease", ["line 2", "'model' occurs twice"]),
            ("model: [sasrec", ["not YAML", "line"]),
            ("- model", ["no keys", "model: NAME"]),
            ("", ["no keys", "model: NAME"]),
        ],
    )
    def test_what_is_wrong_is_one_line_that_names_it(self, monkeypatch, capsys, tmp_path, text, words) -> None:
        code, out, err = run(monkeypatch, capsys, "--config", written(tmp_path, text), "--output", tmp_path / "model")
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        for word in words:
            assert word in err
        assert not (tmp_path / "model").exists()

    def test_a_file_that_is_not_there(self) -> None:
        with pytest.raises(InputError, match=r"no config file 'configs/none.yaml'.*working folder"):
            read_config("configs/none.yaml")


class TestOverriding:
    def test_options_win_one_by_one(self) -> None:
        base = {"model": "sasrec", "seed": 1, "hyperparameters": {"dim": 8, "length": 9}}
        changed = overridden(base, {"seed": 2, "hyperparameters": {"dim": 16}})
        assert changed == {"model": "sasrec", "seed": 2, "hyperparameters": {"dim": 16, "length": 9}}
        assert base["hyperparameters"] == {"dim": 8, "length": 9}

    def test_another_data_set_leaves_nothing_of_the_former(self) -> None:
        base = {"data": {"interactions": "a.csv", "items": "b.csv", "columns": {"item_id": "asin"}, "min_rating": 4}}
        assert overridden(base, {"data": {"name": "ml-100k"}}) == {"data": {"name": "ml-100k", "min_rating": 4}}
        assert overridden(base, {"data": {"min_rating": 3}})["data"]["interactions"] == "a.csv"

    def test_on_the_command_line(self, monkeypatch, capsys, events, tmp_path) -> None:
        file = written(tmp_path, SMALL + f"data: {{interactions: {events}}}\nseed: 3\n")
        options = ("--set", "dim=4", "--accumulate", 1, "--output", tmp_path / "model", "--json")
        metrics(run(monkeypatch, capsys, "--config", file, *options))
        ran = yaml.safe_load((tmp_path / "model" / "run.yaml").read_text())
        assert (ran["hyperparameters"]["dim"], ran["hyperparameters"]["length"]) == (4, 8)
        assert (ran["seed"], ran["training"]["accumulate"]) == (3, 1)


class TestBesideTheModel:
    def test_the_config_that_ran_runs_again_to_the_same_metrics(self, monkeypatch, capsys, events, tmp_path) -> None:
        file = written(tmp_path, SMALL + f"data: {{interactions: {events}}}\n")
        first = metrics(run(monkeypatch, capsys, "--config", file, "--output", tmp_path / "one", "--json"))
        ran = tmp_path / "one" / "run.yaml"
        assert yaml.safe_load(ran.read_text())["hyperparameters"]["dropout"] == Sequential().dropout
        again = metrics(run(monkeypatch, capsys, "--config", ran, "--output", tmp_path / "two", "--json"))
        assert again == first
        assert (tmp_path / "two" / "run.yaml").read_text() == ran.read_text()

    def test_resume_needs_nothing_but_the_folder(self, monkeypatch, capsys, events, tmp_path) -> None:
        options = ("--interactions", events, "--set", "dim=8", "--set", "length=8", "--set", "epochs=2")
        first = run(monkeypatch, capsys, "--model", "sasrec", *options, "--output", tmp_path / "model", "--json")
        (tmp_path / "model" / "config.json").unlink()
        assert metrics(run(monkeypatch, capsys, "--resume", "--output", tmp_path / "model", "--json")) == metrics(first)

    def test_another_learning_rate_is_the_only_thing_that_may_change(self, monkeypatch, capsys, events, tmp_path):
        options = ("--interactions", events, "--set", "dim=8", "--set", "length=8", "--set", "epochs=1")
        metrics(run(monkeypatch, capsys, "--model", "sasrec", *options, "--output", tmp_path / "model", "--json"))
        resume = ("--resume", "--output", tmp_path / "model", "--json")
        code, _, err = run(monkeypatch, capsys, *resume, "--set", "dropout=0.5")
        assert code == 2
        assert "dropout=0.2, not 0.5" in err
        metrics(run(monkeypatch, capsys, *resume, "--set", "learning_rate=1e-4"))
        ran = yaml.safe_load((tmp_path / "model" / "run.yaml").read_text())
        assert ran["hyperparameters"]["learning_rate"] == 1e-4

    def test_without_a_folder_it_goes_to_runs(self, monkeypatch, capsys, events, tmp_path) -> None:
        monkeypatch.chdir(tmp_path)
        result = run(monkeypatch, capsys, "--model", "ease", "--interactions", events, "--json")
        metrics(result)
        assert json.loads(result[1])["protocol"]["folder"] == "runs/events-ease-leave-one-out-0"
        assert (tmp_path / "runs" / "events-ease-leave-one-out-0" / "state.safetensors").is_file()
        code, _, err = run(monkeypatch, capsys, "--model", "ease", "--interactions", events, "--json")
        assert code == 2
        assert "another recommender" in err

    def test_the_histories_that_are_not_read_whole_are_counted(self, monkeypatch, capsys, tmp_path) -> None:
        lengths = {"short": 2, "fits": 6, "long": 12}
        table = pd.DataFrame(
            [(user, f"item {k}", k) for user, length in lengths.items() for k in range(length)],
            columns=["user_id", "item_id", "timestamp"],
        )
        table.to_csv(tmp_path / "events.csv", index=False)
        options = ("--set", "dim=4", "--set", "length=5", "--set", "epochs=1", "--output", tmp_path / "model", "--json")
        result = run(monkeypatch, capsys, "--model", "sasrec", "--interactions", tmp_path / "events.csv", *options)
        metrics(result)
        protocol = json.loads(result[1])["protocol"]
        counts = {key: protocol[key] for key in list(protocol) if "hist" in key or key == "max_length"}
        assert counts == {
            "training_histories": 3,
            "histories_too_short": 1,
            "histories_truncated": 1,
            "max_length": 5,
        }


@pytest.mark.slow
def test_the_package_is_a_program(events: Path, tmp_path: Path) -> None:
    command = ("train", "--model", "popularity", "--interactions", events, "--output", tmp_path / "model", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "recsys_cl", *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"]
