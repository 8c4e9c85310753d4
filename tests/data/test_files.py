"""A reader's own files: four formats, one result, and errors that say what to repair."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys_cl.data import Interactions, load_files
from recsys_cl.errors import InputError

EVENTS = pd.DataFrame(
    {
        "user_id": ["007", "ünal", "007", "42"],
        "item_id": ["0010", "B00X", "B00X", "1e5"],
        "rating": [4.0, 3.5, 1.0, 5.0],
        "timestamp": [881250949, 881250949, 881250950, 891717742],
        "event": ["view", "purchase", "click", "view"],
    }
)
ITEMS = pd.DataFrame(
    {
        "item_id": ["1e5", "0010", "B00X"],
        "title": ["1984", 'Les Misérables, «1» "x"', "用心棒\tYojimbo"],
        "text": ["2001", "A song; a barricade", "侍"],
        "year": [1949, 2012, 1961],
    }
)
USERS = pd.DataFrame({"user_id": ["42", "007", "ünal"], "age": [30, 50, 40], "job": ["spy", "none", "spy"]})


def write(table: pd.DataFrame, path: Path) -> Path:
    if ".jsonl" in path.name:
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


def load(folder: Path, ending: str, **options: object) -> Interactions:
    names = ("log", "items", "users")
    paths = [
        write(table, folder / f"{name}{ending}") for name, table in zip(names, (EVENTS, ITEMS, USERS), strict=True)
    ]
    return load_files(*paths, **options)


def assert_same(first: Interactions, second: Interactions) -> None:
    assert first.name == second.name
    for name in ("user_ids", "item_ids", "user", "item", "rating", "timestamp", "weight", "event", "user_attributes"):
        one, other = getattr(first, name), getattr(second, name)
        np.testing.assert_array_equal(one, other, err_msg=name)
        assert one.dtype == other.dtype, name
    assert first.items.to_dict() == second.items.to_dict()


ENDINGS = [".csv", ".tsv", ".parquet", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".CSV"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_interactions(ending, tmp_path):
    expected = Interactions.from_tables(EVENTS, ITEMS, USERS, name="log")
    assert_same(load(tmp_path, ending), expected)


@pytest.mark.parametrize("ending", ENDINGS)
def test_ids_and_titles_that_look_like_numbers_stay_text(ending, tmp_path):
    data = load(tmp_path, ending)
    assert data.user_ids.tolist() == ["007", "ünal", "42"]
    assert data.item_ids.tolist() == ["1e5", "0010", "B00X"]
    assert data.titles == ITEMS["title"].tolist()
    assert data.texts == ITEMS["text"].tolist()
    assert data.items["year"][:] == [1949, 2012, 1961]


@pytest.mark.parametrize("word", ["NA", "None", "null", "nan", "N/A"])
def test_ids_that_pandas_takes_for_missing_values_are_ids(word, tmp_path):
    (tmp_path / "log.csv").write_text(f"user_id,item_id,timestamp\n{word},x,1\na,{word},2\n")
    data = load_files(tmp_path / "log.csv")
    assert data.user_ids.tolist() == [word, "a"]
    assert data.item_ids.tolist() == ["x", word]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_dates_mean_the_same_seconds_in_every_format(ending, tmp_path):
    times = pd.to_datetime(EVENTS["timestamp"], unit="s", utc=True)
    table = EVENTS.assign(timestamp=times if ending == ".parquet" else times.map(pd.Timestamp.isoformat))
    data = load_files(write(table, tmp_path / f"log{ending}"))
    assert data.timestamp.tolist() == EVENTS["timestamp"].tolist()


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_columns_can_be_mapped(ending, tmp_path):
    names = {"user_id": "reviewer", "item_id": "asin", "timestamp": "when", "rating": "stars"}
    log = write(EVENTS.rename(columns=names), tmp_path / f"log{ending}")
    items = write(ITEMS.rename(columns=names), tmp_path / f"items{ending}")
    assert_same(
        load_files(log, items, write(USERS, tmp_path / f"users{ending}"), columns=names), load(tmp_path, ending)
    )


def test_item_and_user_files_are_optional(tmp_path):
    data = load_files(write(EVENTS, tmp_path / "my.shop.csv"))
    assert data.name == "my"
    assert data.titles == ["0010", "B00X", "1e5"]
    assert data.user_attributes is None


def test_event_weights_can_be_given(tmp_path):
    data = load(tmp_path, ".csv", event_weights={"view": 1, "click": 1, "purchase": 7})
    assert data.weight.tolist() == [1, 7, 1, 1]


def test_a_template_makes_the_texts(tmp_path):
    data = load(tmp_path, ".csv", template="{title} ({year})")
    assert data.texts[0] == "1984 (1949)"
    assert data.texts[2] == "用心棒\tYojimbo (1961)"


def test_a_missing_value_leaves_its_place_in_the_template_empty(tmp_path):
    items = write(ITEMS.assign(year=pd.array([1949, None, 1961], dtype="Int64")), tmp_path / "i.csv")
    data = load_files(write(EVENTS, tmp_path / "e.csv"), items, template="{item_id}/{year}")
    assert data.texts == ["1e5/1949", "0010/", "B00X/1961"]


def refusal(*paths: Path | None, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load_files(*paths, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_template_over_an_unknown_column_names_the_columns(tmp_path):
    log, items = write(EVENTS, tmp_path / "e.csv"), write(ITEMS, tmp_path / "i.csv")
    message = refusal(log, items, template="{titel}")
    assert "'titel'" in message
    assert "item_id, title, text, year" in message
    assert "needs an items file" in refusal(log, template="{title}")


@pytest.mark.parametrize("template", ["{title", "{title}}", "{}", "{0}"])
def test_a_template_that_cannot_be_parsed_is_an_input_error(template, tmp_path):
    log, items = write(EVENTS, tmp_path / "e.csv"), write(ITEMS, tmp_path / "i.csv")
    assert repr(template) in refusal(log, items, template=template)


def test_a_missing_file_is_named_with_the_working_folder(tmp_path):
    message = refusal(tmp_path / "log.csv")
    assert "log.csv" in message
    assert str(Path.cwd()) in message
    assert "items.csv" in refusal(write(EVENTS, tmp_path / "e.csv"), tmp_path / "items.csv")


@pytest.mark.parametrize("name", ["log.xlsx", "log", "log.gz"])
def test_an_unknown_ending_is_answered_with_the_known_ones(name, tmp_path):
    (tmp_path / name).write_text("user_id,item_id,timestamp\na,b,1\n")
    assert ".csv, .tsv, .parquet, .jsonl" in refusal(tmp_path / name)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_an_empty_file_is_refused(ending, tmp_path):
    (tmp_path / f"log{ending}").touch()
    message = refusal(tmp_path / f"log{ending}")
    assert f"log{ending}" in message
    assert "is empty" in message


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".csv.gz"])
def test_a_file_with_a_header_only_is_refused(ending, tmp_path):
    assert "at least one row below the header" in refusal(write(EVENTS.iloc[:0], tmp_path / f"log{ending}"))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_broken_json_line_is_named(compressed, tmp_path):
    lines = [json.dumps(row) for row in EVENTS.to_dict("records")]
    text = "\n".join([lines[0], "", lines[1], '{"user_id": "a",', lines[2]])
    path = tmp_path / ("log.jsonl.gz" if compressed else "log.jsonl")
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    message = refusal(path)
    assert path.name in message
    assert "repair" in message
    assert "line 4 is not JSON" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ragged.csv", b"user_id,item_id,timestamp\na,b,1\na,b,1,2,3\n"),
        ("latin.csv", "user_id,item_id,timestamp\né,b,1\n".encode("latin-1")),
        ("text.parquet", b"user_id,item_id,timestamp\n"),
        ("text.csv.gz", b"user_id,item_id,timestamp\na,b,1\n"),
    ],
)
def test_an_unreadable_file_is_named_with_the_reason(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert name in message
    assert "cannot be read as" in message


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("a,x,1,3\nb,y,2,\n", ["row 2", "rating"]),
        ("a,x,1,3\nb,y,soon,3\n", ["row 2", "'soon'", "ISO 8601"]),
        ("a,x,1,3\nb,,2,3\n", ["row 2", "item_id"]),
        ("a,x,1,3\nb,y,inf,3\n", ["row 2", "inf"]),
    ],
)
def test_a_bad_cell_of_a_file_is_named_by_row_and_value(rows, expected, tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,rating\n" + rows)
    message = refusal(tmp_path / "log.csv")
    for part in expected:
        assert part in message


def test_a_byte_order_mark_and_windows_line_ends_are_no_content(tmp_path):
    (tmp_path / "log.csv").write_bytes("user_id,item_id,timestamp\r\né,x,1\r\n".encode("utf-8-sig"))
    data = load_files(tmp_path / "log.csv")
    assert data.user_ids.tolist() == ["é"]
    assert data.timestamp.tolist() == [1]
