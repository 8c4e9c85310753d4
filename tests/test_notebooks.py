"""The script that executes the notebooks of the book, each once."""

import json
from pathlib import Path

import execute
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


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
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the notebooks handed to nbmake, which a fake stands in for where no kernel is needed."""
    names: list[str] = []

    def fake(executed: Path, chosen: list[str], **settings: object) -> dict[str, float]:
        names.extend(chosen)
        for name in chosen:
            fill_in(executed / name)
        return dict.fromkeys(chosen, 61.4)

    monkeypatch.setattr(execute, "run_notebooks", fake)
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
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (project / "book" / "01-one.ipynb").read_bytes()
    assert execute.execute(project, profile="full", workers=2) == []
    executed = project / "executed" / "01-one.ipynb"
    (cell, _) = [c for c in nbformat.read(executed, as_version=4).cells if c.cell_type == "code"]
    stamp = execute.read_stamp(project / "executed", "01-one.ipynb")
    assert stamp["seconds"] > 0
    assert (stamp["profile"], stamp["workers"], stamp["threads"]) == ("full", 2, 1)
    assert {"versions", "processor", "cores", "gibibytes", "system", "device", "commit", "date"} <= set(stamp)
    assert cell.outputs[0].data["text/plain"] == "'full'"
    assert (project / "book" / "01-one.ipynb").read_bytes() == before
    assert "2 passed" in capfd.readouterr().out

    kept = executed.stat().st_mtime_ns
    assert execute.execute(project, profile="full", workers=2) == []
    assert executed.stat().st_mtime_ns == kept
    assert "2 up to date, 0 to execute" in capfd.readouterr().out


@pytest.mark.slow
def test_failing_notebook_is_named_and_gets_no_stamp(project: Path) -> None:
    write_notebook(project / "book" / "02-two.ipynb", "1 / 0", "1 + 1")
    assert execute.execute(project, workers=2) == ["02-two.ipynb"]
    stamps = {path.name for path in (project / "executed" / execute.STAMPS).iterdir()}
    assert stamps == {"01-one.ipynb.json"}


def test_only_a_changed_notebook_runs_again(project: Path, ran: list[str]) -> None:
    execute.execute(project)
    ran.clear()
    write_notebook(project / "book" / "02-two.ipynb", "2 + 2")
    execute.execute(project)
    assert ran == ["02-two.ipynb"]


@pytest.mark.parametrize(
    "path", ["recsys_cl/__init__.py", "book/results/run.json", "book/claims.yml", "constraints.txt"]
)
def test_what_all_notebooks_depend_on_makes_all_of_them_run_again(project: Path, ran: list[str], path: str) -> None:
    execute.execute(project)
    ran.clear()
    (project / path).write_text("# changed\n")
    execute.execute(project)
    assert ran == ["01-one.ipynb", "02-two.ipynb"]


def test_profile_makes_all_notebooks_run_again(project: Path, ran: list[str]) -> None:
    execute.execute(project, profile="quick")
    ran.clear()
    execute.execute(project, profile="full")
    assert ran == ["01-one.ipynb", "02-two.ipynb"]


def test_other_files_are_refreshed_and_removed_without_running_anything(project: Path, ran: list[str]) -> None:
    execute.execute(project)
    ran.clear()
    (project / "book" / "intro.md").write_text("# Welcome\n")
    (project / "book" / "02-two.ipynb").unlink()
    execute.execute(project)
    assert ran == []
    assert (project / "executed" / "intro.md").read_text() == "# Welcome\n"
    assert not (project / "executed" / "02-two.ipynb").exists()


def test_notebook_with_a_cell_that_did_not_run_gets_no_stamp(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "run_notebooks", lambda executed, names, **settings: dict.fromkeys(names, 1.0))
    assert execute.execute(project) == ["01-one.ipynb", "02-two.ipynb"]


def test_stamp_of_an_older_version_does_not_vouch_for_a_failed_newer_one(
    project: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute.execute(project)
    original = (project / "book" / "02-two.ipynb").read_text()
    write_notebook(project / "book" / "02-two.ipynb", "1 / 0")
    with monkeypatch.context() as failing:
        failing.setattr(execute, "run_notebooks", lambda executed, names, **settings: {})
        assert execute.execute(project) == ["02-two.ipynb"]
    (project / "book" / "02-two.ipynb").write_text(original)
    ran.clear()
    assert execute.execute(project) == []
    assert ran == ["02-two.ipynb"]


def test_executed_copy_that_was_tampered_with_runs_again(project: Path, ran: list[str]) -> None:
    execute.execute(project)
    ran.clear()
    path = project / "executed" / "01-one.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"][1]["execution_count"] = None
    path.write_text(json.dumps(notebook))
    execute.execute(project)
    assert ran == ["01-one.ipynb"]


def test_stamp_that_was_cut_short_counts_as_none(project: Path, ran: list[str]) -> None:
    execute.execute(project)
    ran.clear()
    stamp = execute.stamp_of(project / "executed", "02-two.ipynb")
    stamp.write_text(stamp.read_text()[:40])
    execute.execute(project)
    assert ran == ["02-two.ipynb"]


def test_notebook_in_a_subfolder_is_refused(project: Path) -> None:
    (project / "book" / "part").mkdir()
    write_notebook(project / "book" / "part" / "03-three.ipynb", "3")
    with pytest.raises(ValueError, match="03-three"):
        execute.execute(project)
