"""Templates that turn an item, or a user's history, into text for a language model."""

from __future__ import annotations

import string
from collections.abc import Sequence

import pandas as pd

from recsys_cl.errors import InputError


def item_texts(items: pd.DataFrame, template: str) -> list[str]:
    """Fill a template with each item's attributes.

    Args:
        items: One row per item.
        template: A :class:`string.Formatter` template over the columns, e.g. ``"{title} ({year})"``.

    Returns:
        One text per item; a missing value is left empty.

    Raises:
        InputError: If the template names a column that the items do not have.

    >>> items = pd.DataFrame({"title": ["Heat", "Ran"], "year": ["1995", None]})
    >>> item_texts(items, "{title}, {year}")
    ['Heat, 1995', 'Ran,']
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise InputError(f"template {template!r} cannot be read ({error}); write columns as {{title}}") from error
    unknown = [field for field in fields if field not in items]
    if unknown:
        raise InputError(
            f"template {template!r} names {unknown[0]!r}; the items have {', '.join(map(str, items.columns))}"
        )
    columns = {field: items[field].astype("string").fillna("") for field in set(fields)}
    rows = pd.DataFrame(columns, index=items.index).to_dict("records")
    return [template.format(**row).strip() for row in rows]


def history_text(titles: Sequence[str], *, last: int = 20, opening: str = "Recently watched, latest last: ") -> str:
    """A user's history as one text.

    Args:
        titles: Titles, oldest first.
        last: How many of the latest are named.
        opening: What stands before the titles.

    >>> history_text(["Toy Story", "Heat", "Fargo"], last=2)
    'Recently watched, latest last: Heat; Fargo.'
    """
    return f"{opening}{'; '.join(titles[-last:])}."
