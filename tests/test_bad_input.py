"""A fault put into a book without faults is reported with its file and line: by the linter, or by the strict build."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import lint
import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

ROOT = Path(__file__).parents[1]


def edit(notebook: Path, cell_id: str, change: Callable[[NotebookNode], object]) -> None:
    content = nbformat.read(notebook, as_version=4)
    change(next(cell for cell in content.cells if cell.id == cell_id))
    nbformat.write(content, notebook)


def cell_at(fault: lint.Fault) -> str:
    """The cell that begins at the line of a fault, by its id."""
    lines = fault.file.read_text().splitlines()[fault.line - 1 :]
    assert '"cell_type"' in lines[0]
    return re.findall(r'"id": "(.+)"', "\n".join(lines))[0]


def test_the_book_has_no_fault() -> None:
    assert not lint.faults(ROOT / "book"), "\n".join(map(str, lint.faults(ROOT / "book")))


def test_a_good_book_has_no_fault(mini_book: Path) -> None:
    assert lint.faults(mini_book) == []


@pytest.mark.parametrize(
    "executed",
    [
        lambda cell: cell.update(execution_count=3),
        lambda cell: cell.outputs.append(new_output("stream", text="done")),
    ],
)
def test_notebook_with_outputs(mini_book: Path, executed: Callable[[NotebookNode], object]) -> None:
    edit(mini_book / "01-one.ipynb", "import", executed)
    (fault,) = lint.faults(mini_book)
    assert (fault.file, cell_at(fault)) == (mini_book / "01-one.ipynb", "import")
    assert "nbstripout" in fault.message


@pytest.mark.parametrize("name", ["02-two.ipynb", "notes.md"])
def test_page_missing_in_the_table_of_contents(mini_book: Path, name: str) -> None:
    shutil.copyfile(mini_book / ("intro.md" if name.endswith(".md") else "01-one.ipynb"), mini_book / name)
    (fault,) = lint.faults(mini_book)
    assert str(fault).startswith(f"{mini_book / name}:1: ")
    assert f"{Path(name).stem!r} in _toc.yml" in fault.message


def test_entry_without_a_page(mini_book: Path) -> None:
    (mini_book / "01-one.ipynb").unlink()
    (fault,) = lint.faults(mini_book)
    assert str(fault) == f"{mini_book / '_toc.yml'}:4: there is no page '01-one'"


@pytest.mark.parametrize("heading", lint.FRAME)
def test_chapter_without_its_frame(mini_book: Path, heading: str) -> None:
    number = lint.FRAME.index(heading)
    edit(mini_book / "01-one.ipynb", f"frame-{number}", lambda cell: cell.update(source="### Something else"))
    (fault,) = lint.faults(mini_book)
    assert cell_at(fault) == "title"
    assert f'"{heading}"' in fault.message


@pytest.mark.parametrize("key", ["image.alt", "figure.caption"])
def test_figure_without_words(mini_book: Path, key: str) -> None:
    part, name = key.split(".")
    edit(mini_book / "01-one.ipynb", "figure", lambda cell: cell.metadata.mystnb[part].pop(name))
    (fault,) = lint.faults(mini_book)
    assert cell_at(fault) == "figure"
    assert f"mystnb.{key}" in fault.message


def test_linter_fails_on_a_fault_and_prints_it(
    mini_book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lint, "ROOT", mini_book.parent)
    assert lint.main() == 0
    (mini_book / "notes.md").write_text("# Notes\n")
    assert lint.main() == 1
    assert capsys.readouterr().out.startswith(f"{mini_book / 'notes.md'}:1: ")


@pytest.mark.slow
def test_strict_build_names_file_and_line(
    mini_book: Path, build: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """In a notebook the line is 10,000 times the number of the cell, from 1, plus the line within it."""
    lines = {
        3: ("{ref}`nowhere`", "undefined label"),
        5: ("{eq}`eq-nothing`", "equation not found"),
        7: ("[a page](missing.md)", "target not found"),
        9: ("[a heading](01-one.ipynb#no-such-heading)", "not found"),
        11: ("{cite}`nobody1999`", "could not find bibtex key"),
        13: ("{doc}`missing`", "unknown document"),
        15: ("![](_static/point.svg)", "image without alternative text"),
        17: ("![A point](_static/absent.svg)", "image file not readable"),
    }
    text = ["# Introduction", *[""] * 16]
    for line, (markup, _) in lines.items():
        text[line - 1] = markup
    (mini_book / "intro.md").write_text("\n".join(text) + "\n")
    (mini_book / "_static" / "point.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')
    edit(mini_book / "01-one.ipynb", "frame-1", lambda cell: cell.update(source="## Prerequisites\n\n{ref}`nowhere`"))
    edit(mini_book / "01-one.ipynb", "figure", lambda cell: cell.metadata.mystnb.image.pop("alt"))
    done = build(mini_book)
    assert done.returncode != 0
    for line, (markup, complaint) in lines.items():
        place = re.escape(f"{mini_book / 'intro.md'}:{line}: WARNING: ")
        assert re.search(f"{place}.*{complaint}", done.stderr), (line, markup, done.stderr)
    for line, complaint in ((30004, "undefined label"), (100002, "image without alternative text")):
        place = re.escape(f"{mini_book / '01-one.ipynb'}:{line}: WARNING: ")
        assert re.search(f"{place}.*{complaint}", done.stderr), (line, done.stderr)
