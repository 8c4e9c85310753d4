"""Chromium without a network, on the built book.

For tests of a page: ``site`` (the book over ``http`` or from disk, ``file``), and ``visit``, which opens an address and
writes down every request that leaves its site, every request that fails and everything that the console complains of.
``RECSYS_CL_HTML`` names another folder than ``_build/html``. Without Chromium or the built book the tests are skipped;
with ``RECSYS_CL_REQUIRE_BROWSER=1`` they fail.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.browser.book import BOOK
from tests.browser.visit import Visit

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# No host is found, by name or by number, and no proxy is asked: only this machine can be reached.
WITHOUT_NETWORK = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-proxy-server"]

PATIENCE = 120_000  # milliseconds: a busy machine is no fault of the page


def skip_or_fail(reason: str) -> None:
    """End the test: what a reader's machine may lack, continuous integration may not."""
    if os.environ.get("RECSYS_CL_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{reason} (RECSYS_CL_REQUIRE_BROWSER=1)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        skip_or_fail(f"no browser: none of {', '.join(CHROMIUM)} is on the PATH; Debian's package is `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=WITHOUT_NETWORK)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def book() -> Path:
    if not (BOOK / "intro.html").is_file():
        skip_or_fail(f"the book is not built: {BOOK} has no intro.html; run `make book` first")
    return BOOK


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def sites(book: Path) -> Iterator[dict[str, str]]:
    """The address of the book's folder by protocol."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=book))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"http": f"http://127.0.0.1:{server.server_port}/", "file": f"{book.as_uri()}/"}
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["http", "file"])
def site(request: pytest.FixtureRequest, sites: dict[str, str]) -> str:
    """The address of the book's folder: a test that asks for it runs once for each protocol."""
    return sites[request.param]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens a page below a site in a reader's fresh profile: ``visit(site, "intro.html", viewport=...)``."""
    contexts: list[BrowserContext] = []

    def open_page(site: str, path: str, **options: Any) -> Visit:
        contexts.append(chromium.new_context(**{"viewport": {"width": 1440, "height": 900}, **options}))
        contexts[-1].set_default_timeout(PATIENCE)
        return Visit(contexts[-1].new_page(), site, path)

    yield open_page
    for context in contexts:
        context.close()
