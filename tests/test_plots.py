"""One style for all figures, which colour-blind readers and readers of print in grey can use."""

import ast
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from recsys_cl.book.results import PALETTE, STYLE, use_book_style

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]-*.ipynb"))
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB; https://doi.org/10.1109/TVCG.2009.113
VISION = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def closest_pair(colours: tuple[str, ...], vision: str) -> float:
    """Least distance of two colours in linear RGB as an eye of that kind sees them."""
    srgb = np.array([to_rgb(colour) for colour in colours])  # (n, 3)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = linear @ np.array(VISION[vision]).T  # (n, 3)
    return min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_colour_blind_readers(vision: str) -> None:
    assert closest_pair(PALETTE, vision) > 0.12
    assert closest_pair(("#d62728", "#2ca02c", "#8c564b"), vision) < 0.12  # red, green and brown of the usual cycle


def test_lines_are_solid_unless_the_figure_says_otherwise() -> None:
    with plt.rc_context():
        use_book_style()
        _, axes = plt.subplots()
        assert {axes.plot([0, 1], color="0.1")[0].get_linestyle() for _ in range(2)} == {"-"}
        plt.close()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_draws_in_the_style_of_the_book(path: Path) -> None:
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    (at, setup) = next((number, source) for number, source in enumerate(code) if "use_book_style()" in source)
    assert not any("plt.show()" in source for source in code[:at])
    others = [number for number, source in enumerate(code) if "rcParams" in source]
    assert not others, f"{path.name}: code cells {others} set their own style; say it in recsys_cl/book/results.py"
    imports = (node for node in ast.walk(ast.parse(setup)) if isinstance(node, ast.ImportFrom))
    names = {alias.name for node in imports if node.module == "recsys_cl.book.results" for alias in node.names}
    assert "use_book_style" in names


def test_style_is_in_force() -> None:
    with plt.rc_context():
        use_book_style()
        assert {key: plt.rcParams[key] for key in STYLE} == STYLE
