"""Data: validated interactions, ordered histories and splits."""

from recsys_cl.data.datasets import DATASETS, load_data
from recsys_cl.data.files import load_files
from recsys_cl.data.interactions import EVENT_WEIGHTS, Interactions
from recsys_cl.data.movielens import load_movielens
from recsys_cl.data.perturb.corruption import CORRUPTIONS
from recsys_cl.data.perturb.shilling import inject
from recsys_cl.data.sequences import PAD, Ragged, RowRandom, Sequences
from recsys_cl.data.splits import (
    SPLITS,
    Queries,
    Split,
    cold_item_split,
    leave_last_n,
    leave_one_out,
    new_user_split,
    temporal_split,
    validated_on_warm_items,
)
from recsys_cl.data.synthetic import synthetic
from recsys_cl.data.text import history_text, item_texts

__all__ = [
    "CORRUPTIONS",
    "DATASETS",
    "EVENT_WEIGHTS",
    "PAD",
    "SPLITS",
    "Interactions",
    "Queries",
    "Ragged",
    "RowRandom",
    "Sequences",
    "Split",
    "cold_item_split",
    "history_text",
    "inject",
    "item_texts",
    "leave_last_n",
    "leave_one_out",
    "load_data",
    "load_files",
    "load_movielens",
    "new_user_split",
    "synthetic",
    "temporal_split",
    "validated_on_warm_items",
]
