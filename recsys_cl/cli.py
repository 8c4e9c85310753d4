"""``recsys-cl``: the verbs of :mod:`recsys_cl.workflow` on the command line."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recsys_cl.errors import InputError, RecsysError

app = typer.Typer(
    help="Recommend with contrastive learning and language models. Every command takes --json.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataName = Annotated[str, typer.Option("--data", help="ml-100k, ml-1m, ml-20m or synthetic.")]
DataPath = Annotated[Path | None, typer.Option("--path", help="Zip or folder of ml-1m or ml-20m.")]
InteractionsFile = Annotated[
    Path | None, typer.Option("--interactions", help="Your own events: .csv, .tsv, .parquet or .jsonl.")
]
ItemsFile = Annotated[Path | None, typer.Option("--items", help="Your own items: item_id, title, text.")]
Columns = Annotated[list[str] | None, typer.Option("--column", help="OURS=THEIRS, e.g. item_id=asin; repeatable.")]
MinRating = Annotated[float | None, typer.Option(help="Least rating of a positive.")]
MinEvents = Annotated[int, typer.Option(help="Drop users with fewer positives.")]
SplitOption = Annotated[
    Literal["leave-one-out", "leave-last-n", "temporal", "cold-items"], typer.Option("--split", help="Protocol.")
]
Last = Annotated[int, typer.Option("--n", help="Events held out per user under leave-last-n.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of ties, draws and training.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Model = Annotated[str, typer.Option("--model", help="Name of a model, or folder of a saved one.")]


@app.command()
def assets(
    action: Annotated[Literal["list", "fetch", "verify"], typer.Argument()] = "list",
    names: Annotated[list[str] | None, typer.Argument(help="Assets; all of them by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """List, fetch or verify the named data sets and models."""
    from recsys_cl import assets as store

    act = {"list": store.path, "fetch": store.fetch, "verify": store.verify}[action]
    wanted = names or list(store.ASSETS)
    with _quiet():
        for name in wanted:
            act(name)
        rows = [row for row in store.describe() if row["name"] in wanted]
    _print({"assets": rows}, as_json, [_columns(row, "name", "licence", "cached", "bytes", "path") for row in rows])


@app.command()
def data(
    action: Annotated[Literal["describe", "validate", "fetch"], typer.Argument()] = "describe",
    name: DataName = "ml-100k",
    path: DataPath = None,
    interactions: InteractionsFile = None,
    items: ItemsFile = None,
    column: Columns = None,
    min_rating: MinRating = None,
    min_events: MinEvents = 1,
    as_json: AsJson = False,
) -> None:
    """Fetch, validate and describe a data set."""
    from recsys_cl import workflow

    with _quiet() as notes:
        loaded = _load(name, path, interactions, items, column, min_rating, min_events)
        facts = workflow.describe(loaded)
    report = {"action": action, "valid": True, "warnings": notes, **facts}
    _print(report, as_json, [{"": key, loaded.name: str(value)} for key, value in facts.items()])


@app.command()
def train(
    config: Annotated[Path | None, typer.Option("--config", help="YAML file; options given beside it win.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Name of a model.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for the recommender and its checkpoints; else in runs/.")
    ] = None,
    name: Annotated[str | None, typer.Option("--data", help="ml-100k, ml-1m, ml-20m or synthetic.")] = None,
    path: DataPath = None,
    interactions: InteractionsFile = None,
    items: ItemsFile = None,
    column: Columns = None,
    min_rating: MinRating = None,
    min_events: Annotated[int | None, typer.Option(help="Drop users with fewer positives.")] = None,
    split: Annotated[
        Literal["leave-one-out", "leave-last-n", "temporal", "cold-items"] | None,
        typer.Option("--split", help="Protocol."),
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="Events held out per user under leave-last-n.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of ties and training.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE of the model; repeatable.")] = None,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"] | None, typer.Option(help="auto: bfloat16 on a GPU that has it.")
    ] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Batches that make one step.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest intact checkpoint in --output.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit a model, save it, and measure it on the test events."""
    from recsys_cl import config as files
    from recsys_cl import workflow
    from recsys_cl.recommenders import parse_value

    source = _given(
        name=name, path=path, interactions=interactions, items=items, columns=dict(_pairs(column, "--column"))
    )
    options = _given(
        model=model,
        split=split,
        n=n,
        seed=seed,
        data={**source, **_given(min_rating=min_rating, min_events=min_events)},
        hyperparameters={key: parse_value(value) for key, value in _pairs(settings, "--set")},
        training=_given(precision=precision, accumulate=accumulate),
    )
    if resume and config is None and output is not None and (output / files.NAME).is_file():
        config = output / files.NAME
    with _quiet():
        asked = files.overridden({} if config is None else files.read_config(config), options)
        plan = files.RunConfig.from_dict(asked)
        table = workflow.run(plan, folder=output or Path("runs") / plan.title, resume=resume)
    if table.rows:
        _print_rows(table.protocol, table.rows, as_json)


@app.command()
def evaluate(
    model: Model,
    name: DataName = "ml-100k",
    path: DataPath = None,
    interactions: InteractionsFile = None,
    items: ItemsFile = None,
    column: Columns = None,
    min_rating: MinRating = None,
    min_events: MinEvents = 1,
    split: SplitOption = "leave-one-out",
    n: Last = 10,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure one model, saved or fitted on the spot, on the test events."""
    from recsys_cl import workflow

    with _quiet():
        loaded = _load(name, path, interactions, items, column, min_rating, min_events)
        row = workflow.measure(loaded, model, split=split, n=n, seed=seed)
    _print_rows({"data": loaded.name, "split": split}, [row], as_json)


@app.command()
def compare(
    model: Annotated[list[str] | None, typer.Option("--model", help="Repeatable; all models by default.")] = None,
    name: DataName = "ml-100k",
    path: DataPath = None,
    interactions: InteractionsFile = None,
    items: ItemsFile = None,
    column: Columns = None,
    min_rating: MinRating = None,
    min_events: MinEvents = 1,
    split: SplitOption = "leave-one-out",
    n: Last = 10,
    seeds: Annotated[int, typer.Option(help="Training seeds of the models trained by gradient.")] = 3,
    draws: Annotated[int, typer.Option(help="Draws of tie order and cold items for the other models.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Fit several models under one protocol and print one table."""
    from recsys_cl import workflow
    from recsys_cl.recommenders import MODELS

    with _quiet():
        loaded = _load(name, path, interactions, items, column, min_rating, min_events)
        table = workflow.compare(loaded, model or list(MODELS), split=split, n=n, seeds=seeds, draws=draws)
    _print_rows(table.protocol, table.rows, as_json)


@app.command()
def recommend(
    model: Model = "ease-recency",
    user: Annotated[str | None, typer.Option("--user", help="A user id of the data.")] = None,
    liked: Annotated[list[str] | None, typer.Option("--liked", help="Title or id; repeatable.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="A sentence about somebody's taste.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many items.")] = 10,
    name: DataName = "ml-100k",
    path: DataPath = None,
    interactions: InteractionsFile = None,
    items: ItemsFile = None,
    column: Columns = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Recommend to a user of the data, to someone new, or to someone who has only words."""
    from recsys_cl import workflow

    with _quiet():
        loaded = None
        if user is not None or not Path(model).is_dir():
            loaded = _load(name, path, interactions, items, column, None, 1)
        history = None if user is None or loaded is None else workflow.history_of(loaded, user, seed=seed)
        recommender = workflow.open_model(loaded, model)
        best = workflow.recommend(recommender, history=history, liked=liked or (), text=text, k=k)
    _print({"model": model, "user": user, "liked": liked or [], "text": text, "items": best}, as_json, best)


def main() -> None:
    """Entry point: errors that a reader can act on become one line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except typer.exceptions.TyperException as error:
        if not error.format_message().strip():  # a bare command: its help has been printed
            sys.exit(2)
        _fail(error.format_message())
    except RecsysError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}; check the path, the rights and the disk")
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _load(
    name: str,
    path: Path | None,
    interactions: Path | None,
    items: Path | None,
    column: list[str] | None,
    min_rating: float | None,
    min_events: int,
) -> Any:
    from recsys_cl import workflow

    return workflow.load_data(
        name,
        path=path,
        interactions=interactions,
        items=items,
        columns=dict(_pairs(column, "--column")),
        min_rating=min_rating,
        min_events=min_events,
    )


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given, files by their names."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None and value != {}
    }


def _pairs(options: list[str] | None, flag: str) -> Iterator[tuple[str, str]]:
    for option in options or []:
        key, equals, value = option.partition("=")
        if not (key and equals and value):
            raise InputError(f"{flag} {option!r} is not of the form NAME=VALUE")
        yield key, value


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
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


def _columns(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _console() -> Console:
    """The terminal, or in a pipe a page wide enough for every table."""
    return Console(width=None if sys.stdout.isatty() else 180)


def _print(result: dict[str, Any], as_json: bool, rows: list[dict[str, Any]]) -> None:
    if as_json:
        print(json.dumps(result, default=str, ensure_ascii=False))
        return
    table = Table(*(rows[0] if rows else ()))
    for row in rows:
        table.add_row(*(Text(f"{value:.4g}" if isinstance(value, float) else str(value)) for value in row.values()))
    _console().print(table)


def _print_rows(protocol: dict[str, Any], rows: list[Any], as_json: bool) -> None:
    from recsys_cl.workflow import Comparison

    result = Comparison(protocol, rows).as_dict()
    shown = []
    for row in result["rows"]:
        cells = {"model": row["model"], "runs": row["seeds"], "seconds": f"{row['seconds']:.1f}"}
        for name, metric in row["metrics"].items():
            if name.startswith(("ndcg", "hr", "mrr")):
                cells[name] = f"{metric['mean']:.4f} ± {metric['sd']:.4f}"
        interval = row["metrics"]["ndcg@10"]
        shown.append({**cells, "95 % interval": f"[{interval['low']:.4f}, {interval['high']:.4f}]"})
    if not as_json:
        _console().print(", ".join(f"{key}: {value}" for key, value in protocol.items()))
    _print(result, as_json, shown)
