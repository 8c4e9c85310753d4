"""The API reference: everything public is on its pages once, is documented, and leads back to a chapter."""

import importlib
import inspect
import pkgutil
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import api
import commands
import pytest

import recsys_cl

BOOK = Path(__file__).parents[1] / "book"
PAGES = sorted(BOOK.glob("api-*.md"))
COMMAND_LINE = {"cli", "__main__"}  # they have a page of their own
ROOMS = [name for _, name, is_package in pkgutil.iter_modules(recsys_cl.__path__) if is_package]
ROOMS = [name for name in ROOMS if name not in COMMAND_LINE]
MODULES = {module.name for module in pkgutil.walk_packages(recsys_cl.__path__, "recsys_cl.")}
MODULES = {module for module in MODULES if module.split(".")[1] not in COMMAND_LINE}
CHAPTERS = {int(path.name[:2]) for path in BOOK.glob("[0-9][0-9]-*.ipynb")}


def documented(page: Path) -> list[str]:
    """Modules whose docstrings and members a page shows."""
    return re.findall(r"^\.\. automodule:: (\S+)\n(?!   :no-members:)", page.read_text(), re.MULTILINE)


def chapters_of(thing: Any) -> set[int]:
    return {int(number) for see in api.SEE.findall(inspect.getdoc(thing) or "") for number in api.CHAPTER.findall(see)}


def test_every_module_is_documented_once_on_the_page_of_its_room() -> None:
    shown = Counter(module for page in PAGES for module in documented(page))
    assert {module: count for module, count in shown.items() if count > 1} == {}
    described = {module for module in MODULES if api.defined_in(module)}
    assert described - set(shown) == set()
    for page in PAGES:
        room = page.stem.removeprefix("api-")
        for module in documented(page):
            own = module.split(".")[1]
            assert (own if own in ROOMS else "workflow") == room, f"{module} is on {page.name}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_exported_object_is_documented_where_it_is_defined(room: str) -> None:
    package = f"recsys_cl.{room}"
    exported = {f"{package}.{name}" for name in importlib.import_module(package).__all__}
    places = api.exports(package)
    own = set(api.defined_in(package))
    assert exported == set(places) | own
    for place in set(places.values()):
        assert place in api.defined_in(place.rpartition(".")[0]), f"{place} has no docstring, or is defined elsewhere"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_public_functions_and_classes_say_what_they_are_for(module: str) -> None:
    for name, thing in vars(importlib.import_module(module)).items():
        if getattr(thing, "__module__", "") == module and callable(thing) and not name.startswith("_"):
            summary = (thing.__doc__ or "").partition("\n")[0]
            assert re.search(r"[.:?]$", summary), f"{module}.{name} has no sentence as its first line: {summary!r}"
            assert not summary.startswith(f"{name}("), f"{module}.{name} has the docstring of a bare dataclass"


@pytest.mark.parametrize("room", ROOMS)
def test_exported_objects_lead_to_chapters_that_exist(room: str) -> None:
    package = importlib.import_module(f"recsys_cl.{room}")
    for place in [*api.exports(package.__name__).values(), *api.defined_in(package.__name__)]:
        module = importlib.import_module(place.rpartition(".")[0])
        named = chapters_of(getattr(module, place.rpartition(".")[2])) | chapters_of(module)
        assert named, f"neither {place} nor its module says which chapter to see"
        assert named <= CHAPTERS, f"{place} sends its reader to chapters {sorted(named - CHAPTERS)}"


def test_the_pages_are_in_the_table_of_contents_and_on_the_first_page() -> None:
    toc, first = (BOOK / "_toc.yml").read_text(), (BOOK / "api.md").read_text()
    for page in PAGES:
        assert f"file: {page.stem}\n" in toc
        assert f"(sec-{page.stem})" in first
        assert page.read_text().startswith(f"(sec-{page.stem})=\n# ")


def test_the_commands_of_the_page_are_those_of_the_command_line() -> None:
    page = (BOOK / "api-cli.md").read_text()
    assert re.findall(r"^\.\. command:: (\S+)$", page, re.MULTILINE) == commands.command_names()
    lines = commands.command_help("train")
    assert lines[0] == ".. program:: recsys-cl train"
    assert ".. option:: --resume" in lines
    assert "   Continue from the newest intact checkpoint in ``--output``." in lines
    with pytest.raises(ValueError, match="no command 'fly'"):
        commands.command_help("fly")


def test_a_colon_in_the_docstring_of_a_constant_is_no_type() -> None:
    lines = ["the further down the funnel, the heavier.", "", ":type: Weight of an event"]
    api.keep_colons(None, "data", "", None, None, lines)
    assert lines[0] == "Weight of an event: the further down the funnel, the heavier."
    assert not any(line.startswith(":type:") for line in lines)


def test_names_chapters_and_tables_on_a_page(mini_book: Path, build: Callable[..., CompletedProcess[str]]) -> None:
    (mini_book / "01-one.ipynb").rename(mini_book / "02-one.ipynb")
    for page in ("_toc.yml", "intro.md"):
        (mini_book / page).write_text((mini_book / page).read_text().replace("01-one", "02-one"))
    (mini_book / "status.md").write_text(
        "# Data\n\n{class}`recsys_cl.data.Sequences` as packages export it, {data}`~recsys_cl.data.PAD`.\n\n"
        "```{eval-rst}\n.. api-table:: recsys_cl.data.sequences\n\n.. automodule:: recsys_cl.data.sequences\n\n"
        ".. automodule:: recsys_cl.errors\n```\n"
    )
    built = build(mini_book)
    assert built.returncode == 0, built.stderr[-2000:]
    page = (mini_book.parent / "_build" / "html" / "status.html").read_text()
    text = re.sub(r"<[^>]+>", "", page)
    assert 'href="02-one.html"' in page.partition("See: ")[2][:200]
    assert "class recsys_cl.data.Sequences(" in text
    assert "recsys_cl.data.sequences.Sequences(" not in text
    assert "Bases: object" not in text
    assert '<span class="sig-line"><em class="sig-param">' in page
    assert "<dl>\n<dd>" not in page
    sentence = "Padding: the item number of an empty position in a padded history."
    assert text.count(sentence) == 2  # in the table, at the name
    assert inspect.getdoc(recsys_cl.data.sequences.Sequences.from_lists).splitlines()[0] in text
