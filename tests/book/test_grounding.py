"""What a text names is found as a title, and not where its words merely occur."""

import pytest

from recsys_cl.book.grounding import Grounding, grounding, labels_named

CATALOGUE = [
    "Heat",
    "It",
    "Big",
    "Batman",
    "Batman Forever",
    "The Game",
    "Seven (Se7en)",
    "Schindler's List",
    "M*A*S*H",
    "Crash",
    "Les Misérables",
    "187",
    "That Thing You Do!",
    "unknown",
]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Fans of Heat will agree.", ["Heat"]),
        ("The heat of the moment.", []),
        ("It is big. A crash.", []),
        ('Scared? "It" is the one.', ["It"]),
        ("*Big* is.", ["Big"]),
        ("Crash. Then nothing.", []),
        ("They saw The Game twice.", ["The Game"]),
        ("They lost in the game of life.", []),
        ("Seven", []),
        ("They saw Seven.", ["Seven (Se7en)"]),
        ("He liked Schindler’s List (1993)!", ["Schindler's List"]),
        ("SCHINDLERS LIST", ["Schindler's List"]),
        ("M*A*S*H, then 187", ["M*A*S*H", "187"]),
        ("the musical Les Miserables", ["Les Misérables"]),
        ("that thing you do", []),
        ("Batman Forever and Batman and Batman", ["Batman Forever", "Batman"]),
        ("Into the unknown.", []),
        ("The film 'unknown'.", ["unknown"]),
        ("", []),
    ],
)
def test_titles_are_found_where_they_are_written_as_titles(text, named):
    assert list(grounding(text, [], CATALOGUE).foreign) == named


def test_what_may_be_named_is_told_from_what_may_not():
    found = grounding("Like Batman Forever, Heat and Crash.", ["Heat", "Batman"], CATALOGUE)
    assert found == Grounding(known=("Heat",), foreign=("Batman Forever", "Crash"))


def test_a_title_outside_the_catalogue_is_known_if_it_may_be_named_and_else_invisible():
    assert grounding("Try Solaris or Stalker.", ["Solaris"], CATALOGUE) == Grounding(("Solaris",), ())


def test_nothing_is_found_without_titles():
    assert grounding("Heat", [], []) == Grounding((), ())


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("A drama.", {"Drama"}),
        ("Dramas and COMEDIES", {"Drama", "Comedy"}),
        ("a dramatic story", set()),
        ("sci-fi, film noir; children's films", {"Sci-Fi", "Film-Noir", "Children's"}),
        ("science fiction", set()),
    ],
)
def test_labels_are_found_as_whole_words(text, labels):
    assert labels_named(text, ["Drama", "Comedy", "Sci-Fi", "Film-Noir", "Children's"]) == labels
