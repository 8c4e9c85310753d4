"""Several recommenders as one: the mean of their scores."""

import pytest
import torch
from torch import Tensor

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError
from recsys_cl.recommenders.models import Ensemble


class Constant:
    """Scores every item of every user alike."""

    def __init__(self, value: float) -> None:
        self.value = value

    def score(self, histories: Sequences) -> Tensor:
        return torch.full((len(histories), 3), self.value)


def test_scores_are_averaged() -> None:
    histories = Sequences.from_lists([[0], [1, 2]])
    torch.testing.assert_close(Ensemble([Constant(1.0), Constant(4.0)]).score(histories), torch.full((2, 3), 2.5))


def test_one_model_is_itself() -> None:
    histories = Sequences.from_lists([[0]])
    torch.testing.assert_close(Ensemble([Constant(0.3)]).score(histories), Constant(0.3).score(histories))


def test_nobody_has_no_opinion() -> None:
    with pytest.raises(InputError, match="at least one"):
        Ensemble([])
