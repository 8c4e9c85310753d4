"""Clouds of vectors: closed forms against loops, and what centring and whitening leave."""

import math

import pytest
import torch
import torch.nn.functional as F

from recsys_cl.errors import InputError
from recsys_cl.text.geometry import Whitening, centre, effective_rank, mean_cosine

close = torch.testing.assert_close


@pytest.fixture
def cone():
    """A hundred directions around one axis, of unequal variance."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(100, 6, generator=generator, dtype=torch.double) * torch.arange(1, 7)
    return spread + torch.tensor([40.0, 0, 0, 0, 0, 0], dtype=torch.double)


def test_mean_cosine_is_that_of_all_pairs(cone):
    cosines = F.cosine_similarity(cone[:, None], cone[None], dim=-1)
    off = ~torch.eye(100, dtype=torch.bool)
    close(mean_cosine(cone), cosines[off].mean())


def test_mean_cosine_ignores_lengths(cone):
    close(mean_cosine(cone * torch.arange(1, 101)[:, None]), mean_cosine(cone))


@pytest.mark.parametrize(("vectors", "expected"), [([[1.0, 2.0]] * 3, 1.0), ([[1.0, 0.0], [-1.0, 0.0]], -1.0)])
def test_mean_cosine_at_its_ends(vectors, expected):
    assert float(mean_cosine(torch.tensor(vectors))) == pytest.approx(expected)


def test_effective_rank_counts_equal_directions_and_ignores_scale():
    vectors = torch.block_diag(2 * torch.eye(4), torch.zeros(3, 3))
    close(effective_rank(vectors), torch.tensor(4.0))
    skewed = torch.diag(torch.tensor([3.0, 1.0]))
    close(effective_rank(skewed), torch.tensor(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))))
    close(effective_rank(5 * skewed), effective_rank(skewed))


def test_centring_opens_the_cone(cone):
    assert mean_cosine(cone) > 0.9
    centred = centre(cone, cone.mean(0))
    assert abs(mean_cosine(centred)) < 0.02
    close(centred.norm(dim=1), torch.ones(100, dtype=torch.double))


def test_whitened_vectors_are_uncorrelated_with_variance_one(cone):
    white = Whitening.fit(cone)(cone)
    close(white.mean(0), torch.zeros(6, dtype=torch.double))
    close(torch.cov(white.T), torch.eye(6, dtype=torch.double))


def test_whitened_distances_are_mahalanobis(cone):
    white = Whitening.fit(cone)(cone)
    difference = cone[3] - cone[8]
    close((white[3] - white[8]).square().sum(), difference @ torch.linalg.inv(torch.cov(cone.T)) @ difference)


def test_components_are_those_of_the_largest_variance(cone):
    fitted = Whitening.fit(cone, components=2)
    assert fitted.matrix.shape == (6, 2)
    values = torch.linalg.eigvalsh(torch.cov(cone.T)).flip(0)
    close(fitted.matrix.norm(dim=0), values[:2].rsqrt())


def test_a_ridge_holds_small_directions_down(cone):
    wide, narrow = Whitening.fit(cone, ridge=1e6)(cone).var(0), Whitening.fit(cone)(cone).var(0)
    close(narrow, torch.ones(6, dtype=torch.double))
    variances = torch.linalg.eigvalsh(torch.cov(cone.T)).flip(0)
    close(wide / wide.sum(), variances / variances.sum(), rtol=1e-4, atol=0)  # all but a common factor


def test_directions_without_variance_are_left_out():
    flat = torch.cat([torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.ones(20, 1)], dim=1)
    assert Whitening.fit(flat).matrix.shape == (4, 3)
    with pytest.raises(InputError, match="vary in 3 directions"):
        Whitening.fit(flat, components=4)


def test_nonsense_is_refused(cone):
    with pytest.raises(InputError, match="no pairs"):
        mean_cosine(cone[:1])
    with pytest.raises(InputError, match="give 0 or more"):
        Whitening.fit(cone, ridge=-1.0)
