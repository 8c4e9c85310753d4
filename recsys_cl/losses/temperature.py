"""Learned temperature of a contrastive loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recsys_cl.errors import InputError
from recsys_cl.losses.checks import check_positive


class LearnedTemperature(nn.Module):
    r"""A temperature that is trained with the model, and never falls below a floor.

    .. math:: \tau = e^{-\theta}, \qquad \theta \le -\log \tau_{\min}

    The logarithm is what is learned, so that steps are relative and :math:`\tau > 0`. Without a floor, training
    sharpens without end once all positives come first, and one mislabelled negative then outweighs the batch.
    The floor projects the *parameter*: clamping the value instead would cut its gradient off beyond the floor,
    and the temperature could never rise again.

    Args:
        initial: Where :math:`\tau` starts.
        lowest: :math:`\tau_{\min}`; 0.01 keeps the logits of cosines within ±100, as CLIP does.

    Raises:
        InputError: If ``lowest`` is not above 0 or ``initial`` is below it.

    References:
        Radford et al. (2021), §2.5, https://arxiv.org/abs/2103.00020.

    See: chapter 4.

    >>> temperature = LearnedTemperature(0.5)
    >>> round(float(temperature().detach()), 4)
    0.5
    """

    def __init__(self, initial: float = 0.07, *, lowest: float = 0.01) -> None:
        super().__init__()
        check_positive("lowest", lowest)
        if not lowest <= initial < math.inf:
            raise InputError(f"initial is {initial}; give a temperature of at least lowest = {lowest}")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(initial)))
        self.lowest = lowest

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        with torch.no_grad():
            self.log_scale.clamp_(max=-math.log(self.lowest))
        return (-self.log_scale).exp()  # ()
