"""What counts as a negative: popularity is measured as it is drawn."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from recsys_cl.data import leave_one_out, synthetic
from recsys_cl.objectives import in_batch_log_q


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
