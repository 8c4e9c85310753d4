"""Settings: hyperparameters that carry their ranges, and components (a loss, a sampler, ...) with settings of their own.

A class with settings is a dataclass. A number says its range, a component its registry, in the annotation::

    @dataclass
    class TwoTower(TrainedRecommender):
        dropout: Annotated[float, Range(0, 0.99)] = 0.2
        loss: Annotated[Loss, LOSSES] = "info-nce"

A component can be given as an object, as a name, or as ``{"name": ..., setting: value}``; on the command line and in
configs its settings follow after a dot: ``two-tower:loss=triplet,loss.margin=0.3``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from recsys_cl.errors import InputError
from recsys_cl.registry import Registry, unknown


@dataclass(frozen=True)
class Range:
    """Valid values of a number, both ends included; without one, a number must be at least 0.

    Attributes:
        low: Minimum.
        high: Maximum, ``None`` for no bound.
    """

    low: float = 0
    high: float | None = None

    def check(self, name: str, value: float) -> None:
        """Demand a value within the range.

        Raises:
            InputError: If it is outside.
        """
        if value < self.low or (self.high is not None and value > self.high):
            bound = "" if self.high is None else f", at most {self.high:g}"
            raise InputError(f"{name}={value!r} is out of range; give {self.low:g} or more{bound}")


class Parts(Registry[Any]):
    """A registry whose values are factories of components that a field holds a list of, joined by ``+`` in text."""


def check_settings(instance: Any) -> None:
    """Check every field of a dataclass by its annotation, and replace descriptions of components by the components.

    Raises:
        InputError: Naming the field, its value and what is valid.
    """
    hints = get_type_hints(type(instance), include_extras=True)
    for field in fields(instance):
        kind, metadata = _unpacked(hints[field.name])
        value = getattr(instance, field.name)
        registry = next((one for one in metadata if isinstance(one, Registry)), None)
        if registry is not None:
            object.__setattr__(instance, field.name, component(registry, value))
            continue
        _check_value(field.name, value, kind, next((one for one in metadata if isinstance(one, Range)), Range()))


def component(registry: Registry[Any], value: Any) -> Any:
    """The component that a name, a name with settings, or an object stands for; a list of them for :class:`Parts`.

    Raises:
        InputError: If the name or a setting is unknown or not valid.
    """
    if isinstance(registry, Parts):
        listed = [part for part in value.split("+") if part] if isinstance(value, str) else value
        return tuple(_one(registry, part) for part in ([listed] if isinstance(listed, Mapping) else listed))
    return _one(registry, value)


def _one(registry: Registry[Any], value: Any) -> Any:
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        return registry.adapt(value)
    settings = dict(value)
    name = settings.pop("name", None)
    factory = registry[name]
    try:
        return factory(**settings)
    except TypeError as error:
        raise InputError(f"{registry.what} {name!r}: {error}") from error


def described(instance: Any) -> dict[str, Any]:
    """The settings of a dataclass as plain data, components as ``{"name": ..., setting: value}``.

    Raises:
        InputError: If a component has no registered name, by which it could be made again.
    """
    hints = get_type_hints(type(instance), include_extras=True)
    plain: dict[str, Any] = {}
    for field in fields(instance):
        value = getattr(instance, field.name)
        registry = next((one for one in _unpacked(hints[field.name])[1] if isinstance(one, Registry)), None)
        if isinstance(registry, Parts):
            plain[field.name] = [registry.describe(one) for one in value]
        else:
            plain[field.name] = value if registry is None else registry.describe(value)
    return plain


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with dots in their names, gathered below what they belong to.

    >>> nested({"loss": "triplet", "loss.margin": 0.3, "dim": 32})
    {'loss': {'name': 'triplet', 'margin': 0.3}, 'dim': 32}
    >>> nested({"auxiliary": "views+alignment", "auxiliary.views.weight": 0.2})
    {'auxiliary': [{'name': 'views', 'weight': 0.2}, {'name': 'alignment'}]}

    Raises:
        InputError: If a dotted name belongs to nothing that is given.
    """
    plain = {name: value for name, value in settings.items() if "." not in name}
    for name, value in settings.items():
        if "." not in name:
            continue
        owner, *path = name.split(".")
        if owner not in plain:
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
        raise InputError(f"{whole}={value!r} has nowhere to go; write NAME.SETTING=VALUE")
    return {**({"name": owner} if isinstance(owner, str) else owner), path[0]: value}


def _listed(owner: Any) -> list[Any]:
    return owner.split("+") if isinstance(owner, str) else list(owner)


def _unpacked(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type, and what an ``Annotated`` says beside it."""
    return (get_args(hint)[0], hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _check_value(name: str, value: object, kind: object, bounds: Range) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name}={value!r} is unknown; valid names are {', '.join(map(str, get_args(kind)))}")
    elif kind in (bool, str):
        if not isinstance(value, kind):  # type: ignore[arg-type]
            raise InputError(f"{name}={value!r} is not valid; give {'true or false' if kind is bool else 'a name'}")
    elif kind in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (kind is float and isinstance(value, float) and math.isfinite(value))):
            raise InputError(f"{name}={value!r} is not valid; give a {'whole ' if kind is int else ''}number")
        bounds.check(name, value)  # type: ignore[arg-type]

