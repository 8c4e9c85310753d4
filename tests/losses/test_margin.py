"""Losses with a margin are their formulas; they are silent where they should be, and defined at their corners."""

import math
from operator import mul

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import pairwise_contrastive_loss, soft_triplet_loss, triplet_loss
from recsys_cl.losses.margin import distance

check = settings(deadline=None, max_examples=25, derandomize=True)
SEEDS = st.integers(0, 1000)
KINDS = ["euclidean", "squared", "cosine"]
TRIPLETS = (5, 3), (5, 3), (5, 2, 3)


def by_hand(x: Tensor, y: Tensor, kind: str) -> float:
    x, y = x.tolist(), y.tolist()
    match kind:
        case "euclidean":
            return math.dist(x, y)
        case "squared":
            return math.dist(x, y) ** 2
        case _:
            return 1 - sum(map(mul, x, y)) / (math.hypot(*x) * math.hypot(*y))


def mean(terms: list[float]) -> float:
    return sum(terms) / len(terms)


@pytest.mark.parametrize("kind", KINDS)
@given(SEEDS, st.floats(0.01, 3))
@check
def test_triplet_losses_are_their_formulas_term_by_term(kind, drawn, seed, margin):
    anchor, positive, negative = drawn(seed, *TRIPLETS)
    gaps = [
        [by_hand(a, p, kind) - by_hand(a, n, kind) for n in own]
        for a, p, own in zip(anchor, positive, negative, strict=True)
    ]
    hinged = torch.tensor([mean([max(0, gap + margin) for gap in row]) for row in gaps], dtype=torch.float64)
    soft = torch.tensor([mean([math.log(1 + math.exp(gap)) for gap in row]) for row in gaps], dtype=torch.float64)
    triplets, options = (anchor, positive, negative), {"distance": kind, "reduction": "none"}
    assert_close(triplet_loss(*triplets, margin=margin, **options), hinged)
    assert_close(soft_triplet_loss(*triplets, **options), soft)


@given(SEEDS, st.floats(0.1, 4))
@check
def test_the_pairwise_loss_is_its_formula_term_by_term(drawn, seed, margin):
    anchor, positive, negative = drawn(seed, *TRIPLETS)
    expected = [
        math.dist(a, p) ** 2 / 2 + mean([max(0, margin - math.dist(a, n)) ** 2 / 2 for n in own])
        for a, p, own in zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True)
    ]
    losses = pairwise_contrastive_loss(anchor, positive, negative, margin=margin, reduction="none")
    assert_close(losses, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("loss", [triplet_loss, soft_triplet_loss, pairwise_contrastive_loss])
def test_one_negative_needs_no_dimension_of_its_own_and_several_are_averaged(loss, drawn):
    anchor, positive, negative = drawn(0, *TRIPLETS)
    one_by_one = [loss(anchor, positive, negative[:, k], reduction="none") for k in range(2)]
    assert_close(loss(anchor, positive, negative, reduction="none"), torch.stack(one_by_one).mean(0))


@pytest.mark.parametrize("loss", [triplet_loss, soft_triplet_loss, pairwise_contrastive_loss])
@given(SEEDS)
@check
def test_only_differences_count(loss, drawn, seed):
    anchor, positive, negative = drawn(seed, *TRIPLETS)
    shift = drawn(seed + 1, (3,))[0]
    assert_close(loss(anchor + shift, positive + shift, negative + shift), loss(anchor, positive, negative))


def test_the_worked_example_is_a_violated_triplet():
    """By Euclidean distance .5099 and .4243, by cosine .61 and .85: the positive is the farther one in both."""
    u = torch.tensor([[0.2, 0.3, 0.1, 0.4]])
    p, n = torch.tensor([[0.1, 0.3, 0.5, 0.1]]), torch.tensor([[0.5, 0.1, 0.3, 0.5]])
    assert float(triplet_loss(u, p, n, margin=0.1)) == pytest.approx(0.26**0.5 - 0.18**0.5 + 0.1)
    assert float(triplet_loss(u, p, n, margin=0.1, distance="squared")) == pytest.approx(0.26 - 0.18 + 0.1)
    gap = 0.36 / (0.3 * 0.6) ** 0.5 - 0.20 / (0.3 * 0.36) ** 0.5
    assert float(triplet_loss(u, p, n, margin=0.1, distance="cosine")) == pytest.approx(gap + 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_satisfied_triplet_is_silent_and_a_soft_one_still_pulls(kind):
    anchor = torch.tensor([[1.0, 0.0]], requires_grad=True)
    positive, negative = torch.tensor([[1.0, 0.1]]), torch.tensor([[-1.0, 1.0]])
    assert triplet_loss(anchor, positive, negative, distance=kind) == 0
    (silent,) = torch.autograd.grad(triplet_loss(anchor, positive, negative, distance=kind), anchor)
    (soft,) = torch.autograd.grad(soft_triplet_loss(anchor, positive, negative, distance=kind), anchor)
    assert silent.abs().max() == 0
    assert soft.abs().max() > 0


def test_a_step_along_the_gradient_brings_the_positive_closer_than_the_negative(drawn):
    """Signs: everything is pushed the way that its name says."""
    anchor, positive, negative = (side.requires_grad_() for side in drawn(4, (1, 3), (1, 3), (1, 3)))
    for loss in (
        triplet_loss(anchor, positive, negative, margin=9.0),
        soft_triplet_loss(anchor, positive, negative),
        pairwise_contrastive_loss(anchor, positive, negative, margin=9.0),
    ):
        nearer, farther = torch.autograd.grad(loss, (positive, negative))
        assert ((anchor - positive) * nearer).sum() < 0
        assert ((anchor - negative) * farther).sum() > 0


def test_negatives_beyond_the_margin_leave_the_pairwise_loss_to_the_positive():
    anchor, positive = torch.zeros(1, 2), torch.tensor([[0.3, 0.4]])
    near, far = torch.tensor([[0.0, 0.9]]), torch.tensor([[0.0, 1.1]])
    assert float(pairwise_contrastive_loss(anchor, positive, far)) == pytest.approx(0.125)
    assert float(pairwise_contrastive_loss(anchor, positive, near)) == pytest.approx(0.125 + 0.005)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_all_alike_cost_the_margin_and_teach_nothing(kind):
    same = torch.full((4, 3), 0.7, dtype=torch.float64, requires_grad=True)
    loss = triplet_loss(same, same, same, margin=0.3, distance=kind)
    assert float(loss.detach()) == pytest.approx(0.3)
    assert torch.autograd.grad(loss, same)[0].abs().max() < 1e-12
    soft = soft_triplet_loss(same, same, same, distance=kind)
    assert float(soft.detach()) == pytest.approx(math.log(2))
    pairs = pairwise_contrastive_loss(same, same, same, margin=0.3)
    assert float(pairs.detach()) == pytest.approx(0.3**2 / 2)
    assert torch.autograd.grad(pairs, same)[0].abs().max() == 0


def test_a_zero_vector_has_cosine_distance_one_to_everything_and_can_leave(drawn):
    zero = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    positive, negative = drawn(0, (3, 4), (3, 4))
    assert_close(distance(zero, positive, "cosine"), torch.ones(3, dtype=torch.float64))
    loss = triplet_loss(zero, positive, negative, distance="cosine", reduction="sum")
    assert float(loss.detach()) == pytest.approx(3 * 0.2)
    (gradient,) = torch.autograd.grad(loss, zero)
    assert 0 < gradient.norm(dim=1).min() <= gradient.norm(dim=1).max() <= 2


@given(SEEDS)
@check
def test_the_cosine_distance_is_half_the_squared_one_between_unit_vectors(drawn, seed):
    x, y = (side / side.norm(dim=1, keepdim=True) for side in drawn(seed, (5, 3), (5, 3)))
    assert_close(distance(x, y, "cosine"), distance(x, y, "squared") / 2)


@pytest.mark.parametrize("loss", [triplet_loss, soft_triplet_loss])
def test_a_distance_of_another_name_is_refused(loss, drawn):
    with pytest.raises(InputError, match="no distance 'manhattan'; choose from 'euclidean', 'squared', 'cosine'"):
        loss(*drawn(0, *TRIPLETS), distance="manhattan")


@pytest.mark.parametrize("loss", [triplet_loss, pairwise_contrastive_loss])
@pytest.mark.parametrize("margin", [0.0, -0.5, torch.nan, torch.inf])
def test_margins_that_are_no_positive_number_are_refused(loss, margin, drawn):
    with pytest.raises(InputError, match=f"margin is {margin}; give one number above 0"):
        loss(*drawn(0, *TRIPLETS), margin=margin)


@pytest.mark.parametrize("loss", [triplet_loss, soft_triplet_loss, pairwise_contrastive_loss])
def test_anchors_without_a_negative_are_refused(loss, drawn):
    with pytest.raises(InputError, match="0 negatives; give at least one"):
        loss(*drawn(0, (5, 3), (5, 3), (5, 0, 3)))
