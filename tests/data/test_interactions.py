"""Interactions are validated by row and value, numbered by order of appearance, and ordered by time."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.data import EVENT_WEIGHTS, Interactions, leave_one_out
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.recommenders import EASE

check = settings(deadline=None, max_examples=60, derandomize=True)


def events(**columns: object) -> pd.DataFrame:
    """Three events of two users on two items, with columns replaced or added."""
    table = {"user_id": ["ann", "bob", "ann"], "item_id": ["x", "y", "y"], "timestamp": [10, 20, 30]}
    return pd.DataFrame(table | columns)


def items(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"item_id": ["x", "y"]} | columns)


def refusal(*tables: pd.DataFrame | None, **options: object) -> str:
    """The one-line message with which tables are refused."""
    with pytest.raises(InputError) as caught:
        Interactions.from_tables(*tables, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def without(column: str) -> pd.DataFrame:
    return events().drop(columns=column)


BAD_TABLES = {
    "no user column": ((without("user_id"),), ["'user_id'", "--column user_id=NAME"]),
    "no time column": ((without("timestamp"),), ["'timestamp'", "--column timestamp=NAME"]),
    "misnamed item column": ((events().rename(columns={"item_id": "asin"}),), ["'item_id'", "asin", "columns="]),
    "items without ids": ((events(), pd.DataFrame({"asin": ["x"]})), ["items table", "'item_id'", "asin"]),
    "users without ids": ((events(), None, pd.DataFrame({"who": ["ann"]})), ["users table", "'user_id'", "who"]),
    "no events": ((events().iloc[:0],), ["interactions", "empty", "at least one row"]),
    "no items": ((events(), items().iloc[:0]), ["items", "empty", "at least one row"]),
    "user missing": ((events(user_id=["ann", None, "ann"]),), ["row 2", "user_id", "remove the row"]),
    "item missing": ((events(item_id=["x", "y", None]),), ["row 3", "item_id", "remove the row"]),
    "item id missing in items": ((events(), items(item_id=["x", None])), ["items row 2", "item_id", "remove"]),
    "item not in the catalogue": ((events(), pd.DataFrame({"item_id": ["x"]})), ["row 2", "'y'", "2 such", "add"]),
    "item twice": ((events(), pd.DataFrame({"item_id": ["x", "y", "x"]})), ["items row 3", "'x'", "keep one"]),
    "user twice": (
        (events(), None, pd.DataFrame({"user_id": ["ann", "bob", "ann"], "age": [1, 2, 3]})),
        ["users row 3", "'ann'", "keep one"],
    ),
    "rating missing": ((events(rating=[4.0, np.nan, 5.0]),), ["row 2", "nan", "correct it"]),
    "rating masked": ((events(rating=pd.array([4, None, 5], dtype="Int64")),), ["row 2", "<NA>", "correct it"]),
    "rating infinite": ((events(rating=[4.0, 3.0, -np.inf]),), ["row 3", "-inf", "correct it"]),
    "rating a word": ((events(rating=["4", "good", "5"]),), ["row 2", "'good'", "not a finite number"]),
    "time a word among numbers": ((events(timestamp=[10, "soon", 30]),), ["row 2", "'soon'", "ISO 8601"]),
    "time a word among texts": ((events(timestamp=["10", "20", "soon"]),), ["row 3", "'soon'", "ISO 8601"]),
    "time a word among dates": (
        (events(timestamp=["2020-01-01", "soon", "2020-01-02"]),),
        ["row 2", "'soon'", "seconds since 1970"],
    ),
    "time missing": ((events(timestamp=[10.0, np.nan, 30.0]),), ["row 2", "timestamp", "ISO 8601"]),
    "time infinite": ((events(timestamp=[10.0, 20.0, np.inf]),), ["row 3", "inf", "correct or remove"]),
    "time infinite as text": ((events(timestamp=["10", "-inf", "30"]),), ["row 2", "-inf", "correct or remove"]),
    "event unknown": ((events(event=["view", "stare", "view"]),), ["row 2", "'stare'", "purchase", "event_weights"]),
    "event missing": ((events(event=["view", "view", None]),), ["row 3", "event_weights"]),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_input_is_refused_in_one_line_with_row_value_and_remedy(case):
    tables, expected = BAD_TABLES[case]
    message = refusal(*tables)
    for part in expected:
        assert part in message


def test_exact_duplicates_are_dropped_with_a_count():
    table = pd.concat([events(), events().iloc[[0, 2]]], ignore_index=True)
    with pytest.warns(UserWarning, match=r"^2 exact duplicates .* first at row 4$"):
        data = Interactions.from_tables(table)
    assert len(data) == 3
    assert data.timestamp.tolist() == [10, 20, 30]


def test_another_time_or_another_event_type_is_no_duplicate():
    table = events(user_id=["ann"] * 3, item_id=["x"] * 3, timestamp=[1, 1, 2], event=["view", "click", "view"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Interactions.from_tables(table)) == 3


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_items_without_text_are_counted_and_their_titles_used(empty):
    with pytest.warns(UserWarning, match=r"^1 items without text, the first at row 2 \(item_id 'y'\); their titles"):
        data = Interactions.from_tables(events(), items(title=["The X", "The Y"], text=["about x", empty]))
    assert data.texts == ["about x", "The Y"]


def test_a_missing_title_becomes_the_id_and_a_missing_text_the_title():
    data = Interactions.from_tables(events(), items(title=["The X", None]))
    assert data.titles == ["The X", "y"]
    assert data.texts == ["The X", "y"]
    assert Interactions.from_tables(events()).titles == ["x", "y"]


def test_items_that_nobody_had_stay_in_the_catalogue_in_their_order():
    data = Interactions.from_tables(events(), pd.DataFrame({"item_id": ["new", "y", "x"], "year": [1, 2, 3]}))
    assert data.item_ids.tolist() == ["new", "y", "x"]
    assert data.item.tolist() == [2, 1, 1]
    assert data.items["year"][:] == [1, 2, 3]
    assert (data.n_users, data.n_items, len(data)) == (2, 3, 3)


def test_integer_ids_in_one_table_and_text_ids_in_the_other_meet():
    data = Interactions.from_tables(events(item_id=[1, 2, 2]), items(item_id=["1", "2"], title=["A", "B"]))
    assert data.item.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(["2020-01-01", "2020-01-01T00:01:00Z", "2020-01-01 01:02+01:00"], id="text"),
        pytest.param(pd.to_datetime(["2020-01-01 00:00", "2020-01-01 00:01", "2020-01-01 00:02"]), id="datetimes"),
        pytest.param(
            pd.to_datetime(["2020-01-01 00:00", "2020-01-01 00:01", "2020-01-01 00:02"], utc=True), id="utc datetimes"
        ),
        pytest.param(["1577836800", "1577836860", "1577836920"], id="numbers as text"),
    ],
)
def test_every_way_to_write_a_time_gives_seconds_since_1970(column):
    data = Interactions.from_tables(events(timestamp=column))
    assert data.timestamp.tolist() == [1577836800.0, 1577836860.0, 1577836920.0]


def test_without_ratings_and_events_everything_weighs_one():
    data = Interactions.from_tables(events())
    assert data.rating.tolist() == [1, 1, 1]
    assert data.weight.tolist() == [1, 1, 1]
    assert data.event is None


def test_events_are_weighted_by_their_type():
    table = events(event=["view", "purchase", "click"])
    assert Interactions.from_tables(table).weight.tolist() == [1, 5, 2]
    own = Interactions.from_tables(table, event_weights={"view": 0.5, "click": 1, "purchase": 9})
    assert own.weight.tolist() == [0.5, 9, 1]
    funnel = [EVENT_WEIGHTS[stage] for stage in ("view", "click", "save", "cart", "purchase")]
    assert funnel == sorted(set(funnel))


def test_the_arrow_table_gives_the_events_back_with_the_callers_ids():
    table = events(rating=[1.0, 2.0, 3.0], event=["view", "click", "view"])
    back = Interactions.from_tables(table).events.to_pandas()
    for column in table.columns:
        assert back[column].tolist() == table[column].tolist()
    assert "event" not in Interactions.from_tables(events()).events.column_names


def test_user_numbers_are_standardised_and_categories_one_hot():
    users = pd.DataFrame({"user_id": ["cy", "bob", "ann"], "age": [99, 30, 50], "job": ["none", "poet", "cook"]})
    attributes = Interactions.from_tables(events(), None, users).user_attributes
    assert attributes.tolist() == [[1, 0.5, -0.5], [-1, -0.5, 0.5]]  # ann, bob; age, cook, poet


@pytest.mark.parametrize("kind", ["float64", "Int64"])
def test_a_missing_number_of_a_user_is_the_mean_and_a_missing_category_nothing(kind):
    table = events(user_id=["ann", "bob", "cy"])
    ages = pd.Series([30, 31, None], dtype=kind)
    users = pd.DataFrame({"user_id": ["ann", "bob", "cy"], "age": ages, "job": ["cook", "poet", None]})
    attributes = Interactions.from_tables(table, None, users).user_attributes
    np.testing.assert_allclose(attributes[2], [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(attributes[:2, 1:], [[0.5, -0.5], [-0.5, 0.5]])


def test_user_attributes_are_finite_even_if_the_table_knows_none_of_the_users():
    users = pd.DataFrame({"user_id": ["zoe"], "age": [44]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            data = Interactions.from_tables(events(), None, users)
        except InputError:
            return  # to refuse such a table is as good
    assert np.isfinite(data.user_attributes).all()


def test_a_user_attribute_with_too_many_values_is_left_out_with_a_warning():
    names = [f"user {number}" for number in range(70)]
    table = pd.DataFrame({"user_id": names, "item_id": ["x"] * 70, "timestamp": range(70)})
    users = pd.DataFrame({"user_id": names, "email": names, "job": ["cook", "poet"] * 35})
    with pytest.warns(UserWarning, match="'email' has over 64 values"):
        data = Interactions.from_tables(table, None, users)
    assert data.user_attributes.shape == (70, 2)


def test_the_tied_share_counts_events_that_share_a_time_within_a_user():
    table = pd.DataFrame({"user_id": list("aaabbb"), "item_id": list("xyzxyz"), "timestamp": [1, 1, 2, 1, 2, 3]})
    assert Interactions.from_tables(table).tied_share == pytest.approx(2 / 6)


# filter


@pytest.fixture
def rated() -> Interactions:
    table = pd.DataFrame(
        {
            "user_id": list("aaabbc"),
            "item_id": list("xyzxyz"),
            "timestamp": range(6),
            "rating": [5, 2, 4, 4, 1, 3],
            "event": ["view", "click", "view", "view", "click", "purchase"],
        }
    )
    users = pd.DataFrame({"user_id": list("abc"), "age": [1, 2, 3]})
    return Interactions.from_tables(table, None, users)


def test_min_rating_keeps_likes_and_the_whole_catalogue(rated):
    liked = rated.filter(min_rating=4)
    assert liked.rating.tolist() == [5, 4, 4]
    assert liked.user_ids.tolist() == ["a", "b"]
    assert liked.n_items == 3
    np.testing.assert_array_equal(liked.user_attributes, rated.user_attributes[:2])


def test_event_types_can_be_chosen(rated):
    bought = rated.filter(events={"purchase", "click"})
    assert bought.event.tolist() == ["click", "click", "purchase"]
    assert bought.weight.tolist() == [2, 2, 5]


def test_min_events_counts_what_the_other_filters_left(rated):
    assert rated.filter(min_events=2).user_ids.tolist() == ["a", "b"]
    left = rated.filter(min_rating=4, min_events=2)
    assert left.user_ids.tolist() == ["a"]
    assert left.user.tolist() == [0, 0]
    assert left.item.tolist() == [0, 2]


def test_a_filter_that_leaves_nothing_names_its_values(rated):
    with pytest.raises(InputError, match=r"min_rating=9.*lower them"):
        rated.filter(min_rating=9)


def test_event_types_asked_of_data_without_them_are_an_error():
    with pytest.raises(InputError, match=r"\['view'\].*no event column"):
        Interactions.from_tables(events()).filter(events={"view"})


# order


@st.composite
def logs(draw: st.DrawFn) -> pd.DataFrame:
    """Random events with ties and repeated items, no exact duplicates."""
    row = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4), st.sampled_from(["view", "purchase"]))
    rows = draw(st.lists(row, min_size=1, max_size=30, unique=True))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "event"])


@given(logs(), st.integers(0, 5))
@check
def test_a_sequence_holds_each_item_once_at_its_first_event_with_its_greatest_weight(table, seed):
    data = Interactions.from_tables(table)
    sequences = data.sequences(seed=seed)
    assert len(sequences) == data.n_users
    for user, name in enumerate(data.user_ids):
        place = slice(sequences.start[user], sequences.stop[user])
        had = data.item_ids[sequences.items[place]]
        mine = table[table["user_id"] == name].assign(weight=lambda rows: rows["event"].map(EVENT_WEIGHTS))
        assert sorted(had) == sorted(mine["item_id"].unique())
        assert sequences.times[place].tolist() == [mine[mine["item_id"] == item]["timestamp"].min() for item in had]
        assert sequences.weights[place].tolist() == [mine[mine["item_id"] == item]["weight"].max() for item in had]
        assert (np.diff(sequences.times[place]) >= 0).all()


@given(logs(), st.integers(0, 5))
@check
def test_one_seed_gives_one_order(table, seed):
    data = Interactions.from_tables(table)
    first, second = data.sequences(seed=seed), data.sequences(seed=seed)
    np.testing.assert_array_equal(first.items, second.items)


def crowd(times: np.ndarray) -> Interactions:
    """Twenty users with ten items each."""
    user = np.repeat(np.arange(20), 10)
    return Interactions.from_tables(
        pd.DataFrame({"user_id": user, "item_id": np.tile(np.arange(10), 20), "timestamp": times})
    )


def test_two_seeds_differ_in_ties_and_in_nothing_else():
    tied = crowd(np.tile(np.arange(10) // 5, 20))
    first, second = tied.sequences(seed=0), tied.sequences(seed=1)
    assert (first.items != second.items).any()
    np.testing.assert_array_equal(first.times, second.times)
    distinct = crowd(np.tile(np.arange(10), 20))
    np.testing.assert_array_equal(distinct.sequences(seed=0).items, distinct.sequences(seed=1).items)


def test_the_shuffle_within_ties_is_uniform():
    """Each of two tied items comes first in half of 2,000 users: within four standard errors."""
    user = np.repeat(np.arange(2000), 2)
    table = pd.DataFrame({"user_id": user, "item_id": np.tile([0, 1], 2000), "timestamp": 0})
    first = Interactions.from_tables(table).sequences(seed=3).items[::2]
    assert abs(first.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


@pytest.mark.parametrize("rename", [lambda number: f"id {9999 - number}", lambda number: 7 * number + 3])
def test_renaming_ids_changes_no_number(rename):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"user_id": rng.integers(30, size=600), "item_id": rng.integers(40, size=600)})
    table = table.drop_duplicates(ignore_index=True).assign(timestamp=lambda rows: rng.integers(9, size=len(rows)))
    renamed = table.assign(user_id=table["user_id"].map(rename), item_id=table["item_id"].map(rename))
    catalogue = pd.DataFrame({"item_id": range(40)})
    results = []
    for log, ids in ((table, catalogue), (renamed, catalogue.assign(item_id=catalogue["item_id"].map(rename)))):
        data = Interactions.from_tables(log, ids)
        split = leave_one_out(data, seed=5)
        sequences = data.sequences(seed=5)
        numbers = [data.user, data.item, data.timestamp, sequences.items, split.test.target.start]
        results.append([*numbers, evaluate(EASE(l2=5.0).fit(split), split.test).metrics["ndcg@10"]])
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


class TestUnitsOfTime:
    SECONDS = (1577836800, 1577836860, 1577836920)

    @pytest.mark.parametrize(
        ("name", "parts"), [("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)]
    )
    @pytest.mark.parametrize("kind", [int, float, str])
    def test_parts_of_a_second_are_recognised_by_their_size(self, name: str, parts: int, kind: type) -> None:
        table = events(timestamp=[kind(second * parts) for second in self.SECONDS])
        with pytest.warns(UserWarning, match=f"3 timestamps have the magnitude of {name}.*the first at row 1"):
            data = Interactions.from_tables(table)
        assert data.timestamp.tolist() == pytest.approx(list(self.SECONDS), abs=1e-3)

    def test_one_unit_for_all(self) -> None:
        message = refusal(events(timestamp=[1577836800, 1577836860000, 1577836920]))
        for part in ("row 2", "milliseconds", "row 1", "seconds", "write all in seconds"):
            assert part in message

    @pytest.mark.parametrize("odd", [-5, 4_200_000_000])
    def test_times_before_1970_or_after_2100_are_counted(self, odd: int) -> None:
        with pytest.warns(UserWarning, match=f"1 timestamps lie before 1970 or after 2100, the first at row 2 .{odd}"):
            data = Interactions.from_tables(events(timestamp=[10, odd, 30]))
        assert data.timestamp.tolist() == [10, odd, 30]

    def test_a_date_far_ahead_is_no_part_of_a_second(self) -> None:
        with pytest.warns(UserWarning, match="1 timestamps lie before 1970 or after 2100.*'2150-01-01'"):
            data = Interactions.from_tables(events(timestamp=["2020-01-01", "2150-01-01", "2020-01-02"]))
        assert data.timestamp[0] == 1577836800

    def test_a_clock_of_its_own_that_starts_at_zero_is_in_order(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert Interactions.from_tables(events(timestamp=[0, 5, 9])).timestamp.tolist() == [0, 5, 9]


def test_rows_that_go_back_in_time_are_sorted_without_a_word() -> None:
    table = pd.DataFrame({"user_id": ["ann"] * 4, "item_id": list("wxyz"), "timestamp": [40, 10, 30, 20]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = Interactions.from_tables(table)
    sequences = data.sequences(seed=0)
    assert data.item_ids[sequences.items].tolist() == list("xzyw")
    assert sequences.times.tolist() == [10, 20, 30, 40]


def test_attributes_are_what_a_network_reads() -> None:
    """Single precision, for numbers, for categories with a gap, and for both together."""
    events = pd.DataFrame({"user_id": ["a", "b", "c"], "item_id": ["x", "y", "x"], "timestamp": [1, 2, 3]})
    columns = {"age": [20.0, 30.0, np.nan], "city": ["here", None, "there"]}
    for names in (["age"], ["city"], ["age", "city"]):
        users = pd.DataFrame({"user_id": ["a", "b", "c"]} | {name: columns[name] for name in names})
        data = Interactions.from_tables(events, users=users, name="tiny")
        assert data.user_attributes.dtype == np.float32
