"""Re-run one claim: fit its comparisons from scratch, and print the stored effects beside the new ones.

    python experiments/claim.py beats-pointwise

The cost is printed first. An interrupted run continues from its finished parts in experiments/partial/claim-ID.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import PARTIAL, RESULTS
from ledger import CLAIMS, PROTOCOLS, ledger
from run import EXPERIMENTS, run

from recsys_cl.book.claims import Claim, read_claims
from recsys_cl.book.evidence import Comparison, read_effect
from recsys_cl.book.results import read_result
from recsys_cl.errors import InputError
from recsys_cl.registry import unknown

LEDGER = "ledger-"


def claim_of(name: str, path: Path = CLAIMS) -> Claim:
    """Return the claim of this id.

    Raises:
        InputError: If there is none, or it has no runs.
    """
    claims = {claim.id: claim for claim in read_claims(path)}
    if name not in claims:
        raise InputError(unknown("claim", name, claims))
    if not claims[name].evidence:
        raise InputError(f"{name!r} has no run: {claims[name].needed or 'it is judged by argument'}")
    return claims[name]


def cost(claim: Claim, results: Path = RESULTS) -> float:
    """Return the seconds of fitting that the claim's runs took when they were stored."""
    return sum(cost_of(name, claim, read_result(name, results)) for name in claim.runs)


def cost_of(name: str, claim: Claim, stored: dict[str, Any]) -> float:
    """Return the seconds of one run; of a run of the ledger, those of the claim's arms."""
    if not name.startswith(LEDGER):
        return float(stored["seconds"])
    protocol = name.removeprefix(LEDGER)
    wanted = [Comparison.of(one) for one in claim.evidence if one.get("under") == protocol]
    arms = {arm: stored["result"]["arms"][arm] for one in wanted for arm in one.arms}
    return sum(arm["seconds"] * len(next(iter(arm["runs"].values()))) for arm in arms.values())


def run_again(claim: Claim, folder: Path) -> Path:
    """Make the runs of a claim in a folder of their own, and return the folder of the results.

    Raises:
        InputError: If a run is a benchmark, which measures time and is run by its own command.
    """
    protocols = {f"{LEDGER}{name}": ledger(name, [claim]) for name in PROTOCOLS}
    for name in claim.runs:
        if name not in EXPERIMENTS:
            raise InputError(f"{name!r} measures time; run it by: {read_result(name, RESULTS)['command']}")
        run(name, partial=folder, results=folder / "results", experiments=EXPERIMENTS | protocols)
    return folder / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the claim named on the command line again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("id", help="a claim of book/claims.yml")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message=".*BLAS is configured.*")
    try:
        claim = claim_of(options.id)
        print(f"{claim.claim}\nabout {cost(claim) / 60:.0f} minutes of fitting on one thread", flush=True)
        again = run_again(claim, PARTIAL / f"claim-{claim.id}")
    except InputError as error:
        parser.error(str(error))
    for evidence in claim.evidence:
        for when, folder in (("stored", RESULTS), ("again ", again)):
            print(f"{when}  {read_effect(evidence, folder).text}")


if __name__ == "__main__":
    main()
