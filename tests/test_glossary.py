"""Glossary, notation and numbered equations: every term in two languages, linked, and every symbol and label once."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = sorted(BOOK.glob("[0-9]*.ipynb"))
CHINESE = re.compile(r"\[([^]]+)\]\{\.language-zh\}")
CHARACTER = re.compile("[\u4e00-\u9fff]")
TERM = re.compile(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`")
LABEL = re.compile(r"^\((\S+)\)=$", re.MULTILINE)
EQUATION = re.compile(r"^\$\$ \((\S+)\)$", re.MULTILINE)


class Entry(NamedTuple):
    """A term with its other names (abbreviations), and what is said about it."""

    names: list[str]
    definition: str

    @property
    def chinese(self) -> list[str]:
        """The Chinese names with which the definition has to open; an empty one if it does not."""
        opening = CHINESE.match(self.definition)
        return opening[1].split("、") if opening else [""]


def prose(path: Path) -> str:
    """Return a page's Markdown: all of it, or the Markdown cells of a notebook."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def glossary() -> list[Entry]:
    found = re.search(r"^```\{glossary\}\n(.*?)^```$", prose(BOOK / "glossary.md"), re.DOTALL | re.MULTILINE)
    assert found is not None, "book/glossary.md has no {glossary} directive"
    entries = []
    for block in found[1].strip("\n").split("\n\n"):
        lines = block.split("\n")
        names = [line for line in lines if not line.startswith(" ")]
        entries.append(Entry(names, " ".join(line.strip() for line in lines[len(names) :])))
    return entries


def symbols(section: str) -> list[str]:
    """Return what stands between dollars in the first column of a section's table."""
    rows = re.findall(r"^\| (\$.*?\$) \|", section, re.MULTILINE)
    return [symbol for row in rows for symbol in re.findall(r"\$[^$]+\$", row)]


PAGES = {path: prose(path) for path in sorted([*BOOK.glob("*.md"), *BOOK.glob("*.ipynb")])}
ENTRIES = glossary()


def test_glossary_has_sixty_terms() -> None:
    assert len(ENTRIES) >= 60


def test_glossary_is_in_alphabetical_order() -> None:
    heads = [entry.names[0].lower() for entry in ENTRIES]
    assert [pair for pair in pairwise(heads) if pair[0] >= pair[1]] == []


def test_glossary_has_no_name_twice() -> None:
    counts = Counter(name for entry in ENTRIES for name in entry.names)
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_term_opens_with_its_chinese_name() -> None:
    assert [entry.names[0] for entry in ENTRIES if not all(map(CHARACTER.search, entry.chinese))] == []


def test_every_term_leads_to_a_section_of_a_chapter() -> None:
    labels = {label for path in CHAPTERS for label in LABEL.findall(PAGES[path])}
    sections = {entry.names[0]: set(re.findall(r"\{ref\}`([^`]+)`", entry.definition)) for entry in ENTRIES}
    assert {term: found for term, found in sections.items() if not found or found - labels} == {}


def test_every_term_is_linked_from_a_chapter() -> None:
    linked = {name for path in CHAPTERS for name in TERM.findall(PAGES[path])}
    assert [entry.names[0] for entry in ENTRIES if linked.isdisjoint(entry.names)] == []


def test_terms_that_pages_link_are_in_the_glossary() -> None:
    known = {name for entry in ENTRIES for name in entry.names}
    linked = [(path.name, name) for path, page in PAGES.items() for name in TERM.findall(page)]
    assert [link for link in linked if link[1] not in known] == []


def test_chinese_index_has_the_pairs_of_the_glossary() -> None:
    index = prose(BOOK / "glossary.md").split("(sec-glossary-chinese)=")[1]
    listed = re.findall(CHINESE.pattern + r" " + TERM.pattern, index)
    expected = [(name, entry.names[0]) for entry in ENTRIES for name in entry.chinese]
    assert sorted(listed) == sorted(expected)


def test_notation_gives_each_symbol_one_row_and_each_shared_letter_one_more() -> None:
    main, shared = prose(BOOK / "notation.md").split("(sec-notation-shared)=")
    for section in (main, shared):
        counts = Counter(symbols(section))
        assert counts, "no table of symbols"
        assert [symbol for symbol, count in counts.items() if count > 1] == []


def test_equation_labels_are_unique_and_begin_with_eq() -> None:
    counts = Counter(label for page in PAGES.values() for label in EQUATION.findall(page))
    assert [label for label, count in counts.items() if count > 1 or not label.startswith("eq-")] == []


def test_equations_that_pages_refer_to_exist() -> None:
    labels = {label for page in PAGES.values() for label in EQUATION.findall(page)}
    referred = [(path.name, label) for path, page in PAGES.items() for label in re.findall(r"\{eq\}`([^`]+)`", page)]
    assert [reference for reference in referred if reference[1] not in labels] == []
