"""What makes book and package public: buttons, workflow, citation, wheel. No service is asked; git stands in."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import launch
import nbformat
import pytest
import yaml
from sphinx.errors import ConfigError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
URL = "https://github.com/OWNER/NAME"
IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@localhost"]

Build = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: str | Path, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Buttons(HTMLParser):
    """Addresses of the links in the header of a page, by their tooltip."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "a" and "btn" in values.get("class", "").split():
            self.found[values["title"]] = values["href"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files from which the package is built, and those beside them that it must leave out."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.ipynb")
    for name in ("recsys_cl", "book", "tests", "benchmarks", "experiments"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-PROSE.md", "environment.yml", "constraints.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def commit(folder: Path) -> str:
    run("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    run("git", "add", "--all", "--force", cwd=folder)
    run("git", *IDENTITY, "commit", "--quiet", "--message", "All", cwd=folder)
    return run("git", "rev-parse", "HEAD", cwd=folder).strip()


def python_without_the_package(folder: Path) -> Path:
    """An empty environment that sees the installed dependencies, but neither the checkout nor an editable install."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    dependencies = {str(Path(module.__file__ or "").parents[1]) for module in (nbformat, yaml, pytest)}
    (site / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return folder / "bin" / "python"


@pytest.mark.slow
def test_without_a_repository_every_button_stays_in_the_book(mini_book: Path, build: Build) -> None:
    done = build(mini_book)
    assert done.returncode == 0, done.stderr
    html = mini_book.parent / "_build" / "html"
    for page in ("01-one", "intro"):
        buttons = Buttons(html / f"{page}.html").found
        assert set(buttons) == {"Show source", "Download source file"}
        assert all((html / target).is_file() for target in buttons.values())
    assert (html / "_sources" / "01-one.txt").read_text("utf-8-sig").startswith("# 1. One\n\n## What you will learn")
    notebook = nbformat.read(html / "_sources" / "01-one.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook == nbformat.read(mini_book / "01-one.ipynb", as_version=4)


@pytest.mark.slow
def test_with_a_repository_every_button_leads_to_a_file_of_it(mini_book: Path, build: Build, tmp_path: Path) -> None:
    """The tree at the commit holds source and environment; the branch that .ci/publish writes holds Colab's copy."""
    shutil.copyfile(ROOT / "environment.yml", tmp_path / "environment.yml")
    (tmp_path / ".gitignore").write_text("/_build/\n/remote.git/\n")
    at = commit(tmp_path)
    done = build(mini_book, RECSYS_CL_REPOSITORY=URL, RECSYS_CL_COMMIT=at)
    assert done.returncode == 0, done.stderr
    html, remote = tmp_path / "_build" / "html", tmp_path / "remote.git"
    run("git", "clone", "--quiet", "--bare", tmp_path, remote)
    run(ROOT / ".ci" / "publish", html, remote)

    buttons = Buttons(html / "01-one.html").found
    assert set(buttons) == {"Show source", "Download source file", "Launch on Binder", "Launch on Colab"}
    assert set(Buttons(html / "intro.html").found) == {"Show source", "Download source file"}
    source, colab, binder = (urlsplit(buttons[name]) for name in ("Show source", "Launch on Colab", "Launch on Binder"))
    assert (source.netloc, source.path) == ("github.com", f"/OWNER/NAME/blob/{at}/book/01-one.ipynb")
    assert (binder.netloc, binder.path) == ("mybinder.org", f"/v2/gh/OWNER/NAME/{at}")
    (opened,) = parse_qs(binder.query)["urlpath"]
    prefix = "/github/OWNER/NAME/blob/gh-pages/"
    assert colab.netloc == "colab.research.google.com"
    assert colab.path.startswith(prefix)
    published = f"gh-pages:{unquote(colab.path.removeprefix(prefix))}"
    for file in (f"{at}:book/01-one.ipynb", f"{at}:{opened.removeprefix('lab/tree/')}", f"{at}:environment.yml"):
        run("git", "cat-file", "-e", file, cwd=remote)
    run("git", "cat-file", "-e", "gh-pages:.nojekyll", cwd=remote)
    notebook = nbformat.reads(run("git", "show", published, cwd=remote), as_version=4)
    nbformat.validate(notebook)
    assert notebook == nbformat.read(html / buttons["Download source file"], as_version=4)
    first, *others = notebook.cells
    assert (URL in first.source, at in first.source) == (True, True)
    assert others == nbformat.read(mini_book / "01-one.ipynb", as_version=4).cells


@pytest.mark.slow
def test_first_cell_fetches_the_project_and_installs_the_package(checkout: Path, tmp_path: Path) -> None:
    """Run as a kernel would, twice, since a kernel starts again; then where nothing is missing."""
    origin = launch.Repository(URL, commit(checkout))
    python = python_without_the_package(tmp_path / "environment")
    rewrite = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{checkout}.insteadOf", "GIT_CONFIG_VALUE_0": URL}
    local = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "PIP_IGNORE_INSTALLED": "1"}
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    script = tmp_path / "cell.py"
    asks = "import recsys_cl, recsys_cl.book.results as stored\n"
    asks += "print(recsys_cl.__file__, len(stored.ledger()), os.getcwd())\n"
    script.write_text(origin.setup + asks)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    runs = [run(python, script, cwd=elsewhere, env=inherited | rewrite | local).split() for _ in range(2)]
    assert runs[0] == runs[1]
    package, results, folder = runs[0]
    assert Path(package).is_relative_to(tmp_path / "environment")
    assert int(results) == len(list((ROOT / "book" / "results").glob("*.json")))
    assert Path(folder) == elsewhere / f"NAME-{origin.commit[:7]}" / "book"
    assert run("git", "rev-parse", "HEAD", cwd=folder).strip() == origin.commit

    book = checkout / "book"
    before = sorted(book.iterdir())
    assert run(python, script, cwd=book, env=inherited | {"PATH": ""}).split()[2] == str(book)
    assert sorted(book.iterdir()) == before


@pytest.mark.parametrize("url", ["http://github.com/a/b", "https://github.com/a", "https://example.org/a/b", f"{URL}/"])
def test_repository_that_no_button_could_open_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(url)) + r".*https://github\.com/OWNER/NAME"):
        launch.Repository(url, "0" * 40)


def test_commit_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launch.REPOSITORY_VARIABLE, URL)
    monkeypatch.delenv(launch.COMMIT_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=r"RECSYS_CL_COMMIT=''.*git rev-parse HEAD"):
        launch.repository(tmp_path)


def test_commit_is_the_one_checked_out_unless_the_environment_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    at = commit(tmp_path)
    monkeypatch.setenv(launch.REPOSITORY_VARIABLE, URL)
    monkeypatch.delenv(launch.COMMIT_VARIABLE, raising=False)
    assert launch.repository(tmp_path) == launch.Repository(URL, at)
    monkeypatch.setenv(launch.COMMIT_VARIABLE, "1" * 40)
    assert launch.repository(tmp_path) == launch.Repository(URL, "1" * 40)


def test_publishing_asks_for_a_built_book(tmp_path: Path) -> None:
    done = subprocess.run([ROOT / ".ci" / "publish", tmp_path, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_workflow_runs_what_a_contributor_runs_and_publishes_what_it_built() -> None:
    workflow = yaml.load((ROOT / ".github" / "workflows" / "book.yml").read_text(), yaml.BaseLoader)
    check, publish = workflow["jobs"]["check"], workflow["jobs"]["publish"]
    assert workflow["on"] == {"push": {"branches": ["main"]}, "pull_request": ""}
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in check
    assert publish["permissions"] == {"contents": "write"}
    assert (publish["needs"], publish["if"]) == ("check", "github.event_name == 'push'")
    assert check["env"] == {
        launch.REPOSITORY_VARIABLE: "${{ github.server_url }}/${{ github.repository }}",
        launch.COMMIT_VARIABLE: "${{ github.sha }}",
    }
    assert [step["run"] for step in check["steps"] if "run" in step] == [".ci/run"]
    carried = [step["with"] for job in (check, publish) for step in job["steps"] if "-artifact" in step.get("uses", "")]
    assert [(one["name"], one["path"]) for one in carried] == [("book", "_build/html")] * 2
    assert publish["steps"][-1]["run"].startswith(".ci/publish _build/html ")
    for step in check["steps"] + publish["steps"]:
        assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v0")), step
    for script in ("run", "publish"):
        assert os.access(ROOT / ".ci" / script, os.X_OK)
    assert launch.PUBLISHED in (ROOT / ".ci" / "publish").read_text()


def test_citation_agrees_with_the_package_and_the_changelog() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title"} <= set(citation)
    assert citation["title"] == yaml.safe_load((ROOT / "_config.yml").read_text())["title"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["keywords"] == PROJECT["keywords"]
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    changes = (ROOT / "CHANGELOG.md").read_text()
    released = re.search(rf"^## \[{re.escape(PROJECT['version'])}\] - (.+)$", changes, re.MULTILINE)
    assert str(citation.get("date-released")) == str(released and released[1]), "CHANGELOG.md and CITATION.cff"


def test_licences_are_there_and_named() -> None:
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")
    assert "CC BY 4.0" in (ROOT / "LICENSE-PROSE.md").read_text()
    assert PROJECT["license-files"] == ["LICENSE", "LICENSE-PROSE.md"]


@pytest.mark.slow
def test_wheel_runs_the_command_line_and_the_example_of_the_readme(checkout: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", tmp_path, checkout)
    (wheel,) = tmp_path.glob("*.whl")
    files = run(sys.executable, "-m", "zipfile", "--list", wheel)
    names = [line.split()[0] for line in files.splitlines()[1:]]
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "recsys_cl").rglob("*.py")}
    assert modules | {"recsys_cl/py.typed"} == {
        name for name in names if not name.partition("/")[0].endswith(".dist-info")
    }
    assert {"LICENSE", "LICENSE-PROSE.md"} <= {Path(name).name for name in names}

    python = python_without_the_package(tmp_path / "environment")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", "--ignore-installed", "--quiet", wheel)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    settings = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    help_text = run(python.with_name("recsys-cl"), "--help", cwd=elsewhere, env=settings)
    assert "recommend" in help_text
    readme = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"<!-- example -->\n```python\n(.*?)```\n<!-- /example -->", readme, re.DOTALL)
    (elsewhere / "example.py").write_text(f"{example}\nimport recsys_cl\nprint(recsys_cl.__file__)\n")
    *shown, package = run(python, "example.py", cwd=elsewhere, env=settings | {"RECSYS_CL_OFFLINE": "1"}).splitlines()
    assert len(shown) >= 3
    assert Path(package).is_relative_to(tmp_path / "environment")
