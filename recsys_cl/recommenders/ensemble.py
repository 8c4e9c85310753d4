"""Several recommenders that answer as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError
from recsys_cl.evaluation.evaluate import Scorer


class Ensemble:
    r"""Mean of the scores of recommenders whose scores are of one kind, such as the cosines of several seeds.

    .. math:: s = \frac{1}{M} \sum_m s^{(m)}

    Args:
        models: At least one.

    Raises:
        InputError: If there is none.

    See: chapter 6.
    """

    def __init__(self, models: Sequence[Scorer]) -> None:
        if not models:
            raise InputError("an ensemble of no models has no scores; give at least one")
        self.models = list(models)

    def score(self, histories: Sequences) -> Tensor:
        """The mean of the models' scores, ``(batch, n_items)``."""
        return torch.stack([model.score(histories) for model in self.models]).mean(0)  # (B, N)
