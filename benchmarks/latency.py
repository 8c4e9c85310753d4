"""Recommendation latency: milliseconds to rank the whole catalogue for one user and return the top ten.

    python benchmarks/latency.py

Processor time is measured, which other processes do not disturb; on an idle machine it is the wall time. The result is
book/results/claims-latency.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from results import store

from recsys_cl.data import Queries, Split, leave_last_n, load_movielens
from recsys_cl.evaluation import top_items
from recsys_cl.recommenders import create
from recsys_cl.recommenders.prompted import LikelihoodRanker
from recsys_cl.text import LanguageEncoder
from recsys_cl.text.decoder import LanguageModel

USERS, PROMPTED, CANDIDATES = 300, 20, 20
"""Users per model; users of the language model; candidates it ranks for each."""

MODELS = ("popularity", "ease", "minilm", "two-tower", "sasrec")
INSTANT = 100.0
"""Milliseconds below which an answer seems immediate (Nielsen 1993, Usability Engineering). The sources name none."""


def latency() -> dict[str, Any]:
    """Ask each model for one user after the other, as the package answers: nothing is prepared between two users."""
    split = leave_last_n(load_movielens(), seed=0)
    queries = split.test[np.random.default_rng(0).permutation(len(split.test))[:USERS]]
    rows = {model: milliseconds(scoring(model, split), queries) for model in MODELS}
    rows["minilm, a new text"] = milliseconds(reading(split), split.data.texts[:USERS])
    rows["smollm2, 20 candidates"] = milliseconds(prompting(split), queries[: PROMPTED + 1])
    return {"instant": INSTANT, "items": split.n_items, "protocol": {"data": split.data.name}, "rows": rows}


def milliseconds(answer: Callable[[Any], object], questions: Queries | Sequence[str]) -> dict[str, Any]:
    """Return percentiles of the time of single questions; the first warms up and does not count."""
    taken = []
    for number in range(len(questions)):
        one = questions[number : number + 1]
        started = time.process_time()
        answer(one)
        taken.append(1_000 * (time.process_time() - started))
    percentiles = np.percentile(taken[1:], [50, 95, 99])
    return {"questions": len(taken) - 1, **dict(zip(("p50", "p95", "p99"), percentiles.tolist(), strict=True))}


def scoring(model: str, split: Split) -> Callable[[Queries], object]:
    """Return the function that scores the catalogue and picks the ten best unseen items."""
    fitted = create(model).fit(split)
    return lambda query: top_items(fitted, query)


def reading(split: Split) -> Callable[[Sequence[str]], object]:
    """Return the function that encodes a sentence and finds the ten nearest items."""
    fitted, encoder = create("minilm").fit(split), LanguageEncoder("minilm", cache=False)
    vectors, mean = fitted.state["vectors"], fitted.state["mean"]
    return lambda text: ((encoder.encode(text) - mean) @ vectors.T).topk(10)


def prompting(split: Split) -> Callable[[Queries], object]:
    """Return the function that ranks a few candidates by a chat model's likelihood of their titles."""
    titles, ranker = split.data.titles, LikelihoodRanker(LanguageModel("smollm2", precision="bfloat16"))
    rng = np.random.default_rng(0)

    def answer(query: Queries) -> object:
        seen = query.history.items[query.history.start[0] : query.history.stop[0]]
        candidates = rng.choice(np.setdiff1d(np.arange(len(titles)), seen), CANDIDATES, replace=False)
        return ranker.score([titles[item] for item in seen], [titles[item] for item in candidates])

    return answer


if __name__ == "__main__":
    store("claims-latency", "latency.py", latency)
