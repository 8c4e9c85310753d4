"""InfoNCE is cross-entropy on the diagonal; masks and corrections do what they say and nothing else."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import info_nce_loss

check = settings(deadline=None, max_examples=40, derandomize=True)
SEEDS = st.integers(0, 1000)


def batch(seed: int, size: int = 5, extra: int = 0, dim: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2 * size + extra, dim, generator=generator, dtype=torch.float64)
    return draw[:size], draw[size:]


def by_loop(query: Tensor, item: Tensor, temperature: float, mask: Tensor | None, log_q: Tensor | None) -> Tensor:
    """The formula, term by term."""
    losses = []
    for b in range(len(query)):
        terms = {}
        for j in range(len(item)):
            if j == b or mask is None or not mask[b, j]:
                terms[j] = float(query[b] @ item[j]) / temperature - (0.0 if log_q is None else float(log_q[j]))
        losses.append(math.log(sum(math.exp(term) for term in terms.values())) - terms[b])
    return torch.tensor(losses, dtype=torch.float64)


@given(SEEDS)
@check
def test_infonce_is_cross_entropy_on_the_diagonal(seed):
    query, item = batch(seed)
    expected = F.cross_entropy(query @ item.T / 0.3, torch.arange(5))
    assert_close(info_nce_loss(query, item, temperature=0.3), expected)


@given(SEEDS, st.integers(0, 4), st.sampled_from([0.05, 0.5, 2.0]), st.booleans(), st.booleans())
@check
def test_infonce_is_its_formula_term_by_term(seed, extra, temperature, masked, corrected):
    query, item = batch(seed, extra=extra)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(5, 5 + extra, generator=generator) < 0.4 if masked else None
    log_q = torch.rand(5 + extra, generator=generator, dtype=torch.float64).log() if corrected else None
    expected = by_loop(query, item, temperature, mask, log_q)
    options = {"temperature": temperature, "mask": mask, "log_q": log_q}
    assert_close(info_nce_loss(query, item, reduction="none", **options), expected)
    assert_close(info_nce_loss(query, item, **options), expected.mean())
    assert_close(info_nce_loss(query, item, reduction="sum", **options), expected.sum())


@pytest.mark.parametrize("extra", [0, 3])
def test_the_gradient_is_that_of_finite_differences(extra, form):
    query, item = (side.requires_grad_() for side in batch(0, extra=extra))
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    log_q = torch.rand(5 + extra, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).log()
    mask = torch.rand(5, 5 + extra, generator=torch.Generator().manual_seed(2)) < 0.3

    def loss(query: Tensor, item: Tensor, temperature: Tensor) -> Tensor:
        return info_nce_loss(query, item, temperature=temperature, mask=mask, log_q=log_q)

    assert torch.autograd.gradcheck(loss, (query, item, temperature))


def test_a_masked_item_receives_no_gradient_from_the_row_that_masks_it():
    query, item = (side.requires_grad_() for side in batch(3))
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[0, 2] = True
    rows = info_nce_loss(query, item, mask=mask, reduction="none")
    (gradient,) = torch.autograd.grad(rows[0], item, retain_graph=True)
    assert gradient[2].abs().max() == 0
    assert gradient[1].abs().max() > 0
    (other,) = torch.autograd.grad(rows[1], item)
    assert other[2].abs().max() > 0


@given(SEEDS)
@check
def test_masking_equals_leaving_the_item_out(seed):
    query, item = batch(seed, size=1, extra=4)
    mask = torch.tensor([[False, True, False, True, False]])
    expected = info_nce_loss(query, item[[0, 2, 4]], temperature=0.5)
    assert_close(info_nce_loss(query, item, temperature=0.5, mask=mask), expected)


def test_the_positive_is_never_masked():
    query, item = batch(4)
    assert_close(
        info_nce_loss(query, item, mask=torch.eye(5, dtype=torch.bool), reduction="none"),
        info_nce_loss(query, item, reduction="none"),
    )
    everything = info_nce_loss(query, item, mask=torch.ones(5, 5, dtype=torch.bool), reduction="none")
    assert_close(everything, torch.zeros(5, dtype=torch.float64))


def test_the_mask_is_left_as_it_was():
    query, item = batch(4)
    mask = torch.ones(5, 5, dtype=torch.bool)
    info_nce_loss(query, item, mask=mask)
    assert mask.all()


@given(SEEDS, st.floats(-5, 5))
@check
def test_log_q_counts_up_to_a_constant(seed, shift):
    query, item = batch(seed)
    log_q = torch.linspace(-3, -1, 5, dtype=torch.float64)
    assert_close(info_nce_loss(query, item, log_q=log_q), info_nce_loss(query, item, log_q=log_q + shift))


@given(SEEDS)
@check
def test_the_order_of_the_pairs_and_of_the_extra_negatives_changes_nothing(seed):
    query, item = batch(seed, extra=3)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    moved = torch.cat([item[:5][order], item[5:].flip(0)])
    assert_close(
        info_nce_loss(query[order], moved, reduction="none"), info_nce_loss(query, item, reduction="none")[order]
    )


def test_every_further_negative_raises_the_loss():
    query, item = batch(5, extra=6)
    losses = [float(info_nce_loss(query, item[:n])) for n in range(5, 12)]
    assert losses == sorted(set(losses))


def test_vectors_that_say_nothing_cost_the_log_of_the_number_of_items():
    assert float(info_nce_loss(torch.zeros(4, 2), torch.zeros(9, 2))) == pytest.approx(math.log(9))


def test_a_low_temperature_looks_at_the_hardest_negative_only():
    """In the limit the loss times the temperature is the hinge between the positive and the best rival."""
    query, item = batch(6)
    scores = query @ item.T
    rival = scores.masked_fill(torch.eye(5, dtype=torch.bool), -torch.inf).max(1).values
    limit = (rival - scores.diagonal()).clamp(min=0)
    assert_close(1e-3 * info_nce_loss(query, item, temperature=1e-3, reduction="none"), limit, atol=1e-3, rtol=0)


def optimum(p: Tensor, q: Tensor, *, corrected: bool, negatives: int = 2) -> Tensor:
    """Scores that minimise the exact expectation over a positive from p and negatives from q, by Newton steps."""
    scores = torch.zeros_like(p, requires_grad=True)
    worlds = [
        (world, p[world[0]] * q[list(world[1:])].prod()) for world in product(range(len(p)), repeat=1 + negatives)
    ]
    solver = torch.optim.LBFGS([scores], max_iter=60, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def expectation() -> Tensor:
        solver.zero_grad()
        one = torch.ones(1, 1, dtype=p.dtype)
        total = torch.zeros((), dtype=p.dtype)
        for world, chance in worlds:
            items = list(world)
            log_q = q[items].log() if corrected else None
            total = total + chance * info_nce_loss(one, scores[items][:, None], temperature=1.0, log_q=log_q)
        total.backward()
        return total

    solver.step(expectation)
    return scores.detach()


def test_the_correction_recovers_log_p_where_popularity_would_be_held_down():
    """Exact enumeration of four items and two negatives: no sampling error, only the optimiser's."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    q = torch.tensor([0.1, 0.6, 0.1, 0.2], dtype=torch.float64)
    with_correction, without = optimum(p, q, corrected=True), optimum(p, q, corrected=False)
    assert_close(with_correction - with_correction[0], (p / p[0]).log(), atol=1e-4, rtol=0)
    assert_close(without - without[0], (p / q / (p[0] / q[0])).log(), atol=1e-4, rtol=0)
    assert without.argsort().tolist() != with_correction.argsort().tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_extreme_logits_give_finite_losses_and_gradients(dtype):
    query = torch.tensor([[300.0], [-300.0]], dtype=dtype, requires_grad=True)
    item = torch.tensor([[-300.0], [-300.0], [300.0]], dtype=dtype)
    loss = info_nce_loss(query, item, temperature=0.01, reduction="none")
    assert loss.isfinite().all()
    assert float(loss[0].detach()) == pytest.approx(2 * 300 * 300 / 0.01, rel=0.01)
    loss.sum().backward()
    assert query.grad.isfinite().all()


def test_item_duplicated_beside_the_positive_costs_log_two_unless_masked():
    query = torch.tensor([[1.0, 0.0]])
    item = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert float(info_nce_loss(query, item)) == pytest.approx(math.log(2))
    assert float(info_nce_loss(query, item, mask=torch.tensor([[False, True]]))) == 0


@pytest.mark.parametrize(
    ("query", "item"),
    [((2, 3), (2, 4)), ((3, 2), (2, 2)), ((2,), (2, 2)), ((2, 2), (2,)), ((1, 2, 2), (2, 2))],
)
def test_shapes_that_do_not_fit_are_refused(query, item):
    with pytest.raises(InputError) as caught:
        info_nce_loss(torch.zeros(query), torch.zeros(item))
    assert str(query) in str(caught.value)
    assert str(item) in str(caught.value)
    assert "n >= batch" in str(caught.value)


@pytest.mark.parametrize("shape", [(2,), (3, 1), (2, 3), (1, 3)])
def test_log_q_must_have_one_entry_per_item(shape):
    """Shape (batch, 1) would broadcast over the rows and correct nothing."""
    query = torch.eye(3)
    with pytest.raises(InputError, match="log_q"):
        info_nce_loss(query, query, log_q=torch.zeros(shape))


@pytest.mark.parametrize("shape", [(), (3,), (3, 1), (1, 3), (3, 4), (4, 3)])
def test_the_mask_must_have_one_entry_per_logit(shape):
    query = torch.eye(3)
    with pytest.raises(InputError, match="mask"):
        info_nce_loss(query, query, mask=torch.zeros(shape, dtype=torch.bool))


def test_a_batch_of_one_costs_nothing_and_teaches_nothing(form):
    query, item = (side.requires_grad_() for side in batch(0, size=1))
    loss = info_nce_loss(query, item)
    assert loss.abs() < 1e-12
    assert all(side.abs().max() < 1e-12 for side in torch.autograd.grad(loss, (query, item)))


@pytest.mark.parametrize("as_function", [False, True])
def test_a_mask_that_leaves_no_negative_costs_nothing_and_teaches_nothing(form, as_function):
    """Its row only: the others are as they were, and the positive of the row may still be their negative."""
    query, item = (side.requires_grad_() for side in batch(1, extra=2))
    mask = torch.zeros(5, 7, dtype=torch.bool)
    mask[3] = True
    rows = info_nce_loss(query, item, mask=(lambda part: mask[part]) if as_function else mask, reduction="none")
    assert rows[3].abs() < 1e-12
    assert_close(rows[:3], info_nce_loss(query, item, reduction="none")[:3])
    gradient_of_row = torch.autograd.grad(rows[3], (query, item), retain_graph=True)
    assert all(side.abs().max() < 1e-12 for side in gradient_of_row)
    (of_all,) = torch.autograd.grad(rows.mean(), item)
    assert of_all[3].abs().max() > 0


def test_vectors_all_alike_are_a_stationary_point(form):
    """Collapse: every item is as likely as any other, and nothing pulls one way more than it is pushed."""
    query = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
    item = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
    loss = info_nce_loss(query, item)
    assert float(loss.detach()) == pytest.approx(math.log(5))
    assert all(side.abs().max() < 1e-12 for side in torch.autograd.grad(loss, (query, item)))
