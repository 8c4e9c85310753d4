"""Settings: ranges, components by name, by settings and as objects, dotted names, and a round trip for every model."""

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from recsys_cl.errors import InputError
from recsys_cl.losses import LOSSES, Loss, bpr_loss, triplet_loss
from recsys_cl.negatives.strategies import SAMPLERS, Hard, InBatch, Perturbed, Sampler
from recsys_cl.objectives import (
    AUXILIARY_LOSSES,
    SEQUENCE_LOSSES,
    BinaryCrossEntropy,
    EventType,
    ItemAlignment,
    Softmax,
    Views,
)
from recsys_cl.recommenders import MODELS, Sequential, TwoTower, create
from recsys_cl.registry import Registry
from recsys_cl.settings import Parts, Range, check_settings, component, described, nested
from recsys_cl.training.adversarial import ATTACKS, FastGradient

SHAPES: Registry[Any] = Registry("shape")
WEIGHTS = Parts("weight")


@SHAPES.add("square")
@dataclass(frozen=True)
class Square:
    """A shape with a side."""

    side: Annotated[float, Range(0.5, 2)] = 1.0

    def __post_init__(self) -> None:
        check_settings(self)


@WEIGHTS.add("iron")
@dataclass(frozen=True)
class Iron:
    """A heavy part."""

    kilos: float = 2.0


@WEIGHTS.add("lead")
@dataclass(frozen=True)
class Lead(Iron):
    """A heavier one."""


@dataclass
class Thing:
    """One setting of each kind."""

    share: Annotated[float, Range(0, 1)] = 0.5
    count: Annotated[int, Range(1)] = 3
    free: float = 0.0
    kind: Literal["big", "small"] = "big"
    name: str = ""
    on: bool = True
    shape: Annotated[Any, SHAPES] = "square"
    weights: Annotated[Any, WEIGHTS] = ()

    def __post_init__(self) -> None:
        check_settings(self)


# numbers, names and switches


@pytest.mark.parametrize(
    "settings",
    [
        {"share": 0},
        {"share": 1.0},
        {"share": 1},
        {"count": 1},
        {"count": 10**9},
        {"free": 1e9},
        {"kind": "small"},
        {"name": "any"},
        {"on": False},
        {"shape": {"name": "square", "side": 0.5}},
    ],
    ids=str,
)
def test_the_ends_of_a_range_are_within(settings: dict[str, Any]) -> None:
    Thing(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.01}, "^share=1.01 is out of range; give 0 to 1$"),
        ({"share": -0.1}, "^share=-0.1 is out of range; give 0 to 1$"),
        ({"share": math.nan}, "^share=nan is not valid; give a number$"),
        ({"share": math.inf}, "^share=inf is not valid"),
        ({"share": "half"}, "^share='half' is not valid; give a number$"),
        ({"share": True}, "^share=True is not valid"),
        ({"count": 0}, "^count=0 is out of range; give 1 or more$"),
        ({"count": 2.0}, "^count=2.0 is not valid; give a whole number$"),
        ({"free": -1.0}, "^free=-1.0 is out of range; give 0 or more$"),
        ({"kind": "huge"}, "^kind='huge' is unknown; valid names are big, small$"),
        ({"name": 3}, "^name=3 is not valid; give a name$"),
        ({"on": 1}, "^on=1 is not valid; give true or false$"),
        ({"shape": "sqare"}, r"^unknown shape 'sqare', did you mean 'square'\? \(valid names are square\)$"),
        ({"shape": {"name": "square", "sid": 1.0}}, "setting of shape 'square': 'sid', did you mean 'side'"),
        ({"shape": {"name": "square", "side": 3}}, "^side=3 is out of range; give 0.5 to 2$"),
        ({"shape": {"side": 1.0}}, "^{'side': 1.0} does not say which shape it is for; give 'name' as well$"),
        ({"shape": None}, "^shape=None is not valid; give a name$"),
        ({"weights": None}, "^weights=None is not valid; give a name$"),
        ({"weights": "iron+gold"}, "^unknown weight 'gold'"),
        ({"weights": [{"name": "iron", "stone": 1}]}, r"setting of weight 'iron': 'stone'.*\(valid names are kilos\)"),
    ],
    ids=str,
)
def test_what_is_not_valid_is_named_with_what_is(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Thing(**settings)


def test_a_range_without_ends_is_of_numbers_from_0() -> None:
    Range().check("x", 0)
    with pytest.raises(InputError, match="x=-1 is out of range; give 0 or more"):
        Range().check("x", -1)


# components


@pytest.mark.parametrize(
    "value", ["square", {"name": "square"}, {"name": "square", "side": 1.0}, Square(), Square(1.0)], ids=str
)
def test_a_component_is_given_by_name_by_settings_or_as_itself(value: Any) -> None:
    assert Thing(shape=value).shape == Square(1.0)


def test_none_is_none_where_a_registry_says_so() -> None:
    assert component(ATTACKS, None) is component(ATTACKS, "none") is None
    assert component(ATTACKS, "fgm") == FastGradient()
    with pytest.raises(InputError, match="unknown sampler 'none'"):
        component(SAMPLERS, "none")


def test_what_describes_a_component_is_left_as_it_was() -> None:
    given = {"name": "square", "side": 2.0}
    Thing(shape=given)
    assert given == {"name": "square", "side": 2.0}


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("", ()),
        ((), ()),
        ("iron", (Iron(),)),
        ("iron+lead", (Iron(), Lead())),
        ("lead+iron", (Lead(), Iron())),
        (["iron", "lead"], (Iron(), Lead())),
        ([{"name": "iron", "kilos": 3.0}, "lead"], (Iron(3.0), Lead())),
        ({"name": "lead", "kilos": 3.0}, (Lead(3.0),)),
        ([Iron(1.0), {"name": "lead"}], (Iron(1.0), Lead())),
        (Iron(1.0), (Iron(1.0),)),
    ],
    ids=str,
)
def test_parts_are_a_list_in_the_order_given(value: Any, parts: tuple[Any, ...]) -> None:
    assert Thing(weights=value).weights == parts


def test_components_of_real_models() -> None:
    model = Sequential(loss=BinaryCrossEntropy(negatives=4), auxiliary=[Views(of="crop"), "same-target"])
    assert model.loss == component(SEQUENCE_LOSSES, {"name": "bce", "negatives": 4})
    assert model.auxiliary == component(AUXILIARY_LOSSES, [{"name": "views", "of": "crop"}, "same-target"])
    tower = TwoTower(loss=triplet_loss, sampler=Hard(share=0.25), attack=FastGradient(0.1))
    assert tower.loss == Loss(own=triplet_loss)
    assert tower.sampler == component(SAMPLERS, {"name": "hard", "share": 0.25})


@pytest.mark.parametrize(
    ("registry", "value", "message"),
    [
        (SAMPLERS, {"name": "hard", "shar": 0.5}, "setting of sampler 'hard': 'shar', did you mean 'share'"),
        (SAMPLERS, {"name": "hard", "share": 0.0}, "share=0.0 is out of range; give 0.001 to 1"),
        (SAMPLERS, {"name": "in-batch", "negatives": 3}, "negatives=3 is out of range; give 0 to 0"),
        (SEQUENCE_LOSSES, {"name": "sampled-softmax", "exclude_known": True}, r"'exclude_known'.*are negatives\)"),
        (
            AUXILIARY_LOSSES,
            {"name": "views", "off": "crop"},
            "setting of auxiliary loss 'views': 'off', did you mean 'of'",
        ),
        (ATTACKS, {"name": "fgm", "epsilon": 0.0}, "epsilon=0.0 is out of range"),
        (LOSSES, {"name": "bpr", "margin": 0.1}, "the loss 'bpr' has no settings; leave margin out"),
    ],
)
def test_settings_of_real_components_are_checked(registry: Registry[Any], value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        component(registry, value)


# dotted names


@pytest.mark.parametrize(
    ("given", "gathered"),
    [
        ({}, {}),
        ({"dim": 3}, {"dim": 3}),
        ({"loss": "triplet", "loss.margin": 0.3}, {"loss": {"name": "triplet", "margin": 0.3}}),
        ({"loss.margin": 0.3, "loss": "triplet"}, {"loss": {"name": "triplet", "margin": 0.3}}),
        (
            {"loss": {"name": "triplet", "distance": "cosine"}, "loss.margin": 0.3},
            {"loss": {"name": "triplet", "distance": "cosine", "margin": 0.3}},
        ),
        (
            {"auxiliary": "views+same-target", "auxiliary.same-target.weight": 0.3, "auxiliary.views.of": "crop"},
            {"auxiliary": [{"name": "views", "of": "crop"}, {"name": "same-target", "weight": 0.3}]},
        ),
        (
            {"auxiliary": [{"name": "views", "of": "crop"}], "auxiliary.views.weight": 0.3},
            {"auxiliary": [{"name": "views", "of": "crop", "weight": 0.3}]},
        ),
    ],
    ids=str,
)
def test_dotted_names_are_gathered_below_what_they_belong_to(given: dict[str, Any], gathered: dict[str, Any]) -> None:
    before = json.dumps(given)
    assert nested(given) == gathered
    assert json.dumps(given) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss.margin": 0.3}, "belongs to 'loss', which is not given; write loss=NAME as well"),
        ({"auxiliary": "views", "auxiliary.vews.weight": 1}, "unknown part 'vews', did you mean 'views'"),
        ({"dim": 3, "dim.x": 1}, "dim.x=1 does not name a setting of a component; write NAME.SETTING=VALUE"),
        ({"loss": "triplet", "loss.a.b.c": 1}, "loss.a.b.c=1 does not name a setting"),
    ],
)
def test_a_dotted_name_that_belongs_to_nothing_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        nested(given)


@pytest.mark.parametrize(
    ("dotted", "plain"),
    [
        (
            "two-tower-gan:sampler.share=0.5",
            {"sampler": {"name": "generated", "share": 0.5, "epsilon": 0.05, "hardness": 1.0, "threshold": 0.52}},
        ),
        ("two-tower-adversarial:attack.epsilon=0.2", {"attack": {"name": "fgm", "epsilon": 0.2}}),
        ("cl4srec:auxiliary.views.weight=0.3", {"auxiliary": [{"name": "views", "weight": 0.3}]}),
        ("sasrec:loss.exclude_known=true", {"loss": {"name": "softmax", "exclude_known": True}}),
        ("two-tower:loss=bpr,sampler.negatives=4", {"loss": "bpr", "sampler": {"name": "uniform", "negatives": 4}}),
        ("two-tower:sampler=perturbed,sampler.epsilon=0.1", {"sampler": Perturbed(epsilon=0.1)}),
        (
            "sasrec:auxiliary=views+same-target,auxiliary.views.of=crop+mask",
            {"auxiliary": [Views(of="crop+mask"), "same-target"]},
        ),
    ],
)
def test_a_setting_of_a_component_that_a_model_has_anyway(dotted: str, plain: dict[str, Any]) -> None:
    assert create(dotted) == create(dotted.partition(":")[0], **plain)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("eese", "unknown model 'eese', did you mean 'ease'"),
        ("ease:l22=1", r"'l22', did you mean 'l2'\? \(valid names are l2, decay\)"),
        ("two-tower:los=bpr", "hyperparameter of two-tower: 'los', did you mean 'loss'"),
        ("two-tower:samplr.share=1", "'samplr', did you mean 'sampler'"),
        ("sasrec:loss=bce,loss.negativs=3", "setting of sequence loss 'bce': 'negativs', did you mean 'negatives'"),
        ("sasrec:auxiliary=views,auxiliary.view.weight=1", "unknown part 'view', did you mean 'views'"),
        ("two-tower:attack.epsilon=0.2", "belongs to 'attack', which is not given; write attack=NAME as well"),
        ("sasrec:auxiliary.views.weight=2", r"unknown part 'views' \(there are none\)"),
        ("two-tower:loss=null", "loss=None is not valid; give a name"),
        ("sasrec:loss=null", "loss=None is not valid; give a name"),
        ("sasrec:loss=3", "3 is no sequence loss; give a name, or an object of the class SequenceLoss"),
        ("sasrec:auxiliary=5", "5 is no auxiliary loss; give a name, or an object of the class AuxiliaryLoss"),
        ("two-tower:sampler=true", "True is no sampler; give a name, or an object of the class Sampler"),
        ("two-tower:attack=5", "5 is no attack; give a name, or an object of the class Attack"),
        ("two-tower:loss=triplet,loss.margin=big", "margin is 'big'; give one number above 0"),
        ("two-tower:loss=sigmoid,loss.bias=low", r"Loss\('sigmoid', bias='low'\) fails on two users with two items"),
    ],
)
def test_what_is_unknown_in_a_model_of_a_table_is_named(model: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create(model)


# plain data and back


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_made_again_from_what_describes_it(name: str) -> None:
    model = create(name)
    plain = described(model)
    assert json.loads(json.dumps(plain)) == plain
    assert type(model)(**plain) == model
    assert create(name, **plain) == model
    assert described(create(name, **plain)) == plain


@pytest.mark.parametrize(
    "model",
    [
        TwoTower(loss={"name": "triplet", "margin": 0.3}, sampler=Perturbed(4, 0.25, 0.1), attack="pgd"),
        TwoTower(loss="logistic", sampler=InBatch()),
        TwoTower(loss="logistic", sampler=Sampler(3)),
        Sequential(loss=BinaryCrossEntropy(4, exclude_known=True), auxiliary="views+same-target+event-type"),
        Sequential(model="minilm", auxiliary=[ItemAlignment(0.2), EventType(), Views(0.3, "crop")]),
        Sequential(encoder="bidirectional", loss={"name": "cloze", "mask_share": 0.4}),
        Sequential(loss=Softmax(exclude_known=True), attack=FastGradient(0.1, 0.2)),
    ],
    ids=repr,
)
def test_components_survive_the_way_to_plain_data_and_back(model: Any) -> None:
    plain = json.loads(json.dumps(described(model)))
    assert type(model)(**plain) == model


def test_plain_data_says_name_and_every_setting() -> None:
    plain = described(TwoTower(loss={"name": "triplet", "margin": 0.3}, sampler={"name": "hard", "share": 0.25}))
    assert plain["loss"] == {"name": "triplet", "margin": 0.3}
    assert plain["sampler"] == {"name": "hard", "negatives": 16, "share": 0.25}
    assert plain["attack"] is None
    assert described(Sequential(auxiliary="views"))["auxiliary"] == [
        {"name": "views", "weight": 0.1, "of": "crop+mask+reorder"}
    ]


def test_what_has_no_name_has_no_plain_data() -> None:
    def mine(users: Any, items: Any, negatives: Any) -> Any:
        return bpr_loss(users, items, negatives, reduction="none")

    with pytest.raises(InputError, match="the loss 'mine' has no registered name"):
        described(TwoTower(loss=mine))
