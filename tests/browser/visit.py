"""A page that is open in the browser, and what went wrong on it so far."""

from playwright.sync_api import ConsoleMessage, Page, Request, Response

WITHIN = ("data:", "blob:", "about:")


class Visit:
    """An open page: ``page`` to act on, ``complaints`` of network and console so far."""

    def __init__(self, page: Page, site: str, path: str) -> None:
        self.page, self.site, self.path = page, site, path
        self.complaints: list[str] = []
        page.on("request", self._request)
        page.on("requestfailed", self._failed)
        page.on("response", self._response)
        page.on("pageerror", lambda error: self._complain(f"script error: {error}"))
        page.on("console", self._console)
        page.goto(site + path, wait_until="load")
        page.evaluate("window.MathJax?.startup?.promise")
        page.evaluate("document.fonts.ready.then(() => null)")

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.site, *WITHIN)):
            self._complain(f"request that leaves the book: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # leaving a page breaks off what it was still fetching
            self._complain(f"request failed: {request.url} ({request.failure})")

    def _response(self, answer: Response) -> None:
        if answer.status >= 400:
            self._complain(f"answer {answer.status}: {answer.url}")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            where = message.location
            self._complain(f"console {message.type}: {message.text} ({where.get('url')}:{where.get('lineNumber')})")

    def switch_theme(self, theme: str) -> None:
        """Press the page's own switch until it shows the ``theme``, as a reader would."""
        for _ in range(3):  # the switch goes round: system's mode, light, dark
            if self.page.evaluate("document.documentElement.dataset.mode") == theme:
                return
            self.page.locator(".theme-switch-button:visible").first.click()
            self.page.mouse.move(0, 0)  # neither pointer nor focus stays: the switch's hint goes away
            self.page.evaluate("document.activeElement.blur()")
        shown = self.page.evaluate("document.documentElement.dataset.mode")
        assert shown == theme, f"{self.path}: the theme switch does not reach {theme!r}, it stays at {shown!r}"
