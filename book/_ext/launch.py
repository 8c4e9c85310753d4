"""Buttons in the header of a page: view its source, download it, open it in Colab or in Binder.

Where the project is published is an input of the build: ``RECSYS_CL_REPOSITORY=https://github.com/OWNER/NAME``, with
``RECSYS_CL_COMMIT`` or the checkout's own commit. Without it no button leads outside: the source is shown as text,
and the notebook is downloaded as it was executed. With it, the source and Binder's copy are those of the commit.
Colab opens the copy that this book publishes on the branch ``gh-pages``: it starts with a cell that fetches the
project at the commit and installs the package, where that is not there already.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

REPOSITORY_VARIABLE, COMMIT_VARIABLE = "RECSYS_CL_REPOSITORY", "RECSYS_CL_COMMIT"
PUBLISHED = "gh-pages"
"""The branch that holds the built book; ``.ci/publish`` writes it."""

SETUP = """\
# Outside a checkout of the book: fetch it as it was when this page was built, and install its package.
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

if not Path("results").is_dir():
    if not Path("{folder}").is_dir():
        subprocess.run(["git", "clone", "--quiet", "{url}", "{folder}"], check=True)
        subprocess.run(["git", "-C", "{folder}", "checkout", "--quiet", "{commit}"], check=True)
    os.chdir("{folder}/book")
if importlib.util.find_spec("recsys_cl") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(Path.cwd().parent)], check=True)
    importlib.invalidate_caches()
"""


@dataclass(frozen=True)
class Repository:
    """A commit of a repository on GitHub."""

    url: str
    commit: str

    def __post_init__(self) -> None:
        """Refuse what no button could lead to."""
        if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", self.url):
            raise ConfigError(
                f"{REPOSITORY_VARIABLE}={self.url!r} is not of the form https://github.com/OWNER/NAME; "
                "unset it to build without the buttons of Colab and Binder"
            )
        if not re.fullmatch(r"[0-9a-f]{40}", self.commit):
            raise ConfigError(
                f"{COMMIT_VARIABLE}={self.commit!r} is not a commit: set it to the 40 hexadecimal digits that "
                "`git rev-parse HEAD` prints"
            )

    @property
    def path(self) -> str:
        """``OWNER/NAME``."""
        return self.url.removeprefix("https://github.com/")

    @property
    def setup(self) -> str:
        """Code that fetches this commit and installs the package where either is missing."""
        folder = f"{self.path.partition('/')[2]}-{self.commit[:7]}"
        return SETUP.format(url=self.url, commit=self.commit, folder=folder)


def repository(checkout: Path) -> Repository | None:
    """The repository that the environment names, at the commit that it names or that is checked out."""
    url = os.environ.get(REPOSITORY_VARIABLE)
    if not url:
        return None
    ask = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = os.environ.get(COMMIT_VARIABLE)
    return Repository(url, commit or subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip())


def source_text(page: Path) -> str:
    """A page as its author wrote it; of a notebook, the cells without their outputs."""
    if page.suffix != ".ipynb":
        return page.read_text("utf-8")
    cells = nbformat.read(page, as_version=4).cells
    fenced = (f"```{{code-cell}}\n{cell.source}\n```" if cell.cell_type == "code" else cell.source for cell in cells)
    return "\n\n".join(fenced) + "\n"


def published_notebook(page: Path, origin: Repository | None) -> str:
    """A notebook that runs where it is opened: with ``origin`` known, after a cell that fetches what it needs."""
    notebook = nbformat.read(page, as_version=4)
    if origin:
        notebook.cells.insert(0, new_code_cell(origin.setup.rstrip(), id="setup"))
    return nbformat.writes(notebook) + "\n"


def configure_theme(app: Sphinx, config: Config) -> None:
    """Let the theme make the buttons that it can make: source and Binder, both at the commit."""
    app.config.launch_origin = origin = repository(Path(app.srcdir))
    if origin:
        config.html_theme_options |= {
            "repository_url": origin.url,
            "repository_branch": origin.commit,
            "path_to_docs": "book",
            "use_source_button": True,
            "launch_buttons": {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"},
        }


def add_buttons(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Add what the theme cannot make: the source as text, or Colab with the published notebook."""
    if not context.get("page_source_suffix"):
        return
    buttons, origin = context["header_buttons"], app.config.launch_origin
    if origin is None:
        source = context["pathto"](f"_sources/{page}.txt", 1)
        buttons.append(link("Show source", source, icon="fas fa-code", label="source-file-button"))
    for group in buttons:
        if origin and group.get("label") == "launch-buttons":
            target = f"https://colab.research.google.com/github/{origin.path}/blob/{PUBLISHED}/_sources/{page}.ipynb"
            group["buttons"].append(link("Launch on Colab", target, icon="_static/images/logo_colab.png", text="Colab"))


def link(tooltip: str, url: str, **options: str) -> dict[str, str]:
    """A button as the theme's templates expect it."""
    return {"type": "link", "tooltip": tooltip, "url": url, **options}


def publish_sources(app: Sphinx, exception: Exception | None) -> None:
    """Write what the buttons lead to into ``_sources/`` of the built book."""
    if exception or app.builder.format != "html":
        return
    for name in app.env.found_docs:
        page = Path(app.env.doc2path(name))
        target = Path(app.outdir) / "_sources" / name
        # The mark at the start makes browsers read the text as UTF-8 from disk, too.
        target.with_name(f"{target.name}.txt").write_text(source_text(page), "utf-8-sig")
        if page.suffix == ".ipynb":
            notebook = published_notebook(page, app.config.launch_origin)
            target.with_name(f"{target.name}.ipynb").write_text(notebook, "utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_config_value("launch_origin", None, "html")
    app.connect("config-inited", configure_theme)
    app.connect("html-page-context", add_buttons, priority=502)  # after the theme's own
    app.connect("build-finished", publish_sources)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
