"""Repair what the stock theme and writer leave nameless or misnamed for those who listen to a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bs4 import BeautifulSoup
from sphinx.application import Sphinx


def name_toggles(generate: Callable[..., BeautifulSoup]) -> Callable[..., BeautifulSoup]:
    """Make the theme's ``generate`` say what each toggle of the sidebar unfolds."""

    def with_names(*arguments: Any, **options: Any) -> BeautifulSoup:
        tree = generate(*arguments, **options)
        for toggle in tree.select("li > details > summary"):
            link = toggle.find_previous("a")
            toggle["aria-label"] = f"Pages below {link.get_text(strip=True) if link else 'this one'}"
        return tree

    return with_names


def repair(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Name the sidebar's toggles; let a bibliography be a list of items: the role ``doc-biblioentry`` is withdrawn."""
    context["generate_toctree_html"] = name_toggles(context["generate_toctree_html"])
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("html-page-context", repair, priority=600)  # after the theme's own
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
