"""The bibliography: complete, well-formed, without doubles, cited, and in agreement with the docstrings."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pybtex.database import Entry, parse_file

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
ENTRIES: dict[str, Entry] = dict(parse_file(BOOK / "references.bib").entries)

VENUES = ("booktitle", "journal", "publisher", "institution", "howpublished")
IDENTIFIERS = ("doi", "eprint", "isbn", "url")
SHOWN = {"title", "year", "volume", "number", "pages", "edition", "address", "archiveprefix", *VENUES, *IDENTIFIERS}


def values(field: str) -> dict[str, str]:
    return {key: entry.fields[field] for key, entry in ENTRIES.items() if field in entry.fields}


def first_surname(entry: Entry) -> str:
    person = (entry.persons.get("author") or entry.persons["editor"])[0]
    return " ".join([*person.prelast_names, *person.last_names])


def is_isbn_13(isbn: str) -> bool:
    digits = [int(digit) for digit in isbn if digit.isdigit()]
    return len(digits) == 13 and (sum(digits[::2]) + 3 * sum(digits[1::2])) % 10 == 0


def cited() -> dict[str, str]:
    """Each key that a page cites, with one page that does."""
    found = {}
    for page in [*BOOK.glob("*.md"), *BOOK.glob("*.ipynb")]:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text):
            found |= {key.strip(): page.name for key in keys.split(",")}
    return found


def linked_in_docstrings() -> Iterator[tuple[str, str, str]]:
    """Each link to arXiv or a DOI in the package: its file, the words before it, its identifier."""
    for path in sorted((ROOT / "recsys_cl").rglob("*.py")):
        text, end = " ".join(path.read_text(encoding="utf-8").split()), 0
        for link in re.finditer(r"https://(?:arxiv\.org/abs|doi\.org)/([^\s\"`]*\w)", text):
            yield path.name, text[end : link.start()][-160:], link[1]
            end = link.end()


def test_there_are_enough_entries() -> None:
    assert len(ENTRIES) >= 40


def test_every_entry_has_people_title_year_venue_and_an_identifier() -> None:
    for key, entry in ENTRIES.items():
        assert entry.persons.get("author") or entry.persons.get("editor"), f"{key}: no author and no editor"
        assert entry.fields["title"], key
        assert re.fullmatch(r"(19|20)\d\d", entry.fields["year"]), f"{key}: year {entry.fields['year']}"
        assert any(entry.fields.get(field) for field in VENUES), f"{key}: none of {VENUES}"
        assert any(entry.fields.get(field) for field in IDENTIFIERS), f"{key}: none of {IDENTIFIERS}"


def test_entries_have_no_field_that_the_page_does_not_show() -> None:
    strange = {key: set(entry.fields) - SHOWN for key, entry in ENTRIES.items()}
    assert {key: fields for key, fields in strange.items() if fields} == {}


def test_identifiers_are_well_formed() -> None:
    assert {key: doi for key, doi in values("doi").items() if not re.fullmatch(r"10\.\d{4,9}/\S+", doi)} == {}
    assert {key: id_ for key, id_ in values("eprint").items() if not re.fullmatch(r"\d{4}\.\d{4,5}", id_)} == {}
    assert {key: isbn for key, isbn in values("isbn").items() if not is_isbn_13(isbn)} == {}
    assert {key: url for key, url in values("url").items() if not re.match(r"https://(?!(dx\.)?doi|arxiv)", url)} == {}
    assert set(values("archiveprefix").values()) == {"arXiv"}
    assert values("archiveprefix").keys() == values("eprint").keys()


def test_no_work_stands_twice() -> None:
    titles = [re.sub(r"\W", "", title).lower() for title in values("title").values()]
    for seen in (titles, *(list(values(field).values()) for field in IDENTIFIERS)):
        assert [value for value, times in Counter(seen).items() if times > 1] == []


def test_conferences_are_named_without_number_and_year() -> None:
    assert {key: name for key, name in values("booktitle").items() if re.search(r"\b\d|^Proceedings", name)} == {}


def test_names_are_written_in_letters_since_the_labels_are_made_of_them() -> None:
    assert {key for key, entry in ENTRIES.items() for people in entry.persons.values() if "\\" in str(people)} == set()


def test_every_entry_is_cited_and_every_citation_has_an_entry() -> None:
    citations = cited()
    assert {key: page for key, page in citations.items() if key not in ENTRIES} == {}
    assert sorted(ENTRIES.keys() - citations.keys()) == []


def test_docstrings_name_author_and_year_as_the_bibliography_does() -> None:
    by_identifier = {
        entry.fields[f].lower(): entry for entry in ENTRIES.values() for f in ("doi", "eprint") if f in entry.fields
    }
    known = [
        (*link, by_identifier[link[2].lower()]) for link in linked_in_docstrings() if link[2].lower() in by_identifier
    ]
    assert len(known) > 40
    for file, words, identifier, entry in known:
        assert first_surname(entry) in words, f"{file}: {identifier} is by {first_surname(entry)}"
        assert re.findall(r"\b(?:19|20)\d\d\b", words)[-1:] == [entry.fields["year"]], (
            f"{file}: {identifier} is of {entry.fields['year']}"
        )
