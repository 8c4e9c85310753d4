"""Losses as arguments: every name trains, adapters are what they say, masks leave out, bad input is one error."""

import importlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.data import Sequences, Split, leave_one_out, synthetic
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.losses import (
    LOSSES,
    Loss,
    add_loss,
    bpr_loss,
    info_nce_loss,
    logistic_loss,
    multi_positive_loss,
    nt_xent_loss,
    pairwise_contrastive_loss,
    soft_triplet_loss,
    supervised_contrastive_loss,
    symmetric_info_nce_loss,
    triplet_loss,
)
from recsys_cl.negatives.strategies import InBatch, Sampler
from recsys_cl.recommenders import MODELS, FineTuned, Random, Recommender, TwoTower, create, load_recommender
from recsys_cl.registry import Registry
from recsys_cl.training import NextItemExamples

NAMES = [
    "info-nce",
    "symmetric-info-nce",
    "sampled-softmax",
    "decoupled",
    "debiased",
    "nt-xent",
    "supervised",
    "multi-positive",
    "sigmoid",
    "logistic",
    "bpr",
    "triplet",
    "soft-triplet",
    "pairwise",
]
IN_BATCH = [name for name in NAMES if "in-batch" in LOSSES[name]().forms]
OWN = [name for name in NAMES if "own" in LOSSES[name]().forms]
QUICK = {"dim": 16, "length": 20, "batch_size": 128, "epochs": 4}
TAU = torch.tensor(0.5)

Drawn = Callable[..., list[Tensor]]


@pytest.fixture(autouse=True)
def _registries_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (LOSSES, MODELS):
        monkeypatch.setattr(registry, "_values", dict(registry._values))


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(synthetic(400, 120, seed=5), seed=0)


@pytest.fixture(scope="module")
def chance(split: Split) -> float:
    return evaluate(Random().fit(split), split.test).mean()


def unit(*tensors: Tensor) -> list[Tensor]:
    return [torch.nn.functional.normalize(tensor, dim=-1) for tensor in tensors]


# every name trains


def test_the_names_are_these_and_each_default_works() -> None:
    assert list(LOSSES) == NAMES
    assert set(IN_BATCH) | set(OWN) == set(NAMES)
    for name in NAMES:
        assert LOSSES[name]().name == name


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_trains_and_ranks_above_chance(split: Split, chance: float, name: str) -> None:
    model = create(f"two-tower-id:loss={name}", **QUICK)
    assert isinstance(model, TwoTower)
    model.fit(split)
    scores = model.score(split.test.history)
    assert scores.isfinite().all()
    assert scores.std(1).min() > 0
    assert evaluate(model, split.test).mean() > 1.25 * chance


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_teaches_every_weight(split: Split, name: str) -> None:
    model = create(f"two-tower-id:loss={name}", **{**QUICK, "epochs": 1, "dropout": 0.0})
    assert isinstance(model, TwoTower)
    network = model.fit(split).network
    drawn = model.sampler.drawn(torch.from_numpy(split.counts), seed=0)
    examples = NextItemExamples(
        split.train, split.n_items, length=20, negatives=drawn, k=model.sampler.negatives, seed=0
    )
    network.zero_grad()
    network(**examples.collate([(0, example) for example in range(0, 320, 5)]))["loss"].backward()
    learned = {key: weight for key, weight in network.named_parameters() if weight.requires_grad}
    assert ("temperature.log_scale" in learned) == model.loss.has_temperature
    for key, weight in learned.items():
        assert weight.grad is not None, key
        assert weight.grad.isfinite().all(), key
        assert weight.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_the_sampler_follows_from_the_loss(name: str) -> None:
    model = TwoTower(model="", loss=name)
    assert isinstance(model.sampler, InBatch) == (name in IN_BATCH)
    assert model.sampler == (InBatch() if name in IN_BATCH else Sampler(negatives=16))


def test_a_loss_is_given_by_name_by_settings_by_function_or_as_an_object() -> None:
    given = [
        create("two-tower-id:loss=triplet,loss.margin=0.3").loss,  # type: ignore[attr-defined]
        TwoTower(model="", loss={"name": "triplet", "margin": 0.3}).loss,
        TwoTower(model="", loss=Loss("triplet", own=triplet_loss, margin=0.3)).loss,
    ]
    assert given[0] == given[1] == given[2]
    assert TwoTower(model="", loss=triplet_loss).loss == LOSSES["triplet"]()
    assert TwoTower(model="", loss=info_nce_loss).loss.forms == {"in-batch": info_nce_loss}


def test_both_forms_of_info_nce_agree_where_the_negatives_do(drawn: Drawn) -> None:
    users, items = unit(*drawn(0, (5, 4), (5, 4)))
    others = torch.stack([torch.cat([items[:b], items[b + 1 :]]) for b in range(5)])  # (B, B - 1, d)
    loss = LOSSES["info-nce"]()
    own = loss.against_own(
        users, items, others, temperature=TAU, log_q=torch.zeros(5), negative_log_q=torch.zeros(5, 4)
    )
    assert_close(own, loss.against_batch(users, items, temperature=TAU))


# adapters


def test_nt_xent_is_of_the_two_towers_as_views(drawn: Drawn) -> None:
    users, items = unit(*drawn(1, (6, 4), (6, 4)))
    rows = LOSSES["nt-xent"]().against_batch(users, items, temperature=TAU)
    of_views = nt_xent_loss(users, items, temperature=TAU, reduction="none")
    assert_close(rows, (of_views[:6] + of_views[6:]) / 2)
    assert_close(rows.mean(), nt_xent_loss(users, items, temperature=TAU))


def test_supervised_has_the_item_number_for_a_label_of_user_and_item_rows(drawn: Drawn) -> None:
    users, items = unit(*drawn(2, (5, 4), (5, 4)))
    label = torch.tensor([7, 3, 7, 1, 3])
    rows = LOSSES["supervised"]().against_batch(users, items, temperature=TAU, label=label)
    both = supervised_contrastive_loss(torch.cat([users, items]), label.repeat(2), temperature=TAU, reduction="none")
    assert_close(rows, (both[:5] + both[5:]) / 2)
    alone = LOSSES["supervised"]().against_batch(users, items, temperature=TAU, label=torch.arange(5))
    assert_close(alone, LOSSES["nt-xent"]().against_batch(users, items, temperature=TAU))


@pytest.mark.parametrize("masked", [False, True])
def test_in_batch_logistic_has_the_other_items_for_negatives(drawn: Drawn, masked: bool) -> None:
    users, items = drawn(3, (5, 4), (5, 4))
    mask = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) < 0.4 if masked else None
    rows = LOSSES["logistic"]().against_batch(users, items, temperature=TAU, mask=mask)
    for b in range(5):
        others = [j for j in range(5) if j != b]
        own = None if mask is None else mask[b, others][None]
        expected = logistic_loss(users[b : b + 1], items[b : b + 1], items[others][None], temperature=TAU, mask=own)
        assert_close(rows[b], expected)


def test_multi_positive_takes_all_known_positives_of_the_batch(drawn: Drawn) -> None:
    users, items = drawn(4, (4, 3), (6, 3))
    known = torch.zeros(4, 6, dtype=torch.bool)
    known[0, [2, 5]], known[3, 0] = True, True
    loss = LOSSES["multi-positive"]()
    rows = loss.against_batch(users, items, temperature=TAU, mask=known)
    positive = known | torch.eye(4, 6, dtype=torch.bool)
    assert_close(rows, multi_positive_loss(users, items, positive, temperature=TAU, reduction="none"))
    logits = users @ items.T / TAU
    assert_close(rows[0], logits[0].logsumexp(0) - logits[0, [0, 2, 5]].mean())
    assert_close(loss.against_batch(users, items, temperature=TAU, mask=lambda rows: known[rows]), rows)
    one_each = loss.against_batch(users, items, temperature=TAU)
    assert_close(one_each, LOSSES["info-nce"]().against_batch(users, items, temperature=TAU))


@pytest.mark.parametrize("name", [name for name in IN_BATCH if LOSSES[name]().square])
def test_of_more_items_than_users_a_square_loss_reads_the_users_own(drawn: Drawn, name: str) -> None:
    users, items = unit(*drawn(5, (4, 3), (8, 3)))
    mask = torch.rand(4, 8, generator=torch.Generator().manual_seed(1)) < 0.3
    log_q, label = torch.linspace(-3, -1, 8).double(), torch.tensor([0, 1, 0, 2, 5, 6, 7, 8])
    loss = LOSSES[name]()
    given = {"temperature": TAU, "mask": mask, "log_q": log_q, "label": label}
    own = {"temperature": TAU, "mask": mask[:, :4], "log_q": log_q[:4], "label": label[:4]}
    assert_close(loss.against_batch(users, items, **given), loss.against_batch(users, items[:4], **own))
    of_rows = {**given, "mask": lambda rows: mask[rows]}
    assert_close(loss.against_batch(users, items, **of_rows), loss.against_batch(users, items[:4], **own))


# masks of own negatives

MASKED = {
    "bpr": bpr_loss,
    "logistic": logistic_loss,
    "triplet": triplet_loss,
    "soft-triplet": soft_triplet_loss,
    "pairwise": pairwise_contrastive_loss,
}


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_negative_is_as_if_it_had_been_left_out(drawn: Drawn, name: str) -> None:
    loss = MASKED[name]
    users, items, negatives = drawn(6, (4, 3), (4, 3), (4, 6, 3))
    mask = torch.tensor([[0, 1, 0, 0, 1, 0], [0] * 6, [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    rows = loss(users, items, negatives, mask=mask, reduction="none")
    for b in range(4):
        one = slice(b, b + 1)
        assert_close(rows[b], loss(users[one], items[one], negatives[one][:, ~mask[b]]))
    nothing = loss(users, items, negatives, mask=torch.zeros_like(mask), reduction="none")
    assert_close(nothing, loss(users, items, negatives, reduction="none"))


@pytest.mark.parametrize("name", MASKED)
def test_masked_negatives_are_not_pushed(drawn: Drawn, name: str) -> None:
    users, items, negatives = drawn(7, (2, 3), (2, 3), (2, 3, 3))
    negatives.requires_grad_()
    mask = torch.tensor([[True, False, True], [True, True, True]])
    MASKED[name](users, items, negatives, mask=mask, reduction="sum").backward()
    assert negatives.grad is not None
    assert (negatives.grad[mask] == 0).all()
    assert negatives.grad.isfinite().all()


@pytest.mark.parametrize("name", MASKED)
def test_of_an_anchor_whose_negatives_are_all_masked_the_pull_is_left(drawn: Drawn, name: str) -> None:
    users, items, negatives = drawn(8, (3, 4), (3, 4), (3, 2, 4))
    rows = MASKED[name](users, items, negatives, mask=torch.ones(3, 2, dtype=torch.bool), reduction="none")
    pull = {
        "logistic": torch.nn.functional.softplus(-(users * items).sum(1)),
        "pairwise": (users - items).square().sum(1) / 2,
    }
    assert_close(rows, pull.get(name, torch.zeros(3, dtype=torch.float64)))


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("mask", [torch.zeros(2, 2, dtype=torch.bool), torch.zeros(2, 3)], ids=["shape", "dtype"])
def test_a_mask_that_does_not_fit_is_named(drawn: Drawn, name: str, mask: Tensor) -> None:
    users, items, negatives = drawn(9, (2, 4), (2, 4), (2, 3, 4))
    with pytest.raises(InputError, match=r"mask .* does not fit; give bool, one per negative, \(2, 3\)"):
        MASKED[name](users, items, negatives, mask=mask)


# bad input


def mean_of_rows(users: Tensor, items: Tensor) -> Tensor:
    return (users - items).square().mean()


def not_a_number(users: Tensor, items: Tensor) -> Tensor:
    return (users * items).sum(1) * math.nan


def detached(users: Tensor, items: Tensor) -> Tensor:
    return (users * items).sum(1).detach()


def of_one(users: Tensor) -> Tensor:
    return users.sum(1)


def no_tensor(users: Tensor, items: Tensor, negatives: Tensor) -> Any:
    return 0.5


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            mean_of_rows,
            r"the loss 'mean_of_rows' returns shape \(\); return one number per user, \(2,\), without averaging",
        ),
        (not_a_number, r"the loss 'not_a_number' is \[nan, nan\] on two orthogonal pairs; it must be finite"),
        (detached, r"the loss 'detached' has no gradient; compute it from the arguments, without detach\(\)"),
        (of_one, r"the loss 'of_one' takes 1 tensors; give a function of \(users, items\) or"),
        (no_tensor, r"the loss 'no_tensor' returns 0.5; return one number per user"),
    ],
)
def test_a_function_that_is_no_loss_is_refused_before_anything_is_trained(
    function: Callable[..., Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        TwoTower(model="", loss=function)


@pytest.mark.parametrize("function", [mean_of_rows, not_a_number, detached])
def test_such_a_function_is_not_registered_either(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="the loss 'mine'"):
        add_loss("mine", in_batch=function)
    assert "mine" not in LOSSES


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "two-tower-id:loss=triplet,temperature=0.2",
            r"the loss 'triplet' has no temperature; leave temperature=0.2 out",
        ),
        (
            "two-tower-id:loss=nt-xent,sampler=uniform",
            r"'nt-xent' cannot be computed with sampler='uniform'; give sampler=in-batch",
        ),
        (
            "two-tower-id:loss=triplet,sampler=in-batch",
            r"'triplet' cannot be computed with sampler='in-batch'; give sampler=uniform",
        ),
        (
            "two-tower-id:loss=triplet,loss.margn=0.3",
            r"setting of the loss 'triplet': 'margn', did you mean 'margin'\? \(valid names are distance, margin\)",
        ),
        ("two-tower-id:loss=nt-xent,loss.margin=0.3", r"the loss 'nt-xent' has no settings; leave margin out"),
        (
            "two-tower-id:loss=tripplet",
            r"unknown loss 'tripplet', did you mean 'triplet'\? \(valid names are info-nce, .*pairwise\)",
        ),
        ("two-tower-id:loss=triplet,loss.margin=-1", r"margin"),
        ("two-tower-id:loss=triplet,loss.temperature=0.1", r"'temperature'.*\(valid names are distance, margin\)"),
        ("two-tower-id:temperature=0.005", r"temperature=0.005 is out of range; give 0.01 or more"),
        ("sasrec:temperature=0.005", r"temperature=0.005 is out of range"),
        ("user-item:temperature=0.005", r"temperature=0.005 is out of range"),
        ("minilm-tuned:temperature=0.005", r"temperature=0.005 is out of range"),
        ("minilm-tuned:passes=0", r"passes=0 is out of range; give 1 or more"),
        (
            "minilm-tuned:loss=triplet,user=text",
            r"the loss 'triplet' needs sampled negatives, .* use one of info-nce, ",
        ),
        ("minilm-tuned:loss=info-nce", r"the loss 'info-nce' compares pairs, .* user=text, or leave the loss out"),
        ("two-tower-id:loss=7", r"loss=7 is not valid; give a name, a function or a Loss"),
    ],
)
def test_what_does_not_fit_is_one_clear_error_at_construction(model: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        create(model)
    assert "\n" not in str(raised.value)


def test_the_losses_named_as_a_way_out_are_ways_out() -> None:
    with pytest.raises(InputError, match="or one of the losses") as raised:
        create("two-tower-id:loss=nt-xent,sampler=uniform")
    assert str(raised.value).rpartition("losses ")[2].split(", ") == OWN
    with pytest.raises(InputError, match="use one of") as raised:
        FineTuned(user="text", loss="bpr")
    assert str(raised.value).rpartition("use one of ")[2].split(", ") == IN_BATCH


def test_passes_of_none_are_refused() -> None:
    with pytest.raises(InputError, match="passes=0 is out of range; give 1 or more"):
        FineTuned(passes=0)


def test_a_loss_of_no_function_is_refused() -> None:
    with pytest.raises(InputError, match="a loss needs a function; give in_batch= or own="):
        Loss("empty")


def test_a_registered_function_given_as_an_object_keeps_its_name() -> None:
    assert LOSSES.describe(TwoTower(loss=bpr_loss).loss) == LOSSES.describe(TwoTower(loss="bpr").loss)
    assert TwoTower(loss=symmetric_info_nce_loss).loss.square


def test_a_cell_that_registers_a_loss_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_values", dict(LOSSES._values))
    for margin in (0.1, 0.2):

        def mine(users: Tensor, items: Tensor, negatives: Tensor, *, gap: float = margin) -> Tensor:
            return triplet_loss(users, items, negatives, margin=gap, reduction="none")

        add_loss("mine", own=mine)
    assert LOSSES["mine"]().forms["own"] is mine


def test_no_two_things_have_one_name() -> None:
    with pytest.raises(InputError, match="the loss name 'triplet' is taken; choose another"):
        add_loss("triplet", own=soft_triplet_loss)
    with pytest.raises(InputError, match="the model name 'ease' is taken by 'EASE'; choose another"):
        MODELS.add("ease", TwoTower)
    colours: Registry[str] = Registry("colour")
    colours.add("red", "#f00")
    colours.add("red", "#f00")  # the same again, as when a module is reloaded, is no conflict
    with pytest.raises(InputError, match="the colour name 'red' is taken"):
        colours.add("red", "#e00")


def close(users: Tensor, items: Tensor, *, mask: Any = None) -> Tensor:
    """A loss that nobody registered."""
    return (users[: len(users)] - items[: len(users)]).square().sum(1)


def test_a_model_of_an_unregistered_loss_trains_and_cannot_be_saved(split: Split, tmp_path: Path) -> None:
    model = TwoTower(model="", loss=close, **{**QUICK, "epochs": 1}).fit(split)
    assert model.score(split.test.history).isfinite().all()
    with pytest.raises(
        InputError, match=r"the loss 'close' has no registered name.*register it with add_loss"
    ) as raised:
        model.save(tmp_path / "unnamed")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "unnamed" / "config.json").exists()
    with pytest.raises(InputError, match="the loss 'close' has no registered name"):
        model.fit(split, folder=tmp_path / "run")  # its settings would be kept beside the checkpoints
    add_loss("close", in_batch=close)
    saved = TwoTower(model="", loss="close", **{**QUICK, "epochs": 1}).fit(split)
    saved.save(tmp_path / "close")
    assert load_recommender(tmp_path / "close") == saved


@dataclass
class Constant(Recommender):
    """Everything alike."""

    def fit(self, split: Split) -> Self:
        self.items, self.state = split.data.items, {"score": torch.zeros(split.n_items)}
        return self

    def score(self, histories: Sequences) -> Tensor:
        return self.state["score"].repeat(len(histories), 1)


def test_a_folder_of_an_unregistered_class_is_refused(split: Split, tmp_path: Path) -> None:
    MODELS.add("constant", Constant)
    Constant().fit(split).save(tmp_path)
    assert isinstance(load_recommender(tmp_path), Constant)
    del MODELS._values["constant"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"unknown model 'constant'.*\(valid names are random, popularity, "):
        load_recommender(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "recommender": "two-tower-gan"}))
    with pytest.raises(InputError, match="names a model's settings instead of a class"):
        load_recommender(tmp_path)


@pytest.mark.parametrize("room", ["recsys_cl.objectives", "recsys_cl.objectives.contrastive"])
def test_the_losses_stay_importable_from_where_they_were(room: str) -> None:
    names = importlib.import_module("recsys_cl.objectives.contrastive").__all__
    package, losses = importlib.import_module(room), importlib.import_module("recsys_cl.losses")
    assert {"info_nce_loss", "nt_xent_loss", "triplet_loss", "supervised_contrastive_loss"} <= set(names)
    assert all(getattr(package, name) is getattr(losses, name) and name in package.__all__ for name in names)
