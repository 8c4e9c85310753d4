"""Workflow: the functions behind the commands, to describe data, train, evaluate, compare and recommend.

See: chapter 5 (a recommendation), chapter 11 (a run).
"""

from recsys_cl.data.datasets import load_data
from recsys_cl.workflow.comparison import Comparison, Row, compare, evaluate_split, split_data
from recsys_cl.workflow.recommending import find_items, history_of, open_model, recommend
from recsys_cl.workflow.running import describe, measure, run, train

__all__ = [
    "Comparison",
    "Row",
    "compare",
    "describe",
    "evaluate_split",
    "find_items",
    "history_of",
    "load_data",
    "measure",
    "open_model",
    "recommend",
    "run",
    "split_data",
    "train",
]
