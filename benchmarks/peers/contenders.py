"""Benchmark driver (the referee): run each library (a contender) in a process of its own, one at a time."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from recsys_cl.errors import InputError

HERE = Path(__file__).parent
PEERS = ("rectools", "recbole")

Report = dict[str, Any]
"""Epochs and seconds trained so far, sequences and predictions trained on, peak of memory in bytes."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Options of both drivers: where the peers' interpreters are, and how many threads everybody gets."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PEERS:
        default = Path(os.environ.get(f"{name.upper()}_PYTHON", HERE / f".venv-{name}" / "bin" / "python"))
        result.add_argument(f"--{name}", type=Path, default=default, help="interpreter that has it (%(default)s)")
    result.add_argument("--threads", type=int, default=2, help="threads of every contender (%(default)s)")
    return result


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """How the contenders are called.

    Raises:
        InputError: If a peer has not been installed.
    """
    torch.set_num_threads(options.threads)
    found = {"recsys_cl": [sys.executable, str(HERE / "ours.py")]}
    for name in PEERS:
        interpreter = getattr(options, name)
        if not interpreter.exists():
            raise InputError(f"no interpreter at {str(interpreter)!r}; make it as benchmarks/peers/README.md says")
        found[name] = [str(interpreter), str(HERE / f"{name}_sasrec.py")]
    return found


def run(command: Sequence[str], folder: Path, *, threads: int, go_on: Callable[[Report], bool]) -> list[Report]:
    """Let a contender train in ``folder`` for as long as ``go_on`` says so after an epoch.

    Raises:
        RuntimeError: If the contender fails.
    """
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    program, script, *options = command
    reports: list[Report] = []
    with (
        open(folder / "log", "w") as log,
        subprocess.Popen(
            [program, script, str(folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env={**os.environ, **limits},
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            reports.append(json.loads(line))
            print("go on" if go_on(reports[-1]) else "enough", file=process.stdin, flush=True)
    if process.returncode or not reports:
        raise RuntimeError(f"{' '.join(command)} failed:\n" + (folder / "log").read_text()[-4000:])
    return reports
