"""Milliseconds from one user to ten items of the whole catalogue, one user at a time on one thread.

Processor time is taken: on a machine that does nothing else it is the time that passes, and others do not disturb it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from adversarial import slug, world
from llm_parts import language_model, titles_of
from parts import kept

from recsys_cl.data import Queries, Split
from recsys_cl.evaluation import top_items
from recsys_cl.recommenders import create
from recsys_cl.recommenders.prompted import LikelihoodRanker
from recsys_cl.text import LanguageEncoder

USERS, PROMPTED, CANDIDATES = 300, 20, 20
"""Users asked of a model; users asked of the language model; items that it ranks for each."""

MODELS = ("popularity", "ease", "minilm", "two-tower", "sasrec")
INSTANT = 100.0
"""Milliseconds below which an answer seems immediate (Nielsen 1993, Usability Engineering). The sources name none."""


def latency(partial: Path) -> dict[str, Any]:
    """Every model asked for one user after the other, as the package answers: nothing is prepared between two users."""
    split = world(0)
    queries = split.test[np.random.default_rng(0).permutation(len(split.test))[:USERS]]
    rows = {
        model: kept(partial / f"{slug(model)}.json", lambda m=model: milliseconds(scoring(m, split), queries))
        for model in MODELS
    }
    rows["minilm, a new text"] = kept(
        partial / "text.json", lambda: milliseconds(reading(split), split.data.texts[:USERS])
    )
    rows["smollm2, 20 candidates"] = kept(
        partial / "prompted.json", lambda: milliseconds(prompting(split), queries[: PROMPTED + 1])
    )
    return {"instant": INSTANT, "items": split.n_items, "protocol": {"data": split.data.name}, "rows": rows}


def milliseconds(answer: Callable[[Any], object], questions: Queries | Sequence[str]) -> dict[str, Any]:
    """Median and percentiles of the time that single questions take; the first warms up and does not count."""
    taken = []
    for number in range(len(questions)):
        one = questions[number : number + 1]
        started = time.process_time()
        answer(one)
        taken.append(1_000 * (time.process_time() - started))
    percentiles = np.percentile(taken[1:], [50, 95, 99])
    return {"questions": len(taken) - 1, **dict(zip(("p50", "p95", "p99"), percentiles.tolist(), strict=True))}


def scoring(model: str, split: Split) -> Callable[[Queries], object]:
    """Scores of the whole catalogue, and the ten best of what the user has not seen."""
    fitted = create(model).fit(split)
    return lambda query: top_items(fitted, query)


def reading(split: Split) -> Callable[[Sequence[str]], object]:
    """A sentence read by the language model, and the ten items whose texts are nearest."""
    fitted, encoder = create("minilm").fit(split), LanguageEncoder("minilm", cache=False)
    vectors, mean = fitted.state["vectors"], fitted.state["mean"]
    return lambda text: ((encoder.encode(text) - mean) @ vectors.T).topk(10)


def prompting(split: Split) -> Callable[[Queries], object]:
    """A chat model's likelihoods of the titles of a few candidates after those of the history."""
    titles, ranker = titles_of(split.data), LikelihoodRanker(language_model())
    rng = np.random.default_rng(0)

    def answer(query: Queries) -> object:
        seen = query.history.items[query.history.start[0] : query.history.stop[0]]
        candidates = rng.choice(np.setdiff1d(np.arange(len(titles)), seen), CANDIDATES, replace=False)
        return ranker.score([titles[item] for item in seen], [titles[item] for item in candidates])

    return answer
