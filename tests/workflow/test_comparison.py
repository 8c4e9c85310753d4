"""Comparisons: kept runs belong to exactly one model, data set and split; every model with a seed gets the draw."""

from pathlib import Path

import pytest

from recsys_cl import workflow
from recsys_cl.data import Interactions, synthetic
from recsys_cl.errors import InputError
from recsys_cl.recommenders import create


def ndcg(table: workflow.Comparison, model: str) -> dict[str, float]:
    return next(row for row in table.rows if row.model == model).metrics()["ndcg@10"]


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthetic(100, 80, ties=0.3, seed=1)


def test_kept_runs_are_read_back(data: Interactions, tmp_path: Path) -> None:
    options = {"models": ["popularity", "ials"], "draws": 2}
    first = workflow.compare(data, **options, folder=tmp_path)
    files = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(files) == 4
    again = workflow.compare(data, **options, folder=tmp_path)
    assert again.as_dict() == first.as_dict()
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == files


def test_kept_runs_of_other_data_with_the_same_name_and_size_are_not_read(data: Interactions, tmp_path: Path) -> None:
    other = synthetic(100, 80, ties=0.3, seed=2)
    assert (other.name, len(other), other.n_items) == (data.name, len(data), data.n_items)
    options = {"models": ["popularity"], "draws": 1}
    workflow.compare(data, **options, folder=tmp_path)
    kept = workflow.compare(other, **options, folder=tmp_path)
    assert ndcg(kept, "popularity") == ndcg(workflow.compare(other, **options), "popularity")
    assert ndcg(kept, "popularity") != ndcg(workflow.compare(data, **options), "popularity")


def test_a_model_without_gradient_training_gets_the_draw_as_its_seed(data: Interactions) -> None:
    table = workflow.compare(data, ["ials"], draws=2)
    held_out = workflow.split_data(data, seed=1)
    own = workflow.evaluate_split(workflow.train(data, "ials", seed=1), held_out)
    assert table.rows[0].evaluations[1].mean("ndcg@10") == own.mean("ndcg@10")
    fixed = workflow.evaluate_split(create("ials", seed=0).fit(held_out), held_out)
    assert fixed.mean("ndcg@10") != own.mean("ndcg@10")


def test_a_seed_in_the_name_of_a_model_is_refused(data: Interactions) -> None:
    with pytest.raises(InputError, match="seed belongs to the run"):
        workflow.compare(data, ["ials:factors=4,seed=3"])


def test_one_draw_is_enough_without_ties() -> None:
    table = workflow.compare(synthetic(100, 80, ties=0.0), ["popularity"], draws=3)
    assert table.protocol["draws"] == len(table.rows[0].evaluations) == 1


@pytest.mark.parametrize("numbers", [{"seeds": 0}, {"draws": 0}])
def test_no_runs_are_no_comparison(data: Interactions, numbers: dict[str, int]) -> None:
    with pytest.raises(InputError, match="1 or more"):
        workflow.compare(data, ["popularity"], **numbers)
