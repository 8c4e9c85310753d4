"""Benchmark splits: leave-one-out on MovieLens-100K and on synthetic data, exported for other libraries."""

import numpy as np
from exchange import Histories

from recsys_cl.data import Sequences, Split, leave_one_out, load_movielens, synthetic

N_ITEMS = 20_000
EVENTS_PER_USER = 20


def real() -> Split:
    """MovieLens-100K, leave-one-out."""
    return leave_one_out(load_movielens(), seed=0)


def world(n_users: int) -> Split:
    """A synthetic world with 20 training events per user, and one more for validation and for test."""
    return leave_one_out(synthetic(n_users, N_ITEMS, (EVENTS_PER_USER + 2) * n_users, seed=0), seed=0)


def histories(sequences: Sequences, n_items: int) -> Histories:
    """The same events in the form of the exchange."""
    rows, positions = sequences.flat()
    return Histories(rows.astype(np.int64), sequences.items[positions].astype(np.int64), len(sequences), n_items)
