"""The softmax family, each loss against its formula; what is no negative does not count, and none at all is defined."""

import math
from operator import mul

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import (
    debiased_contrastive_loss,
    decoupled_contrastive_loss,
    nt_xent_loss,
    sampled_softmax_loss,
    sigmoid_loss,
    supervised_contrastive_loss,
    symmetric_info_nce_loss,
)

check = settings(deadline=None, max_examples=15, derandomize=True)
SEEDS = st.integers(0, 1000)
TEMPERATURES = st.sampled_from([0.2, 1.0])


def dot(x: Tensor, y: Tensor) -> float:
    return sum(map(mul, x.tolist(), y.tolist()))


def cosine(x: Tensor, y: Tensor) -> float:
    return dot(x, y) / (math.hypot(*x.tolist()) * math.hypot(*y.tolist()))


def log_sum(terms: list[float]) -> float:
    return math.log(sum(map(math.exp, terms)))


@given(SEEDS, TEMPERATURES, st.booleans())
@check
def test_the_symmetric_loss_is_its_formula_term_by_term(drawn, form, seed, temperature, masked):
    query, item, chance, log_q, query_log_q = drawn(seed, (5, 3), (5, 3), (5, 5), (5,), (5,))
    s = [[dot(u, v) / temperature for v in item] for u in query]
    expected = []
    for b in range(5):
        others = [j for j in range(5) if j == b or not (masked and chance[b, j] < -0.3)]
        forward = log_sum([s[b][j] - float(log_q[j]) for j in others]) - (s[b][b] - float(log_q[b]))
        others = [i for i in range(5) if i == b or not (masked and chance[i, b] < -0.3)]
        backward = log_sum([s[i][b] - float(query_log_q[i]) for i in others]) - (s[b][b] - float(query_log_q[b]))
        expected.append((forward + backward) / 2)
    mask = chance < -0.3 if masked else None
    options = {"temperature": temperature, "log_q": log_q, "query_log_q": query_log_q, "reduction": "none"}
    losses = symmetric_info_nce_loss(query, item, mask=mask, **options)
    assert_close(losses, torch.tensor(expected, dtype=torch.float64))


@given(SEEDS, TEMPERATURES)
@check
def test_nt_xent_is_its_formula_term_by_term(drawn, form, seed, temperature):
    first, second = drawn(seed, (4, 3), (4, 3))
    views = [*first, *second]
    expected = []
    for i in range(8):
        terms = {k: cosine(views[i], views[k]) / temperature for k in range(8) if k != i}
        expected.append(log_sum(list(terms.values())) - terms[(i + 4) % 8])
    losses = nt_xent_loss(first, second, temperature=temperature, reduction="none")
    assert_close(losses, torch.tensor(expected, dtype=torch.float64))


@given(SEEDS, TEMPERATURES, st.permutations([7, 7, 7, -2, -2]))
@check
def test_the_supervised_loss_is_its_formula_term_by_term(drawn, form, seed, temperature, label):
    """The mean over positives stands outside the logarithm; the other positives stand in the denominator."""
    (z,) = drawn(seed, (5, 3))
    expected = []
    for i in range(5):
        terms = {a: cosine(z[i], z[a]) / temperature for a in range(5) if a != i}
        positives = [p for p in terms if label[p] == label[i]]
        log_z = log_sum(list(terms.values()))
        expected.append(sum(log_z - terms[p] for p in positives) / len(positives))
    losses = supervised_contrastive_loss(z, torch.tensor(label), temperature=temperature, reduction="none")
    assert_close(losses, torch.tensor(expected, dtype=torch.float64))


@given(SEEDS, TEMPERATURES, st.integers(0, 3), st.booleans())
@check
def test_the_decoupled_loss_is_its_formula_term_by_term(drawn, form, seed, temperature, extra, corrected):
    query, item, log_q, chance = drawn(seed, (5, 3), (5 + extra, 3), (5 + extra,), (5, 5 + extra))
    expected = []
    for b in range(5):
        s = [dot(query[b], v) / temperature for v in item]
        negatives = [j for j in range(5 + extra) if j != b and chance[b, j] > -1]
        terms = [s[j] - corrected * float(log_q[j]) for j in negatives]
        expected.append(log_sum(terms) - s[b] if terms else 0.0)
    options = {"temperature": temperature, "mask": chance <= -1, "log_q": log_q if corrected else None}
    losses = decoupled_contrastive_loss(query, item, reduction="none", **options)
    assert_close(losses, torch.tensor(expected, dtype=torch.float64))


@given(SEEDS, TEMPERATURES, st.booleans(), st.booleans())
@check
def test_sampled_softmax_is_its_formula_term_by_term(drawn, seed, temperature, shared, masked):
    shape = (3,) if shared else (5, 3)
    query, item, log_q, negative, negative_log_q, chance = drawn(seed, (5, 3), (5, 3), (5,), (*shape, 3), shape, (5, 3))
    expected = []
    for b in range(5):
        own, own_log_q = (negative, negative_log_q) if shared else (negative[b], negative_log_q[b])
        kept = [k for k in range(3) if not (masked and chance[b, k] < 0)]
        positive = dot(query[b], item[b]) / temperature - float(log_q[b])
        terms = [dot(query[b], own[k]) / temperature - float(own_log_q[k]) for k in kept]
        expected.append(log_sum([positive, *terms]) - positive)
    losses = sampled_softmax_loss(
        query,
        item,
        negative,
        log_q=log_q,
        negative_log_q=negative_log_q,
        temperature=temperature,
        mask=chance < 0 if masked else None,
        reduction="none",
    )
    assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def debiased_by_loop(
    query: Tensor, item: Tensor, prior: float, hardness: float, temperature: float, mask: Tensor
) -> Tensor:
    losses = []
    for b in range(len(query)):
        negatives = [cosine(query[b], v) / temperature for j, v in enumerate(item) if j != b and not mask[b, j]]
        positive = cosine(query[b], item[b]) / temperature
        weights = [math.exp(hardness * s) for s in negatives]
        mean = sum(w * math.exp(s) for w, s in zip(weights, negatives, strict=True)) / sum(weights)
        g = max((mean - prior * math.exp(positive)) / (1 - prior), math.exp(-1 / temperature))
        losses.append(math.log(1 + len(negatives) * g * math.exp(-positive)))
    return torch.tensor(losses, dtype=torch.float64)


@given(SEEDS, TEMPERATURES, st.sampled_from([0.0, 0.1, 0.6]), st.sampled_from([0.0, 0.5, 2.0]))
@check
def test_the_debiased_loss_is_its_formula_term_by_term(drawn, form, seed, temperature, prior, hardness):
    query, item, chance = drawn(seed, (5, 3), (7, 3), (5, 7))
    options = {"prior": prior, "hardness": hardness, "temperature": temperature}
    losses = debiased_contrastive_loss(query, item, mask=chance < -1, reduction="none", **options)
    assert_close(losses, debiased_by_loop(query, item, mask=chance < -1, **options))


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(
    "loss", [symmetric_info_nce_loss, decoupled_contrastive_loss, debiased_contrastive_loss, sigmoid_loss]
)
def test_with_a_mask_too_the_gradient_is_that_of_finite_differences(loss, reduction, drawn, form):
    query, item, chance = drawn(5, (5, 3), (5, 3), (5, 5))
    temperature = torch.tensor(0.6, dtype=torch.float64)
    leaves = [side.requires_grad_() for side in (query, item, temperature)]

    def of(u: Tensor, v: Tensor, t: Tensor) -> Tensor:
        return loss(u, v, temperature=t, mask=lambda part: (chance < -0.3)[part], reduction=reduction)

    assert torch.autograd.gradcheck(of, leaves)


def test_the_debiased_estimate_is_cut_off_at_the_least_a_cosine_can_give(form):
    """All alike: what is subtracted would leave a negative mean."""
    same = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    loss = debiased_contrastive_loss(same, same, prior=0.5, temperature=0.5)
    assert float(loss.detach()) == pytest.approx(math.log(4))
    opposite = torch.cat([same[:1], -same[1:]])
    loss = debiased_contrastive_loss(opposite[:1], opposite, prior=0.1, temperature=0.5)
    assert float(loss.detach()) == pytest.approx(math.log(1 + 3 * math.exp(-2) * math.exp(-2)))
    assert torch.autograd.grad(loss, same)[0].isfinite().all()


def test_harder_weights_raise_the_loss_and_a_prior_of_false_negatives_lowers_it(drawn):
    query, item = drawn(0, (5, 3), (9, 3))
    by_hardness = [float(debiased_contrastive_loss(query, item, hardness=h)) for h in (0, 0.5, 1, 2)]
    assert by_hardness == sorted(set(by_hardness))
    by_prior = [float(debiased_contrastive_loss(query, item, prior=p)) for p in (0.3, 0.2, 0.1, 0)]
    assert by_prior == sorted(set(by_prior))


@pytest.mark.parametrize("loss", [decoupled_contrastive_loss, debiased_contrastive_loss])
@pytest.mark.parametrize("as_function", [False, True])
def test_a_mask_that_leaves_no_negative_costs_nothing_and_teaches_nothing(loss, as_function, drawn, form):
    query, item = (side.requires_grad_() for side in drawn(1, (5, 3), (7, 3)))
    mask = torch.zeros(5, 7, dtype=torch.bool)
    mask[3] = True
    rows = loss(query, item, mask=(lambda part: mask[part]) if as_function else mask, reduction="none")
    assert rows[3] == 0
    kept = torch.arange(5) != 3
    assert_close(rows[kept], loss(query, item, reduction="none")[kept])
    of_row = torch.autograd.grad(rows[3], (query, item), retain_graph=True)
    assert all(side.abs().max() == 0 for side in of_row)
    of_all = torch.autograd.grad(rows.mean(), (query, item))
    assert all(side.isfinite().all() for side in of_all)
    everything = loss(query, item, mask=torch.ones(5, 7, dtype=torch.bool))
    assert everything == 0
    assert all(side.abs().max() == 0 for side in torch.autograd.grad(everything, (query, item)))


@pytest.mark.parametrize("k", [0, 2])
def test_sampled_softmax_without_negatives_costs_nothing_and_teaches_nothing(k, drawn):
    query, item, negative = (side.requires_grad_() for side in drawn(2, (4, 3), (4, 3), (4, k, 3)))
    log_q, negative_log_q = torch.zeros(4), torch.zeros(4, k)
    mask = torch.ones(4, k, dtype=torch.bool)
    loss = sampled_softmax_loss(query, item, negative, log_q=log_q, negative_log_q=negative_log_q, mask=mask)
    assert loss == 0
    assert all(side.abs().sum() == 0 for side in torch.autograd.grad(loss, (query, item, negative)))


@pytest.mark.parametrize(
    "loss", [symmetric_info_nce_loss, nt_xent_loss, decoupled_contrastive_loss, debiased_contrastive_loss]
)
def test_a_batch_of_one_costs_nothing_and_teaches_nothing(loss, drawn, form):
    first, second = (side.requires_grad_() for side in drawn(3, (1, 3), (1, 3)))
    value = loss(first, second)
    assert value.abs() < 1e-12
    assert all(side.abs().max() < 1e-12 for side in torch.autograd.grad(value, (first, second)))


def test_vectors_all_alike_cost_the_log_of_the_number_of_candidates_and_teach_nothing(form):
    """NT-Xent and SupCon leave out the anchor itself, the decoupled loss the positive."""
    same = torch.ones(6, 3, dtype=torch.float64, requires_grad=True)
    for loss, candidates in {
        symmetric_info_nce_loss(same, same): 6,
        nt_xent_loss(same, same): 11,
        supervised_contrastive_loss(same, torch.tensor([0, 0, 0, 1, 1, 1])): 5,
        decoupled_contrastive_loss(same, same): 5,
        debiased_contrastive_loss(same, same, prior=0.0): 6,
    }.items():
        assert float(loss.detach()) == pytest.approx(math.log(candidates))
        assert torch.autograd.grad(loss, same)[0].abs().max() < 1e-12


@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_zero_vectors_have_cosine_zero_and_a_gradient_of_one_over_the_temperature(temperature, drawn, form):
    (second,) = drawn(4, (5, 3))
    first = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    loss = nt_xent_loss(first, second, temperature=temperature, reduction="none")
    assert_close(loss[0].detach(), torch.tensor(math.log(9.0), dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss.sum(), first)
    assert 0 < gradient.norm(dim=1).min() <= gradient.norm(dim=1).max() <= 10 / temperature


def test_a_label_without_a_second_example_is_refused_by_row():
    with pytest.raises(InputError, match=r"rows \[1, 4\] have no other example of their label"):
        supervised_contrastive_loss(torch.eye(5), torch.tensor([3, 1, 3, 3, 2]))


def test_labels_are_whole_numbers():
    with pytest.raises(InputError, match=r"label \(4,\) of torch.float32"):
        supervised_contrastive_loss(torch.eye(4), torch.zeros(4))


@pytest.mark.parametrize("prior", [-0.1, 1.0, 1.5, torch.nan])
def test_a_prior_that_is_no_probability_below_one_is_refused(prior):
    with pytest.raises(InputError, match=rf"prior is {prior}; give a probability in \[0, 1\)"):
        debiased_contrastive_loss(torch.eye(2), torch.eye(2), prior=prior)


@pytest.mark.parametrize("hardness", [-0.1, torch.inf, torch.nan])
def test_a_hardness_below_zero_or_without_bound_is_refused(hardness):
    with pytest.raises(InputError, match=f"hardness is {hardness}; give a number of at least 0"):
        debiased_contrastive_loss(torch.eye(2), torch.eye(2), hardness=hardness)
