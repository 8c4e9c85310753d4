"""What losses share: vectors that can be compared, units, reductions, and a temperature that is learned."""

import math

import pytest
import torch
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import LearnedTemperature, info_nce_loss
from recsys_cl.losses.checks import check_positive, comparable, own_negatives, reduce, unit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_to_single_and_nothing_else_changes_type(dtype):
    half, single = comparable(half=torch.ones(2, 3, dtype=dtype), single=torch.ones(2, 3))
    assert half.dtype == single.dtype == torch.float32
    (double,) = comparable(double=torch.ones(2, 3, dtype=torch.float64))
    assert double.dtype == torch.float64


def test_single_and_double_precision_are_not_mixed():
    with pytest.raises(InputError, match=r"query of torch.float32, item of torch.float64 cannot be compared"):
        info_nce_loss(torch.eye(2), torch.eye(2, dtype=torch.float64))


def test_a_scalar_that_is_not_finite_is_reported_and_not_an_index_error():
    with pytest.raises(InputError, match="nan"):
        comparable(query=torch.tensor(torch.nan))


@pytest.mark.parametrize("option", ["negative_mask", "negative_log_q"])
def test_what_is_said_about_missing_negatives_is_not_ignored(option):
    with pytest.raises(InputError, match="`negative`, which is missing"):
        info_nce_loss(torch.eye(2), torch.eye(2), **{option: torch.zeros(2, 1)})


def test_finite_values_whose_sum_overflows_are_comparable():
    (large,) = comparable(large=torch.full((4, 2), 60_000.0, dtype=torch.float16))
    assert large.max() == 60_000
    comparable(large=torch.full((4, 2), 3e38))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_value_that_is_not_finite_is_named_with_its_row(value):
    vectors = torch.zeros(4, 2, 3)
    vectors[2, 1, 0] = value
    with pytest.raises(InputError, match=f"negative has the value {value} in row 2"):
        comparable(negative=vectors)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_what_is_not_floating_point_is_named_with_its_type(dtype):
    with pytest.raises(InputError, match=f"item has dtype {dtype}"):
        comparable(item=torch.zeros(2, 2, dtype=dtype))


def test_units_have_length_one_and_zero_stays_zero(drawn):
    (x,) = drawn(0, (4, 3))
    x[1] = 0
    assert_close(unit(x).norm(dim=1), torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64))
    assert_close(unit(7 * x), unit(x))
    assert_close(unit(x)[0] * x[0].norm(), x[0])


def test_the_gradient_of_a_unit_is_across_it_and_at_zero_that_of_length_one(drawn):
    x, weight = drawn(1, (3, 3), (3, 3))
    assert torch.autograd.gradcheck(unit, x.requires_grad_())
    (gradient,) = torch.autograd.grad((unit(x) * weight).sum(), x)
    assert_close((gradient * x).sum(1), torch.zeros(3, dtype=torch.float64))
    zero = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    assert_close(torch.autograd.grad((unit(zero) * weight).sum(), zero)[0], weight)


def test_reductions_by_name():
    rows = torch.tensor([1.0, 2.0, 6.0])
    assert reduce(rows, "mean") == 3
    assert reduce(rows, "sum") == 9
    assert reduce(rows, "none") is rows
    with pytest.raises(InputError, match="no reduction 'average'; choose from 'mean', 'sum', 'none'"):
        reduce(rows, "average")


@pytest.mark.parametrize("value", [1e-9, 3, torch.tensor(0.5), torch.tensor([0.5]), torch.nn.Parameter(torch.ones(()))])
def test_numbers_above_zero_are_accepted(value):
    check_positive("temperature", value)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, torch.tensor(-0.5), torch.ones(2), torch.ones(0)])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"width is .*; give one number above 0"):
        check_positive("width", value)


def test_own_negatives_are_one_row_each_or_k_of_them():
    anchor = torch.zeros(4, 3)
    assert own_negatives(anchor, torch.zeros(4, 3)).shape == (4, 1, 3)
    assert own_negatives(anchor, torch.zeros(4, 5, 3)).shape == (4, 5, 3)
    for shape in [(5, 3), (4, 2), (3,), (1, 4, 3), (5, 4, 3), (4, 5, 2), (1, 1, 4, 3)]:
        with pytest.raises(InputError) as caught:
            own_negatives(anchor, torch.zeros(shape))
        assert str(shape) in str(caught.value)


def test_a_learned_temperature_starts_where_it_is_told():
    assert float(LearnedTemperature()().detach()) == pytest.approx(0.07)
    assert float(LearnedTemperature(2.0)().detach()) == pytest.approx(2.0)
    assert float(LearnedTemperature(0.01)().detach()) == pytest.approx(0.01)


def test_steps_are_relative():
    """Its logarithm is learned: the same gradient halves any temperature by the same factor."""
    shrunk = []
    for initial in (0.1, 1.0):
        temperature = LearnedTemperature(initial)
        temperature.log_scale.grad = torch.tensor(-1.0)
        torch.optim.SGD(temperature.parameters(), lr=0.5).step()
        shrunk.append(float(temperature().detach()) / initial)
    assert shrunk == pytest.approx([math.exp(-0.5)] * 2)


def test_the_floor_holds_the_parameter_and_its_gradient_stays_alive():
    temperature = LearnedTemperature(0.02, lowest=0.01)
    with torch.no_grad():
        temperature.log_scale += 50
    assert float(temperature().detach()) == pytest.approx(0.01)
    assert float(temperature.log_scale.detach()) == pytest.approx(-math.log(0.01))
    temperature().backward()
    assert float(temperature.log_scale.grad) == pytest.approx(-0.01)


def test_a_temperature_at_the_floor_falls_no_further_and_can_rise_again():
    """Positives first by far: sharper is better. Positives last: blunter is."""
    temperature = LearnedTemperature(0.011)
    query = torch.eye(3)

    def step(item: torch.Tensor, rate: float) -> float:
        temperature.zero_grad()
        info_nce_loss(query, item, temperature=temperature()).backward()
        assert temperature.log_scale.grad.abs() > 0
        torch.optim.SGD(temperature.parameters(), lr=rate).step()
        return float(temperature().detach())

    assert step(0.05 * query, rate=10.0) == pytest.approx(0.01)
    assert step(0.05 * query, rate=10.0) == pytest.approx(0.01)
    assert step(-query, rate=0.01) > 0.02


def test_a_learned_temperature_is_stored_and_restored():
    temperature, other = LearnedTemperature(0.3), LearnedTemperature(0.9)
    assert list(temperature.state_dict()) == ["log_scale"]
    other.load_state_dict(temperature.state_dict())
    assert other().equal(temperature())


@pytest.mark.parametrize("lowest", [0.0, -1.0, math.nan, math.inf])
def test_floors_that_are_no_positive_number_are_refused(lowest):
    with pytest.raises(InputError, match=f"lowest is {lowest}; give one number above 0"):
        LearnedTemperature(1.0, lowest=lowest)


@pytest.mark.parametrize("initial", [0.009, 0.0, -1.0, math.nan, math.inf])
def test_starts_below_the_floor_are_refused(initial):
    with pytest.raises(InputError, match=f"initial is {initial}; give a temperature of at least lowest = 0.01"):
        LearnedTemperature(initial)
