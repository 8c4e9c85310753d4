"""Run configs: a training run as a YAML file, validated key by key and saved with its result.

See: chapter 11.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

import yaml

from recsys_cl.data.splits import SPLITS
from recsys_cl.errors import InputError
from recsys_cl.recommenders import Recommender, TrainedRecommender, create, parse_value
from recsys_cl.settings import described
from recsys_cl.training import Execution

NAME = "run.yaml"
"""File name of the config in the folder of a run."""


@dataclass(frozen=True)
class DataConfig:
    """A data set and its filters: the arguments of :func:`~recsys_cl.data.datasets.load_data`.

    Attributes:
        name: A named data set; ignored if ``interactions`` is given.
        path: Zip or folder with a copy of the named data set.
        interactions: File of your own events; a relative path starts at the working folder.
        items: File with ``item_id`` and optionally ``title, text``.
        columns: Package column name to the name in the files.
        min_rating: Minimum rating of a positive.
        min_events: Minimum number of positives per user; users with fewer are dropped.
    """

    name: str = "ml-100k"
    path: str | None = None
    interactions: str | None = None
    items: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    min_rating: float | None = None
    min_events: int = 1


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        model: Name of the model.
        data: The data set and its filters.
        split: Name of the split, which holds out validation and test events.
        n: Events held out per user by ``leave-last-n``.
        seed: Seed of the split and of the training.
        hyperparameters: Values of the model's fields that differ from their defaults.
        training: Precision, gradient accumulation and checkpoints.

    See: chapter 11.

    >>> RunConfig.from_dict({"model": "sasrec", "hyperparameters": {"dim": 32}}).recommender().dim
    32
    """

    model: str
    data: DataConfig = field(default_factory=DataConfig)
    split: str = "leave-one-out"
    n: int = 10
    seed: int = 0
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    training: Execution = field(default_factory=Execution)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from the content of a config file, and validate it, including the hyperparameters.

        Raises:
            InputError: If a key or value is not valid; the message names it and what is valid.
        """
        if values.get("model") is None:
            raise InputError("the config names no model; write model: NAME, or give --model NAME")
        config: Self = _checked(cls, values, "")
        SPLITS[config.split]
        config = replace(config, hyperparameters={k: _number(v) for k, v in config.hyperparameters.items()})
        config.recommender()
        return config

    def recommender(self) -> Recommender:
        """The untrained recommender.

        Raises:
            InputError: If the model or a hyperparameter is unknown or not valid.
        """
        recommender = create_seeded(self.model, self.seed, self.hyperparameters)
        if isinstance(recommender, TrainedRecommender):
            recommender.execution = self.training
        elif self.training != Execution():
            raise InputError(f"model {self.model!r} is fitted in one step; omit the training options")
        return recommender

    def write(self, file: Path) -> None:
        """Write the config with every hyperparameter, so a later change of a default does not change the run."""
        recommender = self.recommender()
        assert is_dataclass(recommender)
        hyperparameters = {name: value for name, value in described(recommender).items() if name != "seed"}
        complete = replace(self, model=self.model.partition(":")[0], hyperparameters=hyperparameters)
        file.write_text(yaml.safe_dump(asdict(complete), sort_keys=False, allow_unicode=True), encoding="utf-8")

    @property
    def title(self) -> str:
        """Default name of the run's folder.

        >>> RunConfig("ease:l2=300", DataConfig(interactions="shop/events.csv")).title
        'events-ease_l2_300-leave-one-out-0'
        """
        data = self.data.name if self.data.interactions is None else Path(self.data.interactions).name.split(".")[0]
        return re.sub(r"[^\w.-]", "_", f"{data}-{self.model}-{self.split}-{self.seed}")


def create_seeded(model: str, seed: int, hyperparameters: Mapping[str, Any] | None = None) -> Recommender:
    """Create an untrained recommender; if it has a field ``seed``, the run sets it.

    Args:
        model: Name of the model; ``NAME:FIELD=VALUE,...`` sets hyperparameters.
        seed: Seed of the run.
        hyperparameters: Values of the model's fields that differ from their defaults.

    Raises:
        InputError: If a name or value is not valid, or the hyperparameters contain a seed.

    >>> create_seeded("ials", seed=3).seed
    3
    """
    hyperparameters = hyperparameters or {}
    settings = [setting.partition("=")[0] for setting in model.partition(":")[2].split(",")]
    if "seed" in (*settings, *hyperparameters):
        raise InputError("the seed belongs to the run; write seed: N at the top of the config, or give --seed N")
    plain = create(model)
    assert is_dataclass(plain)
    known = [one.name for one in fields(plain)]
    names = [name.partition(".")[0] for name in hyperparameters]
    _check_keys(names, [name for name in known if name != "seed"], f"hyperparameter of {model}")
    return create(model, **hyperparameters, **({"seed": seed} if "seed" in known else {}))


def read_config(file: str | Path) -> dict[str, Any]:
    """Read a config file without validating its keys and values.

    Raises:
        InputError: If the file does not exist, or is not a YAML mapping.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"no config file {str(file)!r}; check the path (the working folder is {str(Path.cwd())!r})")
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{str(file)!r} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{str(file)!r} holds no keys; write at least model: NAME")
    return values


def overridden(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Replace some values of a config: nested values one by one, but the source of the data as a whole.

    >>> overridden({"model": "sasrec", "data": {"interactions": "a.csv", "min_events": 3}}, {"data": {"name": "ml-1m"}})
    {'model': 'sasrec', 'data': {'min_events': 3, 'name': 'ml-1m'}}
    """
    result = dict(base)
    for key, change in changes.items():
        before = result.get(key)
        if not (isinstance(before, Mapping) and isinstance(change, Mapping)):
            result[key] = change
            continue
        if key == "data" and {"name", "interactions"} & change.keys():
            source = ("name", "path", "interactions", "items", "columns")
            before = {name: value for name, value in before.items() if name not in source}
        result[key] = {**before, **change}
    return result


class _UniqueKeys(yaml.SafeLoader):
    """YAML loader that rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The keys and values of a node."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.YAMLError(f"line {node.value[place][0].start_mark.line + 1}: {key!r} occurs twice")
        return super().construct_mapping(node, deep)


def _checked(expected: Any, values: object, where: str) -> Any:
    """Build a dataclass from a mapping, checking its values against the types of the fields."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where or 'the config'} is {values!r}; write its keys and their values below it")
    hints = get_type_hints(expected)
    _check_keys(values, hints, f"key of {where}" if where else "key of a config")
    inside = f"{where}." if where else ""
    return expected(**{name: _value(hints[name], value, inside + name) for name, value in values.items()})


def _value(expected: Any, value: Any, name: str) -> Any:
    """Convert a value to the expected type, or raise an error that says what is valid."""
    if is_dataclass(expected):
        return _checked(expected, {} if value is None else value, name)
    if NoneType in get_args(expected):
        return None if value is None else _value(get_args(expected)[0], value, name)
    if get_origin(expected) is Literal:
        if value not in get_args(expected):
            raise InputError(f"{name}: {value!r} is unknown; valid names are {', '.join(get_args(expected))}")
        return value
    if get_origin(expected) is Mapping:
        return _value_of_mapping(value, name)
    value = _number(value) if expected in (int, float) else value
    valid = isinstance(value, (int, float) if expected is float else expected) and not isinstance(value, bool)
    if not valid:
        wanted = {int: "a whole number", float: "a number", str: "a name"}[expected]
        raise InputError(f"{name}: {value!r} is not valid; give {wanted}")
    return value


def _value_of_mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{name}: {value!r} is not valid; write names and their values below it")
    return {str(key): one for key, one in value.items()}


def _number(value: Any) -> Any:
    """Parse text as the command line does: YAML reads ``3e-3``, which has no decimal point, as text."""
    return parse_value(value) if isinstance(value, str) else value


def _check_keys(found: Iterable[object], known: Iterable[str], what: str) -> None:
    known = list(known)
    for key in map(str, found):
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise InputError(f"unknown {what}: {key!r}, did you mean {close[0]!r}? (valid are {', '.join(known)})")
