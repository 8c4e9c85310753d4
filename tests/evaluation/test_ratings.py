"""Errors of predicted ratings: one per target, and the interval of their root mean square."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_cl.data import Sequences, leave_last_n, synthetic
from recsys_cl.errors import InputError
from recsys_cl.evaluation import Evaluation
from recsys_cl.evaluation.ratings import SQUARED_ERROR, evaluate_ratings, rmse, root_mean_square


@dataclass
class ByItem:
    ratings: Tensor

    def predict_ratings(self, histories: Sequences) -> Tensor:
        return self.ratings.expand(len(histories), -1)


def test_every_target_has_its_error() -> None:
    split = leave_last_n(synthetic(100, 80, seed=2), 3)
    ratings = torch.linspace(0, 2, 80)
    found = evaluate_ratings(ByItem(ratings), split.test)
    rows, positions = split.test.target.flat()
    given = split.test.target.ratings[positions]
    predicted = ratings.numpy()[split.test.target.items[positions]]
    assert found.user.tolist() == split.test.user[rows].tolist()
    np.testing.assert_allclose(found.metrics[SQUARED_ERROR], (predicted - given) ** 2, rtol=1e-5)
    assert root_mean_square(found)[0] == pytest.approx(rmse(predicted, given), rel=1e-5)


def test_the_interval_is_the_root_of_the_interval_of_the_mean() -> None:
    errors = Evaluation(np.arange(50), {SQUARED_ERROR: np.random.default_rng(0).exponential(size=50)})
    middle, low, high = root_mean_square(errors)
    assert low < middle < high
    assert (low**2, high**2) == pytest.approx(errors.interval(SQUARED_ERROR))


def test_no_queries_are_refused() -> None:
    split = leave_last_n(synthetic(100, 80, seed=2), 3)
    none = np.array([], dtype=np.int64)
    empty = replace(split.test, user=none, history=split.test.history[none], target=split.test.target[none])
    with pytest.raises(InputError, match="no queries"):
        evaluate_ratings(ByItem(torch.zeros(80)), empty)
