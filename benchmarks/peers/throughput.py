"""Training throughput and peak memory of SASRec on a million events: recsys_cl beside RecTools and RecBole.

    python benchmarks/peers/throughput.py

Every contender trains for about a minute on a synthetic world of 1,000,000 training events (50,000 users, 20,000
items), a peer up to the first step after that, ours up to the end of an epoch. What is counted are predictions: an
event predicted from what came before it, which is what RecBole calls a sequence; and rows of a batch. Memory is the
peak of the process from the start of training on, data and libraries included. A quarter and half of the users tell
whether the cost of our epoch is linear. The result is book/results/throughput.json.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import contenders
import splits
from exchange import BLOCKS, DIM, LENGTH

from recsys_cl.book.results import write_result

RESULTS = Path(__file__).parents[2] / "book" / "results"

USERS = (12_500, 25_000, 50_000)
SECONDS = 60.0


def trial(command: list[str], users: int, *, threads: int) -> dict[str, Any]:
    """Train until the time is up."""
    split = splits.world(users)
    with tempfile.TemporaryDirectory() as place:
        splits.histories(split.train, split.n_items).write(Path(place, "train.npz"))
        events = int(split.train.lengths.sum())
        del split
        reports = contenders.run(
            [*command, "--limit", str(SECONDS)],
            Path(place),
            threads=threads,
            go_on=lambda report: report["seconds"] < SECONDS,
        )
    last = reports[-1]
    return {
        "users": users,
        "events": events,
        **last,
        "predictions_per_second": last["predictions"] / last["seconds"],
        "sequences_per_second": last["sequences"] / last["seconds"],
        "seconds_per_epoch": last["seconds"] / last["epochs"],
    }


def main() -> None:
    options = contenders.parser(__doc__).parse_args()
    call = contenders.commands(options)
    started = time.perf_counter()
    rows = []
    for users in USERS:
        lineup = {"recsys_cl sasrec": [*call["recsys_cl"], "--model", "sasrec", "--users", str(users)]}
        if users == USERS[-1]:
            lineup |= {"RecTools SASRec": call["rectools"], "RecBole SASRec": call["recbole"]}
        for name, command in lineup.items():
            rows.append({"contender": name, **trial(command, users, threads=options.threads)})
            print(rows[-1], flush=True)
    size = {"dim": DIM, "blocks": BLOCKS, "length": LENGTH}
    result = {"items": splits.N_ITEMS, "size": size, "rows": rows}
    seconds = time.perf_counter() - started
    command_line = "python benchmarks/peers/throughput.py"
    write_result("throughput", result, command=command_line, seconds=seconds, folder=RESULTS)


if __name__ == "__main__":
    main()
