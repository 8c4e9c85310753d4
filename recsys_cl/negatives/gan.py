r"""Negatives that a generator makes of items, filtered by a discriminator: a GAN inside a contrastive loss.

The players learn beside the recommender, each from a loss that reaches nobody else: what it sees of the others is
detached, and where a loss must pass *through* another's weights they are held constant. One optimiser then serves
all in one step: simultaneous gradient descent of a game.
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
from recsys_cl.negatives.gan_diagnostics import Watched
from recsys_cl.negatives.hard import Candidates, DrawnNegatives, Negatives, check_share, chosen_of

PENALTY = 1.0
"""Weight of the discriminator's gradient penalty."""

PLAYED, PENALISED = 4, 16
"""One in so many rows of a batch is played for, and penalised: unbiased estimates at a fraction of the cost."""

HIDDEN = 64
"""Width of the players' layers."""


class GanNegatives(DrawnNegatives):
    r"""Items moved by a generator, for each query anew, and filtered by a discriminator.

    .. math:: \hat v_j = v_j + \epsilon\, \lVert v_j \rVert\, G(u, v_j), \qquad \lVert G \rVert = 1

    is brought back to the length of :math:`v_j`: the item drawn is the generator's noise, and :math:`\epsilon` how far
    it may go. :class:`~recsys_cl.negatives.hard.PerturbedNegatives` has :math:`G = u`, the move that
    hurts most; here it is learned, against somebody who knows what items look like:

    .. math::
        \min_D\; -\mathbb E_j \log D(u, v_j) - \mathbb E_j \log (1 - D(u, \hat v_j)), \qquad
        \min_G\; -\mathbb E_j \log D(u, \hat v_j) - \eta\, \mathbb E_j \cos(u, \hat v_j)

    over items j that the user is not known to like. At its optimum :math:`D = p / (p + \hat p)`: low where there are
    no items, or fewer than the generator makes. A sample with :math:`D < t` is taken back: the item stands as it was
    drawn, so that the number of negatives is always k.

    Args:
        dim: Dimension of the vectors.
        share: Share of the negatives that are generated, in (0, 1].
        epsilon: :math:`\epsilon > 0`, in units of each vector's norm.
        hardness: :math:`\eta \ge 0`, what closeness to the query is worth to the generator.
        threshold: :math:`t` in [0, 1); 0 keeps everything.

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
            raise InputError(f"threshold={threshold} leaves no samples; give a probability from 0, for no filter, to 1")
        self.share, self.epsilon, self.hardness, self.threshold = share, epsilon, hardness, threshold
        self.generator = Generator(condition=dim, noise=dim, out=dim, hidden=HIDDEN, normalise=True)
        self.discriminator = Discriminator(dim, condition=dim, hidden=HIDDEN)
        self.watched = Watched()

    def forward(self, given: Candidates) -> Negatives:
        """Make, judge and filter; the rest stays as drawn."""
        plain = super().forward(given)
        k = chosen_of(self.share, plain.mask.shape[1])
        user, real = unit(given.query.detach()), plain.vectors[:, :k]  # (B, d), (B, k, d)
        played = slice(0, -(-len(user) // PLAYED))
        loss, real_logit = self._game(user[played], real[played].detach(), ~plain.mask[played, :k])
        made = self.moved(user, real)  # (B, k, d)
        with torch.no_grad():
            logit = self.discriminator(made, user[:, None])  # (B, k)
        kept = logit.sigmoid() >= self.threshold  # (B, k)
        self.watched.add(
            discriminator_accuracy=discriminator_accuracy(real_logit, logit),
            generator_entropy=spread(made[played], given.table),
            closeness=(unit(made) * user[:, None]).sum(-1).mean(),
            share_filtered=1 - kept.float().mean(),
        )
        vectors = torch.where(kept[..., None], made, real)  # (B, k, d)
        return replace(plain, vectors=torch.cat([vectors, plain.vectors[:, k:]], dim=1), loss=loss)

    def diagnostics(self, n_items: int) -> dict[str, float]:
        """Accuracy of D, entropy and closeness of what G makes, and the share that the filter took back."""
        return self.watched.report(n_items=n_items)

    @torch.no_grad()
    def directions(self, user: Tensor, real: Tensor) -> Tensor:
        """Where the generator moves items ``(batch, k, dim)`` for users ``(batch, dim)``: unit vectors."""
        return self.generator(user, unit(real))  # (B, k, d)

    def moved(self, user: Tensor, real: Tensor) -> Tensor:
        """Generated vectors ``(batch, k, dim)``, as long as the items; the move is no part of the gradient."""
        return _move(real, self.directions(user, real), self.epsilon)  # (B, k, d)

    def _game(self, user: Tensor, real: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """What the players lose, and logits of the real ones that count."""
        by = user[:, None]  # (B, 1, d)
        fake = _move(real, self.generator(user, unit(real)), self.epsilon)  # (B, k, d)
        real_logit = self.discriminator(real, by)[counts]  # (R,)
        fake_logit = self.discriminator(fake.detach(), by)  # (B, k)
        few = slice(0, -(-len(user) * PLAYED // PENALISED))  # a double backward is dear
        penalty = gradient_penalty(lambda vectors: self.discriminator(vectors, by[few]), real[few])
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        fooled = functional_call(self.discriminator, frozen, (fake, by))  # (B, k)
        of_discriminator = discriminator_loss(real_logit, fake_logit) + PENALTY * penalty
        of_generator = generator_loss(fooled) - self.hardness * (unit(fake) * by).sum(-1).mean()
        return of_discriminator + of_generator, real_logit


def _move(real: Tensor, directions: Tensor, epsilon: float) -> Tensor:
    length = real.detach().norm(dim=-1, keepdim=True)  # (B, k, 1)
    return length * unit(real + epsilon * length * directions)  # (B, k, d)


@torch.no_grad()
def decode(vectors: Tensor, table: Tensor) -> Tensor:
    """The item whose vector has the largest cosine with each of ``(batch, k, dim)``: ``(batch, k)``."""
    return (vectors @ unit(table).T).argmax(-1)  # (B, k)


def spread(vectors: Tensor, table: Tensor) -> Tensor:
    """Entropy, in nats, of which items ``(batch, k, dim)`` vectors are nearest to: log N if to all alike."""
    found = decode(vectors, table).flatten().bincount(minlength=len(table)).float()  # (N,)
    return entropy((found / found.sum()).log())
