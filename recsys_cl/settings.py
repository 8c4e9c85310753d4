"""Hyperparameter settings: values with valid ranges, and components (a loss, a sampler) with settings of their own.

A class with settings is a dataclass. The annotation of a number states its range, that of a component its registry
(a component is annotated as ``Any``, because it may be given by name)::

    @dataclass
    class TwoTower(TrainedRecommender):
        dropout: Annotated[float, Range(0, 0.99)] = 0.2
        loss: Annotated[Any, LOSSES] = "info-nce"

A component can be given as an object, as a name, or as ``{"name": ..., setting: value}``; on the command line and in
configs its settings follow a dot: ``two-tower:loss=triplet,loss.margin=0.3``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from recsys_cl.errors import InputError
from recsys_cl.registry import Registry, unknown


@dataclass(frozen=True)
class Range:
    """Inclusive range of a number; a number without a range must be at least 0.

    Attributes:
        low: Minimum.
        high: Maximum; ``None`` for no upper bound.
    """

    low: float = 0
    high: float | None = None

    def check(self, name: str, value: float) -> None:
        """Check that a value is within the range.

        Raises:
            InputError: If it is not.
        """
        if value < self.low or (self.high is not None and value > self.high):
            valid = f"{self.low:g} or more" if self.high is None else f"{self.low:g} to {self.high:g}"
            raise InputError(f"{name}={value!r} is out of range; give {valid}")


@dataclass(frozen=True)
class Names:
    """Valid values of a string: the names in a registry.

    Attributes:
        registry: Registry with the valid names.
    """

    registry: Registry[Any]

    def check(self, value: object) -> None:
        """Check that a value is a name in the registry.

        Raises:
            InputError: If it is not.
        """
        self.registry[str(value)]


class Parts(Registry[Any]):
    """A registry for fields that hold a list of components, written with ``+`` between their names."""


def check_settings(instance: Any) -> None:
    """Validate every field of a dataclass by its annotation, and build components from their descriptions.

    Raises:
        InputError: If a value is not valid; the message names the field, its value and what is valid.
    """
    hints = get_type_hints(type(instance), include_extras=True)
    for field in fields(instance):
        annotation, metadata = _unpacked(hints[field.name])
        value = getattr(instance, field.name)
        registry = next((one for one in metadata if isinstance(one, Registry)), None)
        if registry is not None:
            if value is None and field.default is not None and not registry.optional:
                raise InputError(f"{field.name}=None is not valid; give a name")
            object.__setattr__(instance, field.name, component(registry, value))
            continue
        for names in (one for one in metadata if isinstance(one, Names)):
            names.check(value)
        _check_value(field.name, value, annotation, next((one for one in metadata if isinstance(one, Range)), Range()))


def component(registry: Registry[Any], value: Any) -> Any:
    """Build a component from a name, a name with settings, or an object; for :class:`Parts`, a tuple of components.

    Raises:
        InputError: If the name or a setting is unknown or not valid.
    """
    if isinstance(registry, Parts):
        listed = [part for part in value.split("+") if part] if isinstance(value, str) else value
        return tuple(_one(registry, part) for part in (listed if isinstance(listed, list | tuple) else [listed]))
    return _one(registry, value)


def _one(registry: Registry[Any], value: Any) -> Any:
    if value is None or (registry.optional and value == "none"):
        return None
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        return registry.adapt(value)
    settings = dict(value)
    if "name" not in settings:
        raise InputError(f"{settings} does not say which {registry.what} it is for; give 'name' as well")
    name = settings.pop("name")
    factory = registry[str(name)]
    check_names(f"setting of {registry.what} {name!r}:", factory, settings)
    return factory(**settings)


def check_names(what: str, factory: Any, given: Iterable[str]) -> None:
    """Check that a dataclass, or a ``partial`` of one, has fields of these names.

    Raises:
        InputError: If it lacks a field; the message gives the name, the closest one and all valid ones.
    """
    settings_class = getattr(factory, "func", factory)
    if not is_dataclass(settings_class):
        return
    valid = [field.name for field in fields(settings_class)]
    for name in given:
        if name not in valid:
            raise InputError(unknown(what, name, valid) if valid else f"{what} it has none; leave {name} out")


def described(instance: Any) -> dict[str, Any]:
    """Settings of a dataclass as plain data, with components as ``{"name": ..., setting: value}``.

    Raises:
        InputError: If a component has no registered name, so it could not be rebuilt.
    """
    hints = get_type_hints(type(instance), include_extras=True)
    plain: dict[str, Any] = {}
    for field in fields(instance):
        value = getattr(instance, field.name)
        registry = next((one for one in _unpacked(hints[field.name])[1] if isinstance(one, Registry)), None)
        if isinstance(registry, Parts):
            plain[field.name] = [registry.describe(one) for one in value]
        else:
            plain[field.name] = value if registry is None or value is None else registry.describe(value)
    return plain


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Group settings with dotted names under the component that they belong to.

    >>> nested({"loss": "triplet", "loss.margin": 0.3, "dim": 32})
    {'loss': {'name': 'triplet', 'margin': 0.3}, 'dim': 32}
    >>> nested({"auxiliary": "views+alignment", "auxiliary.views.weight": 0.2})
    {'auxiliary': [{'name': 'views', 'weight': 0.2}, {'name': 'alignment'}]}

    Raises:
        InputError: If a dotted name belongs to a component that is not given.
    """
    plain = {name: value for name, value in settings.items() if "." not in name}
    for name, value in settings.items():
        if "." not in name:
            continue
        owner, *path = name.split(".")
        if plain.get(owner) is None:
            raise InputError(f"{name}={value!r} belongs to {owner!r}, which is not given; write {owner}=NAME as well")
        plain[owner] = _placed(plain[owner], path, value, name)
    return plain


def _placed(owner: Any, path: Sequence[str], value: Any, whole: str) -> Any:
    if len(path) == 2:
        parts = [{"name": one} if isinstance(one, str) else dict(one) for one in _listed(owner)]
        names = [part["name"] for part in parts]
        if path[0] not in names:
            raise InputError(f"{whole}: {unknown('part', path[0], names)}")
        parts[names.index(path[0])][path[1]] = value
        return parts
    if not isinstance(owner, str | Mapping) or len(path) != 1:
        raise InputError(f"{whole}={value!r} does not name a setting of a component; write NAME.SETTING=VALUE")
    return {**({"name": owner} if isinstance(owner, str) else owner), path[0]: value}


def _listed(owner: Any) -> list[Any]:
    return owner.split("+") if isinstance(owner, str) else list(owner)


def _unpacked(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split an annotation into its type and its ``Annotated`` metadata."""
    return (get_args(hint)[0], hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _check_value(name: str, value: object, annotation: object, bounds: Range) -> None:
    if get_origin(annotation) is Literal:
        if value not in get_args(annotation):
            raise InputError(
                f"{name}={value!r} is unknown; valid names are {', '.join(map(str, get_args(annotation)))}"
            )
    elif annotation in (bool, str):
        if not isinstance(value, annotation):
            raise InputError(
                f"{name}={value!r} is not valid; give {'true or false' if annotation is bool else 'a name'}"
            )
    elif annotation in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (annotation is float and isinstance(value, float) and math.isfinite(value))):
            raise InputError(f"{name}={value!r} is not valid; give a {'whole ' if annotation is int else ''}number")
        bounds.check(name, value)  # type: ignore[arg-type]
