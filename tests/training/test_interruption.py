"""``kill -9`` at any step and ``--resume``: the same metrics and weights, bit for bit, with augmentations on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recsys_cl.data import synthetic
from recsys_cl.training import newest_checkpoint

SETTINGS = ("dim=8", "length=8", "blocks=1", "batch_size=32", "epochs=4", "dropout=0.2")

RUN = """
import os, signal, sys
import torch
from recsys_cl import cli
from recsys_cl.training.trainer import EpochBar

torch.set_num_threads(1)
killed_at = int(sys.argv.pop(1))
go_on = EpochBar.on_step_end

def on_step_end(self, args, state, control, **kwargs):
    if state.global_step == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return go_on(self, args, state, control, **kwargs)

EpochBar.on_step_end = on_step_end
cli.main()
"""


def start(folder: Path, *options: object, killed_at: int = 0) -> subprocess.Popen[str]:
    """``recsys-cl train`` in a process that dies after a step, or not."""
    files = ("--interactions", folder.parent / "events.csv", "--output", folder)
    settings = (part for setting in SETTINGS for part in ("--set", setting))
    command = ("train", "--model", "cl4srec", *files, *settings, *options, "--json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", RUN, str(killed_at), *map(str, command)]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)["rows"][0]["metrics"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Metrics of a run that went through, of one that was killed and resumed, and of one on another seed."""
    place = tmp_path_factory.mktemp("runs")
    synthetic(120, 80, ties=0.0, seed=3).events.to_pandas().drop(columns="event").to_csv(
        place / "events.csv", index=False
    )
    whole, other = start(place / "whole"), start(place / "other", "--seed", 1)
    found = {"whole": finish(whole), "other": finish(other)}
    newest = newest_checkpoint(place / "whole" / "checkpoints")
    state = json.loads((newest / "trainer_state.json").read_text())
    an_epoch, last = state["max_steps"] // 4, state["global_step"]
    step = int(np.random.default_rng(7).integers(an_epoch + 1, last))
    process = start(place / "killed", killed_at=step)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (place / "killed" / "config.json").exists()
    resumed = start(place / "killed", "--resume")
    return {**found, "resumed": finish(resumed), "folder": {"path": str(place)}}


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed_is_bit_for_bit_the_run_that_went_through(runs: dict[str, dict]) -> None:
    assert runs["resumed"] == runs["whole"]
    expected, found = (
        load_file(Path(runs["folder"]["path"]) / name / "state.safetensors") for name in ("whole", "killed")
    )
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


@pytest.mark.slow
def test_another_seed_is_another_run(runs: dict[str, dict]) -> None:
    assert runs["other"] != runs["whole"]
