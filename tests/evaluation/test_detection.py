"""Exposure by hand, fakes made by one recipe are found, and precision and recall are counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.data import leave_last_n, synthetic
from recsys_cl.data.perturb.shilling import inject
from recsys_cl.errors import InputError
from recsys_cl.evaluation import detection
from recsys_cl.evaluation.robustness import detect, exposure, precision_recall

check = settings(deadline=None, max_examples=60, derandomize=True)


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
        patch.setattr(detection, "BLOCK", block)
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
