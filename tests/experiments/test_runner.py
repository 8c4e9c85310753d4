"""The runner: names, errors, and a stored result for each command."""

import ast
import json
import re
from pathlib import Path

import pytest
import run
from common import RESULTS, Parts

from recsys_cl.book.results import ledger

ROOT = Path(__file__).parents[2]
COMMANDS = {file.stem: json.loads(file.read_text())["command"] for file in sorted(RESULTS.glob("*.json"))}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_of_a_stored_result_makes_that_result(name: str) -> None:
    python, script, *arguments = COMMANDS[name].split()
    assert python == "python"
    assert (ROOT / script).is_file()
    if script == "experiments/run.py":
        assert arguments == [name]
        assert name in run.EXPERIMENTS
        assert COMMANDS[name] == run.command(name)
    else:
        assert not arguments
        assert f'"{name}"' in (ROOT / script).read_text()


def test_no_two_files_share_a_name() -> None:
    assert sum(len(file.RUNS) for file in run.FILES) == len(run.EXPERIMENTS)


def test_every_file_with_experiments_is_registered() -> None:
    defines = {
        file.stem
        for file in (ROOT / "experiments").glob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "RUNS"
    }
    assert defines == {file.__name__ for file in run.FILES}


def test_the_readme_has_the_cost_of_each_stored_experiment() -> None:
    costs = dict(re.findall(r"`([a-z-]+)` (\d+)", (ROOT / "experiments" / "README.md").read_text()))
    minutes = ledger(RESULTS)["minutes of fitting"]
    assert set(costs) == set(run.EXPERIMENTS) & set(minutes.index)
    assert all(abs(int(cost) - minutes[name]) <= 0.6 for name, cost in costs.items())


def test_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    run.main(["--list"])
    assert capsys.readouterr().out.split() == sorted(run.EXPERIMENTS)


@pytest.mark.parametrize("arguments", [["no-such-run"], ["search", "no-such-run"], []])
def test_unknown_names_are_refused_with_the_valid_ones(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run.main(arguments)
    message = capsys.readouterr().err
    assert "search-attacks" in message
    assert "'no-such-run'" in message or not arguments


def test_a_result_is_stored_with_the_time_of_all_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def experiment(parts: Parts) -> dict[str, int]:
        return parts.keep("only", lambda: {"answer": 42})

    monkeypatch.setitem(run.EXPERIMENTS, "toy", experiment)
    (tmp_path / "partial" / "toy").mkdir(parents=True)
    (tmp_path / "partial" / "toy" / "seconds").write_text("100.0")
    run.run("toy", partial=tmp_path / "partial", results=tmp_path)
    stored = json.loads((tmp_path / "toy.json").read_text())
    assert stored["result"] == {"answer": 42}
    assert stored["command"] == "python experiments/run.py toy"
    assert 100 <= stored["seconds"] < 110
