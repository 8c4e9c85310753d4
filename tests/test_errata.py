"""Errata and questions: each known error of the sources is shown by a program, each question answered once."""

import ast
import re
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).parents[1] / "book"
KINDS = {"wrong", "unclear", "aged"}

KNOWN = {
    "mathematics": """triplet worked-example attracting-negatives triplet-gradient one-formula antipodes
        cosine-of-numbers missing-ratings clm mlm no-keys f1""",
    "concepts": "gpt not-gan samples-too-late overfitting labels explanations",
    "program of 000": """random-features choice unused-negatives hidden-states fit-predict float-equality two-logs""",
    "programs of 001 and 002": "no-contrast item argmax-per-token by-position",
    "program of 003": "no-embeddings joint-tokens mask-twice no-loss sign-two",
    "program of 004": "no-llm-no-gan bce float-lookup pip-pytorch same-arrays last-loss",
    "aged, and references": "tensorflow installers references",
    "found later": "corpus differential-privacy",
}
LABELS = [label for group in KNOWN.values() for label in group.split()]

OUTLINE = {
    "000": """1 2 2.1 2.2 2.3 2.1(second) 2.2(second) 2.3(second) 3 3.1 3.2 3.3 4 4.1 4.1.1 4.1.2 4.1.3 4.1.4
              5 5.1 5.2 5.3 5.4 5.1(second) 5.2(second) 5.3(second) 5.4(second)
              5.2.1 5.2.2 5.2.3 5.2.4 5.2.5 5.2.6 5.2.7 5.2.8 5.3.1 5.3.2 5.3.3 5.3.4 5.3.5 5.3.6
              5.4.1 5.4.2 5.4.3 5.4.4 6 6.1 6.2 6.3 6.4 6.5 6.6 7 7.1 7.2 7.3 8 8.1 8.2
              9 9.1 9.2 9.3 9.4 9.5 10 10.1 10.2 10.3""",
    "001": """1 1.1 1.2 1.3 2 2.1 3 3.1 3.2 3.3 3.4 4 4.1 4.2 5 5.1 5.2 5.3 6 6.1 6.2 6.3 6.4
              7 7.1 7.2 7.3 8 8.1 8.2 8.3 8.4 9""",
    "003": """1 1.1 1.2 1.3 2 2.1 3 3.1 3.2 3.3 3.4 4 4.1 4.2 5 5.1 5.2 5.3 6 6.1 6.2 6.3 6.4 6.5
              7 7.1 7.2 7.3 8 8.1 8.2 8.3 8.4 9""",
    "004": """1 2 2.1 2.1.1 2.1.2 2.1.3 2.2 2.3 3 3.1 3.1.1 3.1.2 3.2 3.2.1 3.2.2 3.2.3 3.2.4 3.3 3.3.1 3.3.2 3.4
              4 4.1 4.1.1 4.1.2 4.1.3 4.2 4.2.1 4.2.2 4.2.3 4.3 4.3.1 4.3.2 4.3.3 4.3.4 4.3.5 5 5.1 5.2 5.3 5.4
              6 6.1 6.2 6.3 7 7.1 7.2 7.3 8 8.1 8.2 8.3 9 9.1 9.2 9.3 9.4
              appendix references""",
}
"""Sections of the articles, by their own numbers."""

PARTS_OF_002 = {
    "core concepts": 5,
    "core algorithm": 4,
    "mathematics": 5,
    "program": 5,
    "resources": 3,
    "appendix": 5,
    "further reading": 1,
}
"""Article 002 has named parts with numbered sections."""

QUESTIONS = [
    *(f"000 §9.{number}" for number in range(1, 6)),
    *(f"001 Q{number}" for number in range(1, 7)),
    *(f"002 Q{number}" for number in range(1, 6)),
    *(f"003 Q{number}" for number in range(1, 6)),
    *(f"004 Q{number}" for number in range(1, 5)),
]


@dataclass(frozen=True)
class Erratum:
    label: str
    number: int
    where: str
    kind: str
    programs: list[str]
    correction: str


def cells() -> list[nbformat.NotebookNode]:
    return nbformat.read(BOOK / "errata.ipynb", as_version=4).cells


def read_errata() -> list[Erratum]:
    """The errata of the page, each with the program and the correction that follow its heading."""
    head = re.compile(r"\(erratum-([\w-]+)\)=\n### E(\d+)\. .+\n\n\*(.+): (\w+)\*\n")
    found: list[Erratum] = []
    for cell in cells():
        if match := head.search(cell.source):
            label, number, where, kind = match.groups()
            found.append(Erratum(label, int(number), where, kind, [], ""))
        elif found and cell.cell_type == "code":
            found[-1].programs.append(cell.source)
        elif found and re.match(r"\*\*(Right|Today):\*\*", cell.source):
            found[-1] = replace(found[-1], correction=cell.source)
    return found


def sections(where: str) -> list[tuple[str, str]]:
    """``000 §2.1 (second), §9.1; 002 mathematics §2`` as pairs of source and section; a part holds until the next."""
    found = []
    for source in where.split("; "):
        number, part = source[:3], ""
        for place in source[4:].split(", "):
            name, mark, section = place.partition("§")
            part = name.strip() or part
            found.append((number, f"{part} {mark}{section}".strip().replace(" (", "(").replace("§", "")))
    return found


def exists(source: str, section: str) -> bool:
    if source != "002":
        return section in OUTLINE[source].split()
    part, _, number = section.rpartition(" ") if section[-1].isdigit() else (section, "", "1")
    return part in PARTS_OF_002 and 1 <= int(number) <= PARTS_OF_002[part]


def faq() -> str:
    return (BOOK / "faq.md").read_text()


each_erratum = pytest.mark.parametrize("erratum", read_errata(), ids=lambda erratum: erratum.label)


def test_every_known_error_has_an_erratum_once_and_in_order() -> None:
    errata = read_errata()
    assert [erratum.label for erratum in errata] == LABELS
    assert [erratum.number for erratum in errata] == list(range(1, len(LABELS) + 1))


def test_the_table_at_the_head_is_the_list_of_errata() -> None:
    table = next(cell.source for cell in cells() if "## All of them" in cell.source)
    rows = re.findall(r"^\| \{ref\}`erratum-([\w-]+)` \| (.+) \| (\w+) \|$", table, re.MULTILINE)
    assert rows == [(erratum.label, erratum.where, erratum.kind) for erratum in read_errata()]


@each_erratum
def test_an_erratum_is_shown_by_a_program_that_asserts_it(erratum: Erratum) -> None:
    asserted = [
        node for source in erratum.programs for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)
    ]
    assert asserted, f'erratum "{erratum.label}" has no assertion in its cell'


@each_erratum
def test_an_erratum_has_a_kind_a_place_and_a_correction(erratum: Erratum) -> None:
    assert erratum.kind in KINDS
    assert erratum.correction, f'erratum "{erratum.label}" does not say what is right'
    for source, section in sections(erratum.where):
        assert exists(source, section), (
            f'erratum "{erratum.label}" quotes {source} {section}, which is no section of it'
        )


def test_aged_errata_say_what_is_used_today() -> None:
    for erratum in read_errata():
        assert erratum.correction.startswith("**Today:**") == (erratum.kind == "aged"), erratum.label


def test_each_question_of_the_sources_is_answered_once() -> None:
    rows = re.findall(r"^\| (00\d \S+) \| .+ \| \{ref\}`(faq-[\w-]+)` \|$", faq(), re.MULTILINE)
    assert [question for question, _ in rows] == QUESTIONS
    answers = re.findall(r"^\((faq-[\w-]+)\)=\n### ", faq(), re.MULTILINE)
    assert {answer for _, answer in rows} == set(answers)


def test_answers_print_no_figures_by_hand() -> None:
    figures = re.findall(r"(?<![\w§.])\d*\.\d+|\d+(?:\.\d+)? ?%", faq().split("(faq-sources)=")[0])
    assert figures == []
