"""End-to-end run on synthetic multilingual data: string ids, and texts in Chinese, Arabic and Cyrillic script.

    python benchmarks/multilingual.py
    python benchmarks/multilingual.py --folder /tmp/multilingual --users 500 --items 400 --model popularity

makes ``events.csv`` and ``items.csv`` with a structure to be learned (tastes that drift, and chains of items that
follow one another), runs ``recsys-cl train`` on them, and prints the wall time of its parts. Without options the
result is book/results/foreign.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import RESULTS

from recsys_cl.book.results import write_result
from recsys_cl.data import Interactions, synthetic

ALPHABETS = ("电影书音乐城市山水花鸟风月雪夜光影", "ابتثجحخدذرزسشصضطظعغفقكلمنهوي", "абвгдежзийклмнопрстуфхцчшщыэюя")
FOLLOWS = 0.4
"""Share of the events that are the successor of the item before."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the files and the run are kept; by default nowhere")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--model", default="sasrec")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = trial(options.folder or Path(place), options)
    print(json.dumps(result))
    if options == parser.parse_args([]):
        seconds = result["wall seconds"]
        write_result("foreign", result, command="python benchmarks/multilingual.py", seconds=seconds, folder=RESULTS)


def trial(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make the files, train on them, and say what it took and what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    data = synthetic(options.users, options.items, 10 * options.users, seed=options.seed)
    events = write(data, folder, options.seed)
    started = time.perf_counter()
    table = train(folder, options.model)
    took = {"wall seconds": round(time.perf_counter() - started), **parts(folder)}
    del table["protocol"]["folder"]
    return {"users": data.n_users, "items": data.n_items, "events": events, **took, **table}


def write(data: Interactions, folder: Path, seed: int) -> int:
    """Write the two files, with ids and texts of another world, and say how many events there are."""
    rng = np.random.default_rng(seed)
    item_ids = np.array([f"sku/{number:x}-Ä" for number in rng.permutation(data.n_items) + 4096])
    user_ids = np.array([f"клиент_{number}" for number in rng.permutation(data.n_users)])
    events = pd.DataFrame(
        {"user_id": user_ids[data.user], "item_id": item_ids[chained(data, rng)], "timestamp": data.timestamp}
    )
    events = events.drop_duplicates(["user_id", "item_id"])
    events.to_csv(folder / "events.csv", index=False)
    scripts = [np.array(list(letters)) for letters in ALPHABETS]
    words = {word for text in data.texts for word in text.split()}
    foreign = {word: "".join(rng.choice(scripts[k % 3], size=4)) for k, word in enumerate(sorted(words))}
    texts = [" ".join(foreign[word] for word in text.split()) for text in data.texts]
    titles = [f"{text.split()[0]} № {number}" for number, text in enumerate(texts)]
    pd.DataFrame({"item_id": item_ids, "title": titles, "text": texts}).to_csv(folder / "items.csv", index=False)
    return len(events)


def chained(data: Interactions, rng: np.random.Generator) -> np.ndarray:
    """Items of the events, a share of them replaced by a fixed successor of the same user's item before."""
    successor = rng.permutation(data.n_items)
    order = np.lexsort((data.timestamp, data.user))
    user, item = data.user[order], data.item[order]
    for place in np.flatnonzero((rng.random(len(item)) < FOLLOWS) & (np.diff(user, prepend=-1) == 0)):
        item[place] = successor[item[place - 1]]
    result = np.empty_like(item)
    result[order] = item
    return result


def train(folder: Path, model: str) -> dict[str, Any]:
    """Run the command line as a reader would, and return its table."""
    files = ("--interactions", folder / "events.csv", "--items", folder / "items.csv")
    command = ("train", *files, "--model", model, "--output", folder / f"run-{model}", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "recsys_cl", *map(str, command)],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def parts(folder: Path) -> dict[str, float]:
    """Epochs and seconds of the training itself, where there was one."""
    reports = sorted(folder.glob("run-*/checkpoints/run.json"), key=lambda file: file.stat().st_mtime)
    if not reports:
        return {}
    report = json.loads(reports[-1].read_text())["report"]
    return {"epochs": report["epochs"], "training seconds": round(report["seconds"]), "validation": report["best"]}


if __name__ == "__main__":
    main()
