"""Metrics of predictions agree with scikit-learn, and calibration with its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from recsys_cl.errors import InputError
from recsys_cl.evaluation import ratings

check = settings(deadline=None, max_examples=40, derandomize=True)


def clicks(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities rounded to two places, so that there are ties, and clicks drawn with them."""
    rng = np.random.default_rng(seed)
    probability = rng.random(n).round(2)
    return probability, (rng.random(n) < probability).astype(int)


@given(st.integers(0, 1000))
@check
def test_errors_of_ratings_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    prediction, rating = rng.normal(3, 1, 50), rng.integers(1, 6, 50).astype(float)
    assert ratings.rmse(prediction, rating) == pytest.approx(metrics.root_mean_squared_error(rating, prediction))
    assert ratings.mae(prediction, rating) == pytest.approx(metrics.mean_absolute_error(rating, prediction))


@given(st.integers(0, 1000))
@check
def test_metrics_of_clicks_agree_with_scikit_learn(seed):
    probability, click = clicks(seed)
    assert ratings.auc(probability, click) == pytest.approx(metrics.roc_auc_score(click, probability))
    assert ratings.accuracy(probability, click) == metrics.accuracy_score(click, probability >= 0.5)
    logit = np.random.default_rng(seed).normal(0, 3, len(click))
    expected = metrics.log_loss(click, 1 / (1 + np.exp(-logit)))
    assert ratings.log_loss(logit, click) == pytest.approx(expected)


def test_the_threshold_of_accuracy_is_itself_a_click():
    assert ratings.accuracy(np.array([0.5, 0.49]), np.array([1, 0])) == 1
    assert ratings.accuracy(np.array([0.5, 0.8]), np.array([0, 1]), threshold=0.7) == 1


def test_auc_is_a_share_of_pairs():
    probability, click = clicks(3, n=40)
    pairs = [(a > b) + (a == b) / 2 for a in probability[click == 1] for b in probability[click == 0]]
    assert ratings.auc(probability, click) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(("click", "expected"), [([1, 1], "2 clicks and 0 non-clicks"), ([0], "0 clicks and 1 non-")])
def test_auc_of_one_kind_only_is_refused(click, expected):
    with pytest.raises(InputError, match=expected):
        ratings.auc(np.linspace(0, 1, len(click)), np.array(click))


def test_log_loss_of_extreme_logits_is_finite_and_exact():
    assert ratings.log_loss(np.array([1e4, -1e4]), np.array([1, 0])) == 0
    assert ratings.log_loss(np.array([1e4, -1e4]), np.array([0, 1])) == 1e4


@given(st.integers(0, 1000), st.sampled_from([1, 7, 10]))
@check
def test_calibration_is_the_weighted_gap_of_the_bins(seed, bins):
    probability, click = clicks(seed)
    probability[:2] = [0, 1]
    place = np.minimum(np.floor(probability * bins), bins - 1)
    expected = sum(
        (place == one).mean() * abs(probability[place == one].mean() - click[place == one].mean())
        for one in np.unique(place)
    )
    assert ratings.calibration_error(probability, click, bins=bins) == pytest.approx(expected)


def test_a_calibrated_predictor_has_hardly_any_error_and_an_inverted_one_half():
    """20,000 draws: each of ten gaps is about sqrt(p(1-p) / 2000) = .01; |p - (1 - p)| averages a half."""
    rng = np.random.default_rng(0)
    probability = rng.random(20_000)
    click = rng.random(20_000) < probability
    assert ratings.calibration_error(probability, click) < 0.015
    assert ratings.calibration_error(1 - probability, click) == pytest.approx(0.5, abs=0.02)
