"""Gradients through draws: unbiased by enumeration and by chance, one-hot draws that follow the policy."""

import math
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses.policy_gradient import (
    entropy,
    gumbel,
    gumbel_softmax_sample,
    leave_one_out_baseline,
    reinforce_loss,
)

THETA = torch.tensor([0.5, -1.0, 0.0, 1.5], dtype=torch.double)
REWARD = torch.tensor([10.0, 11.0, 9.0, 10.5], dtype=torch.double)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def exact_gradient() -> Tensor:
    theta = THETA.clone().requires_grad_()
    expected = (theta.softmax(0) * REWARD).sum()
    return torch.autograd.grad(expected, theta)[0]  # (N,)


def estimates(items: Tensor, baseline: str) -> Tensor:
    """The gradient of the expected reward as each row of draws ``(R, k)`` estimates it: ``(R, N)``."""
    theta = THETA.repeat(len(items), 1).requires_grad_()
    reward = REWARD[items]
    baselines = {
        "none": None,
        "others": leave_one_out_baseline(reward),
        "all": reward.mean(1, keepdim=True).expand_as(reward),
    }
    loss = reinforce_loss(theta.log_softmax(1).gather(1, items), reward, baseline=baselines[baseline])
    return -len(items) * torch.autograd.grad(loss, theta)[0]


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("baseline", ["none", "others"])
def test_reinforce_is_unbiased_over_all_outcomes(k: int, baseline: str) -> None:
    outcomes = torch.tensor(list(product(range(4), repeat=k)))
    chance = THETA.softmax(0)[outcomes].prod(1)
    assert_close(chance @ estimates(outcomes, baseline), exact_gradient())


def test_a_baseline_that_contains_its_own_draw_shrinks_the_gradient() -> None:
    outcomes = torch.tensor(list(product(range(4), repeat=3)))
    chance = THETA.softmax(0)[outcomes].prod(1)
    assert_close(chance @ estimates(outcomes, "all"), exact_gradient() * 2 / 3)


@pytest.mark.parametrize("baseline", ["none", "others"])
def test_reinforce_is_unbiased_over_many_draws(baseline: str) -> None:
    items = torch.multinomial(
        THETA.softmax(0).expand(20_000, -1), 4, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    found = estimates(items, baseline)
    standard_error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - exact_gradient()).abs() < 4 * standard_error).all()


def test_the_baseline_reduces_the_variance() -> None:
    items = torch.multinomial(
        THETA.softmax(0).expand(20_000, -1), 4, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    assert (estimates(items, "others").var(0) < estimates(items, "none").var(0) / 50).all()


def test_no_gradient_flows_into_rewards() -> None:
    reward, log_prob = uniform(2, 3).requires_grad_(), uniform(2, 3).log().requires_grad_()
    reinforce_loss(log_prob, reward, baseline=leave_one_out_baseline(reward)).backward()
    assert reward.grad is None
    assert log_prob.grad is not None


@pytest.mark.parametrize("shape", [(3, 1), (3,), (3, 0)])
def test_leaving_one_out_needs_two(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="k of at least 2"):
        leave_one_out_baseline(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 4), (2,), (0, 3)])
def test_draws_and_rewards_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        reinforce_loss(torch.zeros(shape), torch.zeros(2, 3) if shape == (2, 4) else torch.zeros(shape))


@pytest.mark.parametrize("broken", ["log_prob", "reward", "baseline"])
def test_reinforce_refuses_what_is_not_finite(broken: str) -> None:
    given = {name: torch.zeros(2, 3) for name in ("log_prob", "reward", "baseline")}
    given[broken][1, 2] = float("nan")
    with pytest.raises(InputError, match=f"{broken} has the value nan in row 1"):
        reinforce_loss(given["log_prob"], given["reward"], baseline=given["baseline"])


def test_gumbel_noise_has_gumbels_distribution() -> None:
    noise = gumbel(uniform(100_000))
    assert_close(noise.mean(), torch.tensor(0.5772, dtype=torch.double), atol=0.02, rtol=0)
    assert_close(noise.var(), torch.tensor(math.pi**2 / 6, dtype=torch.double), atol=0.04, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_gumbel_noise_is_finite_at_the_ends(dtype: torch.dtype) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    ends[1] = torch.nextafter(ends[1], ends[0])
    low, high = gumbel(ends).tolist()
    assert -10 < low < -4
    assert 15 < high < 40


@pytest.mark.parametrize("number", [1.0, -0.1, float("nan")])
def test_gumbel_refuses_numbers_outside(number: float) -> None:
    with pytest.raises(InputError, match="uniform"):
        gumbel(torch.tensor([0.5, number]))


def test_draws_follow_the_policy() -> None:
    log_p = THETA.log_softmax(0)[None]
    counts = gumbel_softmax_sample(log_p, gumbel(uniform(1, 20_000, 4))).sum((0, 1))
    assert chisquare(counts.numpy(), (20_000 * log_p.exp()[0]).numpy()).pvalue > 0.001
    assert chisquare(counts.numpy(), [5_000] * 4).pvalue < 1e-9


@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
def test_the_temperature_does_not_change_the_draw(temperature: float) -> None:
    log_p, noise = THETA.log_softmax(0)[None], gumbel(uniform(1, 50, 4))
    rows = gumbel_softmax_sample(log_p, noise, temperature=temperature)
    chosen = (log_p[:, None] + noise).argmax(-1)
    assert_close(rows, torch.nn.functional.one_hot(chosen, 4).double())


def test_masked_items_are_never_drawn_and_have_no_gradient() -> None:
    theta = THETA[None].clone().requires_grad_()
    log_p = theta.masked_fill(torch.tensor([[True, False, False, False]]), -torch.inf).log_softmax(1)
    rows = gumbel_softmax_sample(log_p, gumbel(uniform(1, 500, 4)))
    (rows @ REWARD).sum().backward()
    assert rows[..., 0].sum() == 0
    assert theta.grad[0, 0] == 0
    assert theta.grad.isfinite().all()
    assert theta.grad[0, 1:].abs().min() > 0


def test_the_relaxed_gradient_points_where_the_exact_one_does() -> None:
    theta = THETA[None].clone().requires_grad_()
    rows = gumbel_softmax_sample(theta.log_softmax(1), gumbel(uniform(1, 20_000, 4)), temperature=0.5)
    (found,) = torch.autograd.grad((rows @ REWARD).mean(), theta)
    assert torch.cosine_similarity(found[0], exact_gradient(), dim=0) > 0.95


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature is"):
        gumbel_softmax_sample(torch.zeros(1, 4), torch.zeros(1, 2, 4), temperature=temperature)


@pytest.mark.parametrize("shape", [(2, 4), (1, 2, 5), (2, 2, 4)])
def test_noise_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        gumbel_softmax_sample(torch.zeros(1, 4), torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_policies_that_are_none(value: float) -> None:
    broken = torch.tensor([[0.0, value]])
    with pytest.raises(InputError, match="log_p holds"):
        entropy(broken)
    with pytest.raises(InputError, match="log_p holds"):
        gumbel_softmax_sample(broken, torch.zeros(1, 1, 2))


def test_a_user_without_any_item() -> None:
    with pytest.raises(InputError, match="leave one unmasked"):
        entropy(torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf]]))


def test_entropy_counts_items() -> None:
    log_p = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]).log()
    assert_close(entropy(log_p).exp(), torch.tensor([1.0, 4.0]))


def test_entropy_has_a_gradient_beside_impossible_items() -> None:
    theta = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    masked = theta.masked_fill(torch.tensor([True, False, False]), -torch.inf)
    entropy(masked.log_softmax(0)).backward()
    assert theta.grad.isfinite().all()
    assert theta.grad[1] > 0 > theta.grad[2]
