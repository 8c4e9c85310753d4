"""Print the built book into one PDF, without LaTeX: ``python book/_ext/pdf.py`` writes ``_build/recsys_cl.pdf``.

The articles of all pages, in the order of the table of contents, become one document, so that links between chapters
lead within it; Chromium typesets and prints it, with numbered pages and an outline of the headings.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
OF_THE_SCREEN = "script, button, .headerlink, .cell_input + .toggle-details, nav"
PAGE_WIDTH = 658  # pixels: 210 mm less the margins, 96 pixels an inch
FOOTER = '<div style="width: 100%; text-align: center; font-size: 8px"><span class="pageNumber"></span></div>'
# A heading whose letters are taller than its line would be printed, and listed in the outline, on two sheets; where it
# goes on in a second line, the outline would lose the space. What scrolls on a screen would not be broken into sheets.
STYLE = """
@page { size: A4; margin: 18mm; }
html { font-size: 13px; }
body { margin: 0; background: #fff; }
article.bd-article { break-before: page; padding: 0; overflow: visible; }
h1, h2, h3, h4 { break-after: avoid; line-height: 1.4; white-space: pre-wrap; }
figure, img, tr, .admonition-title { break-inside: avoid; }
pre { white-space: pre-wrap !important; overflow-wrap: anywhere; font-size: 10px; }
div.highlight, div[class*="highlight-"], div.admonition { break-inside: auto; display: block; }
table, .bd-article table.dataframe { font-size: 9px; }
.bd-article table :is(th, td) { padding: 1px 5px; }
img { max-width: 100%; height: auto; }
pre, .highlight, .cell_output, .admonition, .math, mjx-container, .pst-scrollable-table-container {
  overflow: visible !important;
}
"""
# What is wider than the sheet cannot be scrolled on paper: it is made smaller.
FIT = """width => {
  for (const wide of document.querySelectorAll("table, mjx-container[display], svg")) {
    const room = Math.min(width, wide.parentElement.clientWidth || width);
    const needed = Math.max(wide.scrollWidth, wide.getBoundingClientRect().width);
    if (needed > room) wide.style.zoom = room / needed;
  }
}"""


def names_in_order(node: Any) -> Iterator[str]:
    """Names of the pages of a table of contents, as its file lists them."""
    if isinstance(node, list):
        for item in node:
            yield from names_in_order(item)
    elif isinstance(node, dict):
        yield from (node[key] for key in ("root", "file") if key in node)
        for key in ("parts", "chapters", "sections"):
            yield from names_in_order(node.get(key, []))


def article_of(page: BeautifulSoup, name: str) -> Tag:
    """The article of a page, without what only a screen can use, with folded boxes open and ids of its own."""
    article = page.select_one("article.bd-article")
    if article is None:
        raise ValueError(f"{name}.html has no article: build the book with `make book` first")
    for part in article.select(OF_THE_SCREEN):
        part.decompose()
    for folded in article.select("details"):
        folded["open"] = ""
    for box in article.select(".dropdown, .toggle"):
        box["class"] = " ".join(kind for kind in box.get_attribute_list("class") if kind not in {"dropdown", "toggle"})
    for part in article.select("[id]"):
        part["id"] = f"{name}--{part['id']}"
    article["id"] = name
    return article


def keep_links_within(article: Tag, name: str, names: Sequence[str]) -> None:
    """Lead links to pages of the document to their place in it."""
    for link in article.select("a[href]"):
        page, _, anchor = str(link["href"]).partition("#")
        target = page.removesuffix(".html") or name
        if target in names:
            link["href"] = f"#{target}--{anchor}" if anchor else f"#{target}"
        elif "://" not in page and not page.startswith("mailto:"):
            link.unwrap()  # a file beside the book, such as a notebook to download


def document(html: Path, names: Sequence[str]) -> str:
    """One page of HTML that holds the articles of all named pages of the folder ``html``."""
    pages = {name: BeautifulSoup((html / f"{name}.html").read_text("utf-8"), "lxml") for name in names}
    whole = BeautifulSoup('<!DOCTYPE html><html lang="en" data-theme="light"><head></head><body></body></html>', "lxml")
    assert whole.head is not None
    assert whole.body is not None
    first = pages[names[0]]
    mathematics = [script for script in first.select("head script") if "mathjax" in str(script).lower()]
    whole.head.extend([*first.select('head meta[charset], head title, head link[rel="stylesheet"]'), *mathematics])
    style = whole.new_tag("style")
    style.string = STYLE
    whole.head.append(style)
    for name, page in pages.items():
        article = article_of(page, name)
        keep_links_within(article, name, names)
        whole.body.append(article)
    for attribute in ("src", "href"):
        for part in whole.select(f"img[{attribute}], link[{attribute}], script[{attribute}], object[{attribute}]"):
            part[attribute] = (html / str(part[attribute]).partition("?")[0]).as_uri()
    return str(whole)


def print_to(pdf: Path, source: str, browser: Browser) -> None:
    """Let Chromium typeset a page of HTML and print it."""
    with tempfile.TemporaryDirectory() as folder, browser.new_page() as page:
        file = Path(folder) / "book.html"
        file.write_text(source, "utf-8")
        page.set_default_timeout(0)  # a whole book takes its time
        page.set_viewport_size({"width": PAGE_WIDTH, "height": 900})
        page.goto(file.as_uri(), wait_until="load")
        page.evaluate("window.MathJax?.startup?.promise")
        page.emulate_media(media="print")
        page.evaluate(FIT, PAGE_WIDTH)
        page.pdf(
            path=pdf,
            prefer_css_page_size=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: print the book, or the pages that are named."""
    parser = argparse.ArgumentParser(description="Print the built book into one PDF.")
    parser.add_argument("pages", nargs="*", help="names of pages, such as 05-two-towers; all of them by default")
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="folder of the built book")
    parser.add_argument("--pdf", type=Path, default=ROOT / "_build" / "recsys_cl.pdf", help="file to write")
    options = parser.parse_args(arguments)
    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text("utf-8"))
    names = options.pages or list(names_in_order(contents))
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        parser.error(f"none of {', '.join(CHROMIUM)} is on the PATH: install Debian's package `chromium`")
    with sync_playwright() as playwright:
        source = document(options.html.resolve(), names)
        print_to(options.pdf, source, playwright.chromium.launch(executable_path=chromium))
    print(f"{options.pdf}: {len(names)} pages of the book, {options.pdf.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
