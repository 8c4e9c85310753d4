"""Which item comes next: the softmax, its estimate from a sample, and what sigmoids of sampled negatives mean."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import (
    binary_next_item_loss,
    gbce_loss,
    next_item_loss,
    partition,
    sampled_next_item_loss,
    sampled_softmax_loss,
)
from recsys_cl.negatives import NegativeSample, PopularityNegatives, UniformNegatives

EVENTS, ITEMS, DIM = 7, 9, 4


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """States, catalogue and targets in double precision, both vectors with gradient."""
    generator = torch.Generator().manual_seed(0)
    hidden, items = (
        torch.randn(rows, DIM, generator=generator, dtype=torch.float64, requires_grad=True) for rows in (EVENTS, ITEMS)
    )
    return hidden, items, torch.randint(ITEMS, (EVENTS,), generator=generator)


class TestTheWholeCatalogue:
    @pytest.mark.parametrize("form", ["dense", "blocks"])
    def test_it_is_cross_entropy_over_all_items(self, form, batch, monkeypatch):
        if form == "blocks":
            monkeypatch.setattr(partition, "DENSE", 0)
            monkeypatch.setattr(partition, "BLOCK", 2 * ITEMS)
        hidden, items, target = batch
        expected = F.cross_entropy(hidden @ items.T / 0.3, target)
        loss = next_item_loss(hidden, items, target, temperature=0.3)
        assert_close(loss, expected)
        assert_close(torch.autograd.grad(loss, (hidden, items)), torch.autograd.grad(expected, (hidden, items)))

    def test_what_is_masked_does_not_count_unless_it_is_the_target(self, batch):
        hidden, items, target = batch
        mask = torch.zeros(EVENTS, ITEMS, dtype=torch.bool)
        mask[:, :3] = True
        counts = ~mask | F.one_hot(target, ITEMS).bool()
        assert (target < 3).any(), "no target is masked"
        expected = F.cross_entropy((hidden @ items.T).masked_fill(~counts, -torch.inf), target, reduction="none")
        assert_close(next_item_loss(hidden, items, target, mask=mask, reduction="none"), expected)

    def test_scores_are_log_probabilities_at_the_optimum(self):
        p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
        scores = (p.log() + 1.7)[:, None].requires_grad_()  # a constant changes nothing
        one = torch.ones(4, 1, dtype=torch.float64)
        loss = next_item_loss(one, scores, torch.arange(4), reduction="none")
        (gradient,) = torch.autograd.grad((p * loss).sum(), scores)
        assert gradient.abs().max() < 1e-12


class TestASampleOfTheCatalogue:
    Q = torch.tensor([0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05], dtype=torch.float64)

    def sample(self, *items: int) -> NegativeSample:
        chosen = torch.tensor(items)
        return NegativeSample(chosen, self.Q[chosen].log())

    def test_the_estimate_of_the_partition_and_its_gradient_are_unbiased(self, batch):
        """Expectation over all pairs of draws, hits included, against the sum over the catalogue."""
        hidden, items, target = batch
        positive = (hidden * items[target]).sum(1)
        expected = torch.zeros(EVENTS, dtype=torch.float64)
        for pair in product(range(ITEMS), repeat=2):
            loss = sampled_next_item_loss(hidden, items, target, self.sample(*pair), reduction="none")
            expected = expected + self.Q[list(pair)].prod() * (loss + positive).exp()
        whole = (hidden @ items.T).exp().sum(1)
        assert_close(expected, whole)
        assert_close(
            torch.autograd.grad(expected.sum(), (hidden, items), retain_graph=True),
            torch.autograd.grad(whole.sum(), (hidden, items)),
        )

    def test_loss_and_gradient_become_those_of_the_whole_catalogue(self, batch):
        hidden, items, target = batch
        full = next_item_loss(hidden, items, target)
        exact = torch.cat(torch.autograd.grad(full, (hidden, items)))
        sampler = PopularityNegatives(torch.tensor([40, 20, 10, 10, 5, 5, 5, 1, 1]), power=0.75)
        errors = {}
        for k in (100, 40_000):
            loss = sampled_next_item_loss(hidden, items, target, sampler.sample(0, 0, k))
            gradient = torch.cat(torch.autograd.grad(loss, (hidden, items)))
            errors[k] = float((gradient - exact).norm() / exact.norm())
        assert_close(loss, full, rtol=0.01, atol=0)
        assert errors[40_000] < 0.02  # by chance 20 times less than for 100
        assert errors[40_000] < errors[100] / 5

    def test_it_is_the_sampled_softmax_whose_positive_was_not_drawn(self, batch):
        hidden, items, target = batch
        drawn = self.sample(0, 4, 4, int(target[0]))
        loss = sampled_next_item_loss(hidden, items, target, drawn, temperature=0.5, reduction="none")
        expected = sampled_softmax_loss(
            hidden,
            items[target],
            items[drawn.items],
            log_q=torch.full((EVENTS,), -np.log(4), dtype=torch.float64),
            negative_log_q=drawn.log_q,
            mask=target[:, None] == drawn.items,
            temperature=0.5,
            reduction="none",
        )
        assert_close(loss, expected)

    def test_a_target_that_every_draw_hits_has_nothing_to_be_compared_with(self, batch):
        hidden, items, target = batch
        loss = sampled_next_item_loss(hidden[:1], items, target[:1], self.sample(*2 * [int(target[0])]))
        assert float(loss.detach()) == 0
        assert torch.autograd.grad(loss, hidden)[0].abs().max() == 0


P = torch.tensor([0.4, 0.3, 0.2, 0.08, 0.02], dtype=torch.float64)


def minimiser(loss, k: int) -> Tensor:
    """Scores of the least mean loss: the next item has chance P, its k negatives are uniform over the other four."""
    n = len(P)
    others = [[j for j in range(n) if j != i] for i in range(n)]
    cases = [(i, negatives) for i in range(n) for negatives in product(others[i], repeat=k)]
    positive = torch.tensor([i for i, _ in cases])
    negative = torch.tensor([negatives for _, negatives in cases])
    weight = P[positive] / (n - 1) ** k
    scores = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [scores], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        optimiser.zero_grad()
        mean = (weight * loss(scores[positive], scores[negative])).sum()
        mean.backward()
        return mean

    optimiser.step(step)
    return scores.detach()


class TestSigmoids:
    @pytest.mark.parametrize("k", [1, 3])
    def test_binary_cross_entropy_is_overconfident(self, k):
        scores = minimiser(lambda s, n: binary_next_item_loss(s, n, reduction="none"), k)
        alpha = k / 4
        assert_close(scores.sigmoid(), P / (P + alpha * (1 - P)), rtol=1e-5, atol=0)
        assert (scores.sigmoid() > P).all()
        assert scores.sigmoid().sum() > 1.2  # no distribution

    @pytest.mark.parametrize("k", [1, 3])
    def test_calibrated_it_is_not(self, k):
        scores = minimiser(lambda s, n: gbce_loss(s, n, n_items=5, calibration=1.0, reduction="none"), k)
        assert_close(scores.sigmoid(), P, rtol=1e-5, atol=0)

    def test_half_way_it_is_half_way_in_the_weight(self):
        scores = minimiser(lambda s, n: gbce_loss(s, n, n_items=5, calibration=0.5, reduction="none"), 1)
        alpha, t = 1 / 4, 0.5
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        assert_close(scores.sigmoid(), beta * P / (beta * P + alpha * (1 - P)), rtol=1e-5, atol=0)

    def test_all_negatives_leave_nothing_to_calibrate(self):
        scores, others = torch.randn(2, generator=torch.Generator().manual_seed(0)), torch.ones(2, 4)
        for t in (0.0, 0.7, 1.0):
            assert_close(gbce_loss(scores, others, n_items=5, calibration=t), binary_next_item_loss(scores, others))

    def test_one_negative_is_the_loss_of_sasrec(self):
        positive, negative = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
        labels = torch.cat([torch.ones(6), torch.zeros(6)])
        expected = 2 * F.binary_cross_entropy_with_logits(torch.cat([positive, negative]), labels)
        assert_close(binary_next_item_loss(positive, negative[:, None]), expected)

    def test_without_calibration_it_is_binary_cross_entropy(self):
        positive, negative = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).split([1, 3], dim=1)
        plain = binary_next_item_loss(positive[:, 0], negative, reduction="none")
        assert_close(gbce_loss(positive[:, 0], negative, n_items=99, calibration=0.0, reduction="none"), plain)

    def test_extreme_scores_have_a_finite_loss_and_gradient(self):
        positive = torch.tensor([-1e4, 1e4], requires_grad=True)
        negative = torch.tensor([[1e4], [-1e4]], requires_grad=True)
        loss = gbce_loss(positive, negative, n_items=1_001, calibration=1.0, reduction="none")
        assert loss.tolist() == pytest.approx([1e4 + 1e4 / 1_000, 0])
        for gradient in torch.autograd.grad(loss.sum(), (positive, negative)):
            assert gradient.isfinite().all()

    def test_negatives_that_step_over_the_target_are_uniform_over_the_others(self):
        """What the docstring recommends; 5 items, 4,000 draws for target 2, five standard errors."""
        target = torch.full((4_000,), 2)
        other = UniformNegatives(4).sample(0, np.arange(4_000), 1).items
        drawn = other + (other >= target[:, None])
        share = torch.bincount(drawn.flatten(), minlength=5) / 4_000
        assert_close(share, torch.tensor([0.25, 0.25, 0, 0.25, 0.25]), atol=5 * (3 / 16 / 4_000) ** 0.5, rtol=0)
        assert share[2] == 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"target": torch.tensor([0, 9])}, "items 0 to 9; give 0 to N - 1 = 8"),
            ({"target": torch.tensor([-1, 3])}, "items -1 to 3"),
            ({"target": torch.tensor([0.0, 1.0])}, "torch.int64"),
            ({"target": torch.tensor([0])}, "do not fit"),
            ({"hidden": torch.ones(2, 5)}, "do not fit"),
            ({"hidden": torch.ones(0, 4), "target": torch.ones(0, dtype=torch.int64)}, "have a next item"),
            ({"hidden": torch.full((2, 4), torch.nan)}, "hidden has the value nan"),
            ({"temperature": 0.0}, "temperature is 0"),
        ],
    )
    def test_of_states_and_targets(self, change, message):
        given = {"hidden": torch.ones(2, 4), "items": torch.ones(9, 4), "target": torch.tensor([0, 3])} | change
        with pytest.raises(InputError, match=message):
            next_item_loss(**given)
        drawn = NegativeSample(torch.tensor([1]), torch.zeros(1))
        with pytest.raises(InputError, match=message):
            sampled_next_item_loss(**given, negative=drawn)

    @pytest.mark.parametrize(
        ("items", "log_q", "message"),
        [
            (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3), "sampled_softmax_loss"),
            (torch.zeros(0, dtype=torch.int64), torch.zeros(0), "not shared"),
            (torch.tensor([1, 2]), torch.zeros(3), "not shared"),
            (torch.tensor([1, 9]), torch.zeros(2), "negative has items 1 to 9"),
            (torch.tensor([1, 2]), torch.tensor([0.0, -torch.inf]), "log_q that is not finite"),
        ],
    )
    def test_of_negatives(self, items, log_q, message):
        with pytest.raises(InputError, match=message):
            sampled_next_item_loss(
                torch.ones(2, 4), torch.ones(9, 4), torch.tensor([0, 3]), NegativeSample(items, log_q)
            )

    @pytest.mark.parametrize("loss", [binary_next_item_loss, lambda s, n: gbce_loss(s, n, n_items=9)])
    @pytest.mark.parametrize("negative", [torch.ones(3, 1), torch.ones(2), torch.ones(2, 0)])
    def test_of_scores(self, loss, negative):
        with pytest.raises(InputError, match="do not fit"):
            loss(torch.ones(2), negative)

    @pytest.mark.parametrize(("n_items", "calibration"), [(1, 0.5), (9, -0.1), (9, 1.1), (9, float("nan"))])
    def test_of_calibration(self, n_items, calibration):
        with pytest.raises(InputError, match=r"^(calibration|n_items)="):
            gbce_loss(torch.ones(2), torch.ones(2, 1), n_items=n_items, calibration=calibration)
