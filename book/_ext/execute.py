"""Execute the notebooks of the book, each once, in a copy of its folder.

The copy (``executed/``) mirrors ``book/``. A notebook is executed there if its stamp is missing or stale; a
stamp holds a digest of everything that the notebook's results depend on, with the time that the execution took and
where it ran (the status page shows them), and is written only after every code cell ran. The book is then built
from the copy, so that what was executed is what readers see.

Notebooks must not leave files behind in the copy: whatever is not in ``book/`` is removed from it.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat

ROOT = Path(__file__).resolve().parents[2]
STAMPS = ".stamps"
PROFILE_VARIABLE = "RECSYS_CL_PROFILE"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def book_files(folder: Path) -> set[Path]:
    """Paths of the files below ``folder``, relative to it, without hidden files and caches."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in files if not any(p.startswith(".") or p == "__pycache__" for p in path.parts)}


def find_notebooks(book: Path) -> list[str]:
    """Names of the book's notebooks in reading order; raises if one lies where it would not be executed."""
    notebooks = sorted(path for path in book_files(book) if path.suffix == ".ipynb")
    nested = [str(path) for path in notebooks if len(path.parts) > 1]
    if nested:
        raise ValueError(f"notebooks belong directly in {book}, but found {', '.join(nested)}")
    return [path.name for path in notebooks]


def digest_of_files(root: Path, files: Iterable[Path], *settings: str) -> str:
    """SHA-256 over the names and contents of ``files`` (below ``root``) and over ``settings``."""
    digest = hashlib.sha256()
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    for setting in settings:
        digest.update(f"{setting}\n".encode())
    return digest.hexdigest()


def shared_digest(root: Path, book: Path, profile: str) -> str:
    """Digest of what all notebooks depend on: package, stored results, ledger, pins, profile and Python."""
    files = [
        *(root / "recsys_cl").rglob("*.py"),
        *(book / "results").glob("*.json"),
        *book.glob("claims.yml"),
        root / "constraints.txt",
    ]
    return digest_of_files(root, files, profile, platform.python_version())


def is_complete(notebook: Path) -> bool:
    """Whether every code cell that has content also has an execution count."""
    if not notebook.is_file():
        return False
    cells = nbformat.read(notebook, as_version=4).cells
    return all(cell.execution_count for cell in cells if cell.cell_type == "code" and cell.source.strip())


def stamp_of(executed: Path, name: str) -> Path:
    """Where the stamp of a notebook stands."""
    return executed / STAMPS / f"{name}.json"


def read_stamp(executed: Path, name: str) -> dict[str, Any]:
    """The digest, the seconds and the circumstances of an execution; empty if there was none."""
    try:
        return json.loads(stamp_of(executed, name).read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # never written, or cut short
        return {}


def circumstances(profile: str, workers: int) -> dict[str, Any]:
    """Versions, hardware, commit and date of an execution."""
    from recsys_cl.provenance import provenance  # loads torch, which is only worth it where something was executed

    model_names = re.findall(r"^model name\s*: (.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return provenance() | {
        "threads": int(ONE_THREAD["OMP_NUM_THREADS"]),
        "processor": model_names[0] if model_names else platform.processor() or platform.machine(),
        "gibibytes": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "profile": profile,
        "workers": workers,
    }


def _read(file: str) -> str:
    return Path(file).read_text() if Path(file).is_file() else ""


def mirror(book: Path, executed: Path, keep: set[str]) -> None:
    """Make ``executed`` the same as ``book``, except for the notebooks in ``keep`` and for hidden files.

    A file that has not changed is not touched, so that the build of the book need not read it again.
    """
    wanted = book_files(book)
    for path in wanted - {Path(name) for name in keep}:
        source, target = book / path, executed / path
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for path in book_files(executed) - wanted:
        (executed / path).unlink()


def run_notebooks(
    executed: Path, names: Sequence[str], *, profile: str, workers: int, timeout: int
) -> dict[str, float]:
    """Execute notebooks in place, one thread each; returns the seconds that those took which passed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", f"--nbmake-timeout={timeout}"]
        command += ["-n", str(min(workers, len(names))), "--dist", "worksteal", "--durations=0"]
        command += ["-p", "no:cacheprovider", f"--junitxml={report}"]
        command += [str(executed / name) for name in names]
        # The kernel must be this environment's, even where the user has installed one of the same name.
        settings = {PROFILE_VARIABLE: profile, "JUPYTER_PREFER_ENV_PATH": "1", **ONE_THREAD}
        subprocess.run(command, env={**os.environ, **settings}, check=False)
        if not report.is_file():
            return {}
        cases = ElementTree.parse(report).iter("testcase")
        return {
            case.attrib["name"]: float(case.attrib["time"])
            for case in cases
            if not any(child.tag in {"failure", "error", "skipped"} for child in case)
        }


def execute(
    root: Path = ROOT,
    *,
    book: Path | None = None,
    executed: Path | None = None,
    profile: str = "quick",
    workers: int = 2,
    timeout: int = 600,
) -> list[str]:
    """Bring ``executed`` up to date with ``book``.

    Args:
        root: The project, which holds ``recsys_cl/`` and ``constraints.txt``.
        book: Folder of the sources; ``root/book`` by default.
        executed: Folder of the executed copy; ``root/executed`` by default.
        profile: Passed to the notebooks as ``RECSYS_CL_PROFILE``.
        workers: Number of notebooks executed at a time.
        timeout: Seconds that a single cell may take.

    Returns:
        Names of the notebooks that failed or did not run to their end; empty if all is well.
    """
    book, executed = book or root / "book", executed or root / "executed"
    names = find_notebooks(book)
    shared = shared_digest(root, book, profile)
    digests = {name: digest_of_files(book, [book / name], shared) for name in names}

    def is_current(name: str) -> bool:
        return read_stamp(executed, name).get("digest") == digests[name] and is_complete(executed / name)

    current = {name for name in names if is_current(name)}
    stale = [name for name in names if name not in current]
    for name in stale:
        stamp_of(executed, name).unlink(missing_ok=True)
    mirror(book, executed, keep=current)
    print(f"{len(names)} notebooks: {len(current)} up to date, {len(stale)} to execute ({profile})", flush=True)
    if not stale:
        return []
    passed = run_notebooks(executed, stale, profile=profile, workers=workers, timeout=timeout)
    done = {name: seconds for name, seconds in passed.items() if is_complete(executed / name)}
    for name, seconds in done.items():
        stamp = {"digest": digests[name], "seconds": seconds, **circumstances(profile, workers)}
        stamp_of(executed, name).parent.mkdir(parents=True, exist_ok=True)
        stamp_of(executed, name).write_text(json.dumps(stamp, indent=1) + "\n")
    return [name for name in stale if name not in done]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: returns 0 if every notebook of the book has been executed to its end."""
    parser = argparse.ArgumentParser(description="Execute the notebooks of the book that are not up to date.")
    parser.add_argument("--profile", default=os.environ.get(PROFILE_VARIABLE, "quick"))
    parser.add_argument("--workers", type=int, default=2, help="notebooks executed at a time")
    parser.add_argument("--timeout", type=int, default=600, help="seconds that a cell may take")
    options = parser.parse_args(arguments)
    failed = execute(profile=options.profile, workers=options.workers, timeout=options.timeout)
    if failed:
        print(f"not executed to the end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
