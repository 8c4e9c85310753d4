"""Parts of a batch that sequence losses need: shared and own negatives, known positives, masked events (BERT4Rec)."""

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
"""Draws of which the first that the user never chose is the negative; of half a catalogue, 1 in 256 finds none."""


def cloze(lengths: np.ndarray, chance: RowRandom, *, share: float, last: float = 0.0) -> np.ndarray:
    r"""Choose the events of a ragged batch that are hidden.

    .. math:: L = -\frac{1}{|M|} \sum_{t \in M} \log p(x_t \mid x_{\setminus M}), \qquad
        M = \{t : U_t < \rho\} \cup \{\arg\min_t U_t\}

    Every event is hidden with chance :math:`\rho`, and the one with the least :math:`U` of its row in any case: a row
    with nothing hidden would teach nothing. Of n events :math:`n \rho + (1 - \rho)^n` are hidden on average.

    At use only the last place is asked for, with nothing after it, which random places seldom resemble. With chance
    ``last`` a row hides its last event and no other, as BERT4Rec adds to its training.

    Args:
        lengths: ``(B,)`` number of events of each row.
        chance: Of the rows: another epoch hides other events; neither the batch nor a resumption changes them.
        share: :math:`\rho` in (0, 1]; the paper's best are from 0.2 for histories of hundreds of events to 0.6 for
            short ones.
        last: Chance that a row hides its last event alone.

    Returns:
        ``(T,)`` true where an event is hidden: at least one in every row that has events.

    Raises:
        InputError: If ``share`` or ``last`` is out of range, or lengths and examples do not fit.

    References:
        Sun et al. (2019), https://arxiv.org/abs/1904.06690.

    See: chapter 7.

    >>> lengths, chance = np.array([3, 1]), RowRandom(0, 0, np.array([0, 1]))
    >>> cloze(lengths, chance, share=0.2, last=1.0).tolist()
    [False, False, True, True]
    >>> int(cloze(lengths, chance, share=1e-9).sum())  # the least of each row
    2
    """
    check_rows(lengths, chance)
    if not 0 < share <= 1:
        raise InputError(f"share={share} of the events cannot be hidden; give a number above 0 and at most 1")
    if not 0 <= last <= 1:
        raise InputError(f"last={last} is not a chance; give 0 (never the last event alone) to 1 (always)")
    row, place = rows_and_places(lengths)
    drawn = chance.by_event("masked-event", lengths)  # (T,)
    least = np.full(len(lengths), np.inf)  # (B,)
    np.minimum.at(least, row, drawn)
    hidden = (drawn < share) | (drawn == least[row])  # (T,)
    only_last = chance.by_row("last-masked") < last  # (B,)
    return np.where(only_last[row], place == lengths[row] - 1, hidden)  # (T,)


@dataclass(frozen=True, eq=False)
class MaskedEvents:
    """Whole windows, some of whose events are masked and to be predicted from those before and after.

    Attributes:
        train: Training sequences.
        n_items: Size of the catalogue; the number after its last item stands for a masked one.
        share: Share of the events that are masked.
        last: Chance that a window's last event alone is masked.
        seed: Seed of the choice.
    """

    train: Sequences
    n_items: int
    share: float
    last: float
    seed: int = 0

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``lengths``, ``items`` with masked ones, ``masked`` their places, ``target`` what was there."""
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
        sampler: Draws them.
        k: Their number.
    """

    sampler: NegativeSampler
    k: int

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``negative`` and ``log_q``, ``(k,)`` both."""
        sample = self.sampler.sample(int(cut.epoch[0]), int(cut.window[0]), self.k)
        return {"negative": sample.items.numpy(), "log_q": sample.log_q.numpy()}


@dataclass(frozen=True, eq=False)
class OwnNegatives:
    """Negatives of each event's own, uniform over all items but the next one.

    Attributes:
        train: Training sequences.
        n_items: Size of the catalogue.
        k: Negatives of an event.
        known: What the user of an event chose in training, to be avoided as SASRec did; ``None`` not to avoid it.
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
        chosen = self.known.mask(user, torch.from_numpy(drawn)).numpy()  # (T, k tries)
        first = (~chosen).reshape(len(event), self.k, tries).argmax(2)[..., None]  # (T, k, 1)
        return {"negative": np.take_along_axis(drawn.reshape(len(event), self.k, tries), first, 2)[..., 0]}


@dataclass(frozen=True, eq=False)
class KnownItems:
    """Everything that the user of each window chose in training, before and after: what is no negative.

    Attributes:
        train: Training sequences.
    """

    train: Sequences

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``known_row`` and ``known_item`` ``(K,)``: window and item."""
        start, stop = self.train.start[cut.user], self.train.stop[cut.user]  # (W,) both
        return {
            "known_row": np.repeat(np.arange(len(cut.user)), stop - start),
            "known_item": self.train.items[ragged(start, stop)],
        }
