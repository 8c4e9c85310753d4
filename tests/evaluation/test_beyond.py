"""Coverage, concentration, novelty, variety and popularity, by hand and by loop."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.evaluation import metrics

check = settings(deadline=None, max_examples=40, derandomize=True)
N_ITEMS = 12


def lists(seed: int, queries: int = 7, k: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(N_ITEMS, k, replace=False) for _ in range(queries)])


def test_coverage_by_hand():
    assert metrics.coverage(np.array([[0, 1], [1, 2]]), n_items=4) == 0.75
    assert metrics.coverage(np.arange(6).reshape(3, 2), n_items=6) == 1


def test_gini_by_hand():
    """One of four items gets everything: 1 - 1/4. Exposures 0, 0, 1, 1: a half."""
    assert metrics.gini(np.array([[2], [2], [2]]), n_items=4) == pytest.approx(0.75)
    assert metrics.gini(np.array([[2], [3]]), n_items=4) == pytest.approx(0.5)
    assert metrics.gini(np.array([[0, 1], [2, 3]]), n_items=4) == 0


@given(st.integers(0, 500))
@check
def test_gini_is_half_the_relative_mean_difference(seed):
    shown = lists(seed)
    exposure = [(shown == item).sum() for item in range(N_ITEMS)]
    differences = sum(abs(a - b) for a in exposure for b in exposure)
    expected = differences / (2 * N_ITEMS**2 * np.mean(exposure))
    assert metrics.gini(shown, N_ITEMS) == pytest.approx(expected)


def test_novelty_by_hand():
    """Items with a half, a quarter and a quarter of the events: 1, 2 and 2 bits."""
    counts = np.array([4, 2, 2])
    assert metrics.novelty(np.array([[0], [0]]), counts) == 1
    assert metrics.novelty(np.array([[0, 1], [2, 1]]), counts) == pytest.approx(7 / 4)


def test_an_item_without_events_is_novel_but_not_infinitely():
    counts = np.array([8, 0])
    assert metrics.novelty(np.array([[1]]), counts) == pytest.approx(4)


@given(st.integers(0, 500))
@check
def test_diversity_is_the_mean_cosine_distance_of_pairs(seed):
    shown = lists(seed)
    vectors = np.random.default_rng(seed).normal(size=(N_ITEMS, 5))
    distances = [
        np.mean([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(vectors[row], 2)])
        for row in shown
    ]
    assert metrics.intra_list_diversity(shown, vectors) == pytest.approx(np.mean(distances))


def test_diversity_of_copies_is_zero_and_of_orthogonal_items_one():
    shown = np.array([[0, 1, 2]])
    assert metrics.intra_list_diversity(shown, np.ones((3, 4)) * [[1], [2], [5]]) == pytest.approx(0)
    assert metrics.intra_list_diversity(shown, np.eye(3)) == pytest.approx(1)
    assert metrics.intra_list_diversity(shown[:, :2], np.array([[1.0], [-1], [0]])) == pytest.approx(2)


def test_popularity_lift_by_hand():
    counts = np.array([8, 4, 2, 2])
    history = np.array([1, 2, 3, 3])  # mean popularity 2.5
    assert metrics.popularity_lift(np.array([[0, 2]]), history, counts) == pytest.approx(5 / 2.5)
    assert metrics.popularity_lift(history[None], history, counts) == 1
