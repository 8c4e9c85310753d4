"""Memory queue of negatives (MoCo, XBM): item vectors of previous batches, reused as further negatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys_cl.data import PAD
from recsys_cl.errors import InputError
from recsys_cl.losses.next_item import NegativeSample


class NegativeQueue(nn.Module):
    """First-in, first-out queue of the latest ``size`` item vectors: more negatives without encoding them again.

    Queued vectors get no gradient and are up to ``size / batch`` steps old: encode them with a moving average of the
    tower (MoCo), or rely on slow drift (XBM), as ``TwoTower(queue=4096)`` does. All contents are buffers, so training
    checkpoints include them. In distributed training, put in the gathered vectors of all processes, so every process
    holds the same queue. ::

        vectors, held = queue.held()
        columns = torch.cat([target, held.items])  # (B + n,)
        loss = info_nce_loss(
            query,
            torch.cat([item, vectors]),
            log_q=torch.cat([in_batch.log_q(target), held.log_q]),
            mask=lambda rows: known.mask(user[rows], columns),
        )
        queue.put(item, in_batch.of(target))

    Args:
        size: Number of vectors in a full queue.
        dim: Dimension of the vectors.

    Raises:
        InputError: If either is below 1.

    References:
        He et al. (2020), https://arxiv.org/abs/1911.05722; Wang et al. (2020), https://arxiv.org/abs/1912.06798.

    See: chapter 4.

    >>> queue = NegativeQueue(size=3, dim=1)
    >>> for number in range(5):
    ...     queue.put(torch.tensor([[number / 10]]), NegativeSample(torch.tensor([number]), torch.zeros(1)))
    >>> vectors, held = queue.held()
    >>> held.items.tolist(), tuple(vectors.shape)
    ([2, 3, 4], (3, 1))
    """

    vectors: Tensor
    items: Tensor
    log_q: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise InputError(f"size={size} and dim={dim} leave no room; give 1 or more of both")
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("items", torch.full((size,), PAD))
        self.register_buffer("log_q", torch.zeros(size))

    def held(self) -> tuple[Tensor, NegativeSample]:
        """Contents, oldest first: vectors ``(n, dim)``, and their items and log-probabilities ``(n,)``."""
        free = int((self.items == PAD).sum())  # free slots are at the front: new entries are appended
        return self.vectors[free:], NegativeSample(self.items[free:], self.log_q[free:])

    @torch.no_grad()
    def put(self, vectors: Tensor, sample: NegativeSample) -> None:
        """Append vectors and drop the oldest; of more than ``size``, the last are kept.

        Args:
            vectors: ``(n, dim)`` item vectors.
            sample: Items and log-probabilities of the vectors, ``(n,)`` each.

        Raises:
            InputError: If the shapes do not fit.
        """
        shapes = (tuple(vectors.shape), tuple(sample.items.shape), tuple(sample.log_q.shape))
        n, dim = len(vectors), self.vectors.shape[1]
        if shapes != ((n, dim), (n,), (n,)):
            raise InputError(f"vectors, items and log_q have shapes {shapes}; give (n, {dim}), (n,) and (n,)")
        self.vectors = self._behind(self.vectors, vectors)
        self.items = self._behind(self.items, sample.items)
        self.log_q = self._behind(self.log_q, sample.log_q)

    @staticmethod
    def _behind(old: Tensor, new: Tensor) -> Tensor:
        """Append to a copy: a loss may still need the old tensor for its gradient."""
        return torch.cat([old[len(new) :], new[-len(old) :].to(old)])
