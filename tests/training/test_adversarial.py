"""Adversarial training of two networks: what is added to the loss, in which direction, and what it costs."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from recsys_cl.data import Split, leave_last_n, synthetic
from recsys_cl.encoders.towers import ItemTower
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.recommenders import EASE, Sequential, TwoTower, load_recommender
from recsys_cl.recommenders.vector_attacks import evaluate_shifted, random_shift, worst_shift
from recsys_cl.training.adversarial import ATTACKS, AdversarialTraining, FastGradient, ProjectedGradient
from recsys_cl.training.examples import NextItemExamples

QUICK = {"model": "", "dim": 16, "length": 20, "epochs": 2, "batch_size": 128}


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_n(synthetic(200, 80, seed=5), n=3, seed=0)


@pytest.fixture(scope="module")
def plain(split: Split) -> TwoTower:
    return TwoTower(**{**QUICK, "dropout": 0.0, "epochs": 4}).fit(split)


@pytest.fixture
def batch(split: Split) -> dict[str, torch.Tensor]:
    examples = NextItemExamples(split.train, split.n_items, length=20)
    return examples.collate([(0, example) for example in range(64)])


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_the_loss_is_clean_plus_weighted_attacked(plain: TwoTower, batch: dict[str, torch.Tensor]) -> None:
    network = plain.network
    clean = network(**batch)["loss"]
    at = torch.zeros(80, 16, requires_grad=True)
    with network.items.shifted(at):
        network(**batch)["loss"].backward()
    gradient = at.grad
    assert gradient is not None
    worst = 0.3 * torch.nn.functional.normalize(gradient, dim=1)  # zero rows stay zero
    with network.items.shifted(worst):
        attacked = network(**batch)["loss"]
    network.zero_grad()
    total = AdversarialTraining(network, FastGradient(0.3, 0.7))(**batch)["loss"]
    assert_close(total, clean + 0.7 * attacked)
    assert attacked > clean


def test_an_attack_hurts_more_than_noise_and_pgd_more_than_one_step(
    plain: TwoTower, batch: dict[str, torch.Tensor]
) -> None:
    clean = float(plain.network(**batch)["loss"].detach())
    rise = {
        attack: float(AdversarialTraining(plain.network, ATTACKS[attack](0.3))(**batch)["loss"].detach()) - 2 * clean
        for attack in ("random", "fgm", "pgd")
    }
    assert rise["pgd"] > rise["fgm"] > 2 * abs(rise["random"])


@pytest.mark.parametrize("attack", ["random", "fgm", "pgd", "vat", "simgcl"])
def test_every_attack_trains_both_networks(split: Split, attack: str) -> None:
    for model in (
        TwoTower(**{**QUICK, "attack": {"name": attack, "epsilon": 0.1}, "epochs": 1}),
        Sequential(dim=16, length=10, blocks=1, epochs=1, attack={"name": attack, "epsilon": 0.1}),
    ):
        model.fit(split)
        assert model.network.items.shift is None
        assert evaluate(model, split.test).mean() > 0


def test_every_parameter_learns_under_attack(plain: TwoTower, batch: dict[str, torch.Tensor]) -> None:
    plain.network.zero_grad()
    AdversarialTraining(plain.network, ProjectedGradient(0.1))(**batch)["loss"].backward()
    ids = plain.network.items.ids
    assert ids is not None
    assert ids.weight.grad is not None
    assert ids.weight.grad.abs().sum() > 0
    plain.network.zero_grad()


def test_trained_against_the_attack_more_is_left(split: Split, plain: TwoTower) -> None:
    hardened = TwoTower(**{**QUICK, "dropout": 0.0, "epochs": 4, "attack": {"name": "fgm", "epsilon": 0.2}}).fit(split)
    left = {}
    for name, model in {"plain": plain, "hardened": hardened}.items():
        attacked = evaluate_shifted(model, split.test, worst_shift(model, split.test, 0.5, steps=5)).mean()
        left[name] = attacked / evaluate(model, split.test).mean()
    assert left["hardened"] > 1.1 * left["plain"]


def test_the_worst_shift_beats_a_random_one_of_its_length(split: Split, plain: TwoTower) -> None:
    clean = evaluate(plain, split.test).mean()
    worst = worst_shift(plain, split.test, 0.3, steps=5)
    assert (worst.norm(dim=1) <= 0.3 * (1 + 1e-5)).all()
    noise = random_shift(plain, 0.3, seed=1)
    assert_close(noise, random_shift(plain, 0.3, seed=1))
    assert evaluate_shifted(plain, split.test, worst).mean() < 0.8 * evaluate_shifted(plain, split.test, noise).mean()
    assert evaluate(plain, split.test).mean() == clean, "the recommender is as it was"


def test_a_sequence_model_can_be_attacked_too(split: Split) -> None:
    model = Sequential(dim=16, length=10, blocks=1, epochs=1).fit(split)
    clean = evaluate(model, split.test).mean()
    assert evaluate_shifted(model, split.test, worst_shift(model, split.test, 0.5, steps=3)).mean() < clean


def test_a_hardened_recommender_is_saved_and_loaded(split: Split, tmp_path: object) -> None:
    trained = TwoTower(**{**QUICK, "attack": "fgm", "epochs": 1}).fit(split)
    trained.save(str(tmp_path))
    loaded = load_recommender(str(tmp_path))
    assert loaded == trained
    assert_close(loaded.score(split.test.history[:9]), trained.score(split.test.history[:9]))


def test_what_cannot_be_attacked(split: Split) -> None:
    with pytest.raises(InputError, match="EASE has no item vectors"):
        worst_shift(EASE().fit(split), split.test, 0.1)
    with pytest.raises(InputError, match="epsilon=0"):
        FastGradient(0.0)
    with pytest.raises(InputError, match="epsilon=0"):
        TwoTower(attack={"name": "fgm", "epsilon": 0.0})
    with pytest.raises(InputError, match="unknown attack 'fgms', did you mean 'fgm'"):
        TwoTower(attack="fgms")
    assert TwoTower(attack="none").attack is None


def test_a_network_that_ignores_its_vectors() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items = ItemTower.of_size(5, 0, dim=16, ids=True)
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self) -> dict[str, torch.Tensor]:
            return {"loss": self.weight * 1.0}

    with pytest.raises(InputError, match="does not depend on the perturbation"):
        AdversarialTraining(Deaf(), FastGradient())()
