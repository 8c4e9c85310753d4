"""Negatives of a query's own: they join the sum of their query, and of no other."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import info_nce_loss

check = settings(deadline=None, max_examples=40, derandomize=True)
SEEDS = st.integers(0, 1000)


@given(SEEDS, st.sampled_from([0.1, 1.0]), st.booleans(), st.booleans(), st.booleans())
@check
def test_own_negatives_join_the_sum_of_their_query_alone(drawn, seed, temperature, masked, corrected, batch_corrected):
    query, item, log_q, negative, own_log_q, chance = drawn(seed, (5, 3), (7, 3), (7,), (5, 3, 3), (5, 3), (5, 3))
    mask = chance < -0.3
    expected = []
    for b in range(5):
        kept = [k for k in range(3) if not (masked and mask[b, k])]
        items = torch.cat([item, negative[b, kept]])
        corrections = torch.cat([batch_corrected * log_q, corrected * own_log_q[b, kept]])
        logits = query[b] @ items.T / temperature - corrections
        expected.append(F.cross_entropy(logits, torch.tensor(b)))
    losses = info_nce_loss(
        query,
        item,
        temperature=temperature,
        log_q=log_q if batch_corrected else None,
        negative=negative,
        negative_mask=mask if masked else None,
        negative_log_q=own_log_q if corrected else None,
        reduction="none",
    )
    assert_close(losses, torch.stack(expected))


def test_own_negatives_may_be_one_each_or_none_at_all(drawn):
    query, item, negative = drawn(7, (5, 3), (5, 3), (5, 3))
    assert_close(info_nce_loss(query, item, negative=negative), info_nce_loss(query, item, negative=negative[:, None]))
    assert info_nce_loss(query, item, negative=negative) > info_nce_loss(query, item)
    assert_close(info_nce_loss(query, item, negative=negative.new_empty(5, 0, 3)), info_nce_loss(query, item))
    masked = torch.ones(5, 1, dtype=torch.bool)
    assert_close(info_nce_loss(query, item, negative=negative, negative_mask=masked), info_nce_loss(query, item))


@pytest.mark.parametrize("shape", [(2,), (3,), (4, 2), (3, 1), (2, 3)])
def test_what_belongs_to_own_negatives_must_have_their_shape(shape):
    query = torch.eye(3)
    negative = torch.zeros(3, 2, 3)
    with pytest.raises(InputError, match=r"negative_log_q .* \(3, 2\)"):
        info_nce_loss(query, query, negative=negative, negative_log_q=torch.zeros(shape))
    with pytest.raises(InputError, match=r"mask .* \(3, 2\)"):
        info_nce_loss(query, query, negative=negative, negative_mask=torch.zeros(shape, dtype=torch.bool))
