"""Intervals cover, clusters count once, and p-values are what exact enumeration says."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recsys_cl.errors import InputError
from recsys_cl.evaluation import bootstrap_interval, fold_test, holm, paired_test, significance

check = settings(deadline=None, max_examples=60, derandomize=True)


def test_the_interval_agrees_with_scipy_on_independent_values():
    values = np.random.default_rng(0).exponential(size=200)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5_000, method="percentile", rng=1).confidence_interval
    ours = bootstrap_interval(values, np.arange(200), samples=5_000)
    assert ours == pytest.approx(theirs, abs=0.05 * (theirs.high - theirs.low))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_the_interval_is_that_of_the_normal_approximation_for_many_users(level):
    values = np.random.default_rng(1).random(1_000)
    low, high = bootstrap_interval(values, np.arange(1_000), level=level, samples=4_000)
    half = stats.norm.ppf((1 + level) / 2) * values.std() / np.sqrt(1_000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_equal_queries_of_a_user_count_once():
    """Ten copies of each user's value leave the interval as it was, and not narrower by the root of ten."""
    values = np.random.default_rng(2).random(150)
    once = bootstrap_interval(values, np.arange(150))
    copies, users = np.repeat(values, 10), np.repeat(np.arange(150), 10)
    assert bootstrap_interval(copies, users) == pytest.approx(once)
    low, high = bootstrap_interval(copies, np.arange(1500))
    assert (once[1] - once[0]) / (high - low) == pytest.approx(np.sqrt(10), rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """200 samples of 60 users with one to four correlated queries each: 95 % ± 4 standard errors, less 2 %
    that a percentile bootstrap of 60 costs.
    """
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        user = np.repeat(np.arange(60), rng.integers(1, 5, 60))
        values = rng.normal(size=60)[user] + 0.3 * rng.normal(size=len(user))
        low, high = bootstrap_interval(values, user, samples=300)
        covered += low <= 0 <= high
    assert covered / 200 == pytest.approx(0.94, abs=4 * np.sqrt(0.95 * 0.05 / 200))


def test_users_may_carry_any_labels_in_any_order():
    rng = np.random.default_rng(4)
    values, user = rng.random(60), np.repeat(np.arange(20), 3)
    names = np.array([f"u{number:02}" for number in user])
    order = rng.permutation(60)
    expected = bootstrap_interval(values, user)
    assert bootstrap_interval(values, names) == pytest.approx(expected)
    assert bootstrap_interval(values[order], user[order]) == pytest.approx(expected)


def test_intervals_and_tests_are_functions_of_the_seed():
    values, user = np.random.default_rng(5).normal(size=40), np.arange(40)
    assert bootstrap_interval(values, user, seed=1) == bootstrap_interval(values, user, seed=1)
    assert bootstrap_interval(values, user, seed=1) != bootstrap_interval(values, user, seed=2)
    zeros = np.zeros(40)
    assert paired_test(values, zeros, user, seed=1) == paired_test(values, zeros, user, seed=1)


# paired tests


def exact(first: np.ndarray, second: np.ndarray, user: np.ndarray) -> float:
    """Two-sided p-value over all sign patterns of the users' summed differences."""
    sums = np.array([(first - second)[user == name].sum() for name in np.unique(user)])
    patterns = np.array(list(product([-1, 1], repeat=len(sums))))
    return float((np.abs(patterns @ sums) >= abs(sums.sum()) - 1e-12).mean())


@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_is_that_of_all_sign_patterns(seed):
    """Nine users with one to three queries: within four standard errors of 10,000 random patterns."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(9), rng.integers(1, 4, 9))
    first, second = rng.random((2, len(user))) + np.array([[0.15], [0.0]])
    truth = exact(first, second, user)
    found = paired_test(first, second, user).p_value
    assert found == pytest.approx(truth, abs=4 * np.sqrt(truth * (1 - truth) / 10_000) + 1e-4)


def test_the_p_value_agrees_with_scipys_permutation_test():
    rng = np.random.default_rng(7)
    first, second = rng.normal(0.3, 1, 12), rng.normal(0, 1, 12)
    theirs = stats.permutation_test(
        (first, second), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True
    ).pvalue
    found = paired_test(first, second, np.arange(12)).p_value
    assert found == pytest.approx(theirs, abs=4 * np.sqrt(theirs * (1 - theirs) / 10_000) + 1e-4)


def p_values(shift: float, monkeypatch: pytest.MonkeyPatch, runs: int = 400) -> np.ndarray:
    monkeypatch.setattr(significance, "bootstrap_interval", lambda *_, **__: (0.0, 0.0))
    rng = np.random.default_rng(8)
    found = []
    for _ in range(runs):
        user = np.repeat(np.arange(30), rng.integers(1, 4, 30))
        noise = rng.normal(size=30)[user] + rng.normal(size=len(user))  # queries of a user are alike
        found.append(paired_test(noise + shift, np.zeros(len(user)), user, samples=999).p_value)
    return np.array(found)


def test_p_values_are_uniform_if_neither_is_better(monkeypatch):
    """400 simulated comparisons: Kolmogorov-Smirnov at 0.1 %, and 5 % ± 4 standard errors below .05."""
    found = p_values(0.0, monkeypatch)
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert (found <= 0.05).mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400))


def test_p_values_are_small_if_one_is_better(monkeypatch):
    found = p_values(1.5, monkeypatch, runs=50)
    assert (found < 0.01).mean() > 0.95
    assert found.min() >= 1 / 1000


def test_a_test_reports_the_difference_with_its_interval():
    rng = np.random.default_rng(9)
    user = np.repeat(np.arange(50), 4)
    first, second = rng.random((2, 200))
    found = paired_test(first, second, user)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == bootstrap_interval(first - second, user)
    turned = paired_test(second, first, user)
    assert turned.difference == pytest.approx(-found.difference)
    assert turned.p_value == found.p_value


def test_two_equal_recommenders_differ_with_p_one():
    values = np.random.default_rng(10).random(30)
    found = paired_test(values, values, np.arange(30))
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_different_numbers_of_queries_are_refused():
    with pytest.raises(InputError, match="3, 2 values and 3 users"):
        paired_test(np.zeros(3), np.zeros(2), np.arange(3))


# Holm


def test_holm_by_hand():
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, .04, and the last is raised to .06."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]
    assert holm(np.array([0.2])).tolist() == [0.2]
    assert holm(np.array([])).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
@check
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    rejected = set()
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] * (len(p_values) - step) > level:
            break
        rejected.add(place)
    corrected = holm(np.array(p_values))
    assert set(np.flatnonzero(corrected <= level).tolist()) == rejected
    assert (corrected >= np.array(p_values)).all()


def test_one_repetition_of_folds_is_the_paired_t_test() -> None:
    differences = np.random.default_rng(0).normal(0.02, 0.03, (1, 10))
    test, peer = fold_test(differences), stats.ttest_1samp(differences[0], 0)
    assert test.p_value == pytest.approx(peer.pvalue)
    assert (test.low, test.high) == pytest.approx(tuple(peer.confidence_interval()))


def test_repetitions_are_no_further_folds() -> None:
    """Repeating the same differences would halve the variance of their mean, if they counted as new."""
    differences = np.random.default_rng(0).normal(0.02, 0.03, (1, 10))
    once, again = fold_test(differences), fold_test(np.repeat(differences, 4, axis=0))
    assert again.difference == pytest.approx(once.difference)
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.05)


def test_folds_without_a_difference_or_without_a_second() -> None:
    assert fold_test(np.zeros((2, 5))).p_value == 1
    assert fold_test(np.ones((2, 5))).p_value == 0
    with pytest.raises(InputError, match=r"differences of shape \(10, 1\); give \(repetitions, folds\)"):
        fold_test(np.zeros((10, 1)))


def test_p_values_of_folds_are_uniform_under_the_null() -> None:
    rng = np.random.default_rng(0)
    p_values = [fold_test(rng.normal(size=(1, 10))).p_value for _ in range(2_000)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
