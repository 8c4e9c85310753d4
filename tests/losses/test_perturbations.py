"""Perturbations: the analytic optimum of a linear loss, norms, and the identities between the attacks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses.perturbations import (
    divergence,
    gradient_at,
    pgd,
    project,
    random_perturbation,
    sign_preserving_noise,
    steepest,
    virtual_direction,
)

NORMS = {"l2": 2, "linf": float("inf")}
DUAL = {"l2": 2, "linf": 1}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("steps", [1, 5])
def test_on_a_linear_loss_the_perturbation_is_the_analytic_one(norm: str, steps: int) -> None:
    slope = torch.randn(6, 5, dtype=torch.float64)
    found = pgd(lambda move: (slope * move).sum(), torch.zeros_like(slope), 0.3, steps=steps, norm=norm)
    lengths = torch.linalg.vector_norm(slope, ord=DUAL[norm], dim=-1)
    assert_close((slope * found).sum(-1), 0.3 * lengths, rtol=0, atol=1e-6)
    others = project(torch.randn(1000, 6, 5, dtype=torch.float64), 0.3, norm=norm)
    assert ((slope * others).sum(-1) <= (slope * found).sum(-1) + 1e-12).all()


def test_one_step_from_zero_is_fgm() -> None:
    vectors = torch.randn(4, 3)

    def loss(move: torch.Tensor) -> torch.Tensor:
        return ((vectors + move) ** 3).logsumexp(1).sum()

    zeros = torch.zeros(4, 3)
    assert_close(pgd(loss, zeros, 0.2, steps=1), steepest(gradient_at(loss, zeros), 0.2), rtol=0, atol=1e-6)


def test_more_steps_find_more_where_one_is_misled() -> None:
    def loss(move: torch.Tensor) -> torch.Tensor:  # the slope at zero points along y alone
        x, y = move[0]
        return 4 * x * y + 0.1 * y + 0.05 * x

    zeros = torch.zeros(1, 2)
    one, many = (float(loss(pgd(loss, zeros, 1.0, steps=steps))) for steps in (1, 40))
    angle = torch.linspace(0, 2 * torch.pi, 10_000)
    exact = float((4 * angle.cos() * angle.sin() + 0.1 * angle.sin() + 0.05 * angle.cos()).max())
    assert one < 0.9 * exact
    assert many == pytest.approx(exact, rel=1e-2)


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(-38, 30),
    epsilon=st.floats(1e-3, 1e3),
    norm=st.sampled_from(list(NORMS)),
    shape=st.sampled_from([(3,), (1, 1), (4, 7), (2, 3, 5)]),
    seed=st.integers(0, 2**31 - 1),
)
def test_perturbations_are_no_longer_than_allowed(
    scale: float, epsilon: float, norm: str, shape: tuple[int, ...], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(shape, generator=generator) * 10**scale
    made = [steepest(vectors, epsilon, norm=norm), project(vectors, epsilon, norm=norm)]
    made.append(pgd(lambda move: (move * vectors).tanh().sum(), torch.zeros(shape), epsilon, steps=3, norm=norm))
    if norm == "l2":
        made += [random_perturbation(vectors, epsilon), sign_preserving_noise(vectors, epsilon)]
    for move in made:
        lengths = torch.linalg.vector_norm(move, ord=NORMS[norm], dim=-1)
        assert move.isfinite().all()
        assert (lengths <= epsilon * (1 + 1e-5)).all()


def test_a_vector_without_gradient_stays() -> None:
    gradient = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert steepest(gradient, 1.0).tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_random_directions_have_no_preference() -> None:
    moves = random_perturbation(torch.zeros(20_000, 8), 2.0)
    assert_close(moves.norm(dim=1), torch.full((20_000,), 2.0))
    assert_close(moves.mean(0), torch.zeros(8), rtol=0, atol=4 * 2 / 8**0.5 / 20_000**0.5)
    assert_close(moves.T @ moves / 20_000, torch.eye(8) * 4 / 8, rtol=0, atol=0.03)


def test_noise_of_views_stays_in_the_orthant() -> None:
    vectors = torch.randn(50, 6)
    noise = sign_preserving_noise(vectors, 0.1)
    assert_close(noise.norm(dim=1), torch.full((50,), 0.1))
    assert (noise * vectors >= 0).all()


def test_virtual_direction_is_the_leading_eigenvector() -> None:
    weight = torch.diag(torch.tensor([5.0, 1.0, 1.0, 0.5])).double()
    vectors = torch.randn(3, 4, dtype=torch.float64)

    def change(move: torch.Tensor) -> torch.Tensor:
        return divergence(vectors @ weight, (vectors + move) @ weight)

    found = virtual_direction(change, vectors, 0.01, iterations=200)
    p = (vectors @ weight).softmax(1)
    for row in range(3):
        fisher = weight @ (p[row].diag() - p[row][:, None] * p[row]) @ weight  # the Hessian of KL at zero
        leading = torch.linalg.eigh(fisher).eigenvectors[:, -1]
        assert abs(float(leading @ found[row]) / 0.01) == pytest.approx(1, abs=5e-3)


def test_divergence_is_that_of_torch() -> None:
    clean, moved = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    value = divergence(clean, moved)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=clean), torch.distributions.Categorical(logits=moved)
    ).mean()
    assert_close(value, expected)
    value.backward()
    assert clean.grad is None
    assert moved.grad is not None


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_lengths_that_are_none(epsilon: float) -> None:
    for make in (steepest, project, random_perturbation, sign_preserving_noise):
        with pytest.raises(InputError, match="epsilon"):
            make(torch.ones(2, 3), epsilon)
    with pytest.raises(InputError, match="epsilon"):
        pgd(lambda move: move.sum(), torch.zeros(2), epsilon)


def test_integers_cannot_be_moved() -> None:
    with pytest.raises(InputError, match="int64"):
        pgd(lambda move: move.sum(), torch.zeros(2, 3, dtype=torch.int64), 0.1)


def test_a_loss_that_does_not_see_the_perturbation() -> None:
    weight = torch.ones(3, requires_grad=True)
    for loss in (lambda move: weight.sum(), lambda move: torch.ones(())):
        with pytest.raises(InputError, match="does not depend on the perturbation"):
            pgd(loss, torch.zeros(3), 0.1)


def test_no_steps_and_no_norm() -> None:
    with pytest.raises(InputError, match="steps=0"):
        pgd(lambda move: move.sum(), torch.zeros(3), 0.1, steps=0)
    with pytest.raises(InputError, match="l7"):
        steepest(torch.ones(3), 0.1, norm="l7")  # type: ignore[arg-type]


def test_parameters_get_no_gradient_from_an_attack() -> None:
    weight = torch.ones(3, requires_grad=True)
    pgd(lambda move: (weight * move).sum(), torch.zeros(3), 0.1, steps=4)
    assert weight.grad is None


def test_what_a_random_move_is_like_lends_its_shape_alone() -> None:
    moves = random_perturbation(torch.full((3, 4), torch.nan), 0.5)
    assert_close(moves.norm(dim=1), torch.full((3,), 0.5))
