"""What the specifications of the parts of a batch share: four histories, and all their windows."""

from collections.abc import Callable

import numpy as np
import pytest

from recsys_cl.data import Sequences
from recsys_cl.training.windows import Cut, Windows

CutOf = Callable[..., Cut]


@pytest.fixture
def train() -> Sequences:
    """12, 3, 9 and 2 of 12 items."""
    rng = np.random.default_rng(0)
    return Sequences.from_lists([rng.permutation(12)[:n].tolist() for n in (12, 3, 9, 2)])


@pytest.fixture
def cut_of() -> CutOf:
    """All windows of the histories in an epoch."""

    def cut(train: Sequences, epoch: int = 0) -> Cut:
        windows = Windows(train, length=5)
        return windows.cut([(epoch, window) for window in range(len(windows))])

    return cut
