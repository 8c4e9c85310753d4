"""Losses that decide pair by pair are their formulas; negatives repel, masked ones do not count."""

import math
from operator import mul

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import bpr_loss, logistic_loss, sigmoid_loss

check = settings(deadline=None, max_examples=25, derandomize=True)
SEEDS = st.integers(0, 1000)
TEMPERATURES = st.sampled_from([0.3, 1.0, 2.0])
TRIPLETS = (5, 3), (5, 3), (5, 2, 3)


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def dots(x: Tensor, y: Tensor) -> float:
    return sum(map(mul, x.tolist(), y.tolist()))


@given(SEEDS, TEMPERATURES)
@check
def test_logistic_and_bpr_are_their_formulas_term_by_term(drawn, seed, temperature):
    anchor, positive, negative = drawn(seed, *TRIPLETS)
    logistic, bpr = [], []
    for a, p, own in zip(anchor, positive, negative, strict=True):
        pushes = [dots(a, n) / temperature for n in own]
        pull = dots(a, p) / temperature
        logistic.append(softplus(-pull) + sum(softplus(push) for push in pushes))
        bpr.append(sum(softplus(push - pull) for push in pushes) / len(pushes))
    options = {"temperature": temperature, "reduction": "none"}
    assert_close(logistic_loss(anchor, positive, negative, **options), torch.tensor(logistic, dtype=torch.float64))
    assert_close(bpr_loss(anchor, positive, negative, **options), torch.tensor(bpr, dtype=torch.float64))


@given(SEEDS, TEMPERATURES, st.sampled_from([-10.0, 0.0, 1.5]), st.booleans())
@check
def test_the_sigmoid_loss_is_its_formula_term_by_term(drawn, seed, temperature, bias, masked):
    query, item, chance = drawn(seed, (5, 3), (5, 3), (5, 5))
    mask = chance < 0 if masked else None
    expected = torch.zeros(5, dtype=torch.float64)
    for b in range(5):
        for j in range(5):
            logit = dots(query[b], item[j]) / temperature + bias
            if j == b:
                expected[b] += softplus(-logit)
            elif not (masked and chance[b, j] < 0):
                expected[b] += softplus(logit)
    options = {"temperature": temperature, "bias": bias}
    assert_close(sigmoid_loss(query, item, mask=mask, reduction="none", **options), expected)
    by_function = None if mask is None else lambda rows: mask[rows]
    assert_close(sigmoid_loss(query, item, mask=by_function, **options), expected.mean())


@pytest.mark.parametrize("loss", [logistic_loss, bpr_loss])
def test_positives_attract_and_negatives_repel(loss, drawn):
    anchor, positive, negative = (side.requires_grad_() for side in drawn(1, *TRIPLETS))
    towards, away = torch.autograd.grad(loss(anchor, positive, negative), (positive, negative))
    assert ((towards * anchor).sum(1) < 0).all()
    assert ((away * anchor[:, None]).sum(2) > 0).all()


def test_one_negative_needs_no_dimension_of_its_own_and_several_are_summed_or_averaged(drawn):
    anchor, positive, negative = drawn(0, *TRIPLETS)
    one_by_one = [bpr_loss(anchor, positive, negative[:, k], reduction="none") for k in range(2)]
    assert_close(bpr_loss(anchor, positive, negative, reduction="none"), torch.stack(one_by_one).mean(0))
    halves = [logistic_loss(anchor, positive, negative[:, k], reduction="none") for k in range(2)]
    pull = torch.nn.functional.softplus(-(anchor * positive).sum(1))
    assert_close(logistic_loss(anchor, positive, negative, reduction="none"), halves[0] + halves[1] - pull)


def test_the_optimum_of_the_logistic_loss_is_the_shifted_mutual_information():
    """Four items, positives from p, k = 3 negatives from q: s = log p − log q − log k, as exact expectations."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    q = torch.tensor([0.1, 0.6, 0.1, 0.2], dtype=torch.float64)
    scores = (p.log() - q.log() - math.log(3)).requires_grad_()
    one = torch.ones(4, 1, dtype=torch.float64)
    pull = logistic_loss(one, scores[:, None], torch.full((4, 1), -800.0, dtype=torch.float64), reduction="none")
    push = logistic_loss(one, torch.full((4, 1), 800.0, dtype=torch.float64), scores[:, None], reduction="none")
    (gradient,) = torch.autograd.grad((p * pull + 3 * q * push).sum(), scores)
    assert gradient.abs().max() < 1e-12


def test_the_bias_starts_the_negatives_near_probability_zero():
    query = torch.zeros(100, 2)
    assert float(sigmoid_loss(query, query, bias=0.0)) == pytest.approx(100 * math.log(2), rel=1e-6)
    assert float(sigmoid_loss(query, query)) == pytest.approx(softplus(10) + 99 * softplus(-10), rel=1e-6)


def test_the_sigmoid_losss_positive_is_never_masked_and_without_negatives_it_stands_alone(drawn):
    query, item = drawn(2, (4, 3), (4, 3))
    options = {"temperature": 1.0, "bias": 0.5, "reduction": "none"}
    everything = torch.ones(4, 4, dtype=torch.bool)
    alone = torch.nn.functional.softplus(-(query * item).sum(1) - 0.5)
    assert_close(sigmoid_loss(query, item, mask=everything, **options), alone)
    assert_close(sigmoid_loss(query[:1], item[:1], **options), alone[:1])


def test_vectors_all_alike_do_not_stop_the_losses_that_know_a_scale():
    same = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    assert float(bpr_loss(same, same, same).detach()) == pytest.approx(math.log(2))
    assert torch.autograd.grad(bpr_loss(same, same, same), same)[0].abs().max() < 1e-12
    assert float(logistic_loss(same, same, same).detach()) == pytest.approx(softplus(-1) + softplus(1))
    assert torch.autograd.grad(logistic_loss(same, same, same), same)[0].abs().max() > 0.1


@pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 3), (4, 3), (3, 4), ()])
def test_the_mask_must_have_one_entry_per_logit(shape):
    query = torch.eye(3)
    with pytest.raises(InputError, match=r"mask .* does not fit; give bool, one per logit, \(3, 3\)"):
        sigmoid_loss(query, query, mask=torch.zeros(shape, dtype=torch.bool))


@pytest.mark.parametrize("bias", [torch.nan, torch.inf, torch.tensor(-torch.inf), torch.zeros(3)])
def test_a_bias_that_is_no_number_is_refused(bias):
    with pytest.raises(InputError, match=r"bias is .*; give one finite number"):
        sigmoid_loss(torch.eye(3), torch.eye(3), bias=bias)


@pytest.mark.parametrize("loss", [logistic_loss, bpr_loss])
def test_anchors_without_a_negative_are_refused(loss, drawn):
    with pytest.raises(InputError, match="0 negatives; give at least one"):
        loss(*drawn(0, (5, 3), (5, 3), (5, 0, 3)))
