"""Models of the tables: a stored table has the models that the experiments define now."""

from collections.abc import Callable

import pytest
from ch04_losses import PROTOCOLS, tried
from ch07_sequences import ablation_models
from ch09_perturbations import chosen, with_ablation
from ch11_full_table import best_models, cold_models, later_models, loss_models, warm_and_cold_models
from common import RESULTS, named

from recsys_cl.book.results import read_result
from recsys_cl.losses.contrastive import LOSSES
from recsys_cl.recommenders import TwoTower, create

MODELS = {
    "sequence-ablation": ablation_models,
    "sequence-leave-last-n": best_models,
    "sequence-leave-one-out": loss_models,
    "sequence-warm-and-cold": warm_and_cold_models,
    "sequence-temporal": later_models,
    "sequence-cold-items": cold_models,
}


@pytest.mark.parametrize(("name", "models"), MODELS.items(), ids=MODELS)
def test_stored_tables_have_the_models_of_the_experiment(name: str, models: Callable[[], dict[str, str]]) -> None:
    assert read_result(name, RESULTS)["result"]["specs"] == models()
    for model in models().values():
        create(model)


@pytest.mark.parametrize(
    ("table", "search"),
    [("adversarial-training", "search-attacks"), ("adversarial-negatives", "search-negatives")],
)
def test_stored_tables_have_the_best_settings_of_the_search(table: str, search: str) -> None:
    settings = read_result(table, RESULTS)["result"]["settings"]
    assert settings == with_ablation(chosen(search))
    for one in settings.values():
        create("two-tower", **one)


def test_the_pointwise_twin_differs_from_the_one_with_its_negatives_in_the_loss_alone() -> None:
    pointwise, twin = (named(f"two-tower:{loss}sampler=uniform")(3) for loss in ("loss=logistic,", ""))
    assert isinstance(pointwise, TwoTower)
    assert isinstance(twin, TwoTower)
    assert {name for name, value in vars(twin).items() if vars(pointwise)[name] != value} == {"loss"}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_trials_that_begin_at_its_default(loss: str, protocol: object) -> None:
    temperatures = protocol.temperatures  # type: ignore[attr-defined]
    trials = tried(loss, temperatures)
    assert len(trials) in (1, 4)
    has_temperature = LOSSES[loss]().has_temperature
    assert all(("temperature" in one) == has_temperature for one in trials)
