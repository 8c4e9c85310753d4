"""Make the built book complete in its folder, opened over http or from disk.

The stock configuration of Jupyter Book loads sphinx-thebe, which would fetch a kernel's client from outside: the book
does not use it, so what it registered is taken back. A page opened from disk may not read the other pages, so there
the search lists its results without excerpts. The theme starts in the reader's own colour mode, light or dark.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

UNUSED = "sphinx_thebe"
STYLE_OF_UNUSED = "sphinx-thebe.css"
NO_EXCERPTS_FROM_DISK = 'DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY &&= location.protocol !== "file:";'


def withdraw(app: Sphinx, extension: str, style: str) -> None:
    """Disconnect an extension that the stock configuration loads, and drop its style sheet."""
    for listeners in list(app.events.listeners.values()):
        for listener in list(listeners):
            if listener.handler.__module__ == extension:
                app.disconnect(listener.id)
    app.registry.css_files[:] = [file for file in app.registry.css_files if file[0] != style]


def follow_the_reader(app: Sphinx, config: Config) -> None:
    """Start in the colour mode of the reader's system: without a default the theme complains in the console."""
    config.html_context.setdefault("default_mode", "auto")


def spare_excerpts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Put the rule about excerpts on the page that searches."""
    if page == "search":
        app.add_js_file(None, body=NO_EXCERPTS_FROM_DISK)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension; Jupyter Book has set up its own by now."""
    withdraw(app, UNUSED, STYLE_OF_UNUSED)
    app.connect("config-inited", follow_the_reader)
    app.connect("html-page-context", spare_excerpts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
