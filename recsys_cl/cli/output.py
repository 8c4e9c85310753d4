"""What the commands print: tables or one JSON object on standard output, warnings and errors on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from recsys_cl.workflow import Comparison

HEADLINE = ("ndcg", "hr", "mrr")
"""Prefixes of the metrics in a printed table; JSON has all metrics."""


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep standard output for the result; warnings become one line each on standard error."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    notes: list[str] = []

    def note(message: Warning | str, *_: object, **__: object) -> None:
        line = " ".join(str(message).split())
        if line not in notes:
            notes.append(line)
            print(f"warning: {line}", file=sys.stderr)

    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.filterwarnings("ignore", message=".*BLAS is configured.*")
        warnings.showwarning = note
        yield notes


def print_result(result: dict[str, Any], rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the result as JSON, or its rows as a table."""
    if as_json:
        print(json.dumps(result, default=str, ensure_ascii=False))
        return
    table = Table(*(rows[0] if rows else ()))
    for row in rows:
        table.add_row(*(Text(f"{value:.4g}" if isinstance(value, float) else str(value)) for value in row.values()))
    _console().print(table)


def print_comparison(table: Comparison, as_json: bool) -> None:
    """Print a comparison as JSON, or its protocol in words above a table of the headline metrics."""
    result = table.as_dict()
    rows = []
    for row in result["rows"]:
        cells = {"model": row["model"], "runs": row["seeds"], "seconds": f"{row['seconds']:.1f}"}
        for name, metric in row["metrics"].items():
            if name.startswith(HEADLINE):
                cells[name] = f"{metric['mean']:.4f} ± {metric['sd']:.4f}"
        interval = row["metrics"]["ndcg@10"]
        rows.append({**cells, "95 % interval": f"[{interval['low']:.4f}, {interval['high']:.4f}]"})
    if not as_json:
        _console().print(Text(in_words(table.protocol)))
    print_result(result, rows, as_json)


def in_words(protocol: dict[str, Any]) -> str:
    """The protocol of a comparison, as it stands above the table.

    >>> in_words({"data": "shop", "users": 90})
    'data: shop, users: 90'
    >>> in_words({"training_histories": 9, "histories_too_short": 1, "histories_truncated": 2, "max_length": 50})
    '9 training histories (1 too short to learn an order from, 2 truncated to the latest 50 events)'
    """
    histories = "{training_histories} training histories ({histories_too_short} too short to learn an order from, "
    histories += "{histories_truncated} truncated to the latest {max_length} events)"
    counts = {key: value for key, value in protocol.items() if f"{{{key}}}" in histories}
    words = [f"{key}: {value}" for key, value in protocol.items() if key not in counts]
    return ", ".join([*words, histories.format(**counts)] if counts else words)


def fail(message: str) -> NoReturn:
    """Print one line of error and exit with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _console() -> Console:
    """The terminal; for a pipe, a page wide enough for every table."""
    return Console(width=None if sys.stdout.isatty() else 180)
