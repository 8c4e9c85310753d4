"""Everything that recommends, under the names that tables and the command line use.

See: chapter 3 makes recommenders by name; chapter 11 compares them all.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from functools import partial
from inspect import isabstract
from pathlib import Path
from typing import Any

from recsys_cl.errors import InputError
from recsys_cl.recommenders.base import Recommender, read_config
from recsys_cl.recommenders.baselines import EASE, IALS, Chance, ItemKNN, Popularity
from recsys_cl.recommenders.cold_sequential import ColdSequential
from recsys_cl.recommenders.content import LanguageContent, TextRidge, TfidfContent
from recsys_cl.recommenders.fine_tuned import FineTuned
from recsys_cl.recommenders.sequential import Sequential
from recsys_cl.recommenders.trained import TrainedRecommender
from recsys_cl.recommenders.two_tower import TwoTower
from recsys_cl.recommenders.user_item import UserItem
from recsys_cl.settings import nested

MODELS: Mapping[str, Callable[..., Recommender]] = {
    "random": Chance,
    "popularity": Popularity,
    "item-knn": ItemKNN,
    "ease": EASE,
    "ease-recency": partial(EASE, l2=1000.0, decay=0.8),
    "ials": IALS,
    "tfidf": TfidfContent,
    "minilm": LanguageContent,
    "minilm-raw": partial(LanguageContent, centre=False),
    "ridge": TextRidge,
    "two-tower": TwoTower,
    "two-tower-id": partial(TwoTower, model=""),
    "two-tower-text": partial(TwoTower, ids=False),
    "two-tower-cold": partial(
        TwoTower,
        ids=False,
        user_tower="mean",
        dim=384,
        length=200,
        temperature=0.4,
        event_dropout=0.5,
        learning_rate=5e-5,
    ),
    "two-tower-adversarial": partial(TwoTower, attack="fgm", epsilon=0.05, learning_rate=2e-3),
    "two-tower-gan": partial(
        TwoTower,
        sampler="generated",
        hard_share=0.25,
        epsilon=0.05,
        hardness=1.0,
        threshold=0.52,
        temperature=0.05,
        learning_rate=2e-3,
    ),
    "user-item": UserItem,
    "sasrec": Sequential,
    "sasrec-text": partial(Sequential, ids=False, model="minilm"),
    "sasrec-hybrid": partial(Sequential, model="minilm", spare_known=True),
    "sasrec-cold": partial(ColdSequential, spare_known=True),
    "bert4rec": partial(Sequential, encoder="bidirectional", epochs=80, patience=8),
    "gru4rec": partial(Sequential, encoder="gru"),
    "cl4srec": partial(Sequential, views="crop+mask+reorder"),
    "duorec": partial(Sequential, views="same-target"),
    "coserec": partial(Sequential, views="crop+mask+reorder+substitute+insert"),
    "minilm-tuned": FineTuned,
    "minilm-projection": partial(FineTuned, method="projection", residual=0.0, learning_rate=3e-4, passes=6),
}
"""Name to a factory that takes hyperparameters as keywords."""


def create(name: str, **hyperparameters: object) -> Recommender:
    """Make an untrained recommender by name.

    Args:
        name: A key of :data:`MODELS`, or ``NAME:FIELD=VALUE,...`` with hyperparameters, as tables write it.
        hyperparameters: Fields of the recommender.

    Raises:
        InputError: If the name or a hyperparameter is unknown.

    >>> create("ease:l2=300").l2
    300
    """
    name, _, fields = name.partition(":")
    for field in filter(None, fields.split(",")):
        key, _, value = field.partition("=")
        hyperparameters.setdefault(key, parse_value(value))
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise InputError(f"unknown model {name!r}{hint} (valid names are {', '.join(MODELS)})")
    try:
        return MODELS[name](**nested(hyperparameters))
    except TypeError as error:
        raise InputError(f"model {name!r}: {error}") from error


def parse_value(text: str) -> Any:
    """A number, ``true`` or ``false`` if it reads as one, otherwise the text.

    >>> parse_value("0.1"), parse_value("true"), parse_value("mlp")
    (0.1, True, 'mlp')
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def load_recommender(folder: str | Path) -> Recommender:
    """Read a saved recommender of whatever class.

    Raises:
        InputError: If the folder holds none.

    >>> from tempfile import TemporaryDirectory
    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> with TemporaryDirectory() as folder:
    ...     EASE(l2=300.0).fit(leave_one_out(synthetic(100, 100))).save(folder)
    ...     load_recommender(folder)
    EASE(l2=300.0, decay=1.0)
    """
    name = read_config(Path(folder))["recommender"]
    bases = (Recommender, TrainedRecommender, Sequential)
    classes = {cls.__name__: cls for base in bases for cls in base.__subclasses__() if not isabstract(cls)}
    if name not in classes:
        raise InputError(f"{str(folder)!r} holds a {name!r}, unknown to this version ({', '.join(classes)} are known)")
    return classes[name].load(folder)


__all__ = [
    "EASE",
    "IALS",
    "MODELS",
    "Chance",
    "ColdSequential",
    "FineTuned",
    "ItemKNN",
    "LanguageContent",
    "Popularity",
    "Recommender",
    "Sequential",
    "TextRidge",
    "TfidfContent",
    "TrainedRecommender",
    "TwoTower",
    "UserItem",
    "create",
    "load_recommender",
    "parse_value",
]
