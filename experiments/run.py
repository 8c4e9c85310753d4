"""Run experiments by name and store their results in book/results/NAME.json, with provenance.

    python experiments/run.py search
    python experiments/run.py compare-leave-one-out compare-temporal

An interrupted run continues from its finished parts, which are kept in experiments/partial/NAME.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import ch03_language_models
import ch03_memorisation
import ch04_losses
import ch05_two_towers
import ch06_fine_tuning
import ch07_sequences
import ch09_overfitting
import ch09_perturbations
import ch09_robustness
import ch10_negatives
import ch11_full_table
import claims
import claims_scarcity
import claims_similarity
import ledger
from arms import ARMS, records
from common import PARTIAL, RESULTS, Experiment, Parts

from recsys_cl.book.results import write_result

FILES = (
    ch03_language_models,
    ch03_memorisation,
    ch04_losses,
    ch05_two_towers,
    ch06_fine_tuning,
    ch07_sequences,
    ch09_perturbations,
    ch09_overfitting,
    ch09_robustness,
    ch10_negatives,
    ch11_full_table,
    claims,
    claims_similarity,
    claims_scarcity,
    ledger,
)
EXPERIMENTS: dict[str, Experiment] = {name: run for file in FILES for name, run in file.RUNS.items()}


def command(name: str) -> str:
    """Return the command line that makes a result."""
    return f"python experiments/run.py {name}"


def run(
    name: str,
    *,
    partial: Path = PARTIAL,
    results: Path = RESULTS,
    experiments: Mapping[str, Experiment] = EXPERIMENTS,
) -> None:
    """Run one experiment and store its result.

    Args:
        name: Name of the experiment.
        partial: Folder that has a folder of finished parts for each experiment.
        results: Folder of the results.
        experiments: Experiments by name.
    """
    parts = Parts(partial / name, name)
    clock = parts.folder / "seconds"  # of all attempts together
    before = float(clock.read_text()) if clock.exists() else 0.0
    started = time.perf_counter()
    try:
        result = experiments[name](parts)
        result |= {"arms": records(name)} if name in ARMS else {}
    finally:
        seconds = before + time.perf_counter() - started
        clock.write_text(str(seconds))
    write_result(name, result, command=command(name), seconds=seconds, folder=results)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiments named on the command line, or list them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="an experiment; see --list")
    parser.add_argument("--list", action="store_true", help="print the names of all experiments")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in EXPERIMENTS]
    if unknown or not (options.names or options.list):
        wrong = f"no experiment {', '.join(map(repr, unknown))}" if unknown else "no experiment named"
        parser.error(f"{wrong}; valid names are {', '.join(sorted(EXPERIMENTS))}")
    if options.list:
        print(*sorted(EXPERIMENTS), sep="\n")
    warnings.filterwarnings("ignore", message=".*BLAS is configured.*")
    for name in options.names:
        run(name)


if __name__ == "__main__":
    main()
