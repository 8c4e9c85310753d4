"""Command-line options: each defined once, for all commands that take it.

This module does not import torch or pandas, so ``recsys-cl --help`` is immediate. In a help text ``{DATASETS}`` or
``{SPLITS}`` stands for the names in that registry, which is read only when the help of a command is printed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from recsys_cl.errors import InputError


def check_split(name: str | None) -> str | None:
    """Reject an unknown split before any data is loaded.

    Raises:
        InputError: With the valid names, if the name is unknown.
    """
    if name is not None:
        from recsys_cl.data.splits import SPLITS

        SPLITS[name]
    return name


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ModelName = Annotated[str, typer.Option("--model", help="Name of a model, or folder of a saved one.")]
ModelNames = Annotated[list[str] | None, typer.Option("--model", help="Name of a model; repeatable; default: all.")]
NewModel = Annotated[str | None, typer.Option("--model", help="Name of a model.")]
Split = Annotated[
    str | None,
    typer.Option("--split", help="{SPLITS}.", show_default="leave-one-out", callback=check_split, metavar="NAME"),
]
HeldOut = Annotated[
    int | None, typer.Option("--n", min=1, help="Events held out per user by leave-last-n.", show_default="10")
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Seed of the split and of the training.", show_default="0")
]
Seeds = Annotated[int, typer.Option("--seeds", help="Runs of each model trained by gradient.")]
Draws = Annotated[int, typer.Option("--draws", help="Runs of each other model, on new draws of ties and cold items.")]
User = Annotated[str | None, typer.Option("--user", help="A user_id of the data.")]
Liked = Annotated[
    list[str] | None, typer.Option("--liked", help="Title or id of a liked item; repeatable, most recent last.")
]
Text = Annotated[str | None, typer.Option("--text", help="A sentence about someone's taste.")]
K = Annotated[int, typer.Option("--k", min=1, help="Number of items.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file; options override its values.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="Folder for the recommender and its checkpoints.", show_default="in runs/"),
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE of the model; repeatable.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    typer.Option("--precision", help="auto is bfloat16 on a GPU that supports it.", show_default="auto"),
]
Accumulate = Annotated[
    int | None, typer.Option("--accumulate", min=1, help="Batches per optimiser step.", show_default="1")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the newest intact checkpoint in --output.")]
AssetAction = Annotated[Literal["list", "fetch", "verify"], typer.Argument(help="What to do with the assets.")]
AssetNames = Annotated[
    list[str] | None, typer.Argument(help="Names of assets; default: all to list, else what the book needs.")
]


@dataclass(frozen=True)
class DataOptions:
    """The options that name a data set and filter it, shared by all commands that load data."""

    name: Annotated[str | None, typer.Option("--data", help="{DATASETS}.", show_default="ml-100k", metavar="NAME")] = (
        None
    )
    path: Annotated[Path | None, typer.Option("--path", help="Zip or folder with a copy of the named data set.")] = None
    interactions: Annotated[
        Path | None, typer.Option("--interactions", help="Your own events: .csv, .tsv, .parquet or .jsonl.")
    ] = None
    items: Annotated[
        Path | None, typer.Option("--items", help="Your own items: columns item_id, title and optionally text.")
    ] = None
    column: Annotated[
        list[str] | None, typer.Option("--column", help="OURS=THEIRS, e.g. item_id=asin; repeatable.")
    ] = None
    min_rating: Annotated[float | None, typer.Option("--min-rating", help="Minimum rating of a positive.")] = None
    min_events: Annotated[
        int | None, typer.Option("--min-events", help="Minimum number of positives per user.", show_default="1")
    ] = None

    def given(self) -> dict[str, Any]:
        """The options on the command line, as arguments of :func:`~recsys_cl.data.datasets.load_data`."""
        return given(
            name=self.name,
            path=self.path,
            interactions=self.interactions,
            items=self.items,
            columns=dict(pairs(self.column, "--column")),
            min_rating=self.min_rating,
            min_events=self.min_events,
        )


def with_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter ``source`` by one option per field of :class:`DataOptions`."""
    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())
    place = list(signature.parameters).index("source")
    shared = [
        field.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for field in inspect.signature(DataOptions, eval_str=True).parameters.values()
    ]

    @functools.wraps(command)
    def with_source(**options: Any) -> None:
        source = DataOptions(**{field.name: options.pop(field.name) for field in shared})
        command(source=source, **options)

    with_source.__signature__ = signature.replace(parameters=[*own[:place], *shared, *own[place + 1 :]])  # type: ignore[attr-defined]
    return with_source


class CommandWithNames(TyperCommand):
    """A command whose help lists the names in the registries."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, with the names filled in."""
        fill_names(self.params)
        super().format_help(ctx, formatter)


def fill_names(parameters: Iterable[Any]) -> None:
    """Write the names in the registries into the help texts of options."""
    from recsys_cl.data.datasets import DATASETS
    from recsys_cl.data.splits import SPLITS

    for parameter in parameters:
        text = getattr(parameter, "help", None) or ""
        for registry, values in (("{DATASETS}", DATASETS), ("{SPLITS}", SPLITS)):
            if registry in text:
                parameter.help = text.replace(registry, ", ".join(values))


def given(**options: Any) -> dict[str, Any]:
    """Options that have a value, with paths as text."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None and value != {}
    }


def pairs(options: list[str] | None, flag: str) -> Iterator[tuple[str, str]]:
    """Split each ``NAME=VALUE`` of a repeatable option.

    Raises:
        InputError: If an option does not have this form.
    """
    for option in options or []:
        key, equals, value = option.partition("=")
        if not (key and equals and value):
            raise InputError(f"{flag} {option!r} does not have the form NAME=VALUE; give a name and a value")
        yield key, value
