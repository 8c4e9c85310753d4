"""The command line as a page: ``.. command:: train`` renders what ``recsys-cl train --help`` says."""

from __future__ import annotations

import re

import typer
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from recsys_cl.cli import app as command_line
from recsys_cl.cli.options import fill_names

PROGRAM = "recsys-cl"
OPTION = re.compile(r"--\w[\w-]*")


def command_names() -> list[str]:
    """Names of the commands, in the order of the help."""
    return list(typer.main.get_group(command_line).commands)


def command_help(name: str) -> list[str]:
    """Usage, purpose, arguments and options of a command in reStructuredText.

    Raises:
        ValueError: If there is no such command.
    """
    commands = typer.main.get_group(command_line).commands
    if name not in commands:
        raise ValueError(f"{PROGRAM} has no command {name!r} (it has {', '.join(commands)})")
    command = commands[name]
    fill_names(command.params)
    context = typer.Context(command, info_name=f"{PROGRAM} {name}")
    usage = " ".join([f"{PROGRAM} {name}", *command.collect_usage_pieces(context)])
    lines = [
        f".. program:: {PROGRAM} {name}",
        "",
        command.help or "",
        "",
        ".. code-block:: text",
        "",
        f"   {usage}",
        "",
    ]
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            named = OPTION.sub(r"``\g<0>``", record[1])
            lines += [f".. option:: {record[0]}", "", f"   {named}", ""]
    return lines


class CommandHelp(SphinxDirective):
    """``.. command:: train``: the help of one command, with options that can be referred to."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the help where the directive stands."""
        container = nodes.container()
        self.state.nested_parse(StringList(command_help(self.arguments[0]), PROGRAM), 0, container)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
