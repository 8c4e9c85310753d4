"""White-box attacks on item vectors of a fitted recommender: worst-case PGD perturbation, random noise as control."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.data import Queries
from recsys_cl.errors import InputError
from recsys_cl.evaluation import Evaluation, evaluate
from recsys_cl.losses.perturbations import pgd, random_perturbation
from recsys_cl.recommenders.base import Recommender
from recsys_cl.recommenders.sequential import Sequential
from recsys_cl.recommenders.two_tower import TwoTower

ATTACKER_QUERIES = 2_000
"""Maximum number of queries, a seeded sample, on which the attacker computes gradients."""


def worst_shift(
    recommender: Recommender, queries: Queries, epsilon: float, *, steps: int = 10, seed: int = 0
) -> Tensor:
    r"""Worst-case perturbation of all item vectors, by projected gradient ascent on the queries' loss.

    .. math:: \max_{\lVert \delta_i \rVert \le \epsilon}\;
        -\frac1Q \sum_q \log \operatorname{softmax}_{t_q}\big(s_q(\{v_i + \lVert v_i \rVert\, \delta_i\})\big)

    The attacker knows the model and the users' next items, which no real attacker does: the result is a bound for real
    attacks, comparable between models. All queries share one perturbation, as they share one catalogue.

    Args:
        recommender: A fitted two-tower or sequential recommender.
        queries: Queries with targets; a seeded sample is used if there are more than 2,000.
        epsilon: Maximum move, above 0, in units of each vector's norm.
        steps: Number of gradient steps.
        seed: Seed of the sample.

    Returns:
        ``(n_items, dim)`` perturbation for :meth:`~recsys_cl.encoders.towers.ItemTower.shifted`.

    Raises:
        InputError: If the recommender has no item vectors to move, or a number is out of range.

    See: chapter 9.
    """
    model = _with_vectors(recommender)
    tower = model.network.items
    sample = queries.sample(ATTACKER_QUERIES, seed=seed)
    target = torch.from_numpy(sample.target.items[sample.target.start]).to(tower.warm.device)  # (Q,)

    def loss(shift: Tensor) -> Tensor:
        with tower.shifted(shift):
            return F.cross_entropy(model.logits(sample.history), target)

    return pgd(loss, torch.zeros(len(tower.warm), tower.dim, device=tower.warm.device), epsilon, steps=steps)


def evaluate_shifted(recommender: Recommender, queries: Queries, shift: Tensor) -> Evaluation:
    """Evaluate with item vectors perturbed by ``shift`` ``(n_items, dim)``, in units of their norms.

    See: chapter 9.
    """
    with _with_vectors(recommender).network.items.shifted(shift):
        return evaluate(recommender, queries)


def random_shift(recommender: Recommender, epsilon: float, *, seed: int = 0) -> Tensor:
    """Random perturbation of the same length as an attack, ``(n_items, dim)``: the control for robustness to noise.

    See: chapter 9.
    """
    tower = _with_vectors(recommender).network.items
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return random_perturbation(torch.zeros(len(tower.warm), tower.dim), epsilon).to(tower.warm.device)  # (N, d)


def _with_vectors(recommender: Recommender) -> TwoTower | Sequential:
    if not isinstance(recommender, TwoTower | Sequential):
        raise InputError(
            f"{type(recommender).__name__} has no item vectors that gradients reach; attack a TwoTower or a Sequential"
        )
    return recommender
