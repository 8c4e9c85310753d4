"""Command-line interface: the commands of ``recsys-cl``, its entry point, and the printing of results."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recsys_cl.cli import options
from recsys_cl.cli.options import CommandWithNames, DataOptions, given, pairs, with_data_options
from recsys_cl.errors import RecsysError

app = typer.Typer(
    help="Recommend with contrastive learning and language models. Every command takes --json.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command that loads data."""
    return app.command(cls=CommandWithNames)(with_data_options(function))


@app.command()
def assets(
    action: options.AssetAction = "list",
    names: options.AssetNames = None,
    as_json: options.AsJson = False,
) -> None:
    """List, fetch or verify data sets and language models."""
    from recsys_cl import assets as store

    act = {"list": store.path, "fetch": store.fetch, "verify": store.verify}[action]
    wanted = names or [name for name, asset in store.ASSETS.items() if asset.book or action == "list"]
    with quiet():
        for name in wanted:
            act(name)
        rows = [row for row in store.describe() if row["name"] in wanted]
    shown = ("name", "licence", "cached", "bytes", "path")
    print_result({"assets": rows}, [{column: row[column] for column in shown} for row in rows], as_json)


@command
def data(*, source: DataOptions, as_json: options.AsJson = False) -> None:
    """Validate and describe a data set."""
    from recsys_cl import workflow

    with quiet() as notes:
        facts = workflow.describe(workflow.load_data(**source.given()))
    rows = [{"": key.replace("_", " "), facts["data"]: str(value)} for key, value in facts.items()]
    print_result({"valid": True, "warnings": notes, **facts}, rows, as_json)


@command
def train(
    *,
    config: options.Config = None,
    model: options.NewModel = None,
    output: options.Output = None,
    source: DataOptions,
    split: options.Split = None,
    n: options.HeldOut = None,
    seed: options.Seed = None,
    settings: options.Settings = None,
    precision: options.Precision = None,
    accumulate: options.Accumulate = None,
    resume: options.Resume = False,
    as_json: options.AsJson = False,
) -> None:
    """Fit a model, save it, and measure it on the test events."""
    from recsys_cl import workflow
    from recsys_cl.config import NAME, RunConfig, overridden, read_config
    from recsys_cl.recommenders import parse_value

    changes = given(
        model=model,
        split=split,
        n=n,
        seed=seed,
        data=source.given(),
        hyperparameters={key: parse_value(value) for key, value in pairs(settings, "--set")},
        training=given(precision=precision, accumulate=accumulate),
    )
    if resume and config is None and output is not None and (output / NAME).is_file():
        config = output / NAME
    with quiet():
        run = RunConfig.from_dict(overridden({} if config is None else read_config(config), changes))
        table = workflow.run(run, folder=output or Path("runs") / run.title, resume=resume)
    if table.rows:
        print_comparison(table, as_json)


@command
def evaluate(
    *,
    model: options.ModelName,
    source: DataOptions,
    split: options.Split = None,
    n: options.HeldOut = None,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure one model on the test events: a saved one, or a new one, which is fitted first."""
    from recsys_cl import workflow

    with quiet():
        loaded = workflow.load_data(**source.given())
        table = workflow.measure(loaded, model, **given(split=split, n=n, seed=seed))
    print_comparison(table, as_json)


@command
def compare(
    *,
    model: options.ModelNames = None,
    source: DataOptions,
    split: options.Split = None,
    n: options.HeldOut = None,
    seeds: options.Seeds = 3,
    draws: options.Draws = 5,
    as_json: options.AsJson = False,
) -> None:
    """Fit several models under one protocol and print one table."""
    from recsys_cl import workflow

    with quiet():
        loaded = workflow.load_data(**source.given())
        protocol = given(models=model or None, split=split, n=n, seeds=seeds, draws=draws)
        table = workflow.compare(loaded, **protocol)
    print_comparison(table, as_json)


@command
def recommend(
    *,
    model: options.ModelName = "ease-recency",
    user: options.User = None,
    liked: options.Liked = None,
    text: options.Text = None,
    k: options.K = 10,
    source: DataOptions,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Recommend to a user of the data, to a new user who likes some items, or from a sentence."""
    from recsys_cl import workflow

    with quiet():
        loaded = None
        if user is not None or not Path(model).is_dir():
            loaded = workflow.load_data(**source.given())
        history = None if user is None or loaded is None else workflow.history_of(loaded, user, **given(seed=seed))
        recommender = workflow.open_model(loaded, model, **given(seed=seed))
        best = workflow.recommend(recommender, history=history, liked=liked or (), text=text, k=k)
    result = {"model": model, "user": user, "liked": liked or [], "text": text, "items": best}
    print_result(result, best, as_json)


def main() -> None:
    """Run ``recsys-cl``; an error that the user can fix is printed as one line, with exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except typer.exceptions.TyperException as error:
        if not error.format_message().strip():  # without a command the help has been printed already
            sys.exit(2)
        fail(error.format_message())
    except RecsysError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'a file'}: {error.strerror or error}; check path, permissions and disk space")
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


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
    """The protocol of a comparison in words, printed above the table.

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
    """Print an error as one line and exit with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _console() -> Console:
    """Console of the terminal's width; for a pipe, wide enough for every table."""
    return Console(width=None if sys.stdout.isatty() else 180)
