"""Links between the files at the root hold; those to the outside are listed, and checked where there is a network."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import links
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("file", sorted(ROOT.glob("*.md")), ids=lambda file: file.name)
def test_links_between_the_files_at_the_root_hold(file: Path) -> None:
    broken = list(links.broken_links(file))
    assert not broken, "\n".join(map(str, broken))


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("[text](missing.md)", "'missing.md' leads to no file"),
        ("![picture](missing.svg)", "'missing.svg' leads to no file"),
        ("| a |\n|---|\n| [text](missing.md) |", "'missing.md' leads to no file"),
        ("[text](#no-such-heading)", "'#no-such-heading': README.md has no heading 'no-such-heading'"),
        ("[text](OTHER.md#three-ways)", "'OTHER.md#three-ways': OTHER.md has no heading 'three-ways'"),
        ("[text](OTHER.md#two-ways-or-one) and [text](OTHER.md)", None),
    ],
)
def test_broken_link_is_named_with_its_line(tmp_path: Path, link: str, complaint: str | None) -> None:
    (tmp_path / "README.md").write_text(f"# Title\n\n{link}\n")
    (tmp_path / "OTHER.md").write_text("# Other\n\n## Two *ways*, or one\n")
    line = 5 if link.startswith("|") else 3
    expected = [f"{tmp_path / 'README.md'}:{line}: {complaint}"] if complaint else []
    assert [str(fault) for fault in links.broken_links(tmp_path / "README.md")] == expected


def test_addresses_are_collected_from_prose_notebooks_bibliography_and_docstrings(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "recsys_cl").mkdir()
    (tmp_path / "README.md").write_text("# Title\n\n(https://a.org/x), http://127.0.0.1:8000, https://…/zip\n")
    cells = [new_markdown_cell("First.", id="first"), new_markdown_cell("See <https://a.org/x>.", id="second")]
    nbformat.write(new_notebook(cells=[*cells, new_code_cell("1")]), tmp_path / "book" / "01-one.ipynb")
    entry = '@misc{key,\n  doi = {10.1/2},\n  eprint = "2010.14395",\n  url = {https://b.org/},\n}\n'
    (tmp_path / "book" / "references.bib").write_text(entry)
    (tmp_path / "recsys_cl" / "module.py").write_text('"""From https://c.org/paper.pdf; and more."""\n')
    assert links.external_links(tmp_path) == {
        "https://a.org/x": ["README.md:3", "book/01-one.ipynb:12"],
        "https://arxiv.org/abs/2010.14395": ["book/references.bib:3"],
        "https://b.org/": ["book/references.bib:4"],
        "https://c.org/paper.pdf": ["recsys_cl/module.py:1"],
        "https://doi.org/10.1/2": ["book/references.bib:2"],
    }


class Site(BaseHTTPRequestHandler):
    """Answers with the number that the path begins with; ``/302/NUMBER`` leads on to ``/NUMBER``."""

    def do_GET(self) -> None:
        _, status, *rest = self.path.split("/")
        self.send_response(int(status))
        if rest:
            self.send_header("Location", f"/{rest[0]}")
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["200", "302/200", "403", "429", "503", "302/403"])
def test_address_that_answers_or_refuses_to_is_not_called_dead(site: str, path: str) -> None:
    assert links.fault_of(f"{site}/{path}") is None


@pytest.mark.parametrize(("path", "reason"), [("404", "404 not found"), ("410", "410 gone"), ("302/404", "404")])
def test_dead_address_is_reported_with_its_places(site: str, path: str, reason: str) -> None:
    found = {f"{site}/{path}": ["README.md:3", "book/intro.md:9"], f"{site}/200": ["README.md:4"]}
    ((url, report),) = links.dead_links(found).items()
    assert url == f"{site}/{path}"
    assert report.startswith(f"README.md:3, book/intro.md:9: {url}: {reason}")


def test_server_that_is_not_there_is_reported() -> None:
    assert "no answer" in str(links.fault_of("http://127.0.0.1:9/"))


@pytest.mark.network
@pytest.mark.slow
def test_no_address_is_dead() -> None:
    """The twin with a network of the tests above."""
    if all("no answer" in str(links.fault_of(site)) for site in ("https://doi.org/", "https://arxiv.org/")):
        pytest.skip("there is no network")
    dead = links.dead_links(links.external_links())
    assert not dead, "\n".join(dead.values())
