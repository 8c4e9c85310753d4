"""What counts as a negative: known positives are found, and popularity is measured as it is drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from recsys_cl.data import Sequences, leave_one_out, synthetic
from recsys_cl.objectives import KnownPositives, in_batch_log_q

check = settings(deadline=None, max_examples=60, derandomize=True)
N_ITEMS = 6
HISTORIES = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=5), min_size=1, max_size=5).filter(any)


def test_log_q_is_the_log_of_the_share_of_the_events():
    log_q = in_batch_log_q(torch.tensor([6, 3, 1]))
    assert_close(log_q, torch.tensor([0.6, 0.3, 0.1]).log())
    assert log_q.dtype == torch.float32


def test_an_item_without_events_counts_as_one_event():
    assert_close(in_batch_log_q(torch.tensor([0, 7, 1])), torch.tensor([1 / 9, 7 / 9, 1 / 9]).log())


@pytest.mark.parametrize("counts", [[1, 5, 9], [0, 0, 3], [10**9, 1, 1]])
def test_the_shares_sum_to_one(counts):
    assert float(in_batch_log_q(torch.tensor(counts)).double().exp().sum()) == pytest.approx(1, abs=1e-6)


def test_log_q_is_the_rate_at_which_interactions_bring_an_item_into_a_batch():
    """40,000 interactions drawn uniformly: every share within four standard errors."""
    split = leave_one_out(synthetic(100, 80, 1_500))
    q = in_batch_log_q(torch.from_numpy(split.counts)).exp().numpy()
    drawn = np.random.default_rng(0).choice(split.train.items[split.train.flat()[1]], 40_000)
    share = np.bincount(drawn, minlength=80) / 40_000
    seen = split.counts > 0
    assert (np.abs(share - q)[seen] < 4.5 * np.sqrt(q * (1 - q) / 40_000)[seen] + 1e-3 * q[seen]).all()


@given(HISTORIES, st.data())
@check
def test_the_mask_is_what_a_loop_finds(histories, data):
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), min_size=1, max_size=6))
    items = data.draw(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=6))
    mask = KnownPositives(Sequences.from_lists(histories), N_ITEMS).mask(np.array(users), np.array(items))
    assert mask.tolist() == [[item in histories[user] for item in items] for user in users]


def test_where_nobody_likes_anything_nothing_is_known():
    known = KnownPositives(Sequences.from_lists([[], []]), N_ITEMS)
    assert known.mask(np.array([0, 1]), np.array([2, 3, 4])).tolist() == [[False] * 3] * 2


def test_users_are_rows_and_not_neighbours_in_the_log():
    """Item 0 of user 1 has the key that item 6 of user 0 would have."""
    known = KnownPositives(Sequences.from_lists([[5], [0]]), N_ITEMS)
    assert known.mask(np.array([0, 1]), np.array([0, 5])).tolist() == [[False, True], [True, False]]


def test_duplicates_of_a_rows_positive_are_masked_in_its_batch():
    split = leave_one_out(synthetic(100, 80, 1_500))
    known = KnownPositives(split.train, split.n_items)
    users = np.repeat(np.arange(20), 2)
    items = split.train.recent(2)[:20].ravel()
    mask = known.mask(users, items)
    assert mask[np.arange(40), np.arange(40)].all()
    assert mask[(users[:, None] == users)].all()
    held_out = split.test.target.items[split.test.target.start][:20]
    assert not known.mask(np.arange(20), held_out)[np.arange(20), np.arange(20)].any()
