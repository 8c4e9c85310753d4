"""A small book without faults, built with the project's own configuration: tests put the faults in."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lint
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
DESCRIBED = {"mystnb": {"figure": {"caption": "A point.", "name": "fig-point"}, "image": {"alt": "One grey point."}}}


@pytest.fixture
def mini_book(tmp_path: Path) -> Path:
    """The folder of a book of three pages: an introduction, a chapter with a figure, the status."""
    book = tmp_path / "book"
    (book / "_static").mkdir(parents=True)
    shutil.copy(ROOT / "book" / "_static" / "favicon.svg", book / "_static")
    (book / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n  - file: 01-one\n  - file: status\n")
    (book / "intro.md").write_text("# Introduction\n\nSee [](01-one.ipynb).\n")
    (book / "status.md").write_text("(sec-status)=\n# Status\n\n```{executions}\n```\n")
    (book / "references.bib").write_text("")
    cells = [new_markdown_cell("# 1. One", id="title")]
    cells += [new_markdown_cell(f"## {heading}\n\nWords.", id=f"frame-{n}") for n, heading in enumerate(lint.FRAME)]
    cells += [new_code_cell("import recsys_cl", id="import")]
    cells += [new_code_cell("import matplotlib.pyplot as plt\n\nplt.show()", id="figure", metadata=DESCRIBED)]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), book / "01-one.ipynb")
    return book


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Builds a book strictly into ``_build/html`` beside it, after its figures have been drawn by hand."""

    def run(book: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        for notebook in book.glob("*.ipynb"):
            content = nbformat.read(notebook, as_version=4)
            for cell in content.cells:
                if "plt.show()" in cell.source:
                    cell.outputs = [new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"})]
            nbformat.write(content, notebook)
        command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(book), "-W", "-n", "--keep-going"]
        command += ["--config", str(ROOT / "_config.yml"), "--path-output", str(tmp_path)]
        outside = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_CL_")}
        settings = outside | {"PYTHONPATH": str(ROOT)} | variables
        return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)

    return run
