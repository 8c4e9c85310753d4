"""Check the sources of the book, and say in which file and line something is wrong.

``python book/_ext/lint.py`` prints one line per fault and fails if there is any. What only a build can see (a
reference that leads nowhere, an image without alternative text) is a warning of the strict build.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
FRAME = (
    "What you will learn",
    "Prerequisites",
    "Time and hardware",
    "What the sources claimed",
    "Summary",
    "Exercises",
    "Further reading",
)
DRAWS = re.compile(r"\bplt\.(show|subplots|figure|plot)\(|\.plot(\.\w+)?\(|\bsns\.\w+\(")


class Fault(NamedTuple):
    """What is wrong where, and what to do about it."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        """``file:line: message``, which editors and CI turn into a link."""
        return f"{self.file}:{self.line}: {self.message}"


def pages(book: Path) -> list[Path]:
    """The files that a table of contents can name."""
    found = (path.relative_to(book) for suffix in ("md", "ipynb") for path in book.rglob(f"*.{suffix}"))
    return sorted(book / path for path in found if not any(part.startswith((".", "_")) for part in path.parts))


def cells(notebook: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The cells of a notebook, each with the line of the file at which it begins."""
    lines = notebook.read_text("utf-8").splitlines()
    starts = (number for number, line in enumerate(lines, 1) if re.match(r'\s*"cell_type": "', line))
    return zip(chain(starts, repeat(1)), json.loads("\n".join(lines))["cells"], strict=False)


def source(cell: dict[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def outputs(notebook: Path) -> Iterator[Fault]:
    """Code cells that were committed with outputs or execution counts."""
    for line, cell in cells(notebook):
        if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"] is not None):
            yield Fault(notebook, line, f"the cell has been executed; run nbstripout --keep-id {notebook.name}")


def figures(notebook: Path) -> Iterator[Fault]:
    """Code cells that draw without saying in words what they show."""
    for line, cell in cells(notebook):
        if cell["cell_type"] == "code" and DRAWS.search(source(cell)):
            described = cell["metadata"].get("mystnb", {})
            for part, key in (("image", "alt"), ("figure", "caption")):
                if not described.get(part, {}).get(key):
                    yield Fault(notebook, line, f"the figure lacks metadata mystnb.{part}.{key}: say what it shows")


def frame(chapter: Path) -> Iterator[Fault]:
    """Headings that every chapter has and this one lacks."""
    prose = [(line, source(cell)) for line, cell in cells(chapter) if cell["cell_type"] == "markdown"]
    title = next((line for line, text in prose if re.search(r"^# ", text, re.MULTILINE)), 1)
    for heading in FRAME:
        if not any(re.search(rf"^##+ +{heading}\b", text, re.MULTILINE) for _, text in prose):
            yield Fault(chapter, title, f'the chapter has no heading "{heading}"')


def toc_entries(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Pages that a table of contents names, each with its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value in {"root", "file"}:
                yield value.value, value.start_mark.line + 1
            else:
                yield from toc_entries(value)
    elif isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            yield from toc_entries(entry)


def contents(book: Path) -> Iterator[Fault]:
    """Pages that the table of contents does not name, and names in it without a page."""
    toc = book / "_toc.yml"
    entries = dict(toc_entries(yaml.compose(toc.read_text("utf-8"))))
    existing = {path.relative_to(book).with_suffix("").as_posix(): path for path in pages(book)}
    for name in sorted(existing.keys() - entries.keys()):
        yield Fault(existing[name], 1, f"no reader finds this page: enter {name!r} in {toc.name}")
    for name in sorted(entries.keys() - existing.keys()):
        yield Fault(toc, entries[name], f"there is no page {name!r}")


def faults(book: Path) -> list[Fault]:
    """All that is wrong with the sources of a book."""
    found = list(contents(book))
    for notebook in (path for path in pages(book) if path.suffix == ".ipynb"):
        found += [*outputs(notebook), *figures(notebook)]
        found += frame(notebook) if notebook.name[0].isdigit() else []
    return found


def main() -> int:
    """Command line: returns 1 if there is a fault."""
    found = faults(ROOT / "book")
    print("".join(f"{fault}\n" for fault in found), end="")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
