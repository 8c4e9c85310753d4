"""The notebooks as they stand in the repository, and the script that executes them once."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.rglob("*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts]
FRAME = [
    "What you will learn",
    "Prerequisites",
    "Time and hardware",
    "What the sources claimed",
    "Summary",
    "Exercises",
    "Further reading",
]


def toc_entries() -> list[str]:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    found = [toc["root"]]

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            found.extend([node["file"]] if "file" in node else [])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(toc)
    return found


CHAPTERS = [path for path in NOTEBOOKS if path.name[0].isdigit()]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_the_book_has_notebooks() -> None:
    assert NOTEBOOKS


@each_notebook
def test_notebook_is_stripped(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.execution_count is None
            assert cell.outputs == []


@each_notebook
def test_notebook_is_in_the_table_of_contents(path: Path) -> None:
    assert path.relative_to(BOOK).with_suffix("").as_posix() in toc_entries()


@pytest.mark.parametrize("entry", toc_entries())
def test_table_of_contents_names_files_that_exist(entry: str) -> None:
    assert (BOOK / f"{entry}.ipynb").is_file() or (BOOK / f"{entry}.md").is_file()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("heading", FRAME)
def test_notebook_has_the_frame_of_a_chapter(path: Path, heading: str) -> None:
    prose = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]
    assert re.search(rf"^##+ +{heading}\b", "\n".join(prose), re.MULTILINE), f'no heading "{heading}"'


@pytest.fixture(scope="module")
def executor() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute", BOOK / "_ext" / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a package, a stored result and a book of two small notebooks."""
    (tmp_path / "recsys_cl").mkdir()
    (tmp_path / "recsys_cl" / "__init__.py").write_text("")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "book" / "results").mkdir(parents=True)
    (tmp_path / "book" / "results" / "run.json").write_text("{}")
    (tmp_path / "book" / "intro.md").write_text("# Introduction\n")
    write_notebook(tmp_path / "book" / "01-one.ipynb", "import os; os.environ['RECSYS_CL_PROFILE']")
    write_notebook(tmp_path / "book" / "02-two.ipynb", "1 + 1")
    return tmp_path


@pytest.fixture
def ran(executor: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the notebooks handed to nbmake, which a fake stands in for where no kernel is needed."""
    names: list[str] = []

    def fake(executed: Path, chosen: list[str], **settings: object) -> set[str]:
        names.extend(chosen)
        for name in chosen:
            fill_in(executed / name)
        return set(chosen)

    monkeypatch.setattr(executor, "run_notebooks", fake)
    return names


def write_notebook(path: Path, *sources: str) -> None:
    cells = [
        new_markdown_cell("# A chapter"),
        *(new_code_cell(source) for source in sources),
        new_code_cell(""),
    ]
    nbformat.write(new_notebook(cells=cells), path)


def fill_in(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source:
            cell.execution_count = 1
    nbformat.write(notebook, path)


@pytest.mark.slow
def test_real_notebooks_run_once_see_the_profile_and_leave_the_book_alone(
    executor: ModuleType, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (project / "book" / "01-one.ipynb").read_bytes()
    assert executor.execute(project, profile="full", workers=2) == []
    executed = project / "executed" / "01-one.ipynb"
    (cell, _) = [c for c in nbformat.read(executed, as_version=4).cells if c.cell_type == "code"]
    assert cell.outputs[0].data["text/plain"] == "'full'"
    assert (project / "book" / "01-one.ipynb").read_bytes() == before
    assert "2 passed" in capfd.readouterr().out

    kept = executed.stat().st_mtime_ns
    assert executor.execute(project, profile="full", workers=2) == []
    assert executed.stat().st_mtime_ns == kept
    assert "2 up to date, 0 to execute" in capfd.readouterr().out


@pytest.mark.slow
def test_failing_notebook_is_named_and_gets_no_stamp(executor: ModuleType, project: Path) -> None:
    write_notebook(project / "book" / "02-two.ipynb", "1 / 0", "1 + 1")
    assert executor.execute(project, workers=2) == ["02-two.ipynb"]
    stamps = {path.name for path in (project / "executed" / executor.STAMPS).iterdir()}
    assert stamps == {"01-one.ipynb.sha256"}


def test_only_a_changed_notebook_runs_again(executor: ModuleType, project: Path, ran: list[str]) -> None:
    executor.execute(project)
    ran.clear()
    write_notebook(project / "book" / "02-two.ipynb", "2 + 2")
    executor.execute(project)
    assert ran == ["02-two.ipynb"]


@pytest.mark.parametrize("path", ["recsys_cl/__init__.py", "book/results/run.json", "constraints.txt"])
def test_what_all_notebooks_depend_on_makes_all_of_them_run_again(
    executor: ModuleType, project: Path, ran: list[str], path: str
) -> None:
    executor.execute(project)
    ran.clear()
    (project / path).write_text("# changed\n")
    executor.execute(project)
    assert ran == ["01-one.ipynb", "02-two.ipynb"]


def test_profile_makes_all_notebooks_run_again(executor: ModuleType, project: Path, ran: list[str]) -> None:
    executor.execute(project, profile="quick")
    ran.clear()
    executor.execute(project, profile="full")
    assert ran == ["01-one.ipynb", "02-two.ipynb"]


def test_other_files_are_refreshed_and_removed_without_running_anything(
    executor: ModuleType, project: Path, ran: list[str]
) -> None:
    executor.execute(project)
    ran.clear()
    (project / "book" / "intro.md").write_text("# Welcome\n")
    (project / "book" / "02-two.ipynb").unlink()
    executor.execute(project)
    assert ran == []
    assert (project / "executed" / "intro.md").read_text() == "# Welcome\n"
    assert not (project / "executed" / "02-two.ipynb").exists()


def test_notebook_with_a_cell_that_did_not_run_gets_no_stamp(
    executor: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "run_notebooks", lambda executed, names, **settings: set(names))
    assert executor.execute(project) == ["01-one.ipynb", "02-two.ipynb"]


def test_stamp_of_an_older_version_does_not_vouch_for_a_failed_newer_one(
    executor: ModuleType, project: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.execute(project)
    original = (project / "book" / "02-two.ipynb").read_text()
    write_notebook(project / "book" / "02-two.ipynb", "1 / 0")
    with monkeypatch.context() as failing:
        failing.setattr(executor, "run_notebooks", lambda executed, names, **settings: set())
        assert executor.execute(project) == ["02-two.ipynb"]
    (project / "book" / "02-two.ipynb").write_text(original)
    ran.clear()
    assert executor.execute(project) == []
    assert ran == ["02-two.ipynb"]


def test_executed_copy_that_was_tampered_with_runs_again(executor: ModuleType, project: Path, ran: list[str]) -> None:
    executor.execute(project)
    ran.clear()
    path = project / "executed" / "01-one.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"][1]["execution_count"] = None
    path.write_text(json.dumps(notebook))
    executor.execute(project)
    assert ran == ["01-one.ipynb"]


def test_notebook_in_a_subfolder_is_refused(executor: ModuleType, project: Path) -> None:
    (project / "book" / "part").mkdir()
    write_notebook(project / "book" / "part" / "03-three.ipynb", "3")
    with pytest.raises(ValueError, match="03-three"):
        executor.execute(project)
