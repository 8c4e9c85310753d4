"""Component registries: data sets, splits, models, losses and samplers by name, with the valid names in each error.

A registry maps a name, as the command line and configs write it, to what it stands for::

    DATASETS.add("my-shop", load_my_shop)

Adding to a registry from outside the package works exactly as inside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Generic, TypeVar, overload

from recsys_cl.errors import InputError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Mapping from names to values; the error for an unknown name lists the closest and all valid names.

    Args:
        what: Singular noun for the values, used in messages: ``"model"``.
        made: The class of what the values make, which a component given as an object must have; ``None`` for any.

    >>> colours = Registry("colour")
    >>> colours.add("red", "#f00")
    '#f00'
    >>> colours["rad"]
    Traceback (most recent call last):
    recsys_cl.errors.InputError: unknown colour 'rad', did you mean 'red'? (valid names are red)
    """

    optional: ClassVar[bool] = False
    """Whether ``"none"`` is a valid name that stands for no value."""

    def __init__(self, what: str, *, made: type | None = None) -> None:
        self.what, self.made = what, made
        self._values: dict[str, T] = {}

    @overload
    def add(self, name: str) -> Callable[[T], T]: ...

    @overload
    def add(self, name: str, value: T) -> T: ...

    def add(self, name: str, value: T | None = None) -> T | Callable[[T], T]:
        """Register a value under a name; without a value, a decorator for a class or function.

        Raises:
            InputError: If the name is taken by something else; a class or function defined again replaces itself.
        """
        if value is None:
            return lambda decorated: self.add(name, decorated)
        if name in self._values and not same_definition(self._values[name], value):
            raise InputError(f"the {self.what} name {name!r} is taken by {_shown(self._values[name])}; choose another")
        self.replace(name, value)
        return value

    def replace(self, name: str, value: T) -> None:
        """Register a value under a name, whether or not the name is taken."""
        self._values[name] = value

    def adapt(self, value: Any) -> Any:
        """What a value stands for that was given as an object and not by name: itself.

        Raises:
            InputError: If it is an object of another kind.
        """
        if self.made is not None and not isinstance(value, self.made):
            raise InputError(
                f"{value!r} is no {self.what}; give a name, or an object of the class {self.made.__name__}"
            )
        return value

    def name_of(self, value: object) -> str:
        """The name under which a component's class is registered.

        Raises:
            InputError: If it is not registered, so that a file could not name it.
        """
        for name, known in self._values.items():
            if known is value or known is type(value):
                return name
        raise InputError(
            f"the {self.what} {_shown(value)} has no registered name, so it cannot be saved; register it under one"
        )

    def describe(self, value: Any) -> dict[str, Any]:
        """A component as plain data: its name and its settings."""
        settings = {one.name: getattr(value, one.name) for one in fields(value)} if is_dataclass(value) else {}
        return {"name": self.name_of(value), **settings}

    def __getitem__(self, name: str) -> T:
        """Look a name up.

        Raises:
            InputError: If it is unknown, with the closest name and all valid ones.
        """
        if name not in self._values:
            raise InputError(unknown(self.what, name, self._values))
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def unknown(what: str, name: object, valid: Iterable[str]) -> str:
    """The message for an unknown name.

    >>> unknown("model", "eese", ["ease", "ials"])
    "unknown model 'eese', did you mean 'ease'? (valid names are ease, ials)"
    """
    names = list(valid)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ""
    valid = f"valid names are {', '.join(names)}" if names else "there are none"
    return f"unknown {what} {name!r}{hint} ({valid})"


def same_definition(known: object, value: object) -> bool:
    """Whether two values are one, or two runs of one definition, as when a notebook's cell is run again."""
    places = [(getattr(one, "__module__", None), getattr(one, "__qualname__", None)) for one in (known, value)]
    return known is value or (places[0] == places[1] and None not in places[0])


def _shown(value: object) -> str:
    return repr(getattr(value, "__qualname__", None) or type(value).__qualname__)
