"""Model registry: every recommender by the name that tables and the command line use.

See: chapter 3 makes recommenders by name; chapter 11 compares them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError
from recsys_cl.evaluation.evaluate import Scorer
from recsys_cl.recommenders.base import MODELS, Recommender, read_config
from recsys_cl.recommenders.baselines import EASE, IALS, ItemKNN, Popularity, Random
from recsys_cl.recommenders.cold_sequential import ColdSequential
from recsys_cl.recommenders.content import LanguageContent, TextRidge, TfidfContent
from recsys_cl.recommenders.fine_tuned import FineTuned
from recsys_cl.recommenders.neighbourhood import MarkovChain, SessionKNN
from recsys_cl.recommenders.sequential import Sequential
from recsys_cl.recommenders.two_tower import TwoTower
from recsys_cl.recommenders.user_item import UserItem
from recsys_cl.settings import check_names, described, nested

_NAMED: Mapping[str, Callable[..., Recommender]] = {
    "random": Random,
    "popularity": Popularity,
    "item-knn": ItemKNN,
    "ease": EASE,
    "ease-recency": partial(EASE, l2=1000.0, decay=0.8),
    "ials": IALS,
    "markov": MarkovChain,
    "session-knn": SessionKNN,
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
    "two-tower-adversarial": partial(TwoTower, attack={"name": "fgm", "epsilon": 0.05}, learning_rate=2e-3),
    "two-tower-gan": partial(
        TwoTower,
        sampler={"name": "generated", "share": 0.25, "epsilon": 0.05, "hardness": 1.0, "threshold": 0.52},
        temperature=0.05,
        learning_rate=2e-3,
    ),
    "user-item": UserItem,
    "sasrec": Sequential,
    "sasrec-text": partial(Sequential, ids=False, model="minilm"),
    "sasrec-hybrid": partial(Sequential, model="minilm", loss={"name": "softmax", "exclude_known": True}),
    "sasrec-cold": ColdSequential,
    "bert4rec": partial(Sequential, encoder="bidirectional", loss="cloze", epochs=80, patience=8),
    "gru4rec": partial(Sequential, encoder="gru"),
    "cl4srec": partial(Sequential, auxiliary="views"),
    "duorec": partial(Sequential, auxiliary="same-target"),
    "coserec": partial(Sequential, auxiliary=[{"name": "views", "of": "crop+mask+reorder+substitute+insert"}]),
    "minilm-tuned": FineTuned,
    "minilm-projection": partial(FineTuned, method="projection", residual=0.0, learning_rate=3e-4, passes=6),
}
for _name, _factory in _NAMED.items():
    MODELS.add(_name, _factory)


def create(name: str, **hyperparameters: object) -> Recommender:
    """Create an untrained recommender by name.

    Args:
        name: A key of :data:`~recsys_cl.recommenders.base.MODELS`, or ``NAME:FIELD=VALUE,...`` with hyperparameters.
        hyperparameters: Values for fields of the recommender.

    Raises:
        InputError: If the name or a hyperparameter is unknown.

    >>> create("ease:l2=300").l2
    300
    """
    name, _, fields = name.partition(":")
    for field in filter(None, fields.split(",")):
        key, _, value = field.partition("=")
        hyperparameters.setdefault(key, parse_value(value))
    factory = MODELS[name]
    check_names(f"hyperparameter of {name}:", factory, (one.partition(".")[0] for one in hyperparameters))
    plain = {key: value for key, value in hyperparameters.items() if "." not in key}
    owners = {key.partition(".")[0] for key in hyperparameters} - plain.keys()
    defaults = described(factory(**plain)) if owners else {}
    return factory(**nested({**{owner: defaults[owner] for owner in owners}, **hyperparameters}))


def parse_value(text: str) -> Any:
    """Parse a number, ``true`` or ``false``; return any other text unchanged.

    >>> parse_value("0.1"), parse_value("true"), parse_value("mlp")
    (0.1, True, 'mlp')
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def load_recommender(folder: str | Path) -> Recommender:
    """Load a saved recommender of any class.

    Raises:
        InputError: If the folder holds no recommender.

    >>> from tempfile import TemporaryDirectory
    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> with TemporaryDirectory() as folder:
    ...     EASE(l2=300.0).fit(leave_one_out(synthetic(100, 100))).save(folder)
    ...     load_recommender(folder)
    EASE(l2=300.0, decay=1.0)
    """
    kind = MODELS[read_config(Path(folder))["recommender"]]
    if not (isinstance(kind, type) and issubclass(kind, Recommender)):
        raise InputError(f"{str(folder)!r} names a model's settings instead of a class; train again")
    return kind.load(folder)


__all__ = ["MODELS", "create", "load_recommender", "parse_value"]


class Ensemble:
    r"""Ensemble: mean score of recommenders with comparable scores, such as the same model with several seeds.

    .. math:: s = \frac{1}{M} \sum_m s^{(m)}

    Args:
        models: Recommenders, at least one.

    Raises:
        InputError: If there is none.

    See: chapter 6.
    """

    def __init__(self, models: Sequence[Scorer]) -> None:
        if not models:
            raise InputError("an ensemble of no models has no scores; give at least one model")
        self.models = list(models)

    def score(self, histories: Sequences) -> Tensor:
        """Mean of the models' scores, ``(batch, n_items)``."""
        return torch.stack([model.score(histories) for model in self.models]).mean(0)  # (B, N)
