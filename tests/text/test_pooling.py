"""Pooling sees the real tokens of a text and nothing else."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from recsys_cl.text.tokens import cls_pool, last_token_pool, mean_pool

masks = st.integers(1, 6).flatmap(
    lambda width: st.lists(st.tuples(st.integers(1, width), st.booleans()), min_size=1, max_size=4).map(
        lambda rows: [[1] * n + [0] * (width - n) if right else [0] * (width - n) + [1] * n for n, right in rows]
    )
)


@given(masks, st.integers(0, 2**31))
@settings(deadline=None)
def test_pooling_matches_a_loop_under_right_and_left_padding(rows, seed):
    mask = torch.tensor(rows)
    hidden = torch.randn(*mask.shape, 3, generator=torch.Generator().manual_seed(seed))
    hidden[mask == 0] = float("nan")  # whatever stands in the padding must not matter
    tokens = [[hidden[b, t] for t in range(mask.shape[1]) if mask[b, t]] for b in range(len(mask))]
    assert_close(mean_pool(hidden, mask), torch.stack([sum(row) / len(row) for row in tokens]))
    assert_close(cls_pool(hidden, mask), torch.stack([row[0] for row in tokens]))
    assert_close(last_token_pool(hidden, mask), torch.stack([row[-1] for row in tokens]))


def test_mean_of_no_token_is_zero_and_not_nan():
    assert_close(mean_pool(torch.ones(1, 2, 3), torch.zeros(1, 2)), torch.zeros(1, 3))
