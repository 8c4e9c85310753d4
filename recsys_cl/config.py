"""A run as a file: what is trained on what and how, in YAML, checked key by key and written beside its result.

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

from recsys_cl.errors import InputError
from recsys_cl.recommenders import Recommender, TrainedRecommender, create, parse_value
from recsys_cl.training import Execution

SplitName = Literal["leave-one-out", "leave-last-n", "temporal", "cold-items"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

NAME = "run.yaml"
"""What the config of a run is called in the folder of its result."""


@dataclass(frozen=True)
class DataConfig:
    """Where the interactions come from, and which of them count.

    Attributes:
        name: A named data set; ignored if ``interactions`` is given.
        path: Its zip or folder, where it has to be downloaded by hand.
        interactions: File of the reader's own, from the working folder.
        items: File with ``item_id`` and optionally ``title, text``.
        columns: Our column name to the files' name.
        min_rating: Least rating of a positive.
        min_events: Least number of positives of a user.
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
        data: What it is trained on.
        split: Protocol that holds validation and test events out.
        n: Events held out per user under ``leave-last-n``.
        seed: Seed of the split's ties and of the training.
        hyperparameters: Fields of the model other than their defaults.
        training: How the training is carried out.

    See: chapter 11.

    >>> RunConfig.from_dict({"model": "sasrec", "hyperparameters": {"dim": 32}}).recommender().dim
    32
    """

    model: str
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitName = "leave-one-out"
    n: int = 10
    seed: int = 0
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    training: Execution = field(default_factory=Execution)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Check what a file says, down to the hyperparameters.

        Raises:
            InputError: Naming the key that is unknown and the closest one, or the value and what is valid.
        """
        if values.get("model") is None:
            raise InputError("the config names no model; write model: NAME, or give --model NAME")
        config: Self = _checked(cls, values, "")
        config = replace(config, hyperparameters={k: _number(v) for k, v in config.hyperparameters.items()})
        config.recommender()
        return config

    def recommender(self) -> Recommender:
        """The untrained recommender.

        Raises:
            InputError: If the model or a hyperparameter is unknown or not valid.
        """
        if "seed" in self.hyperparameters or "seed=" in self.model:
            raise InputError("the seed is the run's, not the model's alone; write seed: N beside model, or --seed N")
        plain = create(self.model)
        assert is_dataclass(plain)
        known = [one.name for one in fields(plain) if one.name != "seed"]
        _check_keys(self.hyperparameters, known, f"hyperparameter of {self.model}")
        if not isinstance(plain, TrainedRecommender):
            if self.training != Execution():
                raise InputError(f"model {self.model!r} is fitted in one step; leave the training options out")
            return create(self.model, **self.hyperparameters)
        recommender = create(self.model, **{"seed": self.seed, **self.hyperparameters})
        assert isinstance(recommender, TrainedRecommender)
        recommender.execution = self.training
        return recommender

    def write(self, file: Path) -> None:
        """Write the config with every hyperparameter, so that it stays what it was if a default changes."""
        recommender = self.recommender()
        assert is_dataclass(recommender)
        hyperparameters = {name: value for name, value in asdict(recommender).items() if name != "seed"}
        complete = replace(self, model=self.model.partition(":")[0], hyperparameters=hyperparameters)
        file.write_text(yaml.safe_dump(asdict(complete), sort_keys=False, allow_unicode=True), encoding="utf-8")

    @property
    def title(self) -> str:
        """A name for the folder of its result, unless there is another.

        >>> RunConfig("ease:l2=300", DataConfig(interactions="shop/events.csv")).title
        'events-ease_l2_300-leave-one-out-0'
        """
        data = self.data.name if self.data.interactions is None else Path(self.data.interactions).name.split(".")[0]
        return re.sub(r"[^\w.-]", "_", f"{data}-{self.model}-{self.split}-{self.seed}")


def read_config(file: str | Path) -> dict[str, Any]:
    """What a config file says, not yet checked.

    Raises:
        InputError: If there is no such file, or it is not YAML with keys.
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
    """A config with some of its values replaced; nested ones are replaced one by one, but a data set is as a whole.

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
    """YAML in which a key that occurs a second time is an error, not the last word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The keys and values of a node."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.YAMLError(f"line {node.value[place][0].start_mark.line + 1}: {key!r} occurs a second time")
        return super().construct_mapping(node, deep)


def _checked(kind: Any, values: object, where: str) -> Any:
    """A dataclass from keys and values of its fields' types."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where or 'the config'} is {values!r}; write its keys and their values below it")
    hints = get_type_hints(kind)
    _check_keys(values, hints, f"key of {where}" if where else "key of a config")
    inside = f"{where}." if where else ""
    return kind(**{name: _value(hints[name], value, inside + name) for name, value in values.items()})


def _value(kind: Any, value: Any, name: str) -> Any:
    """A value of the given type, or an error that says what it should be."""
    if is_dataclass(kind):
        return _checked(kind, {} if value is None else value, name)
    if NoneType in get_args(kind):
        return None if value is None else _value(get_args(kind)[0], value, name)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name}: {value!r} is unknown; valid names are {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is Mapping:
        return _value_of_mapping(value, name)
    value = _number(value) if kind in (int, float) else value
    valid = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if not valid:
        wanted = {int: "a whole number", float: "a number", str: "a name"}[kind]
        raise InputError(f"{name}: {value!r} is not valid; give {wanted}")
    return value


def _value_of_mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{name}: {value!r} is not valid; write names and their values below it")
    return {str(key): one for key, one in value.items()}


def _number(value: Any) -> Any:
    """What the command line would read: YAML takes ``3e-3`` for text, for want of a point."""
    return parse_value(value) if isinstance(value, str) else value


def _check_keys(found: Iterable[object], known: Iterable[str], what: str) -> None:
    known = list(known)
    for key in map(str, found):
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise InputError(f"unknown {what}: {key!r}, did you mean {close[0]!r}? (valid are {', '.join(known)})")
