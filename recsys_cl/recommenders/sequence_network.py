"""Sequence network: item tower, sequence encoder and temperature, trained with a main loss and auxiliary losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys_cl.encoders.context import Context
from recsys_cl.encoders.sequence import GRU, Transformer
from recsys_cl.encoders.towers import ItemTower
from recsys_cl.losses import LearnedTemperature
from recsys_cl.negatives import DrawnNegatives
from recsys_cl.objectives.auxiliary import AuxiliaryLoss
from recsys_cl.objectives.prediction import Objective, SequenceLoss, Softmax, Step


class SequenceNetwork(nn.Module):
    r"""Sequence network: scores items by the similarity of their vectors to the state of the history.

    .. math:: s_{ti} = \frac{h_t^\top v_i}{\tau}, \qquad h = f_\theta(\sqrt d\, v_{x_1} + c_1, \dots)

    Input and output item vectors are the same, normalised for cosine similarity; :math:`c` are context vectors.

    Args:
        items: Item tower.
        encoder: Sequence encoder of histories.
        similarity: ``"cosine"`` or ``"dot"``.
        temperature: Initial :math:`\tau`; it is learned.
        loss: Main loss.
        auxiliary: Auxiliary losses with their weights.
        context: Encoder of event and user context.
        sizes: Sizes of the data that determine the shapes of the losses' own weights, such as ``event_types``.

    See: chapter 7.
    """

    def __init__(
        self,
        items: ItemTower,
        encoder: Transformer | GRU,
        *,
        similarity: Literal["cosine", "dot"],
        temperature: float,
        loss: SequenceLoss | None = None,
        auxiliary: Sequence[AuxiliaryLoss] = (),
        context: Context | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.items, self.encoder, self.context = items, encoder, context
        self.loss = Softmax() if loss is None else loss
        self.auxiliary = tuple(auxiliary)
        self.similarity = similarity
        self.scale = items.dim**0.5
        main = self.loss.learned(items.dim, sizes or {})
        self.temperature = LearnedTemperature(temperature)
        has_mask_token = self.loss.masked or any(one.has_mask_token for one in self.auxiliary)
        self.masked_item = nn.Parameter(F.normalize(torch.randn(1, items.dim), dim=1)) if has_mask_token else None
        objectives: list[Objective] = list(self.auxiliary)
        learned = [main, *(one.learned(items.dim, sizes or {}) for one in objectives)]
        self.learned = nn.ModuleDict({str(place): one for place, one in enumerate(learned) if one is not None})

    def vectors(self, keep_id: Tensor | None = None) -> Tensor:
        """Vectors of the catalogue, ``(N, dim)``, normalised for cosine."""
        catalogue = torch.arange(len(self.items.warm), device=self.items.warm.device)  # (N,)
        return self.comparable(self.items(catalogue, keep_id))  # (N, d)

    def comparable(self, vectors: Tensor) -> Tensor:
        """Vectors as they are compared: normalised for cosine similarity."""
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
            items: ``(T,)`` item numbers; one past the catalogue for a masked item.
            lengths: ``(B,)`` number of events of each row, at least 1.
            vectors: ``(N, dim)`` vectors of the catalogue.
            features: ``(T, F)`` context features of the events.
            attributes: ``(B, a)`` attributes of the users.

        Returns:
            ``(T, dim)`` states.
        """
        if self.masked_item is not None:
            vectors = torch.cat([vectors, self.masked_item])  # (N + 1, d)
        x = self.scale * vectors[items]  # (T, d)
        if self.context is not None and features is not None:
            x = x + self.context(features, attributes, lengths)  # (T, d)
        return self.comparable(self.encoder(x, lengths))  # (T, d)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Loss of a batch of :class:`~recsys_cl.training.windows.Windows` with the parts that the losses require."""
        vectors = self.vectors(batch.get("keep_id"))  # (N, d)
        states = self.states(
            batch["items"], batch["lengths"], vectors, batch.get("features"), batch.get("attributes")
        )  # (T, d)
        states = (states[batch["masked"]] if "masked" in batch else states).float()  # (T, d), (M, d) of masked events
        table = vectors.float()  # (N, d)

        def step(place: int) -> Step:
            learned = self.learned[str(place)] if str(place) in self.learned else None  # noqa: SIM401 - a ModuleDict has no get
            return Step(self, states, vectors, table, batch["target"], batch, learned)

        loss = self.loss(step(0))
        for place, auxiliary in enumerate(self.auxiliary, start=1):
            if auxiliary.weight:
                loss = loss + auxiliary.weight * auxiliary(step(place))
        return {"loss": loss}

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
        """Means of the losses' training statistics since the last call."""
        modules = [one for one in self.learned.values() if isinstance(one, DrawnNegatives)]
        return {name: value for one in modules for name, value in one.diagnostics(len(self.items.warm)).items()}

    def last_states(self, items: Tensor, lengths: Tensor, vectors: Tensor, *context: Tensor | None) -> Tensor:
        """State after the last event of each row, ``(B, dim)``."""
        return self.states(items, lengths, vectors, *context)[lengths.cumsum(0) - 1]  # (B, d)

    def learned_by(self, kind: type[AuxiliaryLoss]) -> nn.Module | None:
        """Module with the weights of the auxiliary loss of this class, or ``None`` if there is no such loss."""
        places = [place for place, one in enumerate(self.auxiliary, start=1) if isinstance(one, kind)]
        return self.learned[str(places[0])] if places else None
