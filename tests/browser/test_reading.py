"""What a reader does with the book works without a network, over http and from disk alike."""

from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.visit import Visit

CHAPTER = "05-two-towers.html"


def test_the_first_page_leads_to_the_introduction(visit: Callable[..., Visit], site: str) -> None:
    page = visit(site, CHAPTER).page
    page.goto(f"{site}index.html")
    page.wait_for_url(f"{site}intro.html")


def test_search_finds_a_page_and_leads_there(visit: Callable[..., Visit], site: str) -> None:
    visited = visit(site, "intro.html")
    page = visited.page
    page.keyboard.press("Control+k")
    page.keyboard.type("attention pooling")
    page.keyboard.press("Enter")
    expect(page.locator(".search-summary")).to_contain_text("found")
    page.wait_for_load_state("networkidle")  # leaving earlier would break off the excerpts that are still being fetched
    found = page.locator("#search-results a[href*='two-towers']").first
    excerpts = page.locator("#search-results .context")
    assert (excerpts.count() > 0) == site.startswith("http"), "excerpts over http, none from disk"
    found.click()
    page.wait_for_url(f"{site}{CHAPTER}*")
    assert not visited.complaints


def test_the_colour_mode_stays_from_page_to_page(visit: Callable[..., Visit], site: str) -> None:
    visited = visit(site, "intro.html", color_scheme="dark")
    page = visited.page
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark", "the book follows the system's mode until the reader chooses"
    visited.switch_theme("light")
    page.goto(f"{site}{CHAPTER}")
    assert page.evaluate(theme) == "light"
    assert not visited.complaints


def test_code_is_copied(visit: Callable[..., Visit], site: str) -> None:
    visited = visit(site, CHAPTER)
    page = visited.page
    block = page.locator(".cell_input .highlight").first
    line = block.locator("pre").inner_text().splitlines()[0]
    block.hover()
    block.locator("button.copybtn").click()
    page.evaluate("document.querySelector('article').prepend(document.createElement('textarea'))")
    page.locator("article > textarea").press("Control+v")
    assert page.locator("article > textarea").input_value().splitlines()[0] == line
    assert not visited.complaints


def test_a_solution_unfolds_and_folds(visit: Callable[..., Visit], site: str) -> None:
    visited = visit(site, CHAPTER)
    solution = visited.page.locator(".solution.dropdown").first
    answer = solution.locator(".cell_output").first
    for state in ("hidden", "visible", "hidden"):
        answer.wait_for(state=state)
        solution.locator(".toggle-button").click()
    assert not visited.complaints
