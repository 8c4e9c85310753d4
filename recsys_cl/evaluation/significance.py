"""Statistical significance: bootstrap intervals and paired randomisation tests over users, and Holm's correction.

See: chapter 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from recsys_cl.errors import InputError


def _user_sums(values: np.ndarray, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, cluster = np.unique(user, return_inverse=True)
    return np.bincount(cluster, weights=values), np.bincount(cluster).astype(np.float64)


def bootstrap_interval(
    values: np.ndarray, user: np.ndarray, *, level: float = 0.95, samples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over queries, users resampled whole.

    Several queries of one user are not independent; resampling users keeps them together.

    Args:
        values: ``(queries,)`` values of a metric.
        user: ``(queries,)`` user number of each query.
        level: Coverage of the interval.
        samples: Number of bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end of the interval.

    References:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.

    See: chapter 2.

    Two users with one hit in two queries each: whichever of them are drawn, the mean is the same.

    >>> bootstrap_interval(np.array([0.0, 1.0, 1.0, 0.0]), user=np.array([0, 0, 1, 1]))
    (0.5, 0.5)
    """
    total, count = _user_sums(values, user)
    rng = np.random.default_rng(seed)
    means = np.empty(samples)
    for sample in range(samples):
        drawn = rng.integers(len(total), size=len(total))
        means[sample] = total[drawn].sum() / count[drawn].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """Difference of two recommenders on the same queries, with its interval and p-value.

    Attributes:
        difference: Mean of the first minus mean of the second.
        low: Lower end of the 95 % bootstrap interval of the difference.
        high: Upper end of that interval.
        p_value: Two-sided p-value of the sign-flip test.
    """

    difference: float
    low: float
    high: float
    p_value: float


def paired_test(
    first: np.ndarray, second: np.ndarray, user: np.ndarray, *, samples: int = 10_000, seed: int = 0
) -> PairedTest:
    r"""Sign-flip randomisation test: do two recommenders differ on the same users?

    If neither is better, a user's summed difference is as likely positive as negative. The p-value is the share of
    random sign patterns whose mean is at least as far from zero as the observed one,
    :math:`(1 + \#\{|\bar d^*| \ge |\bar d|\}) / (1 + \text{samples})`.

    Args:
        first: ``(queries,)`` values of a metric for the first recommender.
        second: ``(queries,)`` values for the second recommender on the same queries.
        user: ``(queries,)`` user number of each query.
        samples: Number of random sign patterns.
        seed: Seed of the signs and the interval.

    Raises:
        InputError: If the lengths differ.

    References:
        Smucker, Allan and Carterette (2007), https://doi.org/10.1145/1321440.1321528.

    See: chapter 2.

    >>> test = paired_test(np.ones(20), np.zeros(20), user=np.arange(20))
    >>> test.difference, test.p_value < 0.001
    (1.0, True)
    """
    if not len(first) == len(second) == len(user):
        raise InputError(f"{len(first)}, {len(second)} values and {len(user)} users; pair the same queries")
    total, count = _user_sums(first - second, user)
    observed = abs(total.sum())
    rng = np.random.default_rng(seed)
    extreme = 0
    for chunk in np.array_split(np.arange(samples), max(1, samples * len(total) // 4_000_000)):
        signs = rng.choice(np.array([-1.0, 1.0]), size=(len(chunk), len(total)))
        extreme += int((np.abs(signs @ total) >= observed * (1 - 1e-12)).sum())
    low, high = bootstrap_interval(first - second, user, seed=seed)
    return PairedTest(float(total.sum() / count.sum()), low, high, (1 + extreme) / (1 + samples))


def fold_test(differences: np.ndarray) -> PairedTest:
    r"""Paired t-test with disjoint folds as the unit, where the items vary by chance as well as the users.

    Repetitions of the folds share their data, so they lower the noise of the mean but do not count as further units:
    :math:`t = \sqrt{F}\, \bar d / s` with :math:`F - 1` degrees of freedom, where s is the standard deviation over the
    differences of all :math:`R F` folds.

    Args:
        differences: ``(repetitions, folds)`` metric of the first recommender minus that of the second.

    Raises:
        InputError: If there are fewer than two folds.

    See: chapter 5.

    >>> test = fold_test(np.array([[0.02, 0.03, 0.01, 0.02]]))
    >>> round(test.difference, 3), round(test.low, 3), round(test.high, 3), round(test.p_value, 3)
    (0.02, 0.007, 0.033, 0.016)
    """
    if differences.ndim != 2 or differences.shape[1] < 2:
        raise InputError(f"differences of shape {differences.shape}; give (repetitions, folds) with two folds or more")
    folds, mean = differences.shape[1], float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(folds))
    if error == 0:
        return PairedTest(mean, mean, mean, float(mean == 0))
    half = float(stats.t.ppf(0.975, folds - 1)) * error
    return PairedTest(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, folds - 1)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p-values, which controls the family-wise error rate.

    References:
        Holm (1979), Scandinavian Journal of Statistics 6(2), 65-70.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * p_values[order])
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
