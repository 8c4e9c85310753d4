"""Nearest-neighbour positives: items from the histories of similar users that the user has not interacted with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from tqdm.auto import tqdm

from recsys_cl.data import PAD, Sequences
from recsys_cl.errors import InputError
from recsys_cl.positives.events import check_items, checked_events, rows_by_event
from recsys_cl.randomness import counter_uniform

BLOCK = 2**21
"""Entries per block of a user-by-user or user-by-item matrix: 16 MiB in double precision."""


class LikedByNeighbours:
    r"""An item of users with similar histories that is not in the user's own history.

    .. math:: P(i \mid u) \propto |\{v \in N_k(u) : i \in I_v\}| \quad (i \notin I_u), \qquad
        \cos(u, v) = \frac{|I_u \cap I_v|}{\sqrt{|I_u|\,|I_v|}}

    :math:`N_k(u)` are the k users with the highest cosine among those who share an item; ties go to the lower user
    number. Such an item is inferred from the neighbours, not observed.

    Args:
        sequences: Training sequences; row ``u`` is user ``u``, and no event is in two rows.
        n_items: Size of the catalogue.
        neighbours: Number of neighbours, k.
        seed: Seed of the draws.

    Raises:
        InputError: If there are no events, one is in two rows, an item is not in the catalogue, or k is below 1.

    See: chapter 4.

    >>> sampler = LikedByNeighbours(Sequences.from_lists([[0, 1], [1, 2], [3]]), n_items=4, neighbours=1)
    >>> sampler.sample(0, np.arange(5)).tolist()  # users 0 and 1 are alike, nobody is like user 2
    [2, 2, 0, 0, -1]
    """

    def __init__(self, sequences: Sequences, n_items: int, neighbours: int = 20, seed: int = 0) -> None:
        if neighbours < 1:
            raise InputError(f"neighbours={neighbours} leaves no neighbours; give 1 or more")
        self.seed = seed
        self.row, positions = rows_by_event(sequences)
        check_items(sequences.items[positions], n_items)
        place = self.row[positions], sequences.items[positions]
        ones = np.ones(len(positions), dtype=np.int32)
        self.has = sp.csr_matrix((ones, place), shape=(len(sequences), n_items)).sign()  # (U, N) sparse
        self.nearest = nearest_rows(self.has, neighbours)  # (U, U) sparse

    def eligible(self, event: np.ndarray) -> np.ndarray:
        """True where the neighbours of the event's user have an item that the user does not, ``(batch,)``."""
        return self.sample(0, event) != PAD

    def sample(self, epoch: int | np.ndarray, event: np.ndarray) -> np.ndarray:
        """Draw a positive for the user of each event.

        Args:
            epoch: One epoch, or ``(batch,)``.
            event: ``(batch,)`` positions in the log.

        Returns:
            ``(batch,)`` item numbers; ``PAD`` where there is no positive.

        Raises:
            InputError: If an event is not a position in the log.
        """
        row = self.row[checked_events(event, len(self.row))]
        users, user = np.unique(row, return_inverse=True)
        draw = counter_uniform(self.seed, "neighbouring-item", epoch, event)  # (B,)
        chosen = np.full(len(row), PAD, dtype=np.int64)
        for part in _blocks(len(users), self.has.shape[1]):
            inside = (user >= part.start) & (user < part.stop) & (row >= 0)
            chosen[inside] = self._choose(users[part], user[inside] - part.start, draw[inside])
        return chosen

    def _choose(self, users: np.ndarray, user: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Draw for each of ``users[user]`` an item of its neighbours that it does not have; ``draw`` is in [0, 1)."""
        votes = self.nearest[users] @ self.has  # (V, N) sparse
        votes = votes - votes.multiply(self.has[users])  # (V, N) sparse
        votes.eliminate_zeros()
        votes.sort_indices()
        ends = np.append(0, np.cumsum(votes.data))  # (entries + 1,)
        low, high = ends[votes.indptr[user]], ends[votes.indptr[user + 1]]  # (B,) both
        place = np.searchsorted(ends, low + (draw * (high - low)).astype(np.int64), side="right") - 1  # (B,)
        return np.where(high > low, np.append(votes.indices, PAD)[place], PAD)  # (B,)


def _blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Slices of the rows of a matrix, with about ``BLOCK`` entries each."""
    height = max(1, BLOCK // n_columns)
    return (slice(start, min(start + height, n_rows)) for start in range(0, n_rows, height))


def nearest_rows(has: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """Ones at each row's k most similar other rows by cosine, among those that share a column, ``(U, U)``."""
    n_users = has.shape[0]
    k, columns = min(k, n_users), has.T.tocsr()  # (N, U)
    size = np.maximum(has.sum(1).A1, 1)  # (U,)
    users, others = [], []
    for part in tqdm(list(_blocks(n_users, n_users)), desc="neighbours", delay=5, leave=False):
        shared = (has[part] @ columns).toarray().astype(float)  # (R, U)
        shared[np.arange(len(shared)), np.arange(part.start, part.stop)] = 0
        closeness = shared**2 / size  # (R, U), squared cosine times |I_u|: equal wherever cosines are equal
        minimum = np.partition(closeness, -k, axis=1)[:, [-k]]  # (R, 1)
        user, other = np.nonzero((closeness >= minimum) & (closeness > 0))
        order = np.lexsort((other, -closeness[user, other], user))
        user, other = user[order], other[order]
        first = np.arange(len(user)) - np.searchsorted(user, user) < k
        users.append(user[first] + part.start)
        others.append(other[first])
    place = np.concatenate(users), np.concatenate(others)
    return sp.csr_matrix((np.ones(len(place[0]), dtype=np.int32), place), shape=(n_users, n_users))
