"""Data flows one way: a module imports from its own or an earlier room only."""

import ast
from pathlib import Path

import pytest

import recsys_cl

ROOMS = [
    ("errors", "randomness", "registry", "settings", "provenance"),
    ("assets",),
    ("data",),
    ("text",),
    ("encoders",),
    ("losses",),
    ("positives",),
    ("negatives",),
    ("evaluation",),
    ("training",),
    ("objectives",),
    ("recommenders",),
    ("config",),
    ("workflow",),
    ("book",),
    ("cli", "__main__"),
]
LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names}
PACKAGE = Path(recsys_cl.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


def room(dotted: str) -> str:
    return dotted.split(".")[1]


def imported_rooms(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "recsys_cl":
            found |= {alias.name for alias in node.names if alias.name in LEVEL}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recsys_cl."):
            found.add(room(node.module))
        elif isinstance(node, ast.Import):
            found |= {room(alias.name) for alias in node.names if alias.name.startswith("recsys_cl.")}
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_backwards(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in LEVEL, f"{own} has no place among the rooms"
    later = {name for name in imported_rooms(file) if LEVEL[name] > LEVEL[own]}
    assert not later, f"{own} imports from later rooms: {sorted(later)}"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_outside_the_loader_knows_movielens(file: Path) -> None:
    if file.relative_to(PACKAGE).parts[0] in {"assets", "data"}:
        return
    assert "movielens" not in file.read_text().lower()
