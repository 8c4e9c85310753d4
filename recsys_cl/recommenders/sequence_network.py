"""The network of the sequential recommenders: items, encoder, and the losses that train them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys_cl.encoders.context import Context
from recsys_cl.encoders.sequence import GRU, Transformer
from recsys_cl.encoders.towers import ItemTower
from recsys_cl.losses import LearnedTemperature, Mask, nt_xent_loss, sampled_softmax_loss, symmetric_info_nce_loss
from recsys_cl.losses.next_item import binary_next_item_loss, gbce_loss, next_item_loss, sampled_next_item_loss
from recsys_cl.losses.partition import paired_scores, scores
from recsys_cl.negatives import Candidates, GanNegatives, NegativeSample
from recsys_cl.training.large_batches import mean_over_processes

ObjectiveName = Literal["softmax", "sampled-softmax", "bce", "gbce", "generated"]

VIEW_TEMPERATURE = 0.1
"""Of the contrasts beside the main loss."""


class SequenceNetwork(nn.Module):
    r"""States of histories against vectors of items.

    .. math:: s_{ti} = \frac{h_t^\top v_i}{\tau}, \qquad h = f_\theta(\sqrt d\, v_{x_1} + c_1, \dots)

    The vectors that are read are those that are predicted, normalised for cosine similarity; :math:`c` is context.

    Args:
        items: Item tower.
        encoder: Reads histories.
        similarity: ``"cosine"`` or ``"dot"``.
        temperature: Where :math:`\tau` starts; it is learned.
        objective: The loss.
        hides: Whether inputs may be hidden, so that a vector must stand for them.
        calibration: Of ``"gbce"``.
        contrast: Weight of the contrast between two views of a window.
        align: Weight of the alignment of each item's text with its id.
        align_sequences: Weight of the alignment of windows read by texts alone with the same read by ids alone.
        context: What surrounds events.
        n_kinds: Number of event types to predict beside the item, 0 for none.
        game: Makes the negatives of the objective ``"generated"``.

    See: chapter 7; chapter 10 for the game.
    """

    def __init__(
        self,
        items: ItemTower,
        encoder: Transformer | GRU,
        *,
        dim: int,
        similarity: Literal["cosine", "dot"],
        temperature: float,
        objective: ObjectiveName,
        hides: bool = False,
        calibration: float = 0.75,
        contrast: float = 0.0,
        align: float = 0.0,
        align_sequences: float = 0.0,
        context: Context | None = None,
        n_kinds: int = 0,
        game: GanNegatives | None = None,
    ) -> None:
        super().__init__()
        self.items, self.encoder, self.context, self.game = items, encoder, context, game
        self.similarity, self.objective, self.calibration = similarity, objective, calibration
        self.contrast, self.align, self.align_sequences = contrast, align, align_sequences
        self.scale = dim**0.5
        self.temperature = LearnedTemperature(temperature)
        self.hidden_item = nn.Parameter(F.normalize(torch.randn(1, dim), dim=1)) if hides else None
        self.kinds = nn.Linear(3 * dim, n_kinds) if n_kinds else None

    def vectors(self, keep_id: Tensor | None = None) -> Tensor:
        """Vectors of the catalogue, ``(N, dim)``, normalised for cosine."""
        everything = torch.arange(len(self.items.warm), device=self.items.warm.device)  # (N,)
        return self.comparable(self.items(everything, keep_id))  # (N, d)

    def comparable(self, vectors: Tensor) -> Tensor:
        """Vectors as they are compared."""
        return F.normalize(vectors, dim=-1) if self.similarity == "cosine" else vectors

    def states(
        self,
        items: Tensor,
        lengths: Tensor,
        vectors: Tensor,
        features: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> Tensor:
        """Comparable states after each event of a ragged batch.

        Args:
            items: ``(T,)`` item numbers; one past the catalogue for a hidden item.
            lengths: ``(B,)``, none of them 0.
            vectors: ``(N, dim)`` of the catalogue.
            features: ``(T, F)`` of the context.
            attributes: ``(B, a)`` of the users.

        Returns:
            ``(T, dim)``.
        """
        if self.hidden_item is not None:
            vectors = torch.cat([vectors, self.hidden_item])  # (N + 1, d)
        x = self.scale * vectors[items]  # (T, d)
        if self.context is not None and features is not None:
            x = x + self.context(features, attributes, lengths)  # (T, d)
        return self.comparable(self.encoder(x, lengths))  # (T, d)

    def forward(
        self,
        items: Tensor,
        lengths: Tensor,
        asked: Tensor,
        hidden: Tensor | None = None,
        negative: Tensor | None = None,
        log_q: Tensor | None = None,
        known_row: Tensor | None = None,
        known_item: Tensor | None = None,
        keep_id: Tensor | None = None,
        view_items: Tensor | None = None,
        view_lengths: Tensor | None = None,
        features: Tensor | None = None,
        attributes: Tensor | None = None,
        asked_kind: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss of a batch of :class:`~recsys_cl.training.windows.Windows` with the parts that the objective needs."""
        vectors = self.vectors(keep_id)  # (N, d)
        states = self.states(items, lengths, vectors, features, attributes)  # (T, d)
        states = (states if hidden is None else states[hidden]).float()  # (T, d), or (M, d) of the hidden places
        table = vectors.float()  # (N, d)
        spared = None
        if known_row is not None and known_item is not None:
            row = torch.arange(len(lengths), device=items.device).repeat_interleave(lengths)  # (T,)
            spared = _spare(known_row, known_item, row if hidden is None else row[hidden], len(lengths), len(table))
        if self.game is not None and negative is not None:
            loss = self._against_generated(self.game, states, table, asked, negative)
        else:
            loss = mean_over_processes(self._rows(states, table, asked, negative, log_q, spared))
        if view_items is not None and view_lengths is not None:
            views = self.last_states(view_items, view_lengths, vectors).float()  # (2W, d)
            loss = loss + self.contrast * nt_xent_loss(*views.chunk(2), temperature=VIEW_TEMPERATURE)
        if self.align:
            loss = loss + self.align * self._item_alignment(asked)
        if self.align_sequences:
            loss = loss + self.align_sequences * self._sequence_alignment(items, lengths)
        if self.kinds is not None and asked_kind is not None:
            loss = loss + mean_over_processes(
                F.cross_entropy(self.kind_logits(states, table[asked]), asked_kind, reduction="none")
            )
        return {"loss": loss}

    def _against_generated(
        self, game: GanNegatives, states: Tensor, table: Tensor, asked: Tensor, negative: Tensor
    ) -> Tensor:
        """Softmax against generated negatives of each event's own, and what the players of the game lose."""
        even = states.new_zeros(len(table))  # (N,), drawn uniformly
        drawn = NegativeSample(negative, even[negative])

        def known(rows: slice, items: Tensor) -> Tensor:
            return torch.zeros_like(items, dtype=torch.bool)  # the draws spare what they should

        made = game(Candidates(states, table, asked, drawn, known, self.temperature().detach()))
        rows = sampled_softmax_loss(
            states,
            table[asked],
            made.vectors,
            log_q=even[asked],
            negative_log_q=made.log_q,
            temperature=self.temperature(),
            reduction="none",
        )  # (T,)
        return mean_over_processes(rows) + made.loss

    def pairs(
        self,
        items: Tensor,
        lengths: Tensor,
        keep_id: Tensor | None = None,
        features: Tensor | None = None,
        attributes: Tensor | None = None,
        **_: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """States at the end of a batch's windows ``(W, dim)``, and vectors of the catalogue ``(N, dim)``."""
        vectors = self.vectors(keep_id)  # (N, d)
        return self.last_states(items, lengths, vectors, features, attributes), vectors

    def diagnostics(self) -> dict[str, float]:
        """What the players of the game did since the last call."""
        return {} if self.game is None else self.game.diagnostics(len(self.items.warm))

    def last_states(self, items: Tensor, lengths: Tensor, vectors: Tensor, *context: Tensor | None) -> Tensor:
        """State after the last event of each row, ``(B, dim)``."""
        return self.states(items, lengths, vectors, *context)[lengths.cumsum(0) - 1]  # (B, d)

    def kind_logits(self, states: Tensor, items: Tensor) -> Tensor:
        r"""How likely the next event is of each type, if it is on these items.

        .. math:: W [h_t;\, v_i;\, d\, h_t \odot v_i]

        The products say how well the item fits the user, which no sum of the two can.

        Args:
            states: ``(T, dim)``.
            items: ``(T, dim)`` vectors of the items.

        Returns:
            ``(T, kinds)`` logits.
        """
        assert self.kinds is not None
        return self.kinds(torch.cat([states, items, self.scale**2 * states * items], dim=-1))  # (T, K)

    def _rows(
        self,
        states: Tensor,
        table: Tensor,
        asked: Tensor,
        negative: Tensor | None,
        log_q: Tensor | None,
        spared: Mask | None,
    ) -> Tensor:
        """Loss of each event that is asked for, ``(T,)``."""
        temperature = self.temperature()
        match self.objective:
            case "softmax":
                return next_item_loss(
                    states, table, asked, temperature=temperature, mask=spared, reduction="none"
                )  # (T,)
            case "sampled-softmax":
                assert negative is not None
                assert log_q is not None
                sample = NegativeSample(negative, log_q)
                return sampled_next_item_loss(states, table, asked, sample, temperature=temperature, reduction="none")
        assert negative is not None
        positive = paired_scores(states, table[asked], temperature)  # (T,)
        negatives = scores(states, table[negative], temperature)  # (T, k)
        if self.objective == "bce":
            return binary_next_item_loss(positive, negatives, reduction="none")  # (T,)
        return gbce_loss(
            positive, negatives, n_items=len(table), calibration=self.calibration, reduction="none"
        )  # (T,)

    def _item_alignment(self, asked: Tensor) -> Tensor:
        """Contrast of text with id over the items of a batch."""
        items = asked.unique()  # (n,)
        of_text, of_ids = F.normalize(self.items.of_text(items), dim=1), F.normalize(self.items.of_ids(items), dim=1)
        return symmetric_info_nce_loss(of_text.float(), of_ids.float(), temperature=VIEW_TEMPERATURE)

    def _sequence_alignment(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Contrast of the last states of windows read by texts alone and by ids alone."""
        everything = torch.arange(len(self.items.warm), device=items.device)  # (N,)
        by_text, by_ids = (
            self.last_states(items, lengths, self.comparable(part(everything))).float()  # (W, d)
            for part in (self.items.of_text, self.items.of_ids)
        )
        return symmetric_info_nce_loss(by_text, by_ids, temperature=VIEW_TEMPERATURE)


def _spare(known_row: Tensor, known_item: Tensor, row: Tensor, n_rows: int, n_items: int) -> Mask:
    """What is no negative of the event in each of the given rows, as a function of a slice of events."""
    known = torch.zeros(n_rows, n_items, dtype=torch.bool, device=row.device)  # (W, N)
    known[known_row, known_item] = True
    return lambda events: known[row[events]]  # (R, N)
