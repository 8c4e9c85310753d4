"""Pages of the API reference: docstrings that link to chapters, names as readers import them, tables of a room.

``sphinx.ext.autodoc`` renders the docstrings of a module. Added to it here:

- ``.. api-table:: recsys_cl.data`` lists what a package exports, or what a module holds.
- An object that a package exports is shown, and can be referred to, under the name that readers import.
- "chapter 5" in a docstring is a link.
- What says nothing to a reader is left out: that a class is an ``object``, and values too long to read.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, ClassVar, cast, get_type_hints

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.ext.autosummary import Autosummary
from sphinx.pycode import ModuleAnalyzer

import recsys_cl

CHAPTER = re.compile(r"\bchapter (\d+)")
SEE = re.compile(r"^See: (?:.+\n?)+", re.MULTILINE)
TYPE = ":type: "
AFTER_NAPOLEON = 600
PARAMETERS = re.compile(r"<dl>\n(?:<dd>.*</dd>\n)+</dl>")
LONGEST_VALUE = 88


def exports(package: str) -> dict[str, str]:
    """What a package hands on from its modules: the name there to the place of its definition."""
    module = importlib.import_module(package)
    found = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            handed_on = exports(node.module) if hasattr(importlib.import_module(node.module), "__path__") else {}
            for name in {alias.name for alias in node.names} & set(getattr(module, "__all__", ())):
                place = f"{node.module}.{name}"
                found[f"{package}.{name}"] = handed_on.get(place, place)
    return found


def defined_in(module: str) -> list[str]:
    """Public names that a module defines and documents, in the order of its source."""
    analyzer = ModuleAnalyzer.for_module(module)
    values = vars(importlib.import_module(module))
    own = {name for name, value in values.items() if getattr(value, "__module__", None) == module and value.__doc__}
    own |= {name for scope, name in analyzer.find_attr_docs() if not scope}
    return [f"{module}.{name}" for name in sorted(own, key=analyzer.tagorder.__getitem__) if not name.startswith("_")]


@functools.cache
def imported_as() -> dict[str, list[str]]:
    """Place of definition to the names under which packages export it, the shortest first."""
    names: dict[str, list[str]] = {}
    for package in pkgutil.walk_packages(recsys_cl.__path__, "recsys_cl."):
        for name, place in exports(package.name).items() if package.ispkg else ():
            names.setdefault(place, []).append(name)
    return {place: sorted(found, key=len) for place, found in names.items()}


def link_chapters(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make the chapters that stand after "See:" links, as far as the book has them."""
    chapters = {int(path.name[:2]): path.stem for path in Path(app.srcdir).glob("[0-9][0-9]-*.ipynb")}

    def link(mention: re.Match[str]) -> str:
        page = chapters.get(int(mention[1]))
        return f":doc:`{mention[0]} </{page}>`" if page else mention[0]

    lines[:] = SEE.sub(lambda see: CHAPTER.sub(link, see[0]), "\n".join(lines)).split("\n")


def keep_colons(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Of a constant or property, "What: why" is a sentence, which napoleon took for a type and a description."""
    if what in {"attribute", "data", "property"} and lines[-1:] and lines[-1].startswith(TYPE):
        lines[0] = f"{lines.pop().removeprefix(TYPE)}: {lines[0]}"


def resolve_fields(app: Sphinx, obj: Any, bound_method: bool) -> None:
    """Let a dataclass know the types of the fields that it has from a class of another module."""
    if bound_method and obj.__qualname__.endswith(".__init__"):
        owner = getattr(importlib.import_module(obj.__module__), obj.__qualname__.removesuffix(".__init__"), None)
        if is_dataclass(owner):
            types = get_type_hints(owner)
            obj.__annotations__ |= {field: types[field] for field in types.keys() & obj.__annotations__}


def name_no_factory(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """A field that a factory fills: ``...`` stands for its default, since ``<factory>`` is not Python."""
    return signature and signature.replace("<factory>", "..."), returned


def show_imported_names(app: Sphinx, document: nodes.document) -> None:
    """Show exported objects under their shortest names, and let references to these names find them."""
    domain = cast(PythonDomain, app.env.get_domain("py"))
    for signature in document.findall(addnodes.desc_signature):
        owner, dot, member = signature.get("fullname", "").partition(".")
        for name in imported_as().get(f"{signature.get('module')}.{owner}", ()):
            kind = signature.parent["objtype"]
            domain.note_object(f"{name}{dot}{member}", kind, signature["ids"][0], aliased=True, location=signature)
        shortest = imported_as().get(f"{signature.get('module')}.{owner}")
        if shortest and not member:
            prefix = next(signature.findall(addnodes.desc_addname))
            prefix.children = [nodes.Text(shortest[0].removesuffix(owner))]


def leave_out_noise(app: Sphinx, document: nodes.document) -> None:
    """Remove long values, and "Bases: object"."""
    for value in list(document.findall(addnodes.desc_annotation)):
        if value.astext().startswith(" = ") and len(value.astext()) > LONGEST_VALUE:
            value.parent.remove(value)
    for paragraph in list(document.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)


def write_parameters(app: Sphinx, page: str, template: str, context: dict[str, Any], document: object) -> None:
    """Give each parameter a line of its own; Sphinx does it by a definition list without terms, which is not HTML."""

    def lines(listed: re.Match[str]) -> str:
        parameters = listed[0].removeprefix("<dl>").removesuffix("</dl>")
        return parameters.replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")

    if "body" in context:
        context["body"] = PARAMETERS.sub(lines, context["body"])


class ApiTable(Autosummary):
    """``.. api-table:: recsys_cl.data``: what a package exports or a module holds, each with its first sentence."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Fill the table from the package, or from the module."""
        name = self.arguments[0]
        places = sorted([*exports(name).values(), *defined_in(name)], key=lambda place: place.rpartition(".")[2])
        self.env.ref_context["py:module"] = name
        self.options = {"nosignatures": None}
        self.content = StringList([f"~{place.removeprefix(f'{name}.')}" for place in places])
        return super().run()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the table, and what happens to signatures, docstrings and pages."""
    app.add_directive("api-table", ApiTable)
    app.connect("autodoc-before-process-signature", resolve_fields)
    app.connect("autodoc-process-signature", name_no_factory)
    app.connect("autodoc-process-docstring", keep_colons, priority=AFTER_NAPOLEON)
    app.connect("autodoc-process-docstring", link_chapters, priority=AFTER_NAPOLEON)
    app.connect("doctree-read", show_imported_names)
    app.connect("doctree-read", leave_out_noise)
    app.connect("html-page-context", write_parameters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
