"""The status page, and the measured time of each chapter: what the stamps of the executed notebooks say.

Three directives, ``executions``, ``circumstances`` and ``stored-runs``, make a table each. Under a chapter's heading
"Time and hardware" stands how long its last execution took; ``execute.py`` measured it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from execute import find_notebooks, read_stamp
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from recsys_cl.book.results import ledger

HEADING = "Time and hardware"
OF_ONE_NOTEBOOK = ("digest", "seconds", "commit", "date")
BUILDERS = ("jupyter-book", "myst-nb", "sphinx", "sphinx-book-theme")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table in Markdown."""
    cells = ([str(cell).replace("|", r"\|") for cell in line] for line in [header, ["---"] * len(header), *rows])
    return [f"| {' | '.join(line)} |" for line in cells]


def executions(book: Path) -> list[str]:
    """Per notebook: how long its execution took, when, and at which commit."""
    rows = []
    for name in find_notebooks(book):
        stamp = read_stamp(book, name)
        found = [f"{stamp['seconds']:.0f}", stamp["date"], stamp["commit"] or ""] if stamp else ["not executed", "", ""]
        rows.append([f"[]({name})", *found])
    seconds = sum(read_stamp(book, name).get("seconds", 0) for name in find_notebooks(book))
    rows.append(["all, one after the other", f"{seconds:.0f}", "", ""])
    return markdown_table(("notebook", "seconds", "date", "commit"), rows)


def machine(stamp: dict[str, Any]) -> str:
    """Where an execution ran, in words."""
    accelerator = "no accelerator" if stamp["device"] == "cpu" else stamp["device"]
    return (
        f"{stamp['processor']}, {stamp['cores']} cores, {stamp['gibibytes']} GiB of memory, {accelerator}; "
        f"notebooks at a time: {stamp['workers']}, threads for each: {stamp['threads']}"
    )


def circumstances(book: Path) -> list[str]:
    """Versions and hardware of the executions: one table where all agree, else one for each group of notebooks."""
    groups: dict[str, list[str]] = {}
    for name in find_notebooks(book):
        shared = {key: value for key, value in read_stamp(book, name).items() if key not in OF_ONE_NOTEBOOK}
        if shared:
            groups.setdefault(json.dumps(shared), []).append(name)
    lines = []
    for shared_text, names in groups.items():
        stamp = json.loads(shared_text)
        which = "all executed notebooks" if len(groups) == 1 else ", ".join(f"[]({name})" for name in names)
        rows = [("hardware", machine(stamp)), ("system", stamp["system"]), ("profile", f"`{stamp['profile']}`")]
        lines += [*markdown_table(("execution of", which), [*rows, *stamp["versions"].items()]), ""]
    built = ", ".join(f"{name} {version(name)}" for name in BUILDERS)
    return [*lines, f"The pages were built by {built}."]


def stored_runs(book: Path) -> list[str]:
    """Per stored run: command, time, hardware, commit and date."""
    table = ledger(book / "results")
    return markdown_table(table.columns, ([f"`{run.iloc[0]}`", *run.iloc[1:]] for _, run in table.iterrows()))


class Generated(SphinxDirective):
    """A directive without content: what its function says about the book, as Markdown."""

    generate: ClassVar[Any]

    def run(self) -> list[nodes.Node]:
        """Parse what the function says; the page is read again when a notebook, a stamp or a result changes."""
        book = Path(self.env.srcdir)
        for file in [*book.glob("*.ipynb"), *book.glob(".stamps/*.json"), *book.glob("results/*.json")]:
            self.env.note_dependency(str(file))
        container = nodes.Element()
        self.state.nested_parse(StringList(type(self).generate(book), source=self.env.docname), 0, container)
        return container.children


class Executions(Generated):
    """``executions``: see :func:`executions`."""

    generate = staticmethod(executions)


class Circumstances(Generated):
    """``circumstances``: see :func:`circumstances`."""

    generate = staticmethod(circumstances)


class StoredRuns(Generated):
    """``stored-runs``: see :func:`stored_runs`."""

    generate = staticmethod(stored_runs)


def insert_measured_time(app: Sphinx, doctree: nodes.document) -> None:
    """Put the measured time under the heading where a chapter speaks of time."""
    page = app.env.docname
    stamp = read_stamp(Path(app.srcdir), f"{page}.ipynb")
    for section in list(doctree.findall(nodes.section)) if stamp else []:
        if section[0].astext() == HEADING:
            took = f"{stamp['seconds']:.0f} s in the {stamp['profile']} profile"
            text = f"Measured on {stamp['date']}: {took} on {machine(stamp)} ("
            target = {"refdomain": "std", "reftype": "ref", "reftarget": "sec-status", "refdoc": page}
            status = pending_xref("", nodes.inline("", "status page"), refexplicit=True, refwarn=True, **target)
            section.insert(1, nodes.paragraph("", "", nodes.Text(text), status, nodes.Text(").")))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_directive("executions", Executions)
    app.add_directive("circumstances", Circumstances)
    app.add_directive("stored-runs", StoredRuns)
    app.connect("doctree-read", insert_measured_time)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
