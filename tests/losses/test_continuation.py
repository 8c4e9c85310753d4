"""Contrastive language modelling: what the printed ratio says, and how much a loss with a meaning learns."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import continuation_loss, info_nce_loss

check = settings(deadline=None, max_examples=40, derandomize=True)

JOINT = torch.tensor([[0.44, 0.01, 0.01], [0.16, 0.14, 0.01], [0.11, 0.01, 0.11]], dtype=torch.float64)
"""Probability of context (row) and continuation (column), the first of which is popular."""
CONDITIONAL = (JOINT / JOINT.sum(1, keepdim=True)).log()
MARGINAL = JOINT.sum(0).log()
INFORMATION = float((JOINT * (CONDITIONAL - MARGINAL)).sum())


@given(st.integers(0, 1000))
@check
def test_the_printed_ratio_does_not_depend_on_the_word(seed):
    """P(x1, W | x2) / P(x2, W | x1), each from the joint table by the definition of conditional probability."""
    joint = np.random.default_rng(seed).dirichlet(np.ones(3 * 4 * 5)).reshape(3, 4, 5)  # x1, x2, W
    given_second = joint / joint.sum((0, 2))[None, :, None]
    given_first = joint / joint.sum((1, 2))[:, None, None]
    ratio = given_second / given_first
    assert np.allclose(ratio, ratio[:, :, :1], rtol=1e-10)
    assert np.allclose(ratio[:, :, 0], joint.sum((1, 2))[:, None] / joint.sum((0, 2))[None, :], rtol=1e-10)


def loss_of(pairs: Tensor, reduction: str = "mean") -> Tensor:
    """Of ``(B, 2)`` pairs of a context and its continuation, with exact probabilities."""
    context, continuation = pairs.T
    return continuation_loss(CONDITIONAL[context][:, continuation], MARGINAL[continuation], reduction=reduction)


def test_it_bounds_the_mutual_information():
    """Exact expectations over all batches of 1, 2, 3 and 4 pairs: from below, and closer with every pair."""
    pairs = torch.tensor(list(product(range(3), repeat=2)))
    chance = JOINT.flatten()
    bounds = []
    for size in (1, 2, 3, 4):
        batches = torch.tensor(list(product(range(9), repeat=size)))
        weight = chance[batches].prod(1)
        losses = torch.stack([loss_of(pairs[batch]) for batch in batches])
        bounds.append(math.log(size) - float((weight * losses).sum()))
    assert bounds[0] == pytest.approx(0)
    assert bounds == sorted(bounds)
    assert 0.55 * INFORMATION < bounds[-1] < INFORMATION


def test_a_large_batch_gives_the_mutual_information():
    """2,000 pairs, five standard errors and the remaining bias of about 1 / 2,000."""
    draws = torch.multinomial(JOINT.flatten(), 2_000, replacement=True, generator=torch.Generator().manual_seed(0))
    rows = loss_of(torch.stack([draws // 3, draws % 3], dim=1), reduction="none")
    bound = math.log(2_000) - rows.mean()
    assert float(bound) == pytest.approx(INFORMATION, abs=float(5 * rows.std() / 2_000**0.5) + 1e-3)
    assert float(rows.std()) / 2_000**0.5 < 0.1 * INFORMATION  # so that it says something


def test_likelihood_alone_is_worse():
    """Without the marginal every context prefers what is likely anywhere, and the loss is higher."""
    draws = torch.multinomial(JOINT.flatten(), 500, replacement=True, generator=torch.Generator().manual_seed(0))
    pairs = torch.stack([draws // 3, draws % 3], dim=1)
    likelihood = continuation_loss(CONDITIONAL[pairs[:, 0]][:, pairs[:, 1]], torch.zeros(500, dtype=torch.float64))
    assert likelihood > loss_of(pairs) + 0.01


def test_of_behaviour_it_is_info_nce_corrected_for_popularity():
    """The continuation is the next item; what normalises the conditional is the same for a row and cancels."""
    generator = torch.Generator().manual_seed(0)
    hidden, items = (torch.randn(rows, 4, generator=generator, dtype=torch.float64) for rows in (5, 12))
    popularity = torch.rand(12, generator=generator, dtype=torch.float64).log_softmax(0)
    target = torch.tensor([3, 0, 3, 11, 7])
    conditional = (hidden @ items.T).log_softmax(1)[:, target]
    expected = info_nce_loss(hidden, items[target], temperature=1.0, log_q=popularity[target], reduction="none")
    assert_close(continuation_loss(conditional, popularity[target], reduction="none"), expected)


def test_an_impossible_continuation_of_another_context_counts_for_nothing():
    conditional = torch.tensor([[0.0, -torch.inf], [-1.0, -2.0]], requires_grad=True)
    loss = continuation_loss(conditional, torch.zeros(2), reduction="none")
    assert_close(loss, torch.tensor([0.0, math.log(1 + math.e)]))
    assert torch.autograd.grad(loss.sum(), conditional)[0].isfinite().all()


@pytest.mark.parametrize(
    ("conditional", "marginal", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2), "do not fit"),
        (torch.zeros(2, 2), torch.zeros(3), "do not fit"),
        (torch.zeros(0, 0), torch.zeros(0), "do not fit"),
        (torch.tensor([[0.0, 0.0], [0.0, -torch.inf]]), torch.zeros(2), "pair 1 has no finite"),
        (torch.zeros(2, 2), torch.tensor([-torch.inf, 0.0]), "pair 0 has no finite"),
    ],
)
def test_bad_input(conditional, marginal, message):
    with pytest.raises(InputError, match=message):
        continuation_loss(conditional, marginal)
