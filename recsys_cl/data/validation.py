"""Input validation: check and convert columns, ids, timestamps, ratings, weights and attributes of tables.

See: chapter 2.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
from datasets import Dataset

from recsys_cl.errors import InputError

MAX_LEVELS = 64

UNITS: Mapping[str, float] = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
"""Units of time, as ticks per second."""

YEAR_2100 = 4_102_444_800

BEYOND_SECONDS = 1e11
"""Largest number read as seconds (the year 5138); larger ones are milliseconds (from March 1973) or a smaller unit."""


def show(value: object) -> str:
    """Format a value for a message, without its NumPy type."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def require_columns(table: pd.DataFrame, columns: list[str], what: str) -> None:
    """Check that a table has the required columns and at least one row."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(
            f"the {what} table has no column {missing[0]!r} (it has {', '.join(map(str, table.columns))}); "
            f"map yours with --column {missing[0]}=NAME, in Python columns={{{missing[0]!r}: NAME}}"
        )
    if len(table) == 0:
        raise InputError(f"the {what} table is empty; give a file with at least one row below the header")


def require_no_missing(table: pd.DataFrame, column: str, what: str) -> None:
    """Check that a column has no missing value."""
    empty = table[column].isna().to_numpy()
    if empty.any():
        raise InputError(f"{what} row {int(np.argmax(empty)) + 1}: {column} is empty; fill it in or remove the row")


def require_unique(table: pd.DataFrame, column: str, what: str) -> None:
    """Check that the values of a column are unique."""
    again = table[column].duplicated().to_numpy()
    if again.any():
        row = int(np.argmax(again))
        raise InputError(
            f"{what} row {row + 1}: {column} {show(table[column].iloc[row])} occurs twice; keep one row of it"
        )


def same_type(left: pd.DataFrame, right: pd.DataFrame, column: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Convert the ids of both tables to text unless both have integers."""
    if all(pd.api.types.is_integer_dtype(table[column]) for table in (left, right)):
        return left, right
    as_text = [table[column].astype("string") for table in (left, right)]
    return left.assign(**{column: as_text[0]}), right.assign(**{column: as_text[1]})


def timestamps_in_seconds(column: pd.Series) -> np.ndarray:
    """Convert numbers or dates to seconds since 1970; the unit of numbers is detected from their magnitude."""
    column = column.infer_objects()
    if pd.api.types.is_datetime64_any_dtype(column):
        numbers = pd.Series(np.nan, index=column.index)  # pandas would count in the unit of the column
    else:
        numbers = _in_seconds(pd.to_numeric(column, errors="coerce"))
    if numbers.isna().any():
        dates = pd.to_datetime(column, errors="coerce", utc=True, format="mixed")
        unread = (numbers.isna() & dates.isna()).to_numpy()
        if unread.any():
            row = int(np.argmax(unread))
            raise InputError(
                f"interactions row {row + 1}: timestamp {show(column.iloc[row])} is neither a number of seconds "
                "nor a date; write seconds since 1970 or ISO 8601"
            )
        numbers = numbers.fillna((dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1))
    seconds = numbers.to_numpy(dtype=np.float64)
    if not np.isfinite(seconds).all():
        row = int(np.argmin(np.isfinite(seconds)))
        raise InputError(f"interactions row {row + 1}: timestamp {seconds[row]} is not finite; correct or remove it")
    odd = (seconds < 0) | (seconds > YEAR_2100)
    if odd.any():
        row = int(np.argmax(odd))
        warnings.warn(
            f"{int(odd.sum())} timestamps lie before 1970 or after 2100, the first at row {row + 1} "
            f"({show(column.iloc[row])}); correct them unless you mean them",
            stacklevel=3,
        )
    return seconds


def _in_seconds(numbers: pd.Series) -> pd.Series:
    """Convert times to seconds; their magnitude tells the unit."""
    size = numbers.abs().to_numpy(dtype=np.float64, na_value=np.nan)
    finite = np.isfinite(size)
    if not (size[finite] > BEYOND_SECONDS).any():
        return numbers
    bounds = BEYOND_SECONDS * np.array(list(UNITS.values())[:-1])
    unit = np.searchsorted(bounds, np.where(finite, size, 0.0))  # (rows,) index into UNITS
    names, first = list(UNITS), int(np.argmax(finite))
    others = finite & (unit != unit[first])
    if others.any():
        row = int(np.argmax(others))
        raise InputError(
            f"interactions row {row + 1}: timestamp {show(numbers.iloc[row])} has the magnitude of {names[unit[row]]}, "
            f"row {first + 1} ({show(numbers.iloc[first])}) that of {names[unit[first]]}; write all in seconds"
        )
    name = names[unit[first]]
    warnings.warn(
        f"{int(finite.sum())} timestamps have the magnitude of {name} and are read as such, the first at row "
        f"{first + 1} ({show(numbers.iloc[first])})",
        stacklevel=4,
    )
    return numbers / UNITS[name]


def ratings_of(events: pd.DataFrame) -> np.ndarray:
    """Ratings of the events; 1 if the table has none."""
    if "rating" not in events:
        return np.ones(len(events), dtype=np.float32)
    ratings = pd.to_numeric(events["rating"], errors="coerce").to_numpy(dtype=np.float32)
    if not np.isfinite(ratings).all():
        row = int(np.argmin(np.isfinite(ratings)))
        raise InputError(
            f"interactions row {row + 1}: rating {show(events['rating'].iloc[row])} is not a finite number; "
            "correct it, remove the row, or omit the rating column"
        )
    return ratings


def event_weights_of(events: pd.DataFrame, weights: Mapping[str, float]) -> np.ndarray:
    """Weights of the events by type; 1 if the table has no event types."""
    if "event" not in events:
        return np.ones(len(events), dtype=np.float32)
    weight = events["event"].map(dict(weights)).to_numpy(dtype=np.float32)
    if np.isnan(weight).any():
        row = int(np.argmax(np.isnan(weight)))
        raise InputError(
            f"interactions row {row + 1}: event {show(events['event'].iloc[row])} has no weight (known: "
            f"{', '.join(weights)}); pass event_weights with a weight for it"
        )
    return weight


def described_items(items: pd.DataFrame) -> Dataset:
    """Give every item a title and a text: a missing title becomes the id, a missing text becomes the title."""
    ids = items["item_id"].astype("string")
    title = _text_column(items, "title").where(lambda column: column != "", ids)
    text = _text_column(items, "text")
    empty = (text == "").to_numpy()
    if "text" in items and empty.any():
        row = int(np.argmax(empty))
        warnings.warn(
            f"{int(empty.sum())} items without text, the first at row {row + 1} (item_id {show(ids.iloc[row])}); "
            "their titles are used",
            stacklevel=3,
        )
    table = items.assign(title=title, text=text.where(~empty, title))
    return Dataset.from_pandas(table, preserve_index=False)


def _text_column(items: pd.DataFrame, column: str) -> pd.Series:
    if column not in items:
        return pd.Series("", index=items.index, dtype="string")
    return items[column].astype("string").fillna("").str.strip()


def attributes_of(users: pd.DataFrame, user_ids: np.ndarray) -> np.ndarray:
    """Standardised numeric and centred one-hot attributes, in the order of ``user_ids``: zeros are the average user."""
    require_unique(users, "user_id", "users")
    rows = users.set_index("user_id").reindex(user_ids)
    columns = []
    for name, column in rows.items():
        if pd.api.types.is_numeric_dtype(column):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            mean = np.nanmean(values) if np.isfinite(values).any() else 0.0
            values = np.nan_to_num(values, nan=mean).astype(np.float32)
            columns.append(((values - values.mean()) / max(values.std(), 1e-6))[:, None])
        elif column.nunique() <= MAX_LEVELS:
            levels = pd.get_dummies(column).to_numpy(dtype=np.float32)
            known = column.notna().to_numpy()
            columns.append(np.where(known[:, None], levels - levels.sum(0) / max(1, known.sum()), 0))
        else:
            warnings.warn(f"user attribute {name!r} has over {MAX_LEVELS} values and is left out", stacklevel=3)
    none = np.zeros((len(user_ids), 0), dtype=np.float32)
    return np.concatenate([none, *columns], axis=1, dtype=np.float32)
