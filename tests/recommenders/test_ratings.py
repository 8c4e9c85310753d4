"""Biases of items and users, in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from recsys_cl.data import Sequences, leave_one_out, synthetic
from recsys_cl.recommenders.ratings import SHRINKAGE, RatingBaseline


def rated(histories: list[list[int]], ratings: list[float]) -> Sequences:
    return replace(Sequences.from_lists(histories), ratings=np.array(ratings, dtype=np.float32))


@pytest.fixture
def train() -> Sequences:
    return rated([[0, 1, 2], [1, 0], [3]], [5, 3, 4, 2, 4, 1])


def test_biases_are_their_formulas(train: Sequences) -> None:
    baseline = RatingBaseline(5).fit(train)
    mean = (5 + 3 + 4 + 2 + 4 + 1) / 6
    item = {0: (5 + 4 - 2 * mean) / (2 + SHRINKAGE), 1: (3 + 2 - 2 * mean) / (2 + SHRINKAGE), 4: 0.0}
    user = sum(r - mean - item[i] for i, r in ((1, 2), (0, 4))) / (2 + SHRINKAGE)
    predicted = baseline(train)[1]
    for number, bias in item.items():
        assert float(predicted[number]) == pytest.approx(mean + bias + user, abs=1e-5)


def test_an_unknown_user_is_at_the_mean(train: Sequences) -> None:
    assert RatingBaseline(5).fit(train).user(Sequences.from_lists([[], []])).tolist() == [0.0, 0.0]


def test_a_surprise_is_measured_against_the_past_alone(train: Sequences) -> None:
    baseline = RatingBaseline(5).fit(train)
    surprise = baseline.surprise(train)
    for row in range(len(train)):
        for event in range(train.start[row], train.stop[row]):
            past = replace(train[np.array([row])], stop=np.array([event]))
            expected = train.ratings[event] - float(baseline(past)[0, train.items[event]])
            assert surprise[event] == pytest.approx(expected, abs=1e-5)


def test_overlapping_histories_have_the_surprises_of_the_longest() -> None:
    data = synthetic(120, 80, seed=1)
    split = leave_one_out(data)
    rolling = split.test.history[np.array([0, 0, 1])]
    rolling = replace(rolling, stop=rolling.stop - np.array([2, 0, 0]))
    baseline = RatingBaseline(80).fit(split.train)
    np.testing.assert_allclose(baseline.surprise(rolling), baseline.surprise(rolling[np.array([1, 2])]))
