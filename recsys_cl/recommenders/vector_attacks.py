"""What is left of a recommender when somebody moves its item vectors: the strongest small move, and noise beside it."""

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

SEEN = 2_000
"""Queries, a seeded sample, on which an attacker computes gradients."""


def worst_shift(
    recommender: Recommender, queries: Queries, epsilon: float, *, steps: int = 10, seed: int = 0
) -> Tensor:
    r"""The perturbation of all item vectors that hurts the queries most.

    .. math:: \max_{\lVert \delta_i \rVert \le \epsilon}\;
        -\frac1Q \sum_q \log \operatorname{softmax}_{t_q}\big(s_q(\{v_i + \lVert v_i \rVert\, \delta_i\})\big)

    by projected gradient ascent. The attacker knows the model and what the users will choose next, which no real one
    does: it is a bound, and comparable between models. One perturbation serves all queries, as one catalogue does.

    Args:
        recommender: A fitted two-tower or sequential recommender.
        queries: With the answers; of more than 2,000 a seeded sample is taken.
        epsilon: Above 0, in units of each vector's own norm.
        steps: Of gradient ascent.
        seed: Of the sample.

    Returns:
        ``(n_items, dim)``, for :meth:`~recsys_cl.encoders.towers.ItemTower.shifted`.

    Raises:
        InputError: If the recommender has no item vectors to move, or a number is out of range.

    See: chapter 9.
    """
    model = _with_vectors(recommender)
    tower = model.network.items
    seen = queries.sample(SEEN, seed=seed)
    target = torch.from_numpy(seen.target.items[seen.target.start]).to(tower.warm.device)  # (Q,)

    def loss(shift: Tensor) -> Tensor:
        with tower.shifted(shift):
            return F.cross_entropy(model.logits(seen.history), target)

    return pgd(loss, torch.zeros(len(tower.warm), tower.dim, device=tower.warm.device), epsilon, steps=steps)


def evaluate_shifted(recommender: Recommender, queries: Queries, shift: Tensor) -> Evaluation:
    """Evaluate with item vectors moved by ``shift`` ``(n_items, dim)``, in units of their norms.

    See: chapter 9.
    """
    with _with_vectors(recommender).network.items.shifted(shift):
        return evaluate(recommender, queries)


def random_shift(recommender: Recommender, epsilon: float, *, seed: int = 0) -> Tensor:
    """Moves as long as an attack's and without aim, ``(n_items, dim)``: what robustness to noise means.

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
