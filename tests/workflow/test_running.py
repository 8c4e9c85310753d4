"""Runs: the seed reaches every model that has one, a table states its protocol, a saved model keeps its split."""

from pathlib import Path

import pytest
import yaml

from recsys_cl import workflow
from recsys_cl.config import DataConfig, RunConfig
from recsys_cl.data import Interactions, synthetic
from recsys_cl.errors import InputError


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthetic(100, 80, ties=0.3, seed=1)


@pytest.mark.parametrize("model", ["ials", "two-tower-id:epochs=1,dim=4,length=5"])
def test_the_seed_reaches_every_model_that_has_one(data: Interactions, model: str) -> None:
    assert workflow.train(data, model, seed=3).seed == 3
    assert RunConfig(model, seed=3).recommender().seed == 3
    assert workflow.open_model(data, model, seed=3).seed == 3


def test_a_model_without_a_seed_gets_none(data: Interactions) -> None:
    assert not hasattr(workflow.train(data, "ease", seed=3), "seed")


def test_a_seed_among_the_hyperparameters_is_refused(data: Interactions) -> None:
    with pytest.raises(InputError, match="seed belongs to the run"):
        workflow.train(data, "ials", hyperparameters={"seed": 3})


def test_a_saved_model_is_measured_as_it_was_when_trained(tmp_path: Path) -> None:
    config = RunConfig("ials", DataConfig("synthetic"), "leave-last-n", n=3, seed=2, hyperparameters={"factors": 4})
    ran = workflow.run(config, folder=tmp_path)
    loaded = workflow.load_data("synthetic")
    measured = workflow.measure(loaded, str(tmp_path), split="leave-last-n", n=3, seed=2)
    assert measured.rows[0].metrics() == ran.rows[0].metrics()
    assert ran.protocol == {"folder": str(tmp_path), **measured.protocol}
    assert measured.protocol["split"] == "leave-last-3"
    assert measured.protocol["users"] <= measured.protocol["events"]
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["seed"] == 2
    with pytest.raises(InputError, match="its own split"):
        workflow.measure(loaded, str(tmp_path))


def test_a_saved_model_of_another_catalogue_is_refused(data: Interactions, tmp_path: Path) -> None:
    workflow.train(data, "popularity", folder=tmp_path)
    with pytest.raises(InputError, match=r"the catalogue of .* differs"):
        workflow.open_model(synthetic(100, 90), str(tmp_path))


def test_a_refused_run_leaves_the_former_config(tmp_path: Path) -> None:
    workflow.run(RunConfig("popularity", DataConfig("synthetic")), folder=tmp_path)
    before = (tmp_path / "run.yaml").read_text()
    with pytest.raises(InputError, match="nothing to resume"):
        workflow.run(RunConfig("ease", DataConfig("synthetic")), folder=tmp_path, resume=True)
    assert (tmp_path / "run.yaml").read_text() == before
