"""Evaluation: full ranking, metrics, robustness, confidence intervals and significance tests."""

from recsys_cl.evaluation.evaluate import (
    Evaluation,
    Scorer,
    compare,
    evaluate,
    evaluate_unseen,
    pool,
    rank_targets,
    top_items,
)
from recsys_cl.evaluation.metrics import METRICS, Ranks, metrics_of, rank_metrics
from recsys_cl.evaluation.robustness import (
    boundary_distance,
    detect,
    exposure,
    precision_recall,
    retention,
    robustness_index,
)
from recsys_cl.evaluation.significance import PairedTest, bootstrap_interval, fold_test, holm, paired_test

__all__ = [
    "METRICS",
    "Evaluation",
    "PairedTest",
    "Ranks",
    "Scorer",
    "bootstrap_interval",
    "boundary_distance",
    "compare",
    "detect",
    "evaluate",
    "evaluate_unseen",
    "exposure",
    "fold_test",
    "holm",
    "metrics_of",
    "paired_test",
    "pool",
    "precision_recall",
    "rank_metrics",
    "rank_targets",
    "retention",
    "robustness_index",
    "top_items",
]
