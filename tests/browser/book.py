"""The built book as the suite finds it."""

import os
from pathlib import Path

BOOK = Path(os.environ.get("RECSYS_CL_HTML", Path(__file__).parents[2] / "_build" / "html")).resolve()
REDIRECT = 'http-equiv="Refresh"'


def pages(folder: Path = BOOK) -> list[str]:
    """Names of the pages, without those that only lead to another."""
    return sorted(page.name for page in folder.glob("*.html") if REDIRECT not in page.read_text("utf-8")[:200])
