"""Batch parts for sequence losses: shared and per-event negatives, known positives, masked events (BERT4Rec)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from recsys_cl.data import Sequences
from recsys_cl.data.sequences import RowRandom, check_rows, rows_and_places
from recsys_cl.errors import InputError
from recsys_cl.negatives import NegativeSampler, UniformNegatives
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.training.windows import Cut, ragged

TRIES = 8
"""Draws per negative, of which the first that is no known positive is used; if half the catalogue is known, 1 in 256
fails."""


def cloze(lengths: np.ndarray, chance: RowRandom, *, share: float, last: float = 0.0) -> np.ndarray:
    r"""Masked item modelling (BERT4Rec): choose which events of a ragged batch to mask.

    .. math:: L = -\frac{1}{|M|} \sum_{t \in M} \log p(x_t \mid x_{\setminus M}), \qquad
        M = \{t : U_t < \rho\} \cup \{\arg\min_t U_t\}

    Every event is masked with probability :math:`\rho`, and the event with the smallest :math:`U` of its row in any
    case, since a row without masked events has no target. Of n events :math:`n \rho + (1 - \rho)^n` are masked on
    average.

    At inference only the last position is the target, without events after it, which random masks rarely resemble. With
    probability ``last`` a row masks its last event only, as BERT4Rec adds to its training.

    Args:
        lengths: ``(B,)`` number of events of each row.
        chance: Random numbers of the rows: each epoch masks other events; neither the batch nor a resumed run changes
            them.
        share: :math:`\rho` in (0, 1]; the paper's best values range from 0.2 for histories of hundreds of events to 0.6
            for short ones.
        last: Probability that a row masks its last event only.

    Returns:
        ``(T,)``, true where an event is masked: at least one in every row that has events.

    Raises:
        InputError: If ``share`` or ``last`` is out of range, or lengths and examples do not fit.

    References:
        Sun et al. (2019), https://arxiv.org/abs/1904.06690.

    See: chapter 7.

    >>> lengths, chance = np.array([3, 1]), RowRandom(0, 0, np.array([0, 1]))
    >>> cloze(lengths, chance, share=0.2, last=1.0).tolist()
    [False, False, True, True]
    >>> int(cloze(lengths, chance, share=1e-9).sum())  # the smallest draw of each row
    2
    """
    check_rows(lengths, chance)
    if not 0 < share <= 1:
        raise InputError(f"share={share} of the events cannot be masked; give a number above 0 and at most 1")
    if not 0 <= last <= 1:
        raise InputError(f"last={last} is not a probability; give 0 (never only the last event) to 1 (always)")
    row, place = rows_and_places(lengths)
    drawn = chance.by_event("masked-event", lengths)  # (T,)
    minimum = np.full(len(lengths), np.inf)  # (B,)
    np.minimum.at(minimum, row, drawn)
    masked = (drawn < share) | (drawn == minimum[row])  # (T,)
    only_last = chance.by_row("last-masked") < last  # (B,)
    return np.where(only_last[row], place == lengths[row] - 1, masked)  # (T,)


@dataclass(frozen=True, eq=False)
class MaskedEvents:
    """Whole windows with masked events, to be predicted from the events before and after.

    Attributes:
        train: Training sequences.
        n_items: Size of the catalogue, which is also the number of the mask item.
        share: Share of the events that are masked.
        last: Probability that a window masks its last event only.
        seed: Seed of the masks.
    """

    train: Sequences
    n_items: int
    share: float
    last: float
    seed: int = 0

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``lengths`` ``(W,)``, masked ``items`` ``(T,)``; ``masked`` positions and ``target`` items, both ``(M,)``."""
        lengths = cut.stop - cut.begin  # (W,)
        items = self.train.items[ragged(cut.begin, cut.stop)]  # (T,)
        masked = cloze(lengths, RowRandom(self.seed, cut.epoch, cut.window), share=self.share, last=self.last)  # (T,)
        return {
            "lengths": lengths,
            "items": np.where(masked, self.n_items, items),
            "masked": np.flatnonzero(masked),
            "target": items[masked],
        }


@dataclass(frozen=True, eq=False)
class SharedNegatives:
    """Negatives that all events of a batch share.

    Attributes:
        sampler: Sampler of the negatives.
        k: Number of negatives per batch.
    """

    sampler: NegativeSampler
    k: int

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``negative`` and ``log_q``, both ``(k,)``."""
        sample = self.sampler.sample(int(cut.epoch[0]), int(cut.window[0]), self.k)
        return {"negative": sample.items.numpy(), "log_q": sample.log_q.numpy()}


@dataclass(frozen=True, eq=False)
class OwnNegatives:
    """Own negatives for each event, uniform over all items except the next one.

    Attributes:
        train: Training sequences.
        n_items: Size of the catalogue.
        k: Number of negatives per event.
        known: Known positives of the users, which are not drawn, as in SASRec; ``None`` draws them too.
        seed: Seed of the draws.
    """

    train: Sequences
    n_items: int
    k: int
    known: KnownPositives | None = None
    seed: int = 0

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``negative`` ``(T, k)``."""
        event = ragged(cut.begin, cut.stop - 1)  # (T,)
        rows = np.repeat(np.arange(len(cut.user)), cut.stop - 1 - cut.begin)  # (T,)
        tries = 1 if self.known is None else TRIES
        other = UniformNegatives(self.n_items - 1, seed=self.seed).sample(cut.epoch[rows], event, self.k * tries)
        drawn = other.items.numpy()  # (T, k tries)
        drawn = drawn + (drawn >= self.train.items[event + 1][:, None])  # (T, k tries)
        if self.known is None:
            return {"negative": drawn}
        user = torch.from_numpy(cut.user[rows])  # (T,)
        known = self.known.mask(user, torch.from_numpy(drawn)).numpy()  # (T, k tries)
        first = (~known).reshape(len(event), self.k, tries).argmax(2)[..., None]  # (T, k, 1)
        return {"negative": np.take_along_axis(drawn.reshape(len(event), self.k, tries), first, 2)[..., 0]}


@dataclass(frozen=True, eq=False)
class KnownItems:
    """Known positives of each window's user: all training items, before and after the window.

    Attributes:
        train: Training sequences.
    """

    train: Sequences

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``known_row`` and ``known_item``, both ``(K,)``: pairs of window and item."""
        start, stop = self.train.start[cut.user], self.train.stop[cut.user]  # (W,) both
        return {
            "known_row": np.repeat(np.arange(len(cut.user)), stop - start),
            "known_item": self.train.items[ragged(start, stop)],
        }
