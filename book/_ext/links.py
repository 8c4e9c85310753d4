"""List and check the links of the project.

``python book/_ext/links.py`` prints every address outside the project with the file and line where it stands;
``--check`` asks for each, and fails if one is dead. Links inside the book are checked by its strict build; those in
the Markdown files at the root by :func:`broken_links`.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from linkify_it import LinkifyIt
from lint import ROOT, Fault, cells, pages, source
from markdown_it import MarkdownIt

DEAD = {404: "not found", 410: "gone"}
"""Answers that settle it. Others (forbidden, too many requests, out of order, none in time) say nothing."""
AGENT = "Mozilla/5.0 (recsys_cl link check)"


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Lines of a file with their numbers; of a notebook the cells, each with the line at which it begins."""
    if file.suffix == ".ipynb":
        return ((line, source(cell)) for line, cell in cells(file))
    return enumerate(file.read_text("utf-8").splitlines(), 1)


def addresses(file: Path) -> Iterator[tuple[int, str]]:
    """Addresses on the web that a file names, each with its line."""
    finder = LinkifyIt(options={"fuzzy_link": False, "fuzzy_email": False, "fuzzy_ip": False})
    for line, text in texts(file):
        if file.suffix == ".bib":
            text = re.sub(r"^\s*doi *= *[{\"](.+?)[}\"]", r"https://doi.org/\1", text)
            text = re.sub(r"^\s*eprint *= *[{\"](\d{4}\.\d+)[}\"]", r"https://arxiv.org/abs/\1", text)
        for match in finder.match(text) or []:
            host = urlsplit(match.url).hostname or ""
            if match.schema.startswith("http") and host.isascii() and "." in host and not host.startswith("127."):
                yield line, match.url


def external_links(root: Path = ROOT) -> dict[str, list[str]]:
    """Every address outside the project, with the places that name it."""
    files = [*root.glob("*.md"), *pages(root / "book"), *(root / "book").glob("*.bib")]
    files += (root / "recsys_cl").rglob("*.py")
    found: dict[str, list[str]] = {}
    for file in sorted(files):
        for line, url in addresses(file):
            found.setdefault(url, []).append(f"{file.relative_to(root)}:{line}")
    return dict(sorted(found.items()))


def fault_of(url: str, *, timeout: float = 20, tries: int = 2) -> str | None:
    """Why an address is dead, or ``None`` if it answers or nobody can tell."""
    for attempt in range(tries):
        time.sleep(attempt)
        try:
            request = urllib.request.Request(url, headers={"User-Agent": AGENT})
            urllib.request.urlopen(request, timeout=timeout).close()
            return None
        except urllib.error.HTTPError as error:
            if error.code not in DEAD:
                return None
            reason = f"{error.code} {DEAD[error.code]}"
        except OSError as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, TimeoutError):
                return None
            reason = f"no answer: {cause}"
    return reason


def dead_links(found: Mapping[str, list[str]]) -> dict[str, str]:
    """The addresses that are dead: why, and where they stand."""
    with ThreadPoolExecutor(8) as pool:
        reasons = zip(found, pool.map(fault_of, found), strict=True)
        return {url: f"{', '.join(found[url])}: {url}: {reason}" for url, reason in reasons if reason}


def anchors(file: Path) -> set[str]:
    """What ``#...`` can point at in a Markdown file, as GitHub makes it of the headings."""
    tokens = MarkdownIt().parse(file.read_text("utf-8"))
    titles = (text.content for opening, text in pairwise(tokens) if opening.type == "heading_open")
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(file: Path) -> Iterator[Fault]:
    """Links and images of a Markdown file that lead to nothing in the project."""
    for block in MarkdownIt().enable("table").parse(file.read_text("utf-8")):
        for token in block.children or []:
            target = str(token.attrs.get("href") or token.attrs.get("src") or "")
            if not target or urlsplit(target).scheme:
                continue
            line = block.map[0] + 1 if block.map else 1
            path, _, anchor = unquote(target).partition("#")
            place = file.parent / path if path else file
            if not place.exists():
                yield Fault(file, line, f"{target!r} leads to no file")
            elif anchor and place.suffix == ".md" and anchor not in anchors(place):
                yield Fault(file, line, f"{target!r}: {place.name} has no heading {anchor!r}")


def main() -> int:
    """Command line: returns 1 if an address was asked for and is dead."""
    parser = argparse.ArgumentParser(description="List the addresses outside the project.")
    parser.add_argument("--check", action="store_true", help="ask for each address")
    found = external_links()
    lines = [f"{', '.join(places)}: {url}" for url, places in found.items()]
    if parser.parse_args().check:
        lines = list(dead_links(found).values())
        print(f"{len(found)} addresses, {len(lines)} of them dead")
        print(*lines, sep="\n")
        return 1 if lines else 0
    print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
