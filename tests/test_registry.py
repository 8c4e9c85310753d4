"""Registries: names lead to values, errors lead to names."""

from dataclasses import dataclass
from typing import Any

import pytest

from recsys_cl.data import DATASETS
from recsys_cl.data.splits import SPLITS
from recsys_cl.encoders.sequence import SEQUENCE_ENCODERS
from recsys_cl.encoders.towers import USER_TOWERS
from recsys_cl.errors import InputError
from recsys_cl.losses import LOSSES
from recsys_cl.negatives.strategies import SAMPLERS
from recsys_cl.objectives import AUXILIARY_LOSSES, SEQUENCE_LOSSES
from recsys_cl.recommenders import MODELS
from recsys_cl.registry import Registry, unknown
from recsys_cl.training.adversarial import ATTACKS

REGISTRIES: list[Registry[Any]] = [
    DATASETS,
    SPLITS,
    SEQUENCE_ENCODERS,
    USER_TOWERS,
    LOSSES,
    SAMPLERS,
    SEQUENCE_LOSSES,
    AUXILIARY_LOSSES,
    ATTACKS,
    MODELS,
]


@dataclass(frozen=True)
class Square:
    """A thing with settings."""

    side: float = 1.0


@pytest.fixture
def shapes() -> Registry[Any]:
    registry: Registry[Any] = Registry("shape")
    registry.add("square", Square)
    registry.add("point", object)
    return registry


def test_it_is_a_mapping_in_the_order_of_addition(shapes: Registry[Any]) -> None:
    assert list(shapes) == ["square", "point"]
    assert len(shapes) == 2
    assert dict(shapes) == {"square": Square, "point": object}
    assert "square" in shapes
    assert "circle" not in shapes
    assert shapes.get("square") is Square


def test_a_decorator_adds_and_leaves_as_it_is(shapes: Registry[Any]) -> None:
    @shapes.add("circle")
    class Circle:
        """Round."""

    assert shapes["circle"] is Circle


def test_a_taken_name_stays_with_what_took_it(shapes: Registry[Any]) -> None:
    assert shapes.add("square", Square) is Square  # again the same: no conflict
    with pytest.raises(InputError, match=r"^the shape name 'square' is taken by 'Square'; choose another$"):
        shapes.add("square", object)
    with pytest.raises(InputError, match="the shape name 'square' is taken"):
        shapes.add("square")(dict)
    assert shapes["square"] is Square


def test_a_cell_that_is_run_again_replaces_its_own_definition(shapes: Registry[Any]) -> None:
    def cell() -> type:
        @shapes.add("circle")
        class Circle:
            pass

        return Circle

    first, second = cell(), cell()
    assert first is not second
    assert shapes["circle"] is second


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.what)
def test_every_registry_names_the_closest_and_all_valid_names(registry: Registry[Any]) -> None:
    first = next(iter(registry))
    with pytest.raises(InputError) as raised:
        registry[first + "x"]
    message = str(raised.value)
    assert message.startswith(f"unknown {registry.what} '{first}x', did you mean '")
    assert message.endswith(f"(valid names are {', '.join(registry)})")


def test_what_is_close_to_nothing_gets_no_suggestion() -> None:
    assert unknown("shape", "zzz", ["square"]) == "unknown shape 'zzz' (valid names are square)"
    assert unknown("shape", 7, ["square"]) == "unknown shape 7 (valid names are square)"


def test_a_component_has_the_name_of_its_class_and_its_settings(shapes: Registry[Any]) -> None:
    assert shapes.name_of(Square(2.0)) == shapes.name_of(Square) == "square"
    assert shapes.describe(Square(2.0)) == {"name": "square", "side": 2.0}
    assert shapes.describe(object()) == {"name": "point"}
    with pytest.raises(InputError, match=r"the shape '\w+' has no registered name, so it cannot be saved"):
        shapes.name_of(3)


def test_a_subclass_is_not_saved_as_its_parent(shapes: Registry[Any]) -> None:
    class Rhombus(Square):
        """Another shape."""

    with pytest.raises(InputError, match="has no registered name"):
        shapes.describe(Rhombus())
