"""Retention, its area, the boundary, exposure and detection: by hand, by enumeration and by brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys_cl.data import leave_last_n, synthetic
from recsys_cl.data.perturb.shilling import inject
from recsys_cl.errors import InputError
from recsys_cl.evaluation import Evaluation, bootstrap_interval, robustness
from recsys_cl.evaluation.metrics import rank_of_targets
from recsys_cl.evaluation.robustness import (
    boundary_distance,
    detect,
    exposure,
    precision_recall,
    retention,
    robustness_index,
)

check = settings(deadline=None, max_examples=60, derandomize=True)


def evaluation(values: np.ndarray, user: np.ndarray | None = None) -> Evaluation:
    return Evaluation(np.arange(len(values)) if user is None else user, {"ndcg@10": np.asarray(values, dtype=float)})


# retention


def test_retention_by_hand_is_of_means_over_queries():
    user = np.array([0, 0, 1])
    kept = retention(evaluation([1.0, 0.5, 0.5], user), evaluation([0.5, 0.5, 0.0], user))
    assert kept.value == 0.5
    assert kept.low == 0.0  # user 1 alone
    assert kept.high == pytest.approx(2 / 3)  # user 0 alone


def test_an_attack_that_costs_everybody_the_same_share_has_no_spread():
    """The two means are of the same users: hard users make both low."""
    values = np.random.default_rng(0).random(50)
    kept = retention(evaluation(values), evaluation(0.7 * values))
    assert (kept.value, kept.low, kept.high) == pytest.approx((0.7, 0.7, 0.7))


def test_with_a_constant_clean_metric_the_interval_is_that_of_the_attacked_mean():
    values = np.random.default_rng(1).random(80)
    kept = retention(evaluation(np.full(80, 0.5)), evaluation(values))
    low, high = bootstrap_interval(values, np.arange(80))
    assert (kept.low, kept.high) == pytest.approx((2 * low, 2 * high))


def test_the_interval_is_that_of_the_delta_method_for_many_users():
    rng = np.random.default_rng(2)
    clean = rng.random(1_000)
    attacked = clean * rng.random(1_000)
    kept = retention(evaluation(clean), evaluation(attacked))
    half = 1.96 * (attacked - kept.value * clean).std() / clean.mean() / np.sqrt(1_000)
    assert (kept.low, kept.high) == pytest.approx((kept.value - half, kept.value + half), abs=0.15 * half)


def test_queries_of_a_user_are_drawn_together():
    rng = np.random.default_rng(3)
    clean, attacked = rng.random(100) + 0.1, rng.random(100)
    once = retention(evaluation(clean), evaluation(attacked))
    user = np.repeat(np.arange(100), 5)
    copies = retention(evaluation(np.repeat(clean, 5), user), evaluation(np.repeat(attacked, 5), user))
    assert (copies.value, copies.low, copies.high) == pytest.approx((once.value, once.low, once.high))


def test_samples_in_which_nothing_is_found_have_no_ratio():
    kept = retention(evaluation([1.0, 0.0]), evaluation([0.5, 0.0]))
    assert (kept.value, kept.low, kept.high) == (0.5, 0.5, 0.5)


def test_retention_refuses_what_cannot_be_compared():
    clean = evaluation([0.5, 0.2])
    with pytest.raises(InputError, match="different queries"):
        retention(clean, evaluation([0.5, 0.2], np.array([0, 2])))
    with pytest.raises(InputError, match=r"the clean ndcg@10 is 0\.0"):
        retention(evaluation([0.0, 0.0]), clean)
    with pytest.raises(InputError, match="no metric 'hr@5'"):
        retention(clean, clean, metric="hr@5")


# the index

CURVES = st.dictionaries(st.floats(0.01, 9.0), st.floats(0.0, 2.0), min_size=1, max_size=5)


def test_the_index_by_hand():
    assert robustness_index(0.2, {"pgd": {1.0: 0.0}}) == 0.5  # a straight line to nothing
    assert robustness_index(0.2, {"pgd": {0.1: 0.2, 0.3: 0.2}}) == 1.0
    assert robustness_index(0.2, {"pgd": {1.0: 0.0, 2.0: 0.0}}) == 0.25
    assert robustness_index(0.2, {"pgd": {1.0: 0.4}}) == 1.5
    assert robustness_index(0.2, {"pgd": {1.0: 0.0}, "typos": {0.5: 0.2}}) == 0.75


@given(st.floats(0.1, 2.0), CURVES)
@check
def test_the_index_is_the_area_under_the_interpolated_curve(clean, curve):
    strongest = max(curve)
    x = np.linspace(0, 1, 20_001)
    knots = sorted(curve)
    r = np.interp(x, [0.0, *(s / strongest for s in knots)], [1.0, *(curve[s] / clean for s in knots)])
    assert robustness_index(clean, {"f": curve}) == pytest.approx(np.trapezoid(r, x), abs=2e-2, rel=1e-3)


@given(st.floats(0.1, 2.0), CURVES, CURVES, st.floats(0.1, 9.0))
@check
def test_units_of_strength_and_metric_and_the_order_change_nothing(clean, first, second, scale):
    index = robustness_index(clean, {"a": first, "b": second})
    assert robustness_index(clean, {"b": second, "a": dict(reversed(first.items()))}) == pytest.approx(index)
    scaled = {"a": {scale * s: m for s, m in first.items()}, "b": second}
    assert robustness_index(clean, scaled) == pytest.approx(index)
    lower = {"a": {s: m / 2 for s, m in first.items()}, "b": {s: m / 2 for s, m in second.items()}}
    assert robustness_index(clean / 2, lower) == pytest.approx(index)
    both = [robustness_index(clean, {"f": one}) for one in (first, second)]
    assert np.mean(both) == pytest.approx(index)


@pytest.mark.parametrize(
    ("clean", "attacked", "message"),
    [
        (0.0, {"f": {1.0: 0.1}}, "the clean metric is 0.0"),
        (float("nan"), {"f": {1.0: 0.1}}, "the clean metric is nan"),
        (0.1, {}, "no area"),
        (0.1, {"f": {1.0: 0.1}, "g": {}}, "no area"),
        (0.1, {"f": {0.0: 0.1, 1.0: 0.1}}, r"strengths of 'f' are \[0.0, 1.0\]"),
        (0.1, {"f": {1.0: -0.1}}, r"metrics of 'f' are \[-0.1\]"),
        (0.1, {"f": {1.0: float("nan")}}, "metrics of 'f'"),
    ],
)
def test_the_index_refuses_what_has_no_area(clean, attacked, message):
    with pytest.raises(InputError, match=message):
        robustness_index(clean, attacked)


# the boundary


def world(seed: int, n: int = 7, d: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=generator, dtype=torch.float64) for n in (6, n))  # type: ignore[return-value]


def ahead(u: Tensor, items: Tensor, t: int) -> Tensor:
    """How many items score above the target, for each vector ``(..., d)``."""
    scores = u @ items.T
    return (scores > scores[..., [t]]).sum(-1)


def least_flip(u: Tensor, items: Tensor, t: int, k: int) -> float:
    """Norm of the shortest move in the plane, by trying directions, that moves the target across the end of the list.

    Along a ray the number ahead changes where a competitor passes, so only those lengths have to be tried.
    """
    angle = torch.linspace(0, 2 * torch.pi, 4001, dtype=torch.float64)
    direction = torch.stack([angle.cos(), angle.sin()], 1)  # (A, 2)
    gap = items[t] - items  # (N, 2)
    rate = direction @ gap.T  # (A, N) how fast the target gains on each along the ray
    length = -(gap @ u) / rate  # (A, N) where they are level
    length = torch.where((length > 0) & length.isfinite(), length * (1 + 1e-9), torch.inf)
    there = u + length.nan_to_num(posinf=0.0)[..., None] * direction[:, None]  # (A, N, 2)
    flipped = (ahead(there, items, t) < k) != (ahead(u, items, t) < k)  # (A, N)
    return float(length[flipped].min()) if flipped.any() else float("inf")


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_no_move_in_the_plane_is_shorter_than_the_bound_and_for_the_first_place_it_is_reached(seed, k):
    users, items = world(seed)
    relative = []
    for t in range(len(items)):
        bounds = boundary_distance(users, items, torch.full((6,), t), k=k) * users.norm(dim=1)
        for u, bound in zip(users, bounds.tolist(), strict=True):
            relative.append((bound > 0, least_flip(u, items, t, k) / abs(bound)))
    assert min(ratio for _, ratio in relative) >= 1 - 1e-6
    in_front = [ratio for inside, ratio in relative if inside and k == 1]
    assert in_front == pytest.approx([1.0] * len(in_front), rel=1e-4)
    assert len(in_front) == 6 * (k == 1)
    assert max(ratio for _, ratio in relative) > 1.1  # elsewhere it is a bound and no more


@given(st.integers(0, 999), st.integers(1, 6))
@check
def test_the_sign_says_whether_the_target_is_in_the_list(seed, k):
    users, items = world(seed, d=5)
    target = torch.arange(6)
    rank = rank_of_targets(users @ items.T, torch.arange(6), target)
    assert ((boundary_distance(users, items, target, k=k) > 0) == (rank <= k)).all()


@given(st.integers(0, 999), st.integers(1, 6))
@check
def test_no_shorter_move_in_any_direction_changes_the_list(seed, k):
    users, items = world(seed, d=5)
    target = torch.arange(6)
    radius = boundary_distance(users, items, target, k=k) * users.norm(dim=1)
    generator = torch.Generator().manual_seed(seed)
    move = torch.randn(200, 6, 5, generator=generator, dtype=torch.float64)
    gap = items[target][:, None] - items  # (6, N, 5)
    straight = torch.cat([gap, -gap], 1).transpose(0, 1)  # towards and away from every hyperplane
    move = torch.cat([move, straight])
    move = move / move.norm(dim=2, keepdim=True).clamp(min=1e-12) * radius.abs()[:, None] * 0.999
    for row, t in enumerate(target.tolist()):
        before, after = ahead(users[row], items, t) < k, ahead(users[row] + move[:, row], items, t) < k
        assert (after == before).all()


@given(st.integers(0, 999))
@check
def test_the_move_to_the_nearest_competitor_costs_the_first_place_and_a_shorter_one_does_not(seed):
    users, items = world(seed, d=5)
    target = (users @ items.T).argmax(1)
    distance = boundary_distance(users, items, target, k=1) * users.norm(dim=1)
    assert (distance > 0).all()
    for u, t, length in zip(users, target.tolist(), distance, strict=True):
        gap = items[t] - items
        nearest = ((gap @ u) / gap.norm(dim=1)).nan_to_num(torch.inf).argmin()
        direction = -gap[nearest] / gap[nearest].norm()
        assert ahead(u + 1.001 * length * direction, items, t) >= 1
        assert ahead(u + 0.999 * length * direction, items, t) == 0


@given(st.integers(0, 999), st.integers(1, 4), st.floats(0.1, 9.0))
@check
def test_scale_and_rotation_change_nothing_and_excluded_items_might_as_well_be_gone(seed, k, scale):
    users, items = world(seed, n=9, d=4)
    target = torch.arange(6) % 4
    distance = boundary_distance(users, items, target, k=k)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).double()).Q
    torch.testing.assert_close(boundary_distance(scale * users, items, target, k=k), distance)
    torch.testing.assert_close(boundary_distance(users, scale * items, target, k=k), distance)
    torch.testing.assert_close(boundary_distance(users @ rotation, items @ rotation, target, k=k), distance)
    exclude = torch.zeros(6, 9, dtype=torch.bool)
    exclude[:, 6:] = True
    few = boundary_distance(users, items[:6], target, k=k)
    torch.testing.assert_close(boundary_distance(users, items, target, k=k, exclude=exclude), few)


def test_a_twin_of_the_target_never_passes_it():
    items = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    users, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    assert boundary_distance(users, items, target, k=1).item() == 1.0
    assert boundary_distance(users, items, target, k=2).item() == float("inf")


def test_many_users_are_measured_in_blocks_like_few():
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(2_500, 3, generator=generator), torch.randn(5, 3, generator=generator)
    target = torch.arange(2_500) % 5
    exclude = torch.rand(2_500, 5, generator=generator) < 0.2
    whole = boundary_distance(users, items, target, k=2, exclude=exclude)
    rows = torch.arange(2_400, 2_500)
    torch.testing.assert_close(
        whole[rows], boundary_distance(users[rows], items, target[rows], k=2, exclude=exclude[rows])
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k=0 of 7 items; give 1 to 6"),
        ({"k": 7}, "k=7 of 7 items"),
        ({"target": torch.tensor([0, 7, 0, 0, 0, 0])}, "targets are 0 to 7; items are numbered 0 to 6"),
        ({"target": torch.tensor([0, -1, 0, 0, 0, 0])}, "targets are -1 to 0"),
        ({"target": torch.zeros(6)}, "give \\(6,\\) numbers"),
        ({"target": torch.zeros(5, dtype=torch.long)}, "target has shape \\(5,\\)"),
        ({"items": torch.zeros(7, 3)}, "users \\(6, 2\\) and items \\(7, 3\\)"),
        ({"exclude": torch.zeros(6, 6, dtype=torch.bool)}, "exclude is \\(6, 6\\)"),
        ({"exclude": torch.zeros(6, 7)}, "give \\(6, 7\\) booleans"),
        ({"users": torch.full((6, 2), torch.nan)}, "not finite"),
        ({"users": torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 0.0]])}, "the vector of user 5 is zero"),
    ],
)
def test_bad_geometry_is_named(change, message):
    users, items = world(0)
    given = {"users": users, "items": items, "target": torch.zeros(6, dtype=torch.long), "k": 1, **change}
    with pytest.raises(InputError, match=message):
        boundary_distance(given.pop("users"), given.pop("items"), given.pop("target"), **given)


# exposure


def test_exposure_by_hand():
    lists = np.array([[3, 1, -1], [2, 3, 0], [0, 1, 2]])
    assert exposure(lists, 3) == pytest.approx(2 / 3)
    assert exposure(lists, 5) == 0
    with pytest.raises(InputError, match="no lists"):
        exposure(np.empty((0, 10)), 3)


# detection


def by_loop(vectors: np.ndarray, share: float) -> list[float]:
    centred = [vector - np.mean(vectors, axis=0) for vector in vectors]
    m = max(1, round(share * len(vectors)))
    scores = []
    for i, one in enumerate(centred):
        cosines = [
            one @ other / np.linalg.norm(one) / np.linalg.norm(other) for j, other in enumerate(centred) if j != i
        ]
        scores.append(float(np.mean(sorted(cosines)[-m:])))
    return scores


@pytest.mark.parametrize("block", [4, 100])
@given(st.integers(0, 999), st.floats(0.01, 0.9))
@check
def test_the_score_is_the_mean_cosine_to_the_nearest_others(block, seed, share):
    vectors = np.random.default_rng(seed).normal(size=(11, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "BLOCK", block)
        np.testing.assert_allclose(detect(vectors, share), by_loop(vectors, share), atol=1e-12)


@given(st.integers(0, 999), st.floats(0.1, 9.0))
@check
def test_a_vector_that_all_share_and_the_scale_say_nothing(seed, scale):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(12, 4))
    np.testing.assert_allclose(detect(scale * vectors + 5 * rng.normal(size=4), 0.2), detect(vectors, 0.2), atol=1e-9)


def test_a_group_of_the_size_looked_for_stands_out():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(95, 16)), rng.normal(size=16) + 0.3 * rng.normal(size=(5, 16))
    found = precision_recall(detect(np.concatenate([real, fake]), 0.05), np.arange(100) >= 95)
    assert (found.average_precision, found.precision, found.recall) == (1, 1, 1)


@pytest.mark.parametrize("kind", ["random", "average", "bandwagon"])
def test_injected_profiles_are_found_by_their_items_more_often_than_by_chance(kind):
    split = leave_last_n(synthetic(n_users=200, n_items=100, n_events=4_000, seed=2), 5)
    target = int(np.argmin(split.counts))
    attacked, injected = inject(split, target, kind, users=20, profile=10)
    profiles = attacked.train.last(3).matrix(split.n_items).toarray()
    assert precision_recall(detect(profiles, 0.1), injected).average_precision > 3 * injected.mean()


@pytest.mark.parametrize(
    ("vectors", "share", "message"),
    [
        (np.ones((5, 2)), 0.0, "share=0.0 is out of range"),
        (np.ones((5, 2)), 1.0, "share=1.0 is out of range"),
        (np.ones((1, 2)), 0.1, r"vectors of shape \(1, 2\)"),
        (np.ones(5), 0.1, r"vectors of shape \(5,\)"),
        (np.full((5, 2), np.nan), 0.1, "give finite"),
    ],
)
def test_bad_vectors_are_named(vectors, share, message):
    with pytest.raises(InputError, match=message):
        detect(vectors, share)


# precision and recall


@given(st.integers(0, 999), st.integers(1, 11))
@check
def test_precision_and_recall_are_counts_over_random_orders_of_ties(seed, flagged):
    rng = np.random.default_rng(seed)
    scores, injected = rng.integers(4, size=12).astype(float), rng.permutation(12) < 4
    found = precision_recall(scores, injected, flagged=flagged)
    hits = []
    for _ in range(1_500):
        order = np.lexsort((rng.random(12), -scores))[:flagged]
        hits.append(injected[order].sum())
    spread = 5 * np.std(hits) / np.sqrt(1_500) + 1e-9
    assert found.precision * flagged == pytest.approx(np.mean(hits), abs=spread)
    assert found.recall * 4 == pytest.approx(np.mean(hits), abs=spread)


@given(st.integers(0, 999))
@check
def test_average_precision_is_the_mean_precision_at_the_injected(seed):
    rng = np.random.default_rng(seed)
    scores, injected = rng.permutation(12).astype(float), rng.permutation(12) < 4
    ranked = injected[np.argsort(-scores)]
    precisions = [ranked[: place + 1].mean() for place in np.flatnonzero(ranked)]
    assert precision_recall(scores, injected).average_precision == pytest.approx(np.mean(precisions))


def test_equal_scores_are_the_level_of_chance_wherever_the_injected_stand():
    for injected in (np.arange(20) < 5, np.arange(20) >= 15):
        found = precision_recall(np.ones(20), injected)
        assert (found.average_precision, found.precision, found.recall) == (0.25, 0.25, 0.25)


def test_as_many_flagged_as_injected_make_precision_and_recall_equal():
    scores, injected = np.array([5.0, 4, 3, 2, 1]), np.array([True, False, True, False, False])
    assert precision_recall(scores, injected).precision == precision_recall(scores, injected).recall == 0.5
    more = precision_recall(scores, injected, flagged=3)
    assert (more.precision, more.recall) == (pytest.approx(2 / 3), 1)


@pytest.mark.parametrize(
    ("scores", "injected", "flagged", "message"),
    [
        ([1.0, 2.0], [True], None, "give one finite score per user"),
        ([1.0, np.nan], [True, False], None, "give one finite score per user"),
        ([1.0, 2.0], [False, False], None, "0 of 2 users were injected"),
        ([1.0, 2.0], [True, True], None, "2 of 2 users were injected"),
        ([1.0, 2.0], [True, False], 0, "flagged=0 users; give 1 to 2"),
        ([1.0, 2.0], [True, False], 3, "flagged=3 users"),
    ],
)
def test_bad_detection_is_named(scores, injected, flagged, message):
    with pytest.raises(InputError, match=message):
        precision_recall(np.array(scores), np.array(injected), flagged=flagged)
