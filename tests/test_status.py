"""The status page and the chapters say what the stamps of the executions say."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import execute
import pytest
import status
import yaml

ROOT = Path(__file__).parents[1]
STAMP = {
    "digest": "0",
    "seconds": 61.4,
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "device": "cpu",
    "cores": 2,
    "threads": 1,
    "commit": "0123456789ab+",
    "date": "2026-11-22",
    "processor": "Abacus 9",
    "gibibytes": 15.6,
    "system": "Linux x86_64",
    "profile": "quick",
    "workers": 2,
}


def write_stamp(book: Path, name: str, **changes: Any) -> None:
    stamp = execute.stamp_of(book, name)
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(json.dumps(STAMP | changes))


@pytest.fixture
def executed(mini_book: Path) -> Path:
    for name in ("02-two.ipynb", "03-three.ipynb"):
        shutil.copyfile(mini_book / "01-one.ipynb", mini_book / name)
    write_stamp(mini_book, "01-one.ipynb")
    write_stamp(mini_book, "02-two.ipynb", seconds=38.2, date="2026-11-23", commit=None)
    return mini_book


def test_stamps_of_real_executions_hold_what_the_page_shows() -> None:
    assert set(STAMP) == {"digest", "seconds", *execute.circumstances("quick", 2)}


def test_every_notebook_has_its_time_or_is_said_not_to_have_run(executed: Path) -> None:
    assert status.executions(executed)[2:] == [
        "| [](01-one.ipynb) | 61 | 2026-11-22 | 0123456789ab+ |",
        "| [](02-two.ipynb) | 38 | 2026-11-23 |  |",
        "| [](03-three.ipynb) | not executed |  |  |",
        "| all, one after the other | 100 |  |  |",
    ]


def test_circumstances_are_told_once_where_all_executions_agree(executed: Path) -> None:
    lines = status.circumstances(executed)
    assert lines[0] == "| execution of | all executed notebooks |"
    assert "| torch | 2.13.0 |" in lines
    assert any("Abacus 9, 2 cores, 15.6 GiB of memory, no accelerator" in line for line in lines)
    assert "jupyter-book" in lines[-1]


def test_circumstances_that_differ_are_told_apart(executed: Path) -> None:
    write_stamp(executed, "03-three.ipynb", device="Accelerator 1")
    text = "\n".join(status.circumstances(executed))
    assert re.findall(r"execution of \| (.*) \|", text) == ["[](01-one.ipynb), [](02-two.ipynb)", "[](03-three.ipynb)"]
    assert "Accelerator 1; notebooks at a time: 2" in text


def test_every_stored_run_is_listed_with_its_command() -> None:
    rows = status.stored_runs(ROOT / "book")[2:]
    results = sorted((ROOT / "book" / "results").glob("*.json"))
    assert len(rows) == len(results)
    for row, file in zip(rows, results, strict=True):
        assert row.startswith(f"| `{json.loads(file.read_text())['command']}` | ")


def test_a_bar_does_not_end_a_cell() -> None:
    assert status.markdown_table(["a"], [["x|y"]])[-1] == r"| x\|y |"


def test_the_page_of_the_book_uses_every_directive() -> None:
    page = (ROOT / "book" / "status.md").read_text()
    assert set(re.findall(r"^```\{(.+)\}$", page, re.MULTILINE)) == {"executions", "circumstances", "stored-runs"}
    assert yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["local_extensions"]["status"] == "book/_ext"


@pytest.mark.slow
def test_chapter_states_its_measured_time_and_the_page_lists_it(
    mini_book: Path, build: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    write_stamp(mini_book, "01-one.ipynb")
    done = build(mini_book)
    assert done.returncode == 0, done.stderr
    html = mini_book.parent / "_build" / "html"
    chapter = re.sub(r"<[^>]+>", "", (html / "01-one.html").read_text())
    section = re.search(r"Time and hardware#\s*(.*?)Words\.", chapter, re.DOTALL)
    assert section is not None
    assert section[1].startswith("Measured on 2026-11-22: 61 s in the quick profile on Abacus 9, 2 cores,")
    assert "status page" in section[1]
    assert chapter.count("Measured on") == 1
    assert re.search(r"1\. One.*\s61\s", re.sub(r"<[^>]+>", "", (html / "status.html").read_text()), re.DOTALL)
