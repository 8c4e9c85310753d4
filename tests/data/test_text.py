"""Texts of items and users, and what cleaning makes of them."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_cl.data.movielens import TEMPLATE
from recsys_cl.data.text import CLEANING, TEMPLATES, clean, drop_stop_words, history_text, item_texts, s_stem
from recsys_cl.errors import InputError

FILMS = pd.DataFrame(
    {"title": ["Heat", "Ran"], "year": [1995, 1985], "genres": ["Action, Crime", "Drama, War"]},
)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_every_template_names_the_title(template: str) -> None:
    texts = item_texts(FILMS, template)
    assert all(title in text for title, text in zip(FILMS["title"], texts, strict=True))


def test_templates_differ_in_what_they_say() -> None:
    heat = {name: item_texts(FILMS, template)[0] for name, template in TEMPLATES.items()}
    assert heat == {
        "title": "Heat",
        "title, year": "Heat (1995)",
        "line": "Heat (1995). Action, Crime.",
        "sentence": "Heat is a film from 1995. Its genres are Action, Crime.",
        "labels": "title: Heat; year: 1995; genres: Action, Crime",
    }


def test_the_loader_of_the_book_uses_the_line() -> None:
    assert TEMPLATES["line"] == TEMPLATE


def test_a_missing_value_does_not_make_decimals_of_its_column() -> None:
    items = FILMS.assign(year=[1995, None])  # pandas stores 1995.0 and NaN
    assert item_texts(items, "{title} {year}") == ["Heat 1995", "Ran"]


def test_fractions_keep_their_point() -> None:
    assert item_texts(FILMS.assign(price=[9.5, 3.0]), "{price}") == ["9.5", "3.0"]


def test_template_with_unknown_column_names_it_and_what_there_is() -> None:
    with pytest.raises(InputError, match="'director'; the items have title, year, genres"):
        item_texts(FILMS, "{title} by {director}")


def test_template_with_open_brace_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        item_texts(FILMS, "{title")


def test_history_names_the_latest_titles_in_their_order() -> None:
    assert history_text(["Heat", "Ran", "Fargo"], last=2, opening="") == "Ran; Fargo."


def test_history_shorter_than_the_limit_is_named_whole() -> None:
    assert history_text(["Heat"], last=5, opening="Saw ") == "Saw Heat."


def test_nobody_has_watched_nothing_in_words() -> None:
    assert history_text([]) == ""


def test_history_of_no_titles_is_refused() -> None:
    with pytest.raises(InputError, match="last=0"):
        history_text(["Heat"], last=0)


@pytest.mark.parametrize(
    ("step", "text", "cleaned"),
    [
        ("markup", "<p>Tom &amp; Jerry<br/> 1 < 2 </p><!-- aside -->", "Tom & Jerry 1 < 2"),
        ("lower", "ÉMIGRÉ, Heat", "émigré, heat"),
        ("punctuation", "Schindler's List (1993)_", "Schindlers List 1993"),
        ("punctuation", "重庆森林, 1994", "重庆森林 1994"),
        ("stop words", "The Silence of the Lambs", "Silence Lambs"),
        ("stop words", "What's Love? Down, by Law", "What's Love? Law"),
        ("stem", "stories, churches, foxes, buses", "story, churche, foxe, buse"),
        ("stem", "glass virus shoes trees Das", "glass virus shoes trees Das"),
    ],
)
def test_step_of_cleaning(step: str, text: str, cleaned: str) -> None:
    assert clean(text, [step]) == cleaned


def test_a_title_of_stop_words_alone_vanishes() -> None:
    assert drop_stop_words("Somewhere, Being There") == ""


def test_steps_apply_in_the_order_given() -> None:
    assert clean("The <b>the</b>", ["stop words", "markup"]) == "the"
    assert clean("The <b>the</b>", ["markup", "stop words"]) == ""


def test_no_steps_change_spaces_only() -> None:
    assert clean("  Heat \n (1995) ", []) == "Heat (1995)"


def test_unknown_step_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(InputError, match="'lemma'; valid names are markup, lower, punctuation"):
        clean("Heat", ["lemma"])


@pytest.mark.parametrize("step", [step for step in CLEANING if step not in {"markup", "stem"}])
@given(text=st.text())
def test_cleaning_twice_changes_nothing_more(step: str, text: str) -> None:
    assert clean(clean(text, [step]), [step]) == clean(text, [step])


@given(text=st.text())
def test_stemming_never_empties_a_text(text: str) -> None:
    assert bool(s_stem(text)) == bool(text)
