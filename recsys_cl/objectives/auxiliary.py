"""Auxiliary losses of sequence models: contrastive views, text–id alignment, event-type prediction, id dropout.

Each is weighted and added to the main loss in the listed order:
``sasrec:auxiliary=views+item-alignment,auxiliary.views.weight=0.2``.

See: chapter 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys_cl.data import Sequences
from recsys_cl.data.sequences import RowRandom
from recsys_cl.errors import InputError
from recsys_cl.losses import nt_xent_loss, symmetric_info_nce_loss
from recsys_cl.objectives.prediction import Objective, Step, TrainingData
from recsys_cl.positives import OtherUserOfItem
from recsys_cl.positives.sequence_views import similar_items
from recsys_cl.positives.view_pairs import View, two_views, views_named
from recsys_cl.randomness import counter_uniform
from recsys_cl.settings import Parts, Range
from recsys_cl.training.large_batches import mean_over_processes
from recsys_cl.training.windows import Cut, Part, ragged

CONTRAST_TEMPERATURE = 0.1
"""Temperature of the contrastive auxiliary losses."""

SIMILAR = 10
"""Number of similar items per item from which the views *substitute* and *insert* draw."""


@dataclass(frozen=True)
class AuxiliaryLoss(Objective):
    """A loss added to the main loss; a subclass is a frozen dataclass of settings.

    Attributes:
        weight: Weight of the loss in the sum.
    """

    weight: float = 0.1

    @property
    def has_mask_token(self) -> bool:
        """Whether its histories may contain the mask item, for which the network then needs a vector."""
        return False

    def __call__(self, step: Step) -> Tensor | float:
        """The loss of a step, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__")


AUXILIARY_LOSSES = Parts("auxiliary loss", made=AuxiliaryLoss)
"""Auxiliary losses by name; ``+`` joins several."""


def contrasted(step: Step) -> Tensor:
    """NT-Xent between the last states of the two views in a batch."""
    views = step.network.last_states(step.batch["view_items"], step.batch["view_lengths"], step.vectors)  # (2W, d)
    return nt_xent_loss(*views.float().chunk(2), temperature=CONTRAST_TEMPERATURE)


@AUXILIARY_LOSSES.add("views")
@dataclass(frozen=True)
class Views(AuxiliaryLoss):
    """Contrast between two augmented views of each window (CL4SRec, CoSeRec).

    Attributes:
        of: Augmentations joined by ``+``: ``crop``, ``mask``, ``reorder``, ``substitute``, ``insert``.

    References:
        Xie et al. (2022), https://arxiv.org/abs/2010.14395; Liu et al. (2021), https://arxiv.org/abs/2108.06479.
    """

    of: str = "crop+mask+reorder"

    @property
    def has_mask_token(self) -> bool:
        """Whether *mask* is one of the augmentations."""
        return "mask" in self.of

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Two views of each window."""
        needs_similar = "substitute" in self.of or "insert" in self.of
        similar = similar_items(data.train, data.n_items, SIMILAR) if needs_similar else None
        views = views_named(self.of, mask_id=data.n_items, similar=similar)
        return (TwoViews(data.train, views, data.length, data.seed),)

    def __call__(self, step: Step) -> Tensor:
        """NT-Xent between the views."""
        return contrasted(step)


@AUXILIARY_LOSSES.add("same-target")
@dataclass(frozen=True)
class SameTarget(AuxiliaryLoss):
    """Contrast between each window and another user's history with the same next item (DuoRec).

    References:
        Qiu et al. (2022), https://arxiv.org/abs/2110.05730.
    """

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Each window and the other history, as two views."""
        return (SameTargetViews(data.train, data.n_items, data.length, data.seed),)

    def __call__(self, step: Step) -> Tensor:
        """NT-Xent between window and other history."""
        return contrasted(step)


@AUXILIARY_LOSSES.add("item-alignment")
@dataclass(frozen=True)
class ItemAlignment(AuxiliaryLoss):
    """Contrast between each item's text and id vectors, over the target items of a batch."""

    def __call__(self, step: Step) -> Tensor:
        """Symmetric InfoNCE between the text and id vectors of the item tower."""
        tower, items = step.network.items, step.target.unique()  # (n,)
        of_text, of_ids = F.normalize(tower.of_text(items), dim=1), F.normalize(tower.of_ids(items), dim=1)  # (n, d)
        return symmetric_info_nce_loss(of_text.float(), of_ids.float(), temperature=CONTRAST_TEMPERATURE)


@AUXILIARY_LOSSES.add("sequence-alignment")
@dataclass(frozen=True)
class SequenceAlignment(AuxiliaryLoss):
    """Contrast between the states of a window encoded from texts only and from ids only."""

    def __call__(self, step: Step) -> Tensor:
        """Symmetric InfoNCE between the last states of both encodings."""
        network, items, lengths = step.network, step.batch["items"], step.batch["lengths"]
        catalogue = torch.arange(len(step.table), device=items.device)  # (N,)
        by_text, by_ids = (
            network.last_states(items, lengths, network.comparable(part(catalogue))).float()  # (W, d)
            for part in (network.items.of_text, network.items.of_ids)
        )
        return symmetric_info_nce_loss(by_text, by_ids, temperature=CONTRAST_TEMPERATURE)


class EventTypeHead(nn.Module):
    r"""Classifier of the next event's type, given its item.

    .. math:: W [h_t;\, v_i;\, d\, h_t \odot v_i]

    The products express how well the item fits the user, which a linear map of the two vectors cannot.

    Args:
        dim: Dimension of states and item vectors.
        n_event_types: Number of event types, at least 2.

    Raises:
        InputError: If there are fewer than two event types.
    """

    def __init__(self, dim: int, n_event_types: int) -> None:
        super().__init__()
        if n_event_types < 2:
            raise InputError(
                f"auxiliary=event-type on data with {n_event_types} event types; give data with at least two"
            )
        self.linear, self.dim = nn.Linear(3 * dim, n_event_types), dim

    def forward(self, states: Tensor, items: Tensor) -> Tensor:
        """Logits ``(T, types)`` for states and item vectors ``(T, dim)``."""
        return self.linear(torch.cat([states, items, self.dim * states * items], dim=-1))  # (T, K)


@AUXILIARY_LOSSES.add("event-type")
@dataclass(frozen=True)
class EventType(AuxiliaryLoss):
    """Cross-entropy of the next event's type, given its item."""

    weight: float = 1.0

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Event types of the targets."""
        return (TargetEventTypes(data.train),)

    def learned(self, dim: int, sizes: Mapping[str, int]) -> EventTypeHead:
        """Event-type classifier."""
        return EventTypeHead(dim, sizes["event_types"])

    def __call__(self, step: Step) -> Tensor:
        """Mean cross-entropy over the predictions."""
        assert step.learned is not None
        logits = step.learned(step.states, step.table[step.target])  # (T, K)
        return mean_over_processes(F.cross_entropy(logits, step.batch["target_event_type"], reduction="none"))


@AUXILIARY_LOSSES.add("id-dropout")
@dataclass(frozen=True)
class IdDropout(AuxiliaryLoss):
    """Id dropout (DropoutNet), not a loss: a batch sees a share of the items by text only, as if they were new.

    Attributes:
        share: Share of the items whose ids are dropped.

    References:
        Volkovs, Yu and Poutanen (2017), DropoutNet, NeurIPS.
    """

    weight: float = 0.0
    share: Annotated[float, Range(0, 0.99)] = 0.5

    def parts(self, data: TrainingData) -> Sequence[Part]:
        """Items whose ids are dropped."""
        return (DroppedIds(data.n_items, self.share, data.seed),)

    def __call__(self, step: Step) -> float:
        """Zero: only the batch changes."""
        return 0.0


@dataclass(frozen=True, eq=False)
class TwoViews:
    """Two augmented views of each window; the rows of the first views precede those of the second.

    Attributes:
        train: Training sequences.
        views: Augmentations, one of which is drawn for each view.
        length: Maximum length of a view.
        seed: Seed of the augmentations.
    """

    train: Sequences
    views: Sequence[View]
    length: int
    seed: int = 0

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``view_items`` ``(T',)`` and ``view_lengths`` ``(2W,)``."""
        first, second = two_views(
            self.train.items[ragged(cut.begin, cut.stop)],
            cut.stop - cut.begin,
            RowRandom(self.seed, cut.epoch, cut.window),
            views=self.views,
            longest=self.length,
        )
        return {
            "view_items": np.concatenate([first[0], second[0]]),
            "view_lengths": np.concatenate([first[1], second[1]]),
        }


class SameTargetViews:
    """Each window and another user's history with the same next item, or the window itself if there is none.

    Args:
        train: Training sequences.
        n_items: Size of the catalogue.
        length: Maximum length of a history.
        seed: Seed of the draws.
    """

    def __init__(self, train: Sequences, n_items: int, length: int, seed: int = 0) -> None:
        self.train, self.length = train, length
        with_past = replace(train, start=np.minimum(train.start + 1, train.stop))
        self.others = OtherUserOfItem(with_past, n_items, seed)
        rows, positions = train.flat()
        self.first = np.zeros(len(train.items), dtype=np.int64)
        self.first[positions] = train.start[rows]  # (events,) start of each event's history

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``view_items`` ``(T',)`` and ``view_lengths`` ``(2W,)``: inputs of the windows, then the other histories."""
        target = cut.stop - 1  # (W,)
        drawn = self.others.sample(cut.epoch, target)  # (W,)
        other = np.where(drawn < 0, target, drawn)  # (W,)
        begin = np.concatenate([cut.begin, np.maximum(other - self.length, self.first[other])])  # (2W,)
        stop = np.concatenate([target, other])  # (2W,)
        return {"view_items": self.train.items[ragged(begin, stop)], "view_lengths": stop - begin}


@dataclass(frozen=True, eq=False)
class DroppedIds:
    """Random items whose ids are dropped for a batch.

    Attributes:
        n_items: Size of the catalogue.
        share: Share of the items whose ids are dropped.
        seed: Seed of the draws.
    """

    n_items: int
    share: float
    seed: int = 0

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``keep_id`` ``(n_items,)``, false where the id is dropped."""
        item = np.arange(self.n_items)
        drawn = counter_uniform(self.seed, "window-id-dropout", cut.epoch[0], cut.window[0], item)  # (N,)
        return {"keep_id": drawn >= self.share}


@dataclass(frozen=True, eq=False)
class TargetEventTypes:
    """Event types of the targets.

    Attributes:
        train: Training sequences with event types.
    """

    train: Sequences

    def __call__(self, cut: Cut) -> dict[str, np.ndarray]:
        """``target_event_type`` ``(T,)``."""
        assert self.train.event_types is not None
        return {"target_event_type": self.train.event_types[ragged(cut.begin, cut.stop - 1) + 1]}
