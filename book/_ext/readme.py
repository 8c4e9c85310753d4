"""The two tables of the README: the map of the chapters, and NDCG@10 of the best models and the main baselines.

    python book/_ext/readme.py

writes them between ``<!-- map -->`` and ``<!-- /map -->``, ``<!-- results -->`` and ``<!-- /results -->``. The times
are those of the last execution of the notebooks, the results those of the stored runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml
from execute import read_stamp

from recsys_cl.book.results import read_result

ROOT = Path(__file__).resolve().parents[2]
RUNS = {
    "last five events": ["compare-leave-last-n"],
    "last ten events": ["sequence-leave-last-n"],
    "last event": ["compare-leave-one-out", "sequence-leave-one-out"],
    "one cut in time": ["compare-temporal", "sequence-temporal"],
    "unseen items": ["compare-cold-items", "fine-tune", "sequence-cold-items"],
}
"""Which stored runs ask the question of a column; those of one column share their split."""

MODELS = {
    "popularity": "popularity",
    "iALS": "ials",
    "EASE": "ease",
    "EASE with recency": "ease-recency",
    "TF-IDF": "tfidf",
    "MiniLM, centred": "minilm",
    "ridge from MiniLM": "ridge",
    "MiniLM tuned with LoRA": "lora",
    "two towers, ids and text": "two-tower",
    "SASRec, ids": "sasrec",
    "SASRec, ids and text": "sasrec-hybrid",
    "SASRec made for cold items": "sasrec-cold",
}


def ndcg(runs: list[str], model: str, folder: Path) -> dict[str, float] | None:
    """NDCG@10 of a model in the first of the runs that has it, with the interval over users."""
    rows = [row for run in runs for row in read_result(run, folder)["result"]["rows"] if row["model"] == model]
    return rows[0]["metrics"]["ndcg@10"] if rows else None


def results_table(folder: Path = ROOT / "book" / "results") -> str:
    """The table in Markdown, the best of each column in bold."""
    found = {name: [ndcg(runs, model, folder) for runs in RUNS.values()] for name, model in MODELS.items()}
    best = [max(value["mean"] for value in column if value) for column in zip(*found.values(), strict=True)]
    lines = [["NDCG@10 (95 % interval)", *RUNS], ["---"] * (len(RUNS) + 1)]
    for name, values in found.items():
        lines.append([name, *(shown(value, top) for value, top in zip(values, best, strict=True))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: dict[str, float] | None, best: float) -> str:
    """One cell."""
    if value is None:
        return ""
    mean = f"{value['mean']:.3f}"
    return f"{f'**{mean}**' if mean == f'{best:.3f}' else mean} ({value['low']:.3f} to {value['high']:.3f})"


def chapters(book: Path = ROOT / "book") -> Iterator[tuple[str, str]]:
    """Part and file name of each chapter, in reading order."""
    for part in yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8"))["parts"]:
        for entry in part["chapters"]:
            if entry["file"][0].isdigit():
                yield part["caption"], f"{entry['file']}.ipynb"


def map_row(name: str, book: Path = ROOT / "book") -> list[str]:
    """A chapter's title with a link, and the rooms of the package that it imports."""
    cells = nbformat.read(book / name, as_version=4).cells
    title = next(re.findall(r"^# (.+)$", cell.source, re.MULTILINE)[0] for cell in cells if "# " in cell.source)
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    rooms = sorted(set(re.findall(r"^(?:from|import) recsys_cl\.(\w+)", code, re.MULTILINE)) - {"book"})
    return [f"[{title}](book/{name})", " ".join(f"`{room}`" for room in rooms)]


def map_table(seconds: dict[str, float]) -> str:
    """The map in Markdown; ``seconds`` has what each chapter's execution took."""
    lines = [["part", "chapter", "uses of the package", "seconds"], ["---"] * 3 + ["---:"]]
    before = ""
    for part, name in chapters():
        lines.append(["" if part == before else part, *map_row(name), f"{seconds[name]:.0f}"])
        before = part
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured(executed: Path = ROOT / "executed") -> dict[str, float]:
    """Seconds that each chapter's last execution took.

    Raises:
        ValueError: If a chapter has not been executed.
    """
    stamps = {name: read_stamp(executed, name) for _, name in chapters()}
    missing = [name for name, stamp in stamps.items() if not stamp]
    if missing:
        raise ValueError(f"no execution of {', '.join(missing)} in {executed}; run: make notebooks")
    return {name: stamp["seconds"] for name, stamp in stamps.items()}


def between(text: str, name: str, content: str) -> str:
    """A text with what stands between the comments ``name`` and ``/name`` replaced.

    Raises:
        ValueError: If one of the two comments is missing.
    """
    before, opening, rest = text.partition(f"<!-- {name} -->\n")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    if not (opening and closing):
        raise ValueError(
            f"there is no <!-- {name} --> with its <!-- /{name} -->; write both, each on a line of its own"
        )
    return f"{before}{opening}{content}\n{closing}{after}"


def main() -> None:
    """Write the tables."""
    readme = ROOT / "README.md"
    text = between(readme.read_text(encoding="utf-8"), "map", map_table(measured()))
    readme.write_text(between(text, "results", results_table()), encoding="utf-8")


if __name__ == "__main__":
    main()
