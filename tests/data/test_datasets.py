"""Data sets and splits by name: one registry each, read by functions, configs and the command line."""

import pytest

from recsys_cl.config import RunConfig
from recsys_cl.data import Interactions, load_movielens, synthetic
from recsys_cl.data.datasets import DATASETS, load_data
from recsys_cl.data.splits import SPLITS
from recsys_cl.errors import InputError


def test_a_named_data_set_is_a_loader_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS, "_values", dict(DATASETS))
    DATASETS.add("toy", lambda: synthetic(100, 80))
    assert load_data("toy").n_users == 100
    with pytest.raises(InputError, match="not read from files"):
        load_data("toy", path="toy.zip")


def test_named_data_sets_are_those_of_their_loaders() -> None:
    assert load_data().fingerprint == load_movielens().fingerprint
    with pytest.raises(InputError, match=r"ml-1m\.zip"):
        load_data("ml-1m", path="missing/ml-1m.zip")


def test_an_unknown_name_gets_the_closest_and_all_valid_ones() -> None:
    with pytest.raises(InputError, match=r"unknown data set 'ml-100', did you mean 'ml-100k'\?.*ml-1m.*synthetic"):
        load_data("ml-100")


def test_filters_apply_after_loading() -> None:
    data = load_data("synthetic", min_rating=4, min_events=5)
    assert (data.rating >= 4).all()
    assert len(data) < len(synthetic())


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthetic(100, 80)


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_takes_n_and_a_seed(data: Interactions, name: str) -> None:
    split = SPLITS[name](data, n=3, seed=4)
    assert split.protocol == ("leave-last-3" if name == "leave-last-n" else name)
    assert split.seed == 4


def test_a_new_split_is_valid_in_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SPLITS, "_values", dict(SPLITS))
    SPLITS.add("half", lambda data, *, n=10, seed=0: SPLITS["temporal"](data, seed=seed))
    assert RunConfig.from_dict({"model": "ease", "split": "half"}).split == "half"
