"""Finished parts: made once, whole or not at all, and refused where they belong to something else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import Parts, figures

from recsys_cl.errors import InputError
from recsys_cl.evaluation import Evaluation


def evaluation(*values: float) -> Evaluation:
    return Evaluation(np.arange(len(values)), {"ndcg@10": np.array(values)})


def never() -> dict[str, Any]:
    raise AssertionError("made again")


def test_a_part_is_made_once(tmp_path: Path) -> None:
    made = Parts(tmp_path, "run").keep("sasrec, 0", lambda: {"value": 0.1, "list": [1, 2]})
    assert made == {"value": 0.1, "list": [1, 2]}
    assert Parts(tmp_path, "run").keep("sasrec, 0", never) == made


def test_evaluations_and_arrays_come_back(tmp_path: Path) -> None:
    Parts(tmp_path, "run").keep("a", lambda: {"n": 2, "test": evaluation(0.1, 0.2), "state mean": np.ones(3)})
    found = Parts(tmp_path, "run").keep("a", never)
    assert found["test"].metrics["ndcg@10"].tolist() == [0.1, 0.2]
    assert found["state mean"].tolist() == [1.0, 1.0, 1.0]
    assert figures(found) == {"n": 2}
    assert Parts(tmp_path, "run").evaluation("b", lambda: evaluation(0.5)).mean() == 0.5


def test_an_interrupted_run_continues_with_the_first_missing_part(tmp_path: Path) -> None:
    made: list[int] = []

    def part(number: int, *, interrupt: bool) -> dict[str, Any]:
        if interrupt and number == 2:
            raise KeyboardInterrupt
        made.append(number)
        return {"number": number}

    def whole(*, interrupt: bool) -> list[int]:
        parts = Parts(tmp_path, "run")
        return [parts.keep(f"{n}", lambda n=n: part(n, interrupt=interrupt))["number"] for n in range(4)]

    with pytest.raises(KeyboardInterrupt):
        whole(interrupt=True)
    assert whole(interrupt=False) == [0, 1, 2, 3]
    assert made == [0, 1, 2, 3]


def test_a_part_interrupted_while_it_is_written_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", cut_short)
        with pytest.raises(KeyboardInterrupt):
            Parts(tmp_path, "run").keep("a", lambda: {"value": 1})
    assert not (tmp_path / "a.json").exists()
    assert Parts(tmp_path, "run").keep("a", lambda: {"value": 2}) == {"value": 2}


@pytest.mark.parametrize(
    ("run", "name", "of"),
    [("other", "a b", {"rate": 0.1}), ("run", "a-b", {"rate": 0.1}), ("run", "a b", {"rate": 0.2}), ("run", "a b", {})],
)
def test_a_part_of_something_else_is_refused(tmp_path: Path, run: str, name: str, of: dict[str, Any]) -> None:
    Parts(tmp_path, "run").keep("a b", lambda: {"value": 1}, of={"rate": 0.1})
    with pytest.raises(InputError, match=r"a-b\.json.*remove it"):
        Parts(tmp_path, run).keep(name, never, of=of)


def test_answers_are_kept_in_blocks(tmp_path: Path) -> None:
    asked: list[range] = []

    def answer(rows: range) -> dict[str, list]:
        asked.append(rows)
        return {"square": [row**2 for row in rows]}

    for _ in range(2):
        answers = Parts(tmp_path, "run").in_blocks("square", 5, answer, size=2)
        assert answers == {"square": [0, 1, 4, 9, 16]}
    assert asked == [range(2), range(2, 4), range(4, 5)]
