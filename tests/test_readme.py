"""The README's tables are those that the book and the stored runs give."""

import json
import re
import shutil
from pathlib import Path

import pytest
import readme

TEXT = (readme.ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = readme.ROOT / "book" / "results"


def test_the_table_is_what_the_stored_runs_give() -> None:
    assert readme.between(TEXT, "results", readme.results_table()) == TEXT, "run: make readme"


def test_the_map_names_every_chapter_with_what_it_uses_and_its_time() -> None:
    rows = re.search(r"<!-- map -->\n(.*)\n<!-- /map -->", TEXT, re.DOTALL)
    assert rows, "run: make readme"
    seconds = [int(row.split("|")[-2]) for row in rows[1].splitlines()[2:]]
    names = [name for _, name in readme.chapters()]
    assert all(0 < each <= 150 for each in seconds)
    assert rows[1] == readme.map_table(dict(zip(names, seconds, strict=True))), "run: make readme"


def test_times_of_chapters_that_did_not_run_are_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no execution of 01-language-models.ipynb.*run: make notebooks"):
        readme.measured(tmp_path)


def test_runs_of_one_column_asked_the_same_questions() -> None:
    for runs in readme.RUNS.values():
        protocols = [json.loads((RESULTS / f"{run}.json").read_text())["result"]["protocol"] for run in runs]
        assert len({(one["data"], one["split"], one["users"], one["events"], one["draws"]) for one in protocols}) == 1


def test_a_changed_result_changes_the_table(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "results")
    file = tmp_path / "results" / "compare-leave-last-n.json"
    run = json.loads(file.read_text())
    row = next(row for row in run["result"]["rows"] if row["model"] == "popularity")
    row["metrics"]["ndcg@10"]["mean"] = 0.5
    file.write_text(json.dumps(run))
    assert "| popularity | **0.500** (" in readme.results_table(tmp_path / "results")
    assert "**0.131** (0.123" not in readme.results_table(tmp_path / "results")


def test_a_readme_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no <!-- results --> with its <!-- /results -->"):
        readme.between("# A readme\n<!-- results -->\n", "results", "")
