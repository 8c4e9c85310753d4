"""Every page of the built book, over http and from disk, without a network."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser import checks
from tests.browser.book import BOOK, pages
from tests.browser.visit import Visit

# In an order that resizes the window as seldom as possible.
WINDOWS = {"light": (checks.DESK, checks.PHONE), "dark": (checks.PHONE, checks.DESK)}


def test_the_book_is_built(book: Path) -> None:
    assert pages(book), f"{book} holds no page"


@pytest.mark.parametrize("name", pages())
def test_page_is_complete_without_a_network(visit: Callable[..., Visit], site: str, name: str) -> None:
    visited = visit(site, name)
    page = visited.page
    once = site.startswith("http")  # what does not depend on the protocol is looked at once
    problems = [*checks.equations(page), *checks.images(page)]
    if once:
        problems += checks.weight(page, site, BOOK)
        problems += checks.keyboard(page)
        problems += checks.dropdowns(page)
    for theme, widths in WINDOWS.items():
        visited.switch_theme(theme)
        for width in widths:
            problems += [f"{theme}: {problem}" for problem in checks.overflow(page, width)]
    if once:
        problems += checks.accessibility(page)
    problems += visited.complaints
    assert not problems, f"{name}: {len(problems)} problems\n" + "\n".join(problems)
