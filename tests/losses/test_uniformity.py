"""Alignment and uniformity are their formulas, on the sphere whatever the vectors' lengths."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import alignment, uniformity

check = settings(deadline=None, max_examples=25, derandomize=True)
SEEDS = st.integers(0, 1000)


def on_the_sphere(vector: list[float]) -> list[float]:
    return [x / math.hypot(*vector) for x in vector]


@given(SEEDS, st.sampled_from([1.0, 1.5, 2.0, 3.0]))
@check
def test_alignment_is_its_formula_term_by_term(drawn, seed, power):
    first, second = drawn(seed, (5, 3), (5, 3))
    distances = [
        math.dist(on_the_sphere(x), on_the_sphere(y)) for x, y in zip(first.tolist(), second.tolist(), strict=True)
    ]
    assert float(alignment(first, second, power=power)) == pytest.approx(sum(d**power for d in distances) / 5)


@pytest.mark.parametrize("power", [0.5, 0.0, -1.0, math.inf, math.nan])
def test_a_power_below_one_has_no_gradient_at_equal_vectors_and_is_refused(power):
    with pytest.raises(InputError, match=r"power is .* at least 1"):
        alignment(torch.eye(2), torch.eye(2), power=power)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_equal_vectors_are_aligned_with_gradient_zero(power):
    first = torch.eye(3, requires_grad=True)
    alignment(first, torch.eye(3), power=power).backward()
    assert (first.grad == 0).all()


@given(SEEDS, st.sampled_from([0.5, 2.0, 5.0]))
@check
def test_uniformity_is_its_formula_term_by_term(drawn, form, seed, sharpness):
    (x,) = drawn(seed, (6, 3))
    points = [on_the_sphere(row) for row in x.tolist()]
    potentials = [
        math.exp(-sharpness * math.dist(points[i], points[j]) ** 2) for i in range(6) for j in range(6) if i != j
    ]
    expected = math.log(sum(potentials) / len(potentials))
    assert float(uniformity(x, sharpness=sharpness)) == pytest.approx(expected, rel=1e-9)


def test_the_gradients_are_those_of_finite_differences(drawn, form):
    first, second = (side.requires_grad_() for side in drawn(0, (5, 3), (5, 3)))
    assert torch.autograd.gradcheck(alignment, (first, second))
    assert torch.autograd.gradcheck(lambda x: alignment(x, second, power=1.0), first)
    assert torch.autograd.gradcheck(uniformity, first)


@given(SEEDS)
@check
def test_order_lengths_and_rotations_change_nothing(drawn, form, seed):
    first, second, turn, stretch = drawn(seed, (5, 3), (5, 3), (3, 3), (5, 1))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    moved, partner = (((side * stretch.exp()) @ torch.linalg.qr(turn).Q)[order] for side in (first, second))
    assert_close(alignment(moved, partner), alignment(first, second))
    assert_close(uniformity(moved), uniformity(first))


def test_known_values():
    eye = torch.eye(4, dtype=torch.float64)
    assert alignment(eye, 3 * eye) == 0
    assert float(alignment(eye, -eye, power=3)) == pytest.approx(8)
    assert float(uniformity(eye)) == pytest.approx(-4)  # all at squared distance 2
    assert float(uniformity(torch.cat([eye, -eye]))) == pytest.approx(
        math.log((6 * math.exp(-4) + math.exp(-8)) / 7), rel=1e-9
    )


def test_vectors_all_alike_are_perfectly_aligned_and_not_spread_at_all(form):
    same = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
    assert alignment(same, same) == 0
    assert float(uniformity(same).detach()) == pytest.approx(0, abs=1e-12)
    for value in (alignment(same, same.detach()), uniformity(same)):
        assert torch.autograd.grad(value, same)[0].abs().max() < 1e-12


def test_sharp_potentials_and_zero_vectors_give_finite_values_and_gradients(drawn, form):
    (x,) = drawn(0, (5, 3), dtype=torch.float32)
    for vectors in (x, torch.zeros(5, 3)):
        vectors.requires_grad_()
        value = uniformity(vectors, sharpness=5_000.0)
        assert value.isfinite()
        assert torch.autograd.grad(value, vectors)[0].isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (3,), (2, 2, 2)])
def test_uniformity_needs_a_pair(shape):
    with pytest.raises(InputError) as caught:
        uniformity(torch.ones(shape))
    assert str(shape) in str(caught.value)
    assert "n >= 2" in str(caught.value)


@pytest.mark.parametrize(("first", "second"), [((3, 2), (2, 2)), ((3, 2), (3, 3)), ((0, 2), (0, 2)), ((3,), (3,))])
def test_alignment_needs_pairs(first, second):
    with pytest.raises(InputError) as caught:
        alignment(torch.ones(first), torch.ones(second))
    assert f"first {first} and second {second}" in str(caught.value)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_powers_and_sharpness_that_are_no_positive_number_are_refused(value):
    with pytest.raises(InputError, match=f"power is {value}"):
        alignment(torch.eye(2), torch.eye(2), power=value)
    with pytest.raises(InputError, match=f"sharpness is {value}"):
        uniformity(torch.eye(2), sharpness=value)


@pytest.mark.parametrize("bad", [torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), torch.eye(2).long()])
def test_vectors_that_cannot_be_compared_are_refused(bad):
    for measure in (lambda: alignment(bad, torch.eye(2)), lambda: uniformity(bad)):
        with pytest.raises(InputError, match=r"(first|embedding) has"):
            measure()
