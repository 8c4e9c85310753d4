"""What counts as a negative: samplers draw as often as they say, memory is a queue, mining is a sorted list."""

from collections import deque
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.data import Sequences, leave_one_out, synthetic
from recsys_cl.errors import InputError
from recsys_cl.losses import info_nce_loss, sampled_softmax_loss
from recsys_cl.negatives import (
    InBatchNegatives,
    KnownPositives,
    MixedNegatives,
    NegativeQueue,
    NegativeSample,
    NegativeSampler,
    PopularityNegatives,
    UniformNegatives,
    hard,
    hard_negatives,
    in_batch_log_q,
)

check = settings(deadline=None, max_examples=60, derandomize=True)
COUNTS = torch.tensor([40, 0, 7, 1, 12])
SAMPLERS = {
    "uniform": lambda seed=0: UniformNegatives(5, seed=seed),
    "popularity": lambda seed=0: PopularityNegatives(COUNTS, seed=seed),
    "in batch": lambda seed=0: InBatchNegatives(COUNTS, seed=seed),
    "mixed": lambda seed=0: MixedNegatives(
        [(UniformNegatives(5, seed=seed), 0.3), (PopularityNegatives(COUNTS, power=1.0, seed=seed), 0.7)], seed=seed
    ),
}
every_sampler = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)


def q_of(sampler: NegativeSampler) -> Tensor:
    return sampler.log_q(torch.arange(len(sampler.table))).double().exp()


def test_log_q_is_the_log_of_the_share_of_the_events():
    log_q = in_batch_log_q(torch.tensor([6, 3, 1]))
    assert_close(log_q, torch.tensor([0.6, 0.3, 0.1]).log())
    assert log_q.dtype == torch.float32


def test_an_item_without_events_counts_as_one_event():
    assert_close(in_batch_log_q(torch.tensor([0, 7, 1])), torch.tensor([1 / 9, 7 / 9, 1 / 9]).log())


@pytest.mark.parametrize("counts", [[1, 5, 9], [0, 0, 3], [10**9, 1, 1]])
def test_the_shares_sum_to_one(counts):
    assert float(in_batch_log_q(torch.tensor(counts)).double().exp().sum()) == pytest.approx(1, abs=1e-6)


def test_log_q_is_the_rate_at_which_interactions_bring_an_item_into_a_batch():
    """40,000 interactions drawn uniformly: every share within four standard errors."""
    split = leave_one_out(synthetic(100, 80, 1_500))
    q = in_batch_log_q(torch.from_numpy(split.counts)).exp().numpy()
    drawn = np.random.default_rng(0).choice(split.train.items[split.train.flat()[1]], 40_000)
    share = np.bincount(drawn, minlength=80) / 40_000
    seen = split.counts > 0
    assert (np.abs(share - q)[seen] < 4.5 * np.sqrt(q * (1 - q) / 40_000)[seen] + 1e-3 * q[seen]).all()


@every_sampler
def test_items_are_drawn_as_often_as_log_q_says(make):
    """40,000 draws, every share within 4.5 standard errors."""
    sampler = make()
    n = 40_000
    drawn = sampler.sample(0, np.arange(n // 4), 4).items
    q = q_of(sampler)
    share = drawn.flatten().bincount(minlength=5) / n
    assert ((share - q).abs() < 4.5 * (q * (1 - q) / n).sqrt()).all()


@every_sampler
def test_slots_are_independent(make):
    """Pairs of neighbouring slots have the product of the shares; 40,000 pairs, 4.5 standard errors."""
    sampler = make()
    n = 40_000
    first, second = sampler.sample(0, np.arange(n), 2).items.T
    q = (q_of(sampler)[:, None] * q_of(sampler)).flatten()
    share = (first * 5 + second).bincount(minlength=25) / n
    assert ((share - q).abs() < 4.5 * (q * (1 - q) / n).sqrt()).all()


@every_sampler
def test_the_probabilities_sum_to_one_and_come_with_the_sample(make):
    sampler = make()
    assert float(q_of(sampler).sum()) == pytest.approx(1, abs=1e-6)
    sample = sampler.sample(3, np.arange(7), 4)
    assert sample.items.shape == sample.log_q.shape == (7, 4)
    assert_close(sample.log_q, sampler.log_q(sample.items))


@every_sampler
def test_a_draw_depends_on_epoch_example_and_slot_and_on_nothing_else(make):
    whole = make().sample(2, np.arange(50), 8).items
    order = np.random.default_rng(0).permutation(50)
    assert (make().sample(2, order, 8).items == whole[order]).all()
    assert (make().sample(2, np.array([13]), 8).items == whole[13]).all()
    assert (make().sample(2, np.arange(50), 3).items == whole[:, :3]).all()
    assert (make().sample(2, 13, 8).items == whole[13]).all()  # shared negatives are those of one example
    epochs = np.where(np.arange(50) % 2, 2, 5)
    assert (make().sample(epochs, np.arange(50), 8).items[1::2] == whole[1::2]).all()
    assert (make().sample(5, np.arange(50), 8).items != whole).any()
    assert (make(seed=1).sample(2, np.arange(50), 8).items != whole).any()


@every_sampler
def test_sampling_leaves_the_global_generators_alone(make):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    make().sample(0, np.arange(9), 2)
    assert torch.equal(torch.get_rng_state(), before)


def optimum(p: Tensor, sampler: NegativeSampler, *, corrected: bool) -> Tensor:
    """Scores that minimise the exact expectation over a positive from p and two negatives from the sampler."""
    scores = torch.zeros_like(p, requires_grad=True)
    q = q_of(sampler)
    worlds = torch.tensor(list(product(range(len(p)), repeat=3)))  # (W, 3)
    positive, negative = worlds[:, 0], worlds[:, 1:]  # (W,), (W, 2)
    chance = p[positive] * q[negative].prod(1)  # (W,)
    log_q = q.log() if corrected else torch.zeros_like(q)  # (N,)
    precise = {"max_iter": 200, "tolerance_grad": 1e-12, "tolerance_change": 1e-16}
    solver = torch.optim.LBFGS([scores], line_search_fn="strong_wolfe", **precise)

    def expectation() -> Tensor:
        solver.zero_grad()
        losses = sampled_softmax_loss(
            torch.ones(len(worlds), 1, dtype=p.dtype),
            scores[positive, None],
            scores[negative][:, :, None],
            log_q=log_q[positive],
            negative_log_q=log_q[negative],
            reduction="none",
        )
        total = chance @ losses
        total.backward()
        return total

    solver.step(expectation)
    return scores.detach() - scores.detach()[0]


@every_sampler
def test_with_its_log_q_every_sampler_leads_to_log_p(make):
    """Exact enumeration of five items and two negatives: no sampling error, only the optimiser's."""
    p = torch.tensor([0.4, 0.25, 0.15, 0.15, 0.05], dtype=torch.float64)
    sampler = make()
    q = q_of(sampler)
    assert_close(optimum(p, sampler, corrected=True), (p / p[0]).log(), atol=1e-4, rtol=0)
    assert_close(optimum(p, sampler, corrected=False), (p / q / (p[0] / q[0])).log(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("power", [0.5, 0.75, 2.0])
def test_popularity_is_a_power_of_the_counts(power):
    weight = torch.tensor([40.0, 1, 7, 1, 12], dtype=torch.float64) ** power
    assert_close(q_of(PopularityNegatives(COUNTS, power=power)), weight / weight.sum(), atol=1e-6, rtol=1e-5)


def test_power_zero_is_uniform_in_law_and_in_draws():
    flat, uniform = PopularityNegatives(COUNTS, power=0.0), UniformNegatives(5)
    assert_close(q_of(flat), torch.full((5,), 0.2, dtype=torch.float64), atol=1e-7, rtol=0)
    assert torch.equal(flat.sample(0, np.arange(99), 3).items, uniform.sample(0, np.arange(99), 3).items)


def test_power_one_is_in_batch():
    assert_close(PopularityNegatives(COUNTS, power=1.0).log_q(torch.arange(5)), in_batch_log_q(COUNTS))
    assert_close(InBatchNegatives(COUNTS).log_q(torch.arange(5)), in_batch_log_q(COUNTS))


def test_the_largest_random_number_still_draws_an_item():
    """The shares are summed up with rounding errors; a number between their sum and 1 must not fall off the end."""
    edges = PopularityNegatives(torch.arange(1, 1001)).edges
    assert np.searchsorted(edges, np.nextafter(1, 0), side="right") == 999


def test_extreme_popularity_keeps_finite_logarithms():
    log_q = PopularityNegatives(torch.tensor([10**9, 1]), power=50.0).log_q(torch.arange(2))
    assert log_q.isfinite().all()


def test_a_batch_is_a_sample():
    target = torch.tensor([3, 0, 0])
    batch = InBatchNegatives(COUNTS).of(target)
    assert torch.equal(batch.items, target)
    assert_close(batch.log_q, in_batch_log_q(COUNTS)[target])


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=4), st.integers(0, 100))
@check
def test_a_mixture_has_the_weighted_mean_of_the_probabilities(shares, seed):
    counts = np.random.default_rng(seed).integers(0, 50, size=(len(shares), 6)) + 1
    parts = [PopularityNegatives(torch.from_numpy(row), power=1.0) for row in counts]
    mixed = MixedNegatives(list(zip(parts, shares, strict=True)))
    expected = sum(share * q_of(part) for share, part in zip(shares, parts, strict=True)) / sum(shares)
    assert_close(q_of(mixed), expected, atol=1e-6, rtol=1e-5)
    assert float(q_of(mixed).sum()) == pytest.approx(1, abs=1e-6)


def test_a_mixture_takes_its_share_of_slots_from_each():
    """Items 0 and 1 come from the one part only, 2 from the other; 40,000 slots, 4.5 standard errors."""
    first = NegativeSampler(torch.tensor([0.0, 0.0, -torch.inf], dtype=torch.float64), seed=0)
    second = NegativeSampler(torch.tensor([-torch.inf, -torch.inf, 0.0], dtype=torch.float64), seed=0)
    drawn = MixedNegatives([(first, 3), (second, 1)]).sample(0, np.arange(10_000), 4).items
    assert abs(float((drawn < 2).double().mean()) - 0.75) < 4.5 * np.sqrt(0.75 * 0.25 / 40_000)
    assert abs(float((drawn == 0).double().mean()) - 0.375) < 4.5 * np.sqrt(0.375 * 0.625 / 40_000)


@pytest.mark.parametrize("example", [np.arange(4), 4], ids=["own", "shared"])
def test_known_positives_are_masked_in_any_sample(example):
    histories = [[0, 2], [1], [], [4, 3]]
    users = torch.tensor([2, 0, 3, 1])
    items = PopularityNegatives(COUNTS).sample(0, example, 20).items
    mask = KnownPositives(Sequences.from_lists(histories), 5).mask(users, items)
    rows = items.expand(4, 20).tolist()
    assert mask.tolist() == [[item in histories[user] for item in row] for user, row in zip(users, rows, strict=True)]
    query, target = torch.randn(4, 2), torch.randn(4, 2)
    losses = sampled_softmax_loss(
        query,
        target,
        torch.randn(5, 2)[items],
        log_q=torch.zeros(4),
        negative_log_q=torch.zeros(items.shape),
        mask=mask,
        reduction="none",
    )
    assert losses.isfinite().all()


def entries(numbers: list[int]) -> tuple[Tensor, NegativeSample]:
    items = torch.tensor(numbers, dtype=torch.int64)
    return torch.stack([items, -items], dim=1).float(), NegativeSample(items, items / 100)


@given(st.integers(1, 5), st.lists(st.integers(0, 8), max_size=6))
@check
def test_the_queue_is_a_deque(size, batches):
    queue, model = NegativeQueue(size, 2), deque(maxlen=size)
    number = 0
    for n in batches:
        numbers = list(range(number, number + n))
        number += n
        queue.put(*entries(numbers))
        model.extend(numbers)
        vectors, held = queue.held()
        expected, sample = entries(list(model))
        assert_close(vectors, expected)
        assert torch.equal(held.items, sample.items)
        assert_close(held.log_q, sample.log_q)


def test_the_queue_is_saved_with_the_model_and_filled_up_after_loading():
    queue = NegativeQueue(3, 2)
    queue.put(*entries([5, 6]))
    restored = NegativeQueue(3, 2)
    restored.load_state_dict(queue.state_dict())
    assert restored.held()[1].items.tolist() == [5, 6]
    restored.put(*entries([7, 8]))
    assert restored.held()[1].items.tolist() == [6, 7, 8]
    assert queue.held()[1].items.tolist() == [5, 6]


def test_putting_in_disturbs_no_gradient_and_lets_none_through():
    queue = NegativeQueue(4, 2)
    queue.put(*entries([1, 2, 3]))
    query, item = torch.randn(2, 2, requires_grad=True), torch.randn(2, 2, requires_grad=True)
    vectors, held = queue.held()
    loss = info_nce_loss(query, torch.cat([item, vectors]), log_q=torch.cat([torch.zeros(2), held.log_q]))
    queue.put(item, NegativeSample(torch.tensor([8, 9]), torch.zeros(2)))
    loss.backward()  # needs the vectors as they were
    assert query.grad.isfinite().all()
    assert not queue.held()[0].requires_grad


def test_half_precision_is_stored_as_single():
    queue = NegativeQueue(2, 2)
    vectors, sample = entries([1])
    queue.put(vectors.bfloat16(), sample)
    assert queue.held()[0].dtype == torch.float32


@given(
    st.integers(0, 1000),
    st.integers(1, 9),
    st.sampled_from([None, 0.0, 1.0, 2.5]),
    st.sampled_from([None, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from([1, 16, 1000]),
)
@check
def test_hard_negatives_are_the_top_of_the_sorted_list(seed, k, margin, share, masked, block):
    """Whole numbers, so that scores are tied: which of equals is chosen is open, their scores are not."""
    rng = np.random.default_rng(seed)
    query, item = (torch.from_numpy(rng.integers(-2, 3, size=(n, 2))).float() for n in (4, 7))
    positive = torch.from_numpy(rng.integers(0, 7, size=4))
    mask = torch.from_numpy(rng.random((4, 7)) < 0.3) if masked else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hard, "BLOCK", block)
        sample, empty = hard_negatives(query, item, positive, k, mask=mask, margin=margin, share=share)
    assert sample.items.shape == sample.log_q.shape == empty.shape == (4, k)
    assert not sample.log_q.any()
    for b in range(4):
        scores = [float(query[b] @ item[j]) for j in range(7)]
        best = scores[positive[b]]
        allowed = [
            j
            for j in range(7)
            if j != positive[b]
            and (mask is None or not mask[b, j])
            and (margin is None or scores[j] <= best - margin)
            and (share is None or scores[j] <= best - (1 - share) * abs(best))
        ]
        chosen = sample.items[b][~empty[b]].tolist()
        assert len(set(chosen)) == len(chosen) == min(k, len(allowed))
        assert set(chosen) <= set(allowed)
        assert [scores[j] for j in chosen] == sorted((scores[j] for j in allowed), reverse=True)[: len(chosen)]
        assert empty[b].tolist() == [False] * len(chosen) + [True] * (k - len(chosen))
        assert (sample.items[b][empty[b]] == positive[b]).all()


def test_known_positives_are_masked_some_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(hard, "BLOCK", 10)
    known = KnownPositives(Sequences.from_lists([[0, 1, 2], [3], []]), 5)
    users, scores = torch.arange(3), torch.arange(5.0).flip(0)[:, None]  # item 0 scores highest
    asked = []

    def mask(rows: slice) -> Tensor:
        asked.append(rows)
        return known.mask(users[rows], torch.arange(5))

    sample, empty = hard_negatives(torch.ones(3, 1), scores, torch.tensor([0, 3, 4]), 2, mask=mask)
    assert sample.items.tolist() == [[3, 4], [0, 1], [0, 1]]
    assert not empty.any()
    assert asked == [slice(0, 2), slice(2, 3)]


def test_a_share_means_the_same_below_zero():
    """95 % of −.5 would be above −.5; the bound is 5 % of its size below it."""
    item = torch.tensor([[-0.5], [-0.51], [-0.6]])
    sample, empty = hard_negatives(torch.ones(1, 1), item, torch.tensor([0]), 2, share=0.95)
    assert sample.items[~empty].tolist() == [2]


def test_a_query_without_any_negative_costs_nothing():
    query = torch.eye(2)
    sample, empty = hard_negatives(query, query, torch.tensor([0, 1]), 3, mask=torch.ones(2, 2, dtype=torch.bool))
    assert empty.all()
    losses = sampled_softmax_loss(
        query,
        query,
        query[sample.items],
        log_q=torch.zeros(2),
        negative_log_q=sample.log_q,
        mask=empty,
        reduction="none",
    )
    assert_close(losses, torch.zeros(2))


def test_mining_asks_for_no_gradient():
    query = torch.randn(3, 2, requires_grad=True)
    sample, _ = hard_negatives(query, torch.randn(9, 2), torch.arange(3), 4)
    assert not sample.log_q.requires_grad


SAMPLE = entries([1, 2])[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UniformNegatives(0), "n_items=0"),
        (lambda: PopularityNegatives(torch.tensor([3, -1])), "item 1 has the count -1"),
        (lambda: PopularityNegatives(torch.tensor([torch.nan, 1])), "item 0 has the count nan"),
        (lambda: PopularityNegatives(torch.tensor([1.0, torch.inf])), "item 1 has the count inf"),
        (lambda: PopularityNegatives(torch.zeros(3)), "all 3 items have the count 0"),
        (lambda: PopularityNegatives(torch.ones(2, 2)), r"\(2, 2\)"),
        (lambda: PopularityNegatives(torch.tensor([])), r"\(0,\)"),
        (lambda: PopularityNegatives(COUNTS, power=-0.5), "power=-0.5"),
        (lambda: PopularityNegatives(COUNTS, power=float("nan")), "power=nan"),
        (lambda: InBatchNegatives(torch.zeros(3)), "all 3 items"),
        (lambda: MixedNegatives([]), "at least one sampler"),
        (lambda: MixedNegatives([(UniformNegatives(2), 0.0)]), "above 0"),
        (lambda: MixedNegatives([(UniformNegatives(2), float("nan"))]), "above 0"),
        (lambda: MixedNegatives([(UniformNegatives(2), 1), (UniformNegatives(3), 1)]), r"\[2, 3\]"),
        (lambda: UniformNegatives(3).sample(0, 0, 0), "k=0"),
        (lambda: NegativeQueue(0, 2), "size=0"),
        (lambda: NegativeQueue(2, 0), "dim=0"),
        (lambda: NegativeQueue(2, 3).put(torch.zeros(2, 2), SAMPLE), r"\(n, 3\)"),
        (lambda: NegativeQueue(2, 2).put(torch.zeros(3, 2), SAMPLE), r"\(n, 2\)"),
        (lambda: hard_negatives(torch.eye(2), torch.eye(2), torch.arange(2), 0), "k=0"),
        (lambda: hard_negatives(torch.eye(2), torch.eye(2), torch.arange(2), 1, margin=-0.1), "margin=-0.1"),
        (lambda: hard_negatives(torch.eye(2), torch.eye(2), torch.arange(2), 1, margin=float("nan")), "margin=nan"),
        (lambda: hard_negatives(torch.eye(2), torch.eye(2), torch.arange(2), 1, share=1.5), "share=1.5"),
        (lambda: hard_negatives(torch.eye(2), torch.eye(3), torch.arange(2), 1), r"\(2, 2\), item \(3, 3\)"),
        (lambda: hard_negatives(torch.eye(2), torch.eye(2), torch.arange(3), 1), r"positive \(3,\)"),
        (lambda: hard_negatives(torch.eye(2)[:0], torch.eye(2), torch.arange(0), 1), "0 queries"),
        (lambda: hard_negatives(torch.eye(2) * torch.nan, torch.eye(2), torch.arange(2), 1), "nan"),
        (lambda: hard_negatives(torch.eye(2), torch.eye(2), torch.arange(2), 1, mask=torch.eye(2)), "bool"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
