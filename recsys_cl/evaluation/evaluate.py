"""One evaluation path for every recommender: metrics per query, their mean and how sure it is.

See: chapter 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from recsys_cl.data import Queries
from recsys_cl.errors import InputError
from recsys_cl.evaluation.metrics import metrics_of
from recsys_cl.evaluation.ranking import Scorer, rank_targets
from recsys_cl.evaluation.significance import PairedTest, bootstrap_interval, holm, paired_test


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of one recommender on one set of queries.

    Attributes:
        user: ``(queries,)`` who asked.
        metrics: Name to ``(queries,)`` values.
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
        """95 % interval over users."""
        self.mean(metric)
        return bootstrap_interval(self.metrics[metric], self.user)

    def save(self, file: Path) -> None:
        """Write the values of every query; the file appears when it is complete."""
        started = file.with_suffix(".tmp.npz")
        columns: dict[str, Any] = {"user": self.user, **self.metrics}
        np.savez_compressed(started, **columns)
        started.replace(file)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what :meth:`save` wrote."""
        with np.load(file) as stored:
            return cls(stored["user"], {name: stored[name] for name in stored.files if name != "user"})


def evaluate(scorer: Scorer, queries: Queries, *, ks: Sequence[int] = (10,)) -> Evaluation:
    """Rank the queries' candidates and measure the ranking.

    Args:
        scorer: Anything with ``score(histories) -> (batch, n_items)``.
        queries: ``split.validation`` or ``split.test``.
        ks: Cut-offs.

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
    """Cold items ranked twice: among the unseen items, and (``"ndcg@10/all"``) in the full catalogue."""
    among = evaluate(scorer, queries, ks=ks)
    full = evaluate(scorer, replace(queries, candidates=None), ks=ks)
    return replace(among, metrics={**among.metrics, **{f"{name}/all": full.metrics[name] for name in full.metrics}})


def pool(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several runs (seeds, draws) of one recommender side by side: the mean of their means, users kept whole."""
    names = evaluations[0].metrics
    return Evaluation(
        user=np.concatenate([one.user for one in evaluations]),
        metrics={name: np.concatenate([one.metrics[name] for one in evaluations]) for name in names},
    )


def compare(
    evaluations: Mapping[str, Evaluation], *, metric: str = "ndcg@10", against: str | None = None
) -> dict[str, PairedTest]:
    """Test every recommender against one of them on the same queries, p-values corrected by Holm.

    Args:
        evaluations: Name to evaluation.
        metric: What is compared.
        against: The reference; by default the best.

    Returns:
        Name of every other recommender to its test, difference = reference minus the other.

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
