"""Warn of images that say nothing to those who cannot see them; the strict build fails on a warning."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def warn_of_silent_images(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of each image without alternative text, with its file and line."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt", "").strip():
            advice = 'give it "mystnb": {"image": {"alt": "..."}} in its cell, or ![what it shows](file)'
            place = (app.env.docname, line_of(image))
            LOGGER.warning("image without alternative text: %s", advice, location=place, type="alt")


def line_of(node: nodes.Node) -> int | None:
    """The line of a node, or of what surrounds it where the parser gave it none."""
    while node.parent is not None and not node.line:
        node = node.parent
    return node.line


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("doctree-read", warn_of_silent_images)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
