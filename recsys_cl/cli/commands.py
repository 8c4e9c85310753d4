"""The commands of ``recsys-cl``, and its entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import typer

from recsys_cl.cli import options
from recsys_cl.cli.options import CommandWithNames, DataOptions, given, pairs, with_data_options
from recsys_cl.cli.output import fail, print_comparison, print_result, quiet
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
    wanted = names or list(store.ASSETS)
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
    """Recommend to a user of the data, to someone new who likes some items, or from a sentence."""
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
    """Run ``recsys-cl``; errors that the user can act on become one line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except typer.exceptions.TyperException as error:
        if not error.format_message().strip():  # without a command the help has been printed already
            sys.exit(2)
        fail(error.format_message())
    except RecsysError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'a file'}: {error.strerror or error}; check the path, the rights and the disk")
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
