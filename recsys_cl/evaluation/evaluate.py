"""Full-ranking evaluation of any recommender: per-query metrics, means, bootstrap intervals and paired tests.

The ranks of the targets among all candidates are computed block by block, in bounded memory.

See: chapter 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from recsys_cl.data import PAD, Queries, Sequences
from recsys_cl.errors import InputError
from recsys_cl.evaluation.metrics import Ranks, metrics_of, rank_of_targets
from recsys_cl.evaluation.significance import PairedTest, bootstrap_interval, holm, paired_test

SLOW = 5.0
"""Seconds after which a progress bar appears."""


class Scorer(Protocol):
    """Anything that scores the whole catalogue for a batch of histories."""

    def score(self, histories: Sequences) -> Tensor:
        """Scores ``(batch, n_items)``; higher is better."""
        ...


def blocks(n_queries: int, n_items: int, *, entries: int = 16_000_000) -> Iterator[slice]:
    """Slices of queries with score matrices of at most ``entries`` entries each, with a progress bar if slow."""
    size = max(1, entries // max(1, n_items))
    starts = range(0, n_queries, size)
    for start in tqdm(starts, desc="ranking", delay=SLOW, leave=False):
        yield slice(start, min(start + size, n_queries))


def masked_scores(scorer: Scorer, queries: Queries) -> Tensor:
    r"""Scores with all items that are not ranked set to :math:`-\infty`.

    Returns:
        ``(queries, n_items)`` in float32.

    Raises:
        InputError: If a score is NaN.
    """
    scores = scorer.score(queries.history).float()  # (B, N)
    if scores.isnan().any():
        raise InputError(
            f"{type(scorer).__name__} gave NaN as a score; check its hyperparameters, first its learning rate"
        )
    scores = scores.clamp(min=torch.finfo(torch.float32).min)  # a scorer's own -inf is still ranked, last
    if queries.candidates is not None:
        outside = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)  # (N,)
        outside[torch.as_tensor(queries.candidates, device=scores.device)] = False
        scores[:, outside] = -torch.inf
    rows, positions = queries.history.flat()
    scores[rows, queries.history.items[positions]] = -torch.inf
    return scores


def rank_targets(scorer: Scorer, queries: Queries) -> Ranks:
    """Rank every query's targets among its candidates, excluding seen items, in bounded memory.

    Args:
        scorer: Recommender to evaluate.
        queries: Evaluation queries.

    Raises:
        InputError: If a score is NaN, or a target is a seen item or not a candidate.
    """
    query, rank, n_candidates = [], [], []
    for block in blocks(len(queries), _width(scorer, queries)):
        part = queries[block]
        scores = masked_scores(scorer, part)  # (B, N)
        rows, positions = part.target.flat()
        items = part.target.items[positions]
        for few in np.array_split(np.arange(len(rows)), max(1, len(rows) // max(1, len(part)))):
            row, item = (
                torch.as_tensor(rows[few]).to(scores.device),
                torch.as_tensor(items[few]).to(scores.device),
            )
            if (scores[row, item] == -torch.inf).any():
                raise InputError("a target is among the seen items or not among the candidates; rebuild the split")
            rank.append(rank_of_targets(scores, row, item, first_query=block.start).cpu().numpy())
        query.append(rows + block.start)
        n_candidates.append((scores > -torch.inf).sum(1).cpu().numpy())
    return Ranks(
        query=np.concatenate(query),
        rank=np.concatenate(rank),
        n_targets=queries.target.lengths,
        n_candidates=np.concatenate(n_candidates),
    )


def top_items(scorer: Scorer, queries: Queries, k: int = 10) -> np.ndarray:
    """The ``k`` best unseen candidates of each query, best first: ``(queries, k)`` item numbers.

    If fewer than ``k`` candidates are left, the row is padded with :data:`~recsys_cl.data.PAD`.

    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> from recsys_cl.recommenders import Popularity
    >>> split = leave_one_out(synthetic(100, 100))
    >>> top_items(Popularity().fit(split), split.test, k=3).shape
    (100, 3)
    """
    best = []
    for block in blocks(len(queries), _width(scorer, queries)):
        scores = masked_scores(scorer, queries[block])  # (B, N)
        top = scores.topk(min(k, scores.shape[1]), dim=1)  # (B, k)
        best.append(top.indices.masked_fill(top.values == -torch.inf, PAD).cpu().numpy())  # (B, k)
    return np.concatenate(best)


def _width(scorer: Scorer, queries: Queries) -> int:
    return scorer.score(queries.history[:1]).shape[1]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of one recommender on one set of queries.

    Attributes:
        user: ``(queries,)`` user number of each query.
        metrics: Metric name to ``(queries,)`` values.
    """

    user: np.ndarray
    metrics: Mapping[str, np.ndarray]

    def mean(self, metric: str = "ndcg@10") -> float:
        """Mean over the queries.

        Raises:
            InputError: If the metric was not computed.
        """
        if metric not in self.metrics:
            raise InputError(f"no metric {metric!r}; computed were {', '.join(self.metrics)}")
        return float(self.metrics[metric].mean())

    def interval(self, metric: str = "ndcg@10") -> tuple[float, float]:
        """95 % bootstrap interval of the mean, users resampled."""
        self.mean(metric)
        return bootstrap_interval(self.metrics[metric], self.user)

    def save(self, file: Path) -> None:
        """Save the values of every query; the file appears only when complete."""
        started = file.with_suffix(".tmp.npz")
        columns: dict[str, Any] = {"user": self.user, **self.metrics}
        np.savez_compressed(started, **columns)
        started.replace(file)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Load an evaluation saved by :meth:`save`."""
        with np.load(file) as stored:
            return cls(stored["user"], {name: stored[name] for name in stored.files if name != "user"})


def evaluate(scorer: Scorer, queries: Queries, *, ks: Sequence[int] = (10,)) -> Evaluation:
    """Rank each query's candidates and compute the ranking metrics.

    Args:
        scorer: Anything with ``score(histories) -> (batch, n_items)``.
        queries: Evaluation queries: ``split.validation`` or ``split.test``.
        ks: Cut-offs k.

    Raises:
        InputError: If there are no queries, or a score is NaN.

    See: chapter 2.

    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> from recsys_cl.recommenders import Popularity
    >>> split = leave_one_out(synthetic(100, 100))
    >>> evaluation = evaluate(Popularity().fit(split), split.test, ks=[5, 10])
    >>> evaluation.mean("hr@5") <= evaluation.mean("hr@10")
    True
    """
    if len(queries) == 0:
        raise InputError("there are no queries to evaluate; the users have too few events for this split")
    return Evaluation(user=queries.user, metrics=metrics_of(rank_targets(scorer, queries), ks))


def evaluate_unseen(scorer: Scorer, queries: Queries, *, ks: Sequence[int] = (10,)) -> Evaluation:
    """Evaluate cold items twice: ranked among the unseen items, and in the full catalogue (``"ndcg@10/all"``)."""
    among = evaluate(scorer, queries, ks=ks)
    full = evaluate(scorer, replace(queries, candidates=None), ks=ks)
    return replace(among, metrics={**among.metrics, **{f"{name}/all": full.metrics[name] for name in full.metrics}})


def pool(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Pool several runs (seeds, draws) of one recommender: the mean of their means; intervals resample whole users."""
    names = evaluations[0].metrics
    return Evaluation(
        user=np.concatenate([one.user for one in evaluations]),
        metrics={name: np.concatenate([one.metrics[name] for one in evaluations]) for name in names},
    )


def compare(
    evaluations: Mapping[str, Evaluation], *, metric: str = "ndcg@10", against: str | None = None
) -> dict[str, PairedTest]:
    """Paired tests of every recommender against a reference on the same queries, p-values corrected by Holm.

    Args:
        evaluations: Name of each recommender to its evaluation.
        metric: Metric to compare.
        against: Name of the reference; by default the best recommender.

    Returns:
        Name of every other recommender to its test; the difference is the reference minus the other.

    Raises:
        InputError: If the reference is not among the evaluations, or the queries differ.

    See: chapter 2.

    >>> user = np.arange(20)
    >>> always, never = Evaluation(user, {"hr@10": np.ones(20)}), Evaluation(user, {"hr@10": np.zeros(20)})
    >>> compare({"first": always, "second": never}, metric="hr@10")["second"].difference
    1.0
    """
    if against is None:
        against = max(evaluations, key=lambda name: evaluations[name].mean(metric))
    if against not in evaluations:
        raise InputError(f"no recommender {against!r} to compare with; valid names are {', '.join(evaluations)}")
    best = evaluations[against]
    best.mean(metric)
    others = {name: one for name, one in evaluations.items() if name != against}
    for name, one in others.items():
        one.mean(metric)
        if not np.array_equal(one.user, best.user):
            raise InputError(f"{name} and {against} were evaluated on different queries; use one split for both")
    tests = {name: paired_test(best.metrics[metric], one.metrics[metric], best.user) for name, one in others.items()}
    corrected = holm(np.array([test.p_value for test in tests.values()]))
    return {name: replace(test, p_value=float(p)) for (name, test), p in zip(tests.items(), corrected, strict=True)}
