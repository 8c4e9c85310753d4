"""What the specifications of the losses share: vectors by seed, and both forms of the log-partition."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from recsys_cl.losses import partition

Drawn = Callable[..., list[Tensor]]


@pytest.fixture(scope="session")
def drawn() -> Drawn:
    """Normal tensors of the given shapes, the same for the same seed."""

    def draw(seed: int, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]

    return draw


@pytest.fixture(scope="module", params=["dense", "blocks"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a specification twice: on the dense form, and on blocks of one or two rows, the last one cut short."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "blocks":
            patch.setattr(partition, "DENSE", 0)
            patch.setattr(partition, "BLOCK", 15)
        yield request.param
