"""Losses are each other's special cases and limits, under the conditions that their documentation states."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.losses import (
    bpr_loss,
    debiased_contrastive_loss,
    decoupled_contrastive_loss,
    info_nce_loss,
    logistic_loss,
    nt_xent_loss,
    sampled_softmax_loss,
    sigmoid_loss,
    soft_triplet_loss,
    supervised_contrastive_loss,
    symmetric_info_nce_loss,
    triplet_loss,
    uniformity,
)
from recsys_cl.losses.checks import unit
from recsys_cl.losses.margin import distance

check = settings(deadline=None, max_examples=15, derandomize=True)
SEEDS = st.integers(0, 1000)
TEMPERATURES = st.sampled_from([0.1, 0.7, 2.0])
ROWS = {"reduction": "none"}


def alone(query: Tensor, item: Tensor, **options) -> Tensor:
    """InfoNCE of a query that sees its own item and its own negatives, but nobody else's items."""
    return info_nce_loss(query, item, mask=torch.ones(len(query), len(item), dtype=torch.bool), **options, **ROWS)


@given(SEEDS, TEMPERATURES)
@check
def test_bpr_is_infonce_with_one_negative(drawn, seed, temperature):
    a, p, n = drawn(seed, (5, 3), (5, 3), (5, 3))
    expected = alone(a, p, negative=n, temperature=temperature)
    assert_close(bpr_loss(a, p, n, temperature=temperature, **ROWS), expected)


@given(SEEDS, TEMPERATURES)
@check
def test_bpr_is_the_logistic_loss_of_the_difference_between_positive_and_negative(drawn, seed, temperature):
    """Its first term: that p − n is a positive."""
    a, p, n = drawn(seed, (5, 3), (5, 3), (5, 3))
    one = logistic_loss(a, p - n, p - n, temperature=temperature, **ROWS)
    gap = (a * (p - n)).sum(1) / temperature
    assert_close(bpr_loss(a, p, n, temperature=temperature, **ROWS), one - F.softplus(gap))


@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
@given(SEEDS)
@check
def test_the_soft_triplet_is_infonce_with_one_negative_and_negative_distances_for_logits(kind, drawn, seed):
    a, p, n = drawn(seed, (5, 3), (5, 3), (5, 3))
    logits = -torch.stack([distance(a, p, kind), distance(a, n, kind)], dim=1)
    expected = F.cross_entropy(logits, torch.zeros(5, dtype=torch.long), **ROWS)
    assert_close(soft_triplet_loss(a, p, n, distance=kind, **ROWS), expected)


@given(SEEDS)
@check
def test_the_soft_triplet_of_squares_is_bpr_at_temperature_a_half_between_unit_vectors(drawn, seed):
    a, p, n = (unit(side) for side in drawn(seed, (5, 3), (5, 3), (5, 3)))
    assert_close(soft_triplet_loss(a, p, n, distance="squared"), bpr_loss(a, p, n, temperature=0.5))
    assert_close(soft_triplet_loss(a, p, n, distance="cosine"), bpr_loss(a, p, n))


@given(SEEDS)
@check
def test_scaled_up_the_soft_triplet_is_the_hinge_with_a_vanishing_margin(drawn, seed):
    a, p, n = drawn(seed, (5, 3), (5, 3), (5, 3))
    soft = soft_triplet_loss(1e5 * a, 1e5 * p, 1e5 * n, **ROWS) / 1e5
    assert_close(soft, triplet_loss(a, p, n, margin=1e-9, **ROWS), atol=1e-5, rtol=0)


@given(SEEDS, TEMPERATURES)
@check
def test_infonce_is_softplus_of_the_decoupled_loss(drawn, form, seed, temperature):
    query, item = drawn(seed, (5, 3), (7, 3))
    decoupled = decoupled_contrastive_loss(query, item, temperature=temperature, **ROWS)
    assert_close(info_nce_loss(query, item, temperature=temperature, **ROWS), F.softplus(decoupled))


@given(SEEDS, TEMPERATURES)
@check
def test_nt_xent_is_infonce_among_the_views_with_each_view_itself_masked(drawn, form, seed, temperature):
    first, second = drawn(seed, (5, 3), (5, 3))
    views, others = unit(torch.cat([first, second])), unit(torch.cat([second, first]))
    itself = torch.eye(10, dtype=torch.bool).roll(5, dims=1)  # a view stands in the column of its other view
    expected = info_nce_loss(views, others, temperature=temperature, mask=itself, **ROWS)
    assert_close(nt_xent_loss(first, second, temperature=temperature, **ROWS), expected)


@given(SEEDS, TEMPERATURES)
@check
def test_the_supervised_loss_with_pairs_is_nt_xent(drawn, form, seed, temperature):
    first, second = drawn(seed, (5, 3), (5, 3))
    label = torch.arange(5).repeat(2)
    expected = nt_xent_loss(first, second, temperature=temperature, **ROWS)
    both = torch.cat([first, second])
    assert_close(supervised_contrastive_loss(both, label, temperature=temperature, **ROWS), expected)


@given(SEEDS, TEMPERATURES)
@check
def test_without_prior_and_hardness_the_debiased_loss_is_infonce_between_unit_vectors(drawn, form, seed, temperature):
    query, item = drawn(seed, (5, 3), (7, 3))
    debiased = debiased_contrastive_loss(query, item, prior=0.0, temperature=temperature, **ROWS)
    assert_close(debiased, info_nce_loss(unit(query), unit(item), temperature=temperature, **ROWS))


@given(SEEDS, TEMPERATURES)
@check
def test_the_symmetric_loss_is_the_mean_of_two_one_way(drawn, form, seed, temperature):
    query, item, log_q, query_log_q, chance = drawn(seed, (5, 3), (5, 3), (5,), (5,), (5, 5))
    mask = chance < -0.5
    there = info_nce_loss(query, item, temperature=temperature, mask=mask, log_q=log_q, **ROWS)
    back = info_nce_loss(item, query, temperature=temperature, mask=mask.T, log_q=query_log_q, **ROWS)
    options = {"temperature": temperature, "mask": mask, "log_q": log_q, "query_log_q": query_log_q}
    assert_close(symmetric_info_nce_loss(query, item, **options, **ROWS), (there + back) / 2)


@given(SEEDS, TEMPERATURES)
@check
def test_sampled_softmax_is_infonce_that_sees_its_own_sample_alone(drawn, seed, temperature):
    query, item, log_q, negative, negative_log_q = drawn(seed, (5, 3), (5, 3), (5,), (5, 4, 3), (5, 4))
    corrections = {"log_q": log_q, "negative_log_q": negative_log_q, "temperature": temperature}
    expected = alone(query, item, negative=negative, **corrections)
    assert_close(sampled_softmax_loss(query, item, negative, **corrections, **ROWS), expected)


@given(SEEDS, TEMPERATURES)
@check
def test_in_batch_negatives_are_a_sample_of_the_other_rows_items(drawn, seed, temperature):
    query, item, log_q = drawn(seed, (5, 3), (5, 3), (5,))
    options = {"log_q": log_q, "negative_log_q": log_q, "temperature": temperature}
    sampled = sampled_softmax_loss(query, item, item, mask=torch.eye(5, dtype=torch.bool), **options, **ROWS)
    assert_close(sampled, info_nce_loss(query, item, temperature=temperature, log_q=log_q, **ROWS))


@given(SEEDS, TEMPERATURES)
@check
def test_the_sigmoid_loss_without_bias_is_the_logistic_loss_with_in_batch_negatives(drawn, seed, temperature):
    query, item = drawn(seed, (5, 3), (5, 3))
    negative = torch.stack([item[torch.arange(5) != b] for b in range(5)])
    expected = logistic_loss(query, item, negative, temperature=temperature, **ROWS)
    assert_close(sigmoid_loss(query, item, temperature=temperature, bias=0.0, **ROWS), expected)


@given(SEEDS, st.sampled_from([0.5, 2.0]))
@check
def test_uniformity_is_what_pushes_in_a_contrastive_loss(drawn, form, seed, sharpness):
    """The decoupled loss at temperature 1 / 2t, where the positive of every anchor is itself and scores 2t."""
    (x,) = drawn(seed, (6, 3))
    rows = decoupled_contrastive_loss(unit(x), unit(x), temperature=1 / (2 * sharpness), **ROWS)
    assert_close(uniformity(x, sharpness=sharpness), rows.logsumexp(0) - math.log(6 * 5))


def test_with_one_hardest_negative_the_gradient_goes_there_alone_as_the_temperature_falls(drawn, form):
    query, item = drawn(0, (1, 3), (6, 3))
    item.requires_grad_()
    hardest = int((item[1:] @ query[0]).argmax()) + 1
    pushed = []
    for temperature in (10.0, 0.1, 1e-3):
        loss = decoupled_contrastive_loss(query, item, temperature=temperature)
        (gradient,) = torch.autograd.grad(temperature * loss, item)
        pushed.append(gradient.norm(dim=1)[1:] / query.norm())
    assert_close(pushed[0], torch.full((5,), 0.2, dtype=torch.float64), atol=0.1, rtol=0)
    assert pushed[0][hardest - 1] < pushed[1][hardest - 1] < pushed[2][hardest - 1]
    assert_close(pushed[2], F.one_hot(torch.tensor(hardest - 1), 5).double())


def test_as_the_temperature_rises_every_item_counts_alike(drawn, form):
    query, item = drawn(1, (5, 3), (9, 3))
    for loss, expected in {
        info_nce_loss(query, item, temperature=1e9): math.log(9),
        symmetric_info_nce_loss(query, item[:5], temperature=1e9): math.log(5),
        nt_xent_loss(query, item[:5], temperature=1e9): math.log(9),
        decoupled_contrastive_loss(query, item, temperature=1e9): math.log(8),
        debiased_contrastive_loss(query, item, prior=0.2, hardness=1.0, temperature=1e9): math.log(9),
        bpr_loss(query, item[:5], item[-5:], temperature=1e9): math.log(2),
        logistic_loss(query, item[:5], item[-5:], temperature=1e9): 2 * math.log(2),
    }.items():
        assert float(loss) == pytest.approx(expected, abs=1e-7)


@given(SEEDS, st.floats(-3, 3))
@check
def test_a_shift_of_a_query_s_logits_changes_no_loss_but_those_that_know_zero(drawn, form, seed, shift):
    """A further dimension, constant over the items, adds the same to all logits of a row."""
    query, item = drawn(seed, (5, 3), (7, 3))
    wide = torch.cat([query, torch.full((5, 1), shift, dtype=torch.float64)], dim=1)
    wide_item = torch.cat([item, torch.ones(7, 1, dtype=torch.float64)], dim=1)
    for loss in (info_nce_loss, decoupled_contrastive_loss):
        assert_close(loss(wide, wide_item, temperature=0.5), loss(query, item, temperature=0.5))
    pair, wide_pair = (query, item[:5]), (wide, wide_item[:5])
    assert_close(bpr_loss(*wide_pair, wide_item[-5:]), bpr_loss(*pair, item[-5:]))
    assert_close(sigmoid_loss(*wide_pair, temperature=1.0, bias=-shift), sigmoid_loss(*pair, temperature=1.0, bias=0.0))
