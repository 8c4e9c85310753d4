"""Within users and across users: InfoNCE with the right masks holds what similarity alone lets collapse."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import cross_user_loss, user_item_loss, within_user_loss

check = settings(deadline=None, max_examples=40, derandomize=True)
SEEDS = st.integers(0, 1000)
BOTH = pytest.mark.parametrize("loss", [within_user_loss, cross_user_loss])


def pairs(seed: int, size: int = 5, extra: int = 0, dim: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2 * size + extra, dim, generator=generator, dtype=torch.float64)
    return draw[:size], draw[size:]


def minimise(loss, vectors: Tensor, steps: int = 600) -> Tensor:
    """Unit vectors after descent from ``vectors``."""
    vectors = vectors.clone().requires_grad_()
    optimiser = torch.optim.Adam([vectors], lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(F.normalize(vectors, dim=1)).backward()
        optimiser.step()
    return F.normalize(vectors.detach(), dim=1)


class TestThePrintedLoss:
    """The source minimises, over pairs that should agree, the sum of Sim(x, x'): no negatives, and that sign."""

    AGREE = torch.tensor([[0, 1], [2, 3], [4, 5]])

    def printed(self, vectors: Tensor) -> Tensor:
        return F.cosine_similarity(vectors[self.AGREE[:, 0]], vectors[self.AGREE[:, 1]]).sum()

    def test_as_printed_it_makes_antipodes_of_what_should_agree(self):
        vectors = minimise(self.printed, torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
        assert_close(self.printed(vectors), torch.tensor(-3.0), atol=1e-3, rtol=0)

    def test_with_the_sign_corrected_equal_vectors_are_a_minimum(self):
        collapsed = F.normalize(torch.ones(6, 4), dim=1)
        assert float(-self.printed(collapsed)) == pytest.approx(-3.0)  # no cosine is above 1
        start = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        every_pair_agrees = torch.combinations(torch.arange(6))  # users share items, so that all are linked

        def linked(vectors: Tensor) -> Tensor:
            return -F.cosine_similarity(vectors[every_pair_agrees[:, 0]], vectors[every_pair_agrees[:, 1]]).sum()

        vectors = minimise(linked, start)
        assert (vectors @ vectors.T).min() > 0.999, "the vectors did not collapse"

    @BOTH
    def test_with_negatives_collapse_is_the_level_of_guessing_and_training_leaves_it(self, loss):
        collapsed = F.normalize(torch.ones(6, 4), dim=1)
        guessing = float(loss(collapsed[self.AGREE[:, 0]], collapsed[self.AGREE[:, 1]]))
        assert guessing == pytest.approx(math.log(3))
        near = collapsed + 0.05 * torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
        vectors = minimise(lambda v: loss(v[self.AGREE[:, 0]], v[self.AGREE[:, 1]]), near)
        similarity = vectors[self.AGREE[:, 0]] @ vectors[self.AGREE[:, 1]].T
        assert similarity.diagonal().min() > 0.9
        assert similarity[~torch.eye(3, dtype=torch.bool)].max() < 0.1


@BOTH
@given(seed=SEEDS, extra=st.integers(0, 3))
@check
def test_the_loss_is_its_formula_term_by_term(loss, seed, extra):
    anchor, other = pairs(seed, extra=extra)
    mask = torch.rand(5, 5 + extra, generator=torch.Generator().manual_seed(seed)) < 0.4
    cosine = F.cosine_similarity(anchor[:, None], other[None], dim=-1) / 0.2
    expected = []
    for b in range(5):
        terms = [cosine[b, c].exp() for c in range(5 + extra) if c == b or not mask[b, c]]
        expected.append(-(cosine[b, b].exp() / sum(terms)).log())
    assert_close(loss(anchor, other, temperature=0.2, mask=mask, reduction="none"), torch.stack(expected))


@given(SEEDS)
@check
def test_log_q_is_subtracted_from_every_column(seed):
    item, other = pairs(seed)
    log_q = torch.linspace(-4, -1, 5, dtype=torch.float64)
    logits = F.normalize(item, dim=1) @ F.normalize(other, dim=1).T / 0.1 - log_q
    assert_close(within_user_loss(item, other, log_q=log_q), F.cross_entropy(logits, torch.arange(5)))


@BOTH
@given(seed=SEEDS, scale=st.floats(0.1, 10))
@check
def test_the_length_of_a_vector_does_not_count(loss, seed, scale):
    anchor, other = pairs(seed)
    assert_close(loss(scale * anchor, other / scale), loss(anchor, other))


@BOTH
def test_the_gradient_is_that_of_finite_differences(loss):
    anchor, other = (side.requires_grad_() for side in pairs(0, extra=2))
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(2)) < 0.3
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, temperature=0.4, mask=mask), (anchor, other))


@BOTH
def test_what_is_shared_receives_no_push(loss):
    anchor, other = (side.requires_grad_() for side in pairs(3))
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[0, 2] = True
    (gradient,) = torch.autograd.grad(loss(anchor, other, mask=mask, reduction="none")[0], other)
    assert gradient[2].abs().max() == 0
    assert gradient[1].abs().max() > 0


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 2.0), (0.25, 2.5), (1.0, 4.0)])
def test_alpha_is_the_share_within_users(alpha, expected):
    assert float(user_item_loss(torch.tensor(4.0), torch.tensor(2.0), alpha=alpha)) == expected


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(InputError, match=r"alpha=.*give 0 .* to 1"):
        user_item_loss(torch.tensor(4.0), torch.tensor(2.0), alpha=alpha)


@BOTH
def test_shapes_that_do_not_fit_are_refused(loss):
    with pytest.raises(InputError, match=r"\(2, 3\).*\(2, 4\)"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))
