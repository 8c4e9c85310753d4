"""What the stored runs of a language model share: the model, the films, and answers kept in blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from parts import kept

from recsys_cl.data import Interactions, Split, leave_one_out, load_movielens
from recsys_cl.evaluation import bootstrap_interval
from recsys_cl.text.decoder import LanguageModel

SEED = 0
BLOCK = 20  # users or films whose answers are kept together


@cache
def language_model(precision: str = "bfloat16") -> LanguageModel:
    return LanguageModel("smollm2", precision=precision)


@cache
def leave_one_out_split() -> Split:
    return leave_one_out(load_movielens(), seed=SEED)


def titles_of(data: Interactions) -> list[str]:
    return [str(title) for title in data.items["title"]]


def genres_of(data: Interactions) -> list[set[str]]:
    return [set(filter(None, str(genres).split(", "))) for genres in data.items["genres"]]


def in_blocks(partial: Path, name: str, count: int, answer: Callable[[range], dict[str, list]]) -> dict[str, list]:
    """Answers to questions 0 to ``count``, a block at a time, each block kept on disk."""
    answers: dict[str, list] = {}
    for start in range(0, count, BLOCK):
        rows = range(start, min(start + BLOCK, count))
        for key, values in kept(partial / f"{name}-{start:04d}.json", lambda rows=rows: answer(rows)).items():
            answers.setdefault(key, []).extend(values)
    return answers


def mean_with_interval(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Mean over users or films with its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=np.float64)
    low, high = bootstrap_interval(values, np.arange(len(values)))
    return {"mean": float(values.mean()), "low": low, "high": high, "n": len(values)}
