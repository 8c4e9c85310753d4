"""File loading: interactions, items and users from CSV, TSV, Parquet or JSON Lines."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from pandas.io.common import get_handle

from recsys_cl.data.interactions import EVENT_WEIGHTS, Interactions
from recsys_cl.data.text import item_texts
from recsys_cl.errors import InputError

TEXT_COLUMNS = ("user_id", "item_id", "title", "text", "event")


def load_files(
    interactions: str | Path,
    items: str | Path | None = None,
    users: str | Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    template: str | None = None,
    event_weights: Mapping[str, float] = EVENT_WEIGHTS,
) -> Interactions:
    r"""Read your own interactions, and optionally items and users.

    The file extension determines the format: ``.csv``, ``.tsv``, ``.parquet`` or ``.jsonl`` (also compressed, as in
    ``.csv.gz``). Ids in CSV and TSV are read as text, so ``007`` keeps its zeros.

    Args:
        interactions: File with columns ``user_id, item_id, timestamp`` and optionally ``rating, event``.
        items: File with columns ``item_id`` and optionally ``title, text`` and attributes.
        users: File with columns ``user_id`` and attributes.
        columns: Package column name to the name in the files, e.g. ``{"item_id": "asin"}``.
        template: Template of the item texts (see :func:`recsys_cl.data.text.item_texts`); without one, the ``text``
            column is used.
        event_weights: Weight of each event type.

    Raises:
        InputError: If a file is missing, empty or unreadable, or its content does not validate.

    See: chapter 2.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     table = Path(folder) / "events.csv"
    ...     _ = table.write_text("reader,item_id,timestamp\n007,3,2026-01-31\n")
    ...     load_files(table, columns={"user_id": "reader"}).user_ids.tolist()
    ['007']
    """
    renamed = {theirs: ours for ours, theirs in (columns or {}).items()}
    raw = [None if path is None else read_table(path) for path in (interactions, items, users)]
    for theirs, ours in renamed.items():
        if not any(table is not None and theirs in table for table in raw):
            raise InputError(f"column {theirs!r}, mapped to {ours!r}, is in none of the files; check --column")
    events, catalogue, people = (None if table is None else _numbers(table.rename(columns=renamed)) for table in raw)
    assert events is not None
    if template is not None:
        if catalogue is None:
            raise InputError(f"template {template!r} needs an items file")
        catalogue = catalogue.assign(text=item_texts(catalogue, template))
    return Interactions.from_tables(
        events, catalogue, people, name=Path(interactions).name.split(".")[0], event_weights=event_weights
    )


def read_table(path: str | Path) -> pd.DataFrame:
    """Read one table, in the format that its file extension names.

    Raises:
        InputError: If the file is missing, empty, unreadable, or has an unknown extension.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {str(path)!r}; check the path (the working folder is {str(Path.cwd())!r})")
    suffixes = [suffix for suffix in path.suffixes if suffix not in {".gz", ".zip", ".bz2", ".xz", ".zst"}]
    ending = suffixes[-1].lower() if suffixes else ""
    if ending not in READERS:
        raise InputError(f"{str(path)!r} ends in {ending!r}; valid endings are {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise InputError(f"{str(path)!r} is empty; give a file with a header and at least one row")
    try:
        return READERS[ending](path)
    except (ValueError, OSError, UnicodeDecodeError, pd.errors.ParserWarning) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{str(path)!r} cannot be read as {ending[1:]}: {reason}; repair or convert it") from error


def _read_delimited(path: Path, separator: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows with more fields than the header
        return pd.read_csv(path, sep=separator, dtype="string", index_col=False, keep_default_na=False, na_values=[""])


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Convert text columns that hold only numbers; ids and texts stay text."""
    for column in table.select_dtypes("string").columns.difference(TEXT_COLUMNS):
        numbers = pd.to_numeric(table[column], errors="coerce")
        if numbers.notna().equals(table[column].notna()):
            table = table.assign(**{column: numbers})
    return table


def _read_json_lines(path: Path) -> pd.DataFrame:
    try:
        return pd.read_json(path, lines=True, dtype=False)
    except ValueError:
        with get_handle(path, "r", encoding="utf-8", compression="infer") as opened:
            for number, line in enumerate(opened.handle, start=1):
                try:
                    json.loads(line if line.strip() else "{}")
                except json.JSONDecodeError as error:
                    raise ValueError(f"line {number} is not JSON ({error.msg})") from error
        raise


READERS: Mapping[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": lambda path: _read_delimited(path, ","),
    ".tsv": lambda path: _read_delimited(path, "\t"),
    ".parquet": pd.read_parquet,
    ".jsonl": _read_json_lines,
}
