"""Negatives drawn by a policy that learns which items the recommender takes for good ones."""

from __future__ import annotations

from dataclasses import replace

import torch

from recsys_cl.encoders.generator import ItemPolicy
from recsys_cl.errors import InputError
from recsys_cl.losses.policy_gradient import entropy, leave_one_out_baseline, reinforce_loss
from recsys_cl.negatives.gan_diagnostics import Watched
from recsys_cl.negatives.hard import Candidates, DrawnNegatives, Negatives, check_share, chosen_of

TEMPERATURE = 0.1
"""Of the policy's softmax over dot products."""


class PolicyNegatives(DrawnNegatives):
    r"""Items that exist, drawn by a policy whose reward is the recommender's score.

    .. math:: \max_\phi\; \mathbb E_{i \sim p_\phi(\cdot \mid u)}[s_{ui}] + H(p_\phi(\cdot \mid u)), \qquad
        p^\ast(i \mid u) = \frac{e^{s_{ui}}}{\sum_j e^{s_{uj}}}

    Draws have no gradient; REINFORCE estimates that of the expected reward :math:`s_{ui} - \log p_\phi(i \mid u)`, with
    the mean of a user's other draws for a baseline. With the entropy in the game its solution is the recommender's own
    softmax, a negative drawn from which has in the mean the gradient of the full partition: at its best this
    adversary samples what the full softmax would push. (As one negative among k it is not corrected for its chance
    of being drawn, and the sum over the k is no estimate of the partition itself.)

    Args:
        dim: Dimension of the vectors.
        share: Share of the negatives that the policy draws, in (0, 1]; two at least.

    Raises:
        InputError: If the share is out of range.

    References:
        Wang et al. (2017), https://arxiv.org/abs/1705.10513 (IRGAN); Park and Chang (2019),
        https://doi.org/10.1145/3308558.3313416 (adversarial sampling of negatives).

    See: chapter 10.
    """

    def __init__(self, dim: int, share: float) -> None:
        super().__init__()
        check_share(share)
        self.share = share
        self.policy = ItemPolicy(dim, temperature=TEMPERATURE)
        self.watched = Watched()

    def forward(self, given: Candidates) -> Negatives:
        """Draw, and keep the rest as drawn by chance.

        Raises:
            InputError: If there is one negative only: the baseline of a draw is the mean of the others.
        """
        plain = super().forward(given)
        if plain.mask.shape[1] < 2:
            raise InputError("a policy learns from comparing its draws, and negatives=1 leaves one; give 2 or more")
        k = max(2, chosen_of(self.share, plain.mask.shape[1]))
        user, table = given.query.detach(), given.table.detach()  # (B, d), (N, d)
        log_p = self.policy(user, table)  # (B, N)
        items = log_p.detach().exp().multinomial(k, replacement=True)  # (B, k)
        drawn = log_p.gather(1, items)  # (B, k)
        score = (table[items] @ user[:, :, None]).squeeze(-1) / given.temperature  # (B, k)
        reward = score - drawn.detach()  # (B, k)
        self.watched.add(generator_entropy=entropy(log_p.detach()).mean(), reward=reward.mean())
        return replace(
            plain,
            vectors=torch.cat([given.table[items], plain.vectors[:, k:]], dim=1),  # (B, K, d)
            mask=torch.cat([given.known(slice(None), items), plain.mask[:, k:]], dim=1),  # (B, K)
            loss=reinforce_loss(drawn, reward, baseline=leave_one_out_baseline(reward)),
        )

    def diagnostics(self, n_items: int) -> dict[str, float]:
        """Entropy of the policy, and its reward."""
        return self.watched.report(n_items=n_items)
