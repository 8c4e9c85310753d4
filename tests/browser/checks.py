"""What every page must fulfil in a browser. Each check returns its problems as sentences that name the element."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Page

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
QUESTIONS = Path(__file__).with_suffix(".js").read_text("utf-8")
SERIOUS = {"serious", "critical"}
ABOUT_COLOURS = ["color-contrast", "link-in-text-block"]
HEAVIEST = 1_500_000  # bytes
PHONE, DESK = 375, 1440  # pixels
MOST_STOPS = 120  # presses of the Tab key within which the content must be reached
HANDLES = (".admonition.dropdown .toggle-button", "article details > summary")


def ask(page: Page, question: str) -> Any:
    """Call one of the functions of ``checks.js`` on the page."""
    return page.evaluate(f"(() => {{ {QUESTIONS}; return {question}; }})()")


def equations(page: Page) -> list[str]:
    """Every node of mathematics is typeset, and none shows an error or an unknown command."""
    return ask(page, "equations()")


def images(page: Page) -> list[str]:
    """Every image is loaded and says in words what it shows."""
    return ask(page, "images()")


def overflow(page: Page, width: int) -> list[str]:
    """Nothing reaches beyond the window except what scrolls in a box of its own."""
    page.set_viewport_size({"width": width, "height": 900})
    ask(page, "settle()")
    return [f"overflow at {width} px: {problem}" for problem in ask(page, "overflow()")]


def weight(page: Page, site: str, folder: Path) -> list[str]:
    """The page of the ``site`` in the ``folder`` is light, its own images included, what all pages share left out."""
    urls = {page.url, *page.eval_on_selector_all("img", "images => images.map(image => image.currentSrc)")}
    names = {unquote(urlsplit(url.removeprefix(site)).path) for url in urls if url.startswith(site)}
    own = {name for name in names if not name.startswith("_static/") and (folder / name).is_file()}
    sizes = {name: (folder / name).stat().st_size for name in own}
    if sum(sizes.values()) <= HEAVIEST:
        return []
    heaviest = sorted(sizes, key=lambda name: -sizes[name])[:5]
    listing = ", ".join(f"{name} {sizes[name]:,}" for name in heaviest)
    return [f"weighs {sum(sizes.values()):,} bytes, more than {HEAVIEST:,}: {listing}"]


def keyboard(page: Page) -> list[str]:
    """Tab meets the skip link first, then search, navigation and content, and shows where it is."""
    page.set_viewport_size({"width": DESK, "height": 900})
    problems, missing = [], {"search", "navigation", "content"}
    for stop in tab_stops(page):
        if not stop["seen"]:
            problems.append(f"keyboard focus is not visible: {stop['name']}")
        if stop["first"] and stop["place"] != "skip link":
            problems.append(f"the first Tab reaches {stop['name']}, not the skip link")
        missing.discard(stop["place"])
        if not missing:
            break
    return problems + [f"Tab does not reach the {place}" for place in sorted(missing)]


def tab_stops(page: Page) -> Iterator[dict[str, Any]]:
    """What the Tab key reaches, one after the other, until it leaves the page."""
    for press in range(MOST_STOPS):
        page.keyboard.press("Tab")
        ask(page, "settle()")
        stop = ask(page, "focus()")
        if stop["place"] == "end":
            return
        yield {**stop, "first": press == 0}


def dropdowns(page: Page) -> list[str]:
    """The first folded box of each kind unfolds by keyboard."""
    problems = []
    for selector in HANDLES:
        for handle in page.locator(selector).all()[:1]:
            asked = f"handle => {{ {QUESTIONS}; return [folded(handle), name(handle)]; }}"
            before, name = handle.evaluate(asked)
            handle.press("Enter")
            if handle.evaluate(asked)[0] == before:
                problems.append(f"Enter does not unfold {name}")
    return problems


def accessibility(page: Page) -> list[str]:
    """No serious violation of axe's rules, those about colours in both themes. Leaves the page in pieces: ask last."""
    ask(page, "thinOut()")
    page.evaluate(AXE)
    options = {"resultTypes": ["violations"], "preload": False}
    structure = {**options, "rules": {rule: {"enabled": False} for rule in ABOUT_COLOURS}}
    problems = [*violations(page.evaluate("options => axe.run(document, options)", structure), "structure")]
    colours = {**options, "runOnly": {"type": "rule", "values": ABOUT_COLOURS}}
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        ask(page, "settle()")
        problems += violations(page.evaluate("options => axe.run({ include: examples }, options)", colours), theme)
    return problems


def violations(found: dict[str, Any], what: str) -> Iterator[str]:
    """Serious findings of axe as sentences, three elements of each."""
    for rule in found["violations"]:
        if rule["impact"] in SERIOUS:
            for node in rule["nodes"][:3]:
                place, advice = " ".join(map(str, node["target"])), " ".join(node["failureSummary"].split())
                yield f"axe, {what}: {rule['id']} ({rule['impact']}, {len(rule['nodes'])} times) at {place}: {advice}"
