r"""GAN negatives: item vectors perturbed by a generator and filtered by a discriminator, for a contrastive loss.

Generator and discriminator train together with the recommender, each with a loss that updates only its own weights:
inputs from the others are detached, and a loss that passes *through* another player's weights treats them as constants.
One optimiser step therefore updates all of them: simultaneous gradient descent.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call

from recsys_cl.encoders.generator import Discriminator, Generator
from recsys_cl.errors import InputError
from recsys_cl.losses.checks import check_positive, unit
from recsys_cl.losses.gan import discriminator_accuracy, discriminator_loss, generator_loss, gradient_penalty
from recsys_cl.losses.policy_gradient import entropy
from recsys_cl.negatives.gan_diagnostics import GanDiagnostics
from recsys_cl.negatives.hard import Candidates, DrawnNegatives, Negatives, check_share, share_of

PENALTY = 1.0
"""Weight of the discriminator's gradient penalty."""

PLAYED, PENALISED = 4, 16
"""One in 4 rows of a batch enters the GAN losses, one in 16 the gradient penalty: unbiased estimates at lower cost."""

HIDDEN = 64
"""Width of the hidden layers of generator and discriminator."""


class GanNegatives(DrawnNegatives):
    r"""Drawn items, a share of them moved by a generator for each query and filtered by a discriminator.

    .. math:: \hat v_j = v_j + \epsilon\, \lVert v_j \rVert\, G(u, v_j), \qquad \lVert G \rVert = 1

    is rescaled to the length of :math:`v_j`. The drawn item serves as the generator's noise, and :math:`\epsilon`
    bounds the move. :class:`~recsys_cl.negatives.hard.PerturbedNegatives` uses :math:`G = u`, the move that raises the
    loss most; here the move is learned against a discriminator that knows what items look like:

    .. math::
        \min_D\; -\mathbb E_j \log D(u, v_j) - \mathbb E_j \log (1 - D(u, \hat v_j)), \qquad
        \min_G\; -\mathbb E_j \log D(u, \hat v_j) - \eta\, \mathbb E_j \cos(u, \hat v_j)

    over items j that the user is not known to like. The optimal discriminator is :math:`D = p / (p + \hat p)`: low
    where items are absent or rarer than generated ones. A sample with :math:`D < t` is replaced by the item as drawn,
    so the number of negatives is always k.

    Args:
        dim: Dimension of the vectors.
        share: Share of the negatives that are generated, in (0, 1].
        epsilon: Maximum move, :math:`\epsilon > 0`, in units of each vector's norm.
        hardness: :math:`\eta \ge 0`, weight of the cosine with the query in the generator's loss.
        threshold: :math:`t` in [0, 1), minimum probability of being real; 0 keeps every sample.

    Raises:
        InputError: If a value is out of range.

    References:
        Goodfellow et al. (2014), https://arxiv.org/abs/1406.2661;
        Mescheder, Geiger and Nowozin (2018), https://arxiv.org/abs/1801.04406 (the penalty).

    See: chapter 10.
    """

    def __init__(self, dim: int, share: float, *, epsilon: float, hardness: float, threshold: float) -> None:
        super().__init__()
        check_share(share)
        check_positive("epsilon", epsilon)
        if not 0 <= threshold < 1:
            raise InputError(
                f"threshold={threshold} leaves no samples; give a probability from 0 (no filter) to below 1"
            )
        self.share, self.epsilon, self.hardness, self.threshold = share, epsilon, hardness, threshold
        self.generator = Generator(condition=dim, noise=dim, out=dim, hidden=HIDDEN, normalise=True)
        self.discriminator = Discriminator(dim, condition=dim, hidden=HIDDEN)
        self.statistics = GanDiagnostics()

    def forward(self, candidates: Candidates) -> Negatives:
        """Generate and filter a share of the negatives; the rest stays as drawn."""
        plain = super().forward(candidates)
        k = share_of(self.share, plain.mask.shape[1])
        user, real = unit(candidates.query.detach()), plain.vectors[:, :k]  # (B, d), (B, k, d)
        played = slice(0, -(-len(user) // PLAYED))
        loss, real_logit = self._player_losses(user[played], real[played].detach(), ~plain.mask[played, :k])
        generated = self.moved(user, real)  # (B, k, d)
        with torch.no_grad():
            logit = self.discriminator(generated, user[:, None])  # (B, k)
        kept = logit.sigmoid() >= self.threshold  # (B, k)
        self.statistics.add(
            discriminator_accuracy=discriminator_accuracy(real_logit, logit),
            generator_entropy=nearest_item_entropy(generated[played], candidates.table),
            closeness=(unit(generated) * user[:, None]).sum(-1).mean(),
            share_filtered=1 - kept.float().mean(),
        )
        vectors = torch.where(kept[..., None], generated, real)  # (B, k, d)
        return replace(plain, vectors=torch.cat([vectors, plain.vectors[:, k:]], dim=1), loss=loss)

    def diagnostics(self, n_items: int) -> dict[str, float]:
        """Means since the last call: accuracy of D, entropy, closeness and filtered share of the samples."""
        return self.statistics.report(n_items=n_items)

    @torch.no_grad()
    def directions(self, user: Tensor, real: Tensor) -> Tensor:
        """Unit vectors along which the generator moves items ``(batch, k, dim)`` for users ``(batch, dim)``."""
        return self.generator(user, unit(real))  # (B, k, d)

    def moved(self, user: Tensor, real: Tensor) -> Tensor:
        """Generated vectors ``(batch, k, dim)``, as long as the items; no gradient flows through the move."""
        return _move(real, self.directions(user, real), self.epsilon)  # (B, k, d)

    def _player_losses(self, user: Tensor, real: Tensor, unmasked: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the losses of generator and discriminator, and logits of the unmasked real items."""
        condition = user[:, None]  # (B, 1, d)
        fake = _move(real, self.generator(user, unit(real)), self.epsilon)  # (B, k, d)
        real_logit = self.discriminator(real, condition)[unmasked]  # (R,)
        fake_logit = self.discriminator(fake.detach(), condition)  # (B, k)
        few = slice(0, -(-len(user) * PLAYED // PENALISED))  # a double backward is expensive
        penalty = gradient_penalty(lambda vectors: self.discriminator(vectors, condition[few]), real[few])
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        fake_logit_of_frozen = functional_call(self.discriminator, frozen, (fake, condition))  # (B, k)
        of_discriminator = discriminator_loss(real_logit, fake_logit) + PENALTY * penalty
        closeness = (unit(fake) * condition).sum(-1).mean()
        of_generator = generator_loss(fake_logit_of_frozen) - self.hardness * closeness
        return of_discriminator + of_generator, real_logit


def _move(real: Tensor, directions: Tensor, epsilon: float) -> Tensor:
    length = real.detach().norm(dim=-1, keepdim=True)  # (B, k, 1)
    return length * unit(real + epsilon * length * directions)  # (B, k, d)


@torch.no_grad()
def decode(vectors: Tensor, table: Tensor) -> Tensor:
    """Nearest item by cosine to each of the vectors ``(batch, k, dim)``: ``(batch, k)``."""
    return (vectors @ unit(table).T).argmax(-1)  # (B, k)


def nearest_item_entropy(vectors: Tensor, table: Tensor) -> Tensor:
    """Entropy in nats of the items nearest to the vectors ``(batch, k, dim)``; at most log N."""
    found = decode(vectors, table).flatten().bincount(minlength=len(table)).float()  # (N,)
    return entropy((found / found.sum()).log())
