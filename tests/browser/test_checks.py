"""The checks find what they are for: made-up pages, each with one fault, and one without."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser import checks
from tests.browser.visit import Visit

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
FRAME = """<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Made up</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ background: #fff; color: #111; }} [data-theme=dark] body {{ background: #111; color: #eee; }}
 a {{ color: inherit; }}</style>
<script defer src="mathjax/tex-chtml.js"></script></head><body>
<header><div class="skip-link"><a href="#main">Skip</a></div><button class="search-button__button">Search</button>
<nav class="bd-links"><a href="#main">Chapter</a></nav></header>
<main><article id="main"><h1>Made up</h1>{body}<p><a href="#main">A link</a></p></article></main>
</body></html>"""
SOUND = f"""<p>A mean <span class="math">\\(\\frac{{1}}{{n}}\\)</span> and <img src="{PIXEL}" alt="a pixel">.</p>
<div style="overflow-x: auto"><div style="width: 3000px" tabindex="0">A wide table in its box</div></div>
<details><summary>Solution</summary><p>Forty-two.</p></details>"""


@pytest.fixture
def made_up(visit: Callable[..., Visit], tmp_path: Path) -> Callable[[str], Visit]:
    """Opens a page with this content from disk."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    assert package is not None
    assert package.origin is not None
    (tmp_path / "mathjax").symlink_to(Path(package.origin).parent / "static" / "mathjax")

    def write_and_open(body: str) -> Visit:
        (tmp_path / "page.html").write_text(FRAME.format(body=body), "utf-8")
        return visit(f"{tmp_path.as_uri()}/", "page.html")

    return write_and_open


def phone(page: Page) -> list[str]:
    return checks.overflow(page, checks.PHONE)


ALL = [checks.equations, checks.images, phone, checks.keyboard, checks.dropdowns, checks.accessibility]


def test_a_sound_page_has_no_problem(made_up: Callable[[str], Visit]) -> None:
    visited = made_up(SOUND)
    assert [problem for check in ALL for problem in check(visited.page)] + visited.complaints == []


FAULTS = {
    "a broken equation": (checks.equations, r'<p class="math">\(\frac{1}\)</p>', r"with an error: \frac{1}"),
    "an unknown command": (checks.equations, r'<p class="math">\(\nosuch x\)</p>', r"with an error: \nosuch x"),
    "mathematics left as text": (checks.equations, '<p class="math">x squared</p>', "not typeset: #main <p.math>"),
    "an image removed": (
        checks.images,
        '<img class="plot" src="gone.png" alt="a plot">',
        "not loaded: #main <img.plot>",
    ),
    "no alt text": (checks.images, f'<img id="plot" src="{PIXEL}">', "without alt text: #main <img#plot>"),
    "blank alt text": (checks.images, f'<img src="{PIXEL}" alt=" ">', "without alt text: #main <img>"),
    "overflow": (
        phone,
        '<p id="wide" style="width: 500px">x</p>',
        "overflow at 375 px: reaches 508 px: #main <p#wide>",
    ),
    "an image without a role": (checks.accessibility, '<div id="b" role="button" tabindex="0"></div>', "at #b: Fix"),
    "pale text": (checks.accessibility, '<p id="pale" style="color: #aaa">Faint</p>', "axe, light: color-contrast"),
    "text pale in the dark": (
        checks.accessibility,
        '<p id="dim" style="color: #555">Faint</p>',
        "axe, dark: color-contrast",
    ),
    "pale text among many": (
        checks.accessibility,
        '<pre><span style="color: #222">Clear</span><span id="pale" style="color: #ccc">Faint</span></pre>',
        "(serious, 1 times) at #pale",
    ),
    "focus unseen": (checks.keyboard, '<a id="a" href="#" style="outline: 0">x</a>', "not visible: #main <a#a> x"),
    "a folded box that stays shut": (
        checks.dropdowns,
        '<details><summary id="shut" onclick="return false">Solution</summary>x</details>',
        "Enter does not unfold #main <summary#shut> Solution",
    ),
}


@pytest.mark.parametrize(("check", "body", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_and_named(
    made_up: Callable[[str], Visit], check: Callable[[Page], list[str]], body: str, message: str
) -> None:
    problems = check(made_up(body).page)
    assert any(message in problem for problem in problems), problems


def test_a_page_whose_content_comes_first_is_found(made_up: Callable[[str], Visit]) -> None:
    page = made_up("").page
    page.evaluate("document.querySelector('header').remove()")
    assert checks.keyboard(page)[0] == "the first Tab reaches #main <a> A link, not the skip link"
    assert "Tab does not reach the navigation" in checks.keyboard(page)


COMPLAINTS = {
    "a CDN": ('<script src="https://cdn.example.org/x.js"></script>', "leaves the book: https://cdn.example.org/x.js"),
    "a numeric host": (f'<img src="http://192.0.2.1/x.png" alt="{PIXEL}">', "leaves the book: http://192.0.2.1/x.png"),
    "a file elsewhere": ('<img src="../x.png" alt="x">', "request that leaves the book: file:///"),
    "a file that is gone": ('<img src="x.png" alt="x">', "request failed: file:///"),
    "an error in a script": ("<script>nothing.there</script>", "script error: nothing is not defined"),
    "an error in the console": ("<script>console.error('wrong')</script>", "console error: wrong"),
    "a warning in the console": ("<script>console.warn('odd')</script>", "console warning: odd"),
}


@pytest.mark.parametrize(("body", "message"), COMPLAINTS.values(), ids=COMPLAINTS)
def test_what_goes_wrong_while_loading_is_written_down(
    made_up: Callable[[str], Visit], body: str, message: str
) -> None:
    complaints = made_up(body).complaints
    assert any(message in complaint for complaint in complaints), complaints


def test_a_heavy_page_is_found(made_up: Callable[[str], Visit], tmp_path: Path) -> None:
    visited = made_up('<img src="heavy.svg" alt="much"><img src="_static/shared.svg" alt="shared">')
    page = visited.page
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{}</svg>'
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "shared.svg").write_text(drawing.format(" " * checks.HEAVIEST))
    (tmp_path / "heavy.svg").write_text(drawing.format(""))
    page.reload()
    assert checks.weight(page, visited.site, tmp_path) == []
    (tmp_path / "heavy.svg").write_text(drawing.format(" " * checks.HEAVIEST))
    (problem,) = checks.weight(page, visited.site, tmp_path)
    assert "heavy.svg 1,500," in problem
    assert "shared.svg" not in problem
