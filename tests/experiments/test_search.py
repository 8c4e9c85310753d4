"""The search: the default first, distinct settings alone count, and what is finished is not measured again."""

import json
from pathlib import Path
from typing import Any

import common
import pytest
from ch07_sequences import SPACES, default_of
from ch09_perturbations import ATTACKS, first_of
from ch10_negatives import NEGATIVES
from common import RESULTS, Parts, Settings, at_random, best_settings, by_parzen, search

from recsys_cl.errors import InputError

SPACE: dict[str, list[Any]] = {"rate": [0.1, 0.2, 0.3], "width": [16, 32]}
DEFAULT: Settings = {"rate": 0.2, "width": 16}
PROPOSE = pytest.mark.parametrize("propose", [at_random, by_parzen])


def measure(settings: Settings) -> dict[str, Any]:
    return {"value": settings["rate"] * settings["width"]}


def stored(name: str) -> dict[str, Any]:
    models: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())["result"]["models"]
    return models


@PROPOSE
def test_the_default_is_first_and_all_settings_are_distinct(tmp_path: Path, propose: Any) -> None:
    trials = search(Parts(tmp_path, "run"), "m", SPACE, DEFAULT, measure, trials=6, propose=propose)
    assert trials[0]["settings"] == DEFAULT
    assert len({json.dumps(trial["settings"]) for trial in trials}) == len(trials) == 6
    assert all(trial["value"] == measure(trial["settings"])["value"] for trial in trials)


@PROPOSE
def test_an_interrupted_search_proposes_the_same_trials(tmp_path: Path, propose: Any) -> None:
    measured: list[Settings] = []

    def interrupted(settings: Settings) -> dict[str, Any]:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(settings)
        return measure(settings)

    def counted(settings: Settings) -> dict[str, Any]:
        measured.append(settings)
        return measure(settings)

    with pytest.raises(KeyboardInterrupt):
        search(Parts(tmp_path / "a", "run"), "m", SPACE, DEFAULT, interrupted, trials=5, propose=propose)
    resumed = search(Parts(tmp_path / "a", "run"), "m", SPACE, DEFAULT, counted, trials=5, propose=propose)
    assert len(measured) == 5
    assert resumed == search(Parts(tmp_path / "b", "run"), "m", SPACE, DEFAULT, measure, trials=5, propose=propose)


def test_trials_of_another_search_are_refused(tmp_path: Path) -> None:
    search(Parts(tmp_path, "run"), "m", SPACE, DEFAULT, measure, trials=3, propose=at_random)
    with pytest.raises(InputError, match="remove it"):
        search(Parts(tmp_path, "run"), "m", SPACE, {"rate": 0.3, "width": 16}, measure, trials=3, propose=at_random)


def test_a_budget_beyond_the_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer than 7 settings"):
        search(Parts(tmp_path, "run"), "m", SPACE, DEFAULT, measure, trials=7)


@pytest.mark.parametrize(
    ("name", "model", "propose", "value"),
    [
        *(("search", model, at_random, "validation") for model in stored("search")),
        ("search-sasrec", "sasrec", by_parzen, "validation"),
        ("search-sasrec-hybrid", "sasrec-hybrid", by_parzen, "validation"),
        *(("search-attacks", model, by_parzen, "value") for model in stored("search-attacks")),
        *(("search-negatives", model, by_parzen, "value") for model in stored("search-negatives")),
    ],
)
def test_a_stored_search_is_proposed_again(tmp_path: Path, name: str, model: str, propose: Any, value: str) -> None:
    entry = stored(name)[model]
    trials = entry["trials"]

    def look_up(settings: Settings) -> dict[str, Any]:
        return next(trial for trial in trials if trial["settings"] == settings)

    found = search(
        Parts(tmp_path, name),
        model,
        entry["space"],
        trials[0]["settings"],
        look_up,
        trials=len(trials),
        value=value,
        propose=propose,
    )
    assert found == trials


def test_the_order_of_names_decides_what_optuna_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = stored("search-negatives")["generator"]["trials"]
    monkeypatch.setattr(common, "DRAWN_AS", {})
    proposals = by_parzen(stored("search-negatives")["generator"]["space"], trials[0]["settings"], len(trials))
    assert next(proposals) == trials[0]["settings"]
    assert [proposals.send(trial["value"]) for trial in trials[:-1]] != [trial["settings"] for trial in trials[1:]]


def test_spaces_and_defaults_are_those_of_the_stored_searches() -> None:
    for name, entry in stored("search-attacks").items():
        assert (entry["fixed"], entry["space"]) == ATTACKS[name]
        assert entry["trials"][0]["settings"] == first_of(*ATTACKS[name])
    for name, entry in stored("search-negatives").items():
        assert (entry["fixed"], entry["space"]) == NEGATIVES[name]
        assert entry["trials"][0]["settings"] == first_of(*NEGATIVES[name])
    for name, (fixed, space) in SPACES.items():
        entry = stored(f"search-{name}")[name]
        assert (entry["fixed"], entry["space"]) == (fixed, space)
        assert entry["trials"][0]["settings"] == default_of(name)


def test_the_best_settings_include_the_fixed_ones() -> None:
    assert best_settings("search-attacks", "APR")["attack"] == "fgm"
    best = max(stored("search")["ease"]["trials"], key=lambda trial: trial["validation"])
    assert best_settings("search", "ease", "validation") == best["settings"]
