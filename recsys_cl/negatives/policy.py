"""Policy-sampled negatives (IRGAN): items drawn by a policy trained with REINFORCE on the recommender's scores."""

from __future__ import annotations

from dataclasses import replace

import torch

from recsys_cl.encoders.generator import ItemPolicy
from recsys_cl.errors import InputError
from recsys_cl.losses.policy_gradient import entropy, leave_one_out_baseline, reinforce_loss
from recsys_cl.negatives.gan_diagnostics import GanDiagnostics
from recsys_cl.negatives.hard import Candidates, DrawnNegatives, Negatives, check_share, share_of

POLICY_TEMPERATURE = 0.1
"""Temperature of the policy's softmax over dot products."""


class PolicyNegatives(DrawnNegatives):
    r"""Drawn items, a share of them drawn by a policy whose reward is the recommender's score.

    .. math:: \max_\phi\; \mathbb E_{i \sim p_\phi(\cdot \mid u)}[s_{ui}] + H(p_\phi(\cdot \mid u)), \qquad
        p^\ast(i \mid u) = \frac{e^{s_{ui}}}{\sum_j e^{s_{uj}}}

    Draws have no gradient. REINFORCE estimates the gradient of the expected reward
    :math:`s_{ui} - \log p_\phi(i \mid u)`, with the mean over a user's other draws as baseline. With the entropy term
    the solution is the recommender's own softmax, and a negative drawn from it has, on average, the gradient of the
    full partition function: an optimal policy samples the items that the full softmax would repel. (As one negative
    among k it is not corrected for its sampling probability, and the sum over the k does not estimate the partition
    function itself.)

    Args:
        dim: Dimension of the vectors.
        share: Share of the negatives that the policy draws, in (0, 1]; at least two negatives.

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
        self.policy = ItemPolicy(dim, temperature=POLICY_TEMPERATURE)
        self.statistics = GanDiagnostics()

    def forward(self, candidates: Candidates) -> Negatives:
        """Replace a share of the negatives by draws of the policy; the rest stays as drawn.

        Raises:
            InputError: If there is only one negative: the baseline of a draw is the mean of the others.
        """
        plain = super().forward(candidates)
        if plain.mask.shape[1] < 2:
            raise InputError("a policy learns by comparing its draws, and negatives=1 leaves only one; give 2 or more")
        k = max(2, share_of(self.share, plain.mask.shape[1]))
        user, table = candidates.query.detach(), candidates.table.detach()  # (B, d), (N, d)
        log_p = self.policy(user, table)  # (B, N)
        items = log_p.detach().exp().multinomial(k, replacement=True)  # (B, k)
        drawn = log_p.gather(1, items)  # (B, k)
        score = (table[items] @ user[:, :, None]).squeeze(-1) / candidates.temperature  # (B, k)
        reward = score - drawn.detach()  # (B, k)
        self.statistics.add(generator_entropy=entropy(log_p.detach()).mean(), reward=reward.mean())
        return replace(
            plain,
            vectors=torch.cat([candidates.table[items], plain.vectors[:, k:]], dim=1),  # (B, K, d)
            mask=torch.cat([candidates.known(slice(None), items), plain.mask[:, k:]], dim=1),  # (B, K)
            loss=reinforce_loss(drawn, reward, baseline=leave_one_out_baseline(reward)),
        )

    def diagnostics(self, n_items: int) -> dict[str, float]:
        """Mean entropy and reward of the policy since the last call."""
        return self.statistics.report(n_items=n_items)
