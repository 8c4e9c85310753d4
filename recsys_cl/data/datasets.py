"""Data set registry, and one loader for named data sets and your own files.

To add a named data set, register its loader::

    DATASETS.add("my-shop", load_my_shop)

See: chapter 2.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from recsys_cl.data.files import load_files
from recsys_cl.data.interactions import Interactions
from recsys_cl.data.movielens import load_movielens
from recsys_cl.data.synthetic import synthetic
from recsys_cl.errors import InputError
from recsys_cl.registry import Registry

DATASETS: Registry[Callable[..., Interactions]] = Registry("data set")
"""Name to a loader without required arguments; a loader with a ``path`` argument also reads your own copy."""

DATASETS.add("ml-100k", partial(load_movielens, "ml-100k"))
DATASETS.add("ml-1m", partial(load_movielens, "ml-1m"))
DATASETS.add("ml-20m", partial(load_movielens, "ml-20m"))
DATASETS.add("synthetic", synthetic)

TITLES = {"ml-100k": "MovieLens-100K", "ml-1m": "MovieLens-1M", "ml-20m": "MovieLens-20M"}
"""Data sets as texts write them; any other is written by its name."""


def load_data(
    name: str = "ml-100k",
    *,
    path: str | Path | None = None,
    interactions: str | Path | None = None,
    items: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    min_rating: float | None = None,
    min_events: int = 1,
) -> Interactions:
    """Load a named data set or your own files.

    Args:
        name: A key of :data:`DATASETS`; ignored if ``interactions`` is given.
        path: Zip or folder with a copy of the named data set.
        interactions: File with ``user_id, item_id, timestamp`` and optionally ``rating, event``.
        items: File with ``item_id`` and optionally ``title, text``.
        columns: Package column name to the name in the files.
        min_rating: Minimum rating of a positive.
        min_events: Minimum number of positives per user; users with fewer are dropped.

    Returns:
        The validated interactions.

    Raises:
        InputError: If the name is unknown, the data set takes no path, or the content does not validate.
        AssetError: If a named data set cannot be fetched.

    >>> load_data("synthetic", min_rating=4, min_events=2).name
    'synthetic-1000'
    """
    if interactions is not None:
        data = load_files(interactions, items, columns=columns)
    elif items is not None:
        raise InputError(f"items file {str(items)!r} without interactions; give both")
    else:
        data = _named(name, path)
    if min_rating is None and min_events <= 1:
        return data
    return data.filter(min_rating=min_rating, min_events=min_events)


def _named(name: str, path: str | Path | None) -> Interactions:
    load = DATASETS[name]
    if path is None:
        return load()
    if "path" not in inspect.signature(load).parameters:
        raise InputError(f"data set {name!r} is not read from files; omit the path {str(path)!r}")
    return load(path=path)
