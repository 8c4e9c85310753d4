"""GAN generator and discriminator of item vectors, and an item policy that samples existing items (IRGAN)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from recsys_cl.errors import InputError

SLOPE = 0.2
"""Negative slope of LeakyReLU: an inactive unit still passes gradient on to the other network."""


class Generator(nn.Module):
    r"""Generator: map noise to item vectors, optionally conditioned on a user's vector.

    .. math:: v_k = A u + W_3\, \phi\big(W_2\, \phi(W_u u + W_z z_k + b_1) + b_2\big) + b_3,
        \qquad \phi = \operatorname{LeakyReLU}

    A starts at the identity, so a user's first samples lie near the user's own vector, where negatives are hard. The
    terms that depend only on the user are computed once for all k samples.

    Args:
        condition: Width of the user vector; 0 for an unconditional generator.
        noise: Width of the noise.
        out: Width of the samples.
        hidden: Width of the two hidden layers.
        normalise: Whether to scale samples to unit length, as for vectors compared by cosine.

    Raises:
        InputError: If a width is below 1 (``condition``: below 0).

    References:
        Goodfellow et al. (2014), https://arxiv.org/abs/1406.2661; Mirza and Osindero (2014),
        https://arxiv.org/abs/1411.1784 (with a condition).

    See: chapter 10.

    >>> generator = Generator(condition=4, noise=3, out=4)
    >>> generator(torch.zeros(2, 4), torch.zeros(2, 5, 3)).shape  # 2 users, 5 samples each
    torch.Size([2, 5, 4])
    """

    def __init__(self, condition: int, noise: int, out: int, *, hidden: int = 128, normalise: bool = False) -> None:
        super().__init__()
        _check_widths(condition=condition, noise=noise, out=out, hidden=hidden)
        self.of_noise = nn.Linear(noise, hidden)
        self.of_condition = nn.Linear(condition, hidden, bias=False) if condition else None
        self.skip = nn.Linear(condition, out, bias=False) if condition else None
        if self.skip is not None:
            nn.init.eye_(self.skip.weight)
        self.rest = nn.Sequential(
            nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, out)
        )
        self.normalise = normalise

    def forward(self, condition: Tensor | None, noise: Tensor) -> Tensor:
        """Generate samples.

        Args:
            condition: User vectors ``(batch, condition)``, or ``None`` for an unconditional generator.
            noise: ``(batch, k, noise)``.

        Returns:
            Samples ``(batch, k, out)``.

        Raises:
            InputError: If a conditional generator gets no condition, or an unconditional one gets one.
        """
        _check_condition("generator", condition, self.skip is not None)
        hidden = self.of_noise(noise)  # (B, k, h)
        if condition is None or self.of_condition is None or self.skip is None:
            vectors = self.rest(hidden)  # (B, k, out)
        else:
            hidden = hidden + self.of_condition(condition)[:, None]  # (B, k, h)
            vectors = self.skip(condition)[:, None] + self.rest(hidden)  # (B, k, out)
        return F.normalize(vectors, dim=-1) if self.normalise else vectors


class Discriminator(nn.Module):
    r"""Discriminator: the logit that an item vector is real, optionally conditioned on a user's vector.

    .. math:: D(u, v) = \operatorname{MLP}([v,\ u,\ u \odot v])

    The product lets it compare the two: whether this user would like this item, not only whether the vector looks like
    an item.

    With ``spectral`` each layer's matrix is divided by an estimate of its largest singular value (spectral
    normalisation). The Lipschitz constant of the MLP is then at most about 1, so D cannot become so confident that the
    generator stops learning. Each forward pass in training mode refines the estimates by one power iteration.

    Args:
        dim: Width of the item vectors.
        condition: Width of the user vector: ``dim``, or 0 for an unconditional discriminator.
        hidden: Width of the two hidden layers.
        spectral: Whether to apply spectral normalisation.

    Raises:
        InputError: If a width is below 1 (``condition``: below 0), or item and user vectors differ in width.

    References:
        Goodfellow et al. (2014), https://arxiv.org/abs/1406.2661; Miyato et al. (2018),
        https://arxiv.org/abs/1802.05957 (spectral normalisation).

    See: chapter 10.

    >>> Discriminator(dim=4, condition=4)(torch.zeros(2, 5, 4), torch.zeros(2, 1, 4)).shape
    torch.Size([2, 5])
    """

    def __init__(self, dim: int, condition: int, *, hidden: int = 128, spectral: bool = False) -> None:
        super().__init__()
        _check_widths(condition=condition, dim=dim, hidden=hidden)
        if condition not in (0, dim):
            raise InputError(
                f"condition={condition} and dim={dim} have no product; give condition={dim}, or 0 for a "
                "discriminator of vectors alone"
            )
        widths = [3 * dim if condition else dim, hidden, hidden, 1]
        layers = [nn.Linear(width, following) for width, following in pairwise(widths)]
        first, second, last = [spectral_norm(layer) for layer in layers] if spectral else layers
        self.network = nn.Sequential(first, nn.LeakyReLU(SLOPE), second, nn.LeakyReLU(SLOPE), last)
        self.conditional = condition > 0

    def forward(self, vectors: Tensor, condition: Tensor | None = None) -> Tensor:
        """Classify vectors as real or generated.

        Args:
            vectors: Item vectors ``(..., dim)``.
            condition: User vectors that broadcast to ``(..., dim)``, or ``None`` for an unconditional discriminator.

        Returns:
            Logits ``(...)``, positive for real.

        Raises:
            InputError: If a conditional discriminator gets no condition, or an unconditional one gets one.
        """
        _check_condition("discriminator", condition, self.conditional)
        if condition is not None:
            vectors = torch.cat([vectors, condition.expand_as(vectors), condition * vectors], dim=-1)  # (..., 3 d)
        return self.network(vectors).squeeze(-1)  # (...)


class ItemPolicy(nn.Module):
    r"""Item policy: a generator that samples existing items for a user.

    .. math:: p(i \mid u) = \operatorname{softmax}_i \big(v_i^\top W u / \tau\big)

    W starts at the identity, so the policy starts as the recommender whose vectors it gets. A sample is an item number,
    through which no gradient flows; :func:`~recsys_cl.losses.policy_gradient.reinforce_loss` and
    :func:`~recsys_cl.losses.policy_gradient.gumbel_softmax_sample` are two ways around that.

    Args:
        dim: Width of the user and item vectors.
        temperature: :math:`\tau > 0`.

    Raises:
        InputError: If the width is below 1 or the temperature is not above 0.

    References:
        Wang et al. (2017), https://arxiv.org/abs/1705.10513 (IRGAN).

    See: chapter 10.

    >>> policy = ItemPolicy(2)
    >>> policy(torch.eye(2), torch.zeros(4, 2)).exp().tolist()  # identical items
    [[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]
    """

    def __init__(self, dim: int, *, temperature: float = 1.0) -> None:
        super().__init__()
        _check_widths(dim=dim)
        if not 0 < temperature < float("inf"):
            raise InputError(f"temperature is {temperature}; give one number above 0")
        self.turn = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.turn.weight)
        self.temperature = temperature

    def forward(self, user: Tensor, table: Tensor) -> Tensor:
        """Log-probabilities of all items.

        Args:
            user: User vectors ``(batch, dim)``.
            table: Item vectors ``(n_items, dim)``.

        Returns:
            ``(batch, n_items)``
        """
        return (self.turn(user) @ table.T / self.temperature).log_softmax(-1)  # (B, N)


def _check_widths(*, condition: int = 0, **widths: int) -> None:
    if condition < 0:
        raise InputError(f"condition={condition}; give the width of the user vectors, or 0 for none")
    for name, width in widths.items():
        if width < 1:
            raise InputError(f"{name}={width}; give a width of at least 1")


def _check_condition(player: str, condition: Tensor | None, expected: bool) -> None:
    if expected and condition is None:
        raise InputError(f"this {player} is conditional and got no condition; pass the user vectors")
    if not expected and condition is not None:
        raise InputError(
            f"this {player} is unconditional and got a condition; pass None, or build it with condition=WIDTH"
        )
