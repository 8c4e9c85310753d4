"""The book as a PDF: two made-up pages, printed."""

from pathlib import Path

import pdf
import pytest
from playwright.sync_api import Browser
from pypdf import PdfReader

PAGE = """<html><head><meta charset="utf-8"><title>Made up</title>
<link rel="stylesheet" href="style.css?v=1"></head><body><nav>Sidebar</nav>
<article class="bd-article"><section id="top"><h1>{title}<a class="headerlink" href="#top">#</a></h1>{body}</section>
</article></body></html>"""
FIRST = """<p>See <a href="second.html#proof">the proof</a>, <a href="#aside">the aside</a> and
<a href="https://example.org/">a site</a>; <a href="_sources/first.ipynb">download</a>.</p>
<button>Copy</button><details><summary>Solution</summary><p>Forty-two.</p></details><h2 id="aside">An aside</h2>"""
SECOND = '<div style="break-before: page"></div><h2 id="proof">Proof</h2><table><tr><td>1 2</td></tr></table>'


@pytest.fixture
def html(tmp_path: Path) -> Path:
    (tmp_path / "style.css").write_text("h1, h2 { line-height: 1; margin: 0; }")
    (tmp_path / "first.html").write_text(PAGE.format(title="First", body=FIRST), "utf-8")
    (tmp_path / "second.html").write_text(PAGE.format(title="Second", body=SECOND), "utf-8")
    return tmp_path


def test_pages_are_printed_in_order_with_outline_and_numbers(chromium: Browser, html: Path) -> None:
    printed = html / "book.pdf"
    pdf.print_to(printed, pdf.document(html, ["first", "second"]), chromium)
    reader = PdfReader(printed)
    words = [sheet.extract_text() for sheet in reader.pages]
    assert [text.split()[0] for text in words] == ["First", "Second", "Proof"]
    assert [text.split()[-1] for text in words] == ["1", "2", "3"]
    assert "Forty-two." in words[0]
    assert not any(gone in text for text in words for gone in ("Sidebar", "Copy", "#"))
    (first, below_first, second, below_second) = reader.outline
    assert [first.title, second.title] == ["First", "Second"]
    assert [entry.title for entry in [*below_first, *below_second]] == ["An aside", "Proof"]


def test_links_lead_within_the_document(chromium: Browser, html: Path) -> None:
    printed = html / "book.pdf"
    pdf.print_to(printed, pdf.document(html, ["first", "second"]), chromium)
    reader = PdfReader(printed)
    links = [annotation.get_object() for annotation in reader.pages[0]["/Annots"]]
    within = [reader.named_destinations[link["/Dest"]] for link in links if "/Dest" in link]
    assert [reader.get_destination_page_number(target) for target in within] == [2, 0]
    assert [link["/A"]["/URI"] for link in links if "/A" in link] == ["https://example.org/"]


def test_a_page_that_is_not_built_is_named(html: Path) -> None:
    (html / "first.html").write_text("<html></html>")
    with pytest.raises(ValueError, match=r"first\.html has no article: build the book with `make book` first"):
        pdf.document(html, ["first"])


def test_the_order_is_that_of_the_table_of_contents() -> None:
    contents = {
        "root": "intro",
        "parts": [{"chapters": [{"file": "one", "sections": [{"file": "below"}]}, {"file": "two"}]}],
    }
    assert list(pdf.names_in_order(contents)) == ["intro", "one", "below", "two"]
