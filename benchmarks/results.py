"""Benchmark results: run a measurement and store it in book/results with command, wall time and provenance."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys_cl.book.results import write_result

RESULTS = Path(__file__).parents[1] / "book" / "results"


def store(name: str, script: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure, and write book/results/NAME.json with the command, the wall time and the provenance.

    Args:
        name: Name of the result.
        script: File in this folder that measures, relative to it.
        measure: Returns the result, as JSON values.
    """
    started = time.perf_counter()
    result = measure()
    seconds = time.perf_counter() - started
    write_result(name, result, command=f"python benchmarks/{script}", seconds=seconds, folder=RESULTS)
