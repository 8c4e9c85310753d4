r"""Contrastive loss registry: the protocol that lets a model take any contrastive loss by name.

A loss compares user vectors with item vectors row by row, in one or both of two forms:

- **in-batch**, ``f(users, items)``: row b's positive is item b; the other items of the batch are its negatives;
- **own**, ``f(users, items, negatives)``: each user has k sampled negatives, ``(batch, k, dim)``.

Both return one loss per user, ``(batch,)``, by default or with ``reduction="none"``. A function that declares any of
these keywords receives them from the model: ``temperature``, ``mask`` (items that are not negatives), ``log_q``,
``negative_log_q``, ``label`` (item numbers). Every other keyword is a setting::

    def hinge(users, items, negatives, *, mask, gap=0.1): ...


    TwoTower(loss=hinge)  # directly
    add_loss("hinge", own=hinge)  # by name: two-tower:loss=hinge,loss.gap=0.2

See: chapter 4.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses.debiased import debiased_contrastive_loss, decoupled_contrastive_loss
from recsys_cl.losses.info_nce import info_nce_loss, sampled_softmax_loss, symmetric_info_nce_loss
from recsys_cl.losses.logistic import bpr_loss, logistic_loss, sigmoid_loss
from recsys_cl.losses.margin import pairwise_contrastive_loss, soft_triplet_loss, triplet_loss
from recsys_cl.losses.nt_xent import multi_positive_loss, nt_xent_loss, supervised_contrastive_loss
from recsys_cl.losses.partition import Mask, rows_of
from recsys_cl.registry import Registry, same_definition, unknown

MODEL_KEYWORDS = ("temperature", "mask", "log_q", "negative_log_q", "label", "reduction")
"""Keywords that a model passes to a loss that declares them; all others are settings."""


class Loss:
    """A contrastive loss with its settings, ready to train a model.

    Args:
        name: Registered name, ``""`` for none.
        in_batch: Loss against the other items of the batch.
        own: Loss against each user's own negatives.
        square: Whether the in-batch form needs as many items as users; with several processes, each then compares
            within its own part of the batch.
        settings: Values for keywords of the functions other than those in :data:`MODEL_KEYWORDS`.

    Raises:
        InputError: If a setting is unknown or not valid, if no function is given, or if a function does not return
            one loss per user with a gradient.

    See: chapter 4.

    >>> loss = Loss("triplet", own=triplet_loss, margin=0.3)
    >>> user, item = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> loss.against_own(user, user, item[:, None], temperature=torch.tensor(1.0)).tolist()
    [0.0]
    """

    def __init__(
        self,
        name: str = "",
        *,
        in_batch: Callable[..., Tensor] | None = None,
        own: Callable[..., Tensor] | None = None,
        square: bool = False,
        **settings: Any,
    ) -> None:
        self.name, self.square, self.settings = name, square, settings
        self.forms = {form: one for form, one in (("in-batch", in_batch), ("own", own)) if one is not None}
        if not self.forms:
            raise InputError("a loss needs a function; give in_batch= or own=")
        known = {word for one in self.forms.values() for word in _keywords(one)}
        self.has_temperature = "temperature" in known
        valid = sorted({word for one in self.forms.values() for word in _settings(one)})
        for setting in settings:
            if setting not in valid:
                raise InputError(
                    unknown(f"setting of the loss {self}:", setting, valid)
                    if valid
                    else f"the loss {self} has no settings; leave {setting} out"
                )
        try:
            self._try()
        except (TypeError, RuntimeError) as error:
            raise InputError(f"{self!r} fails on two users with two items: {error}") from error

    @classmethod
    def of(cls, function: Callable[..., Tensor]) -> Loss:
        """Wrap a function: in-batch if it takes two tensors, own if it takes three.

        Raises:
            InputError: If it takes any other number of tensors, or does not return one loss per user.
        """
        name = getattr(function, "__name__", type(function).__name__)
        form = {2: "in_batch", 3: "own"}.get(_positionals(function))
        if form is None:
            raise InputError(
                f"the loss {name!r} takes {_positionals(function)} tensors; give a function of (users, items) or "
                "(users, items, negatives)"
            )
        return cls(in_batch=function) if form == "in_batch" else cls(own=function)

    def against_batch(
        self,
        users: Tensor,
        items: Tensor,
        *,
        temperature: Tensor,
        mask: Mask | None = None,
        log_q: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        r"""Loss of each user against the other items of the batch.

        Args:
            users: ``(B, dim)``.
            items: ``(N, dim)``, the users' positives first, in the order of the users.
            temperature: :math:`\tau`.
            mask: ``(B, N)``, true where an item is not a negative, or a function from a slice of rows to their mask.
            log_q: ``(N,)`` log-probability that each item is in the batch.
            label: ``(N,)`` item numbers.

        Returns:
            ``(B,)``.
        """
        if self.square and len(items) > len(users):
            own = slice(0, len(users))
            items, log_q, label = items[own], _cut(log_q, own), _cut(label, own)
            mask = None if mask is None else partial(_columns, mask, users, own)
        return self._rows(
            "in-batch", (users, items), temperature=temperature, mask=mask, log_q=log_q, label=label
        )  # (B,)

    def against_own(
        self,
        users: Tensor,
        items: Tensor,
        negatives: Tensor,
        *,
        temperature: Tensor,
        mask: Tensor | None = None,
        log_q: Tensor | None = None,
        negative_log_q: Tensor | None = None,
    ) -> Tensor:
        r"""Loss of each user against the user's own negatives.

        Args:
            users: ``(B, dim)``.
            items: ``(B, dim)``, the users' positives.
            negatives: ``(B, K, dim)``.
            temperature: :math:`\tau`.
            mask: ``(B, K)``, true where a negative is ignored.
            log_q: ``(B,)`` log-probability that the sampler draws the positive.
            negative_log_q: ``(B, K)`` log-probability that the sampler draws each negative.

        Returns:
            ``(B,)``.
        """
        given = {"temperature": temperature, "mask": mask, "log_q": log_q, "negative_log_q": negative_log_q}
        return self._rows("own", (users, items, negatives), **given)  # (B,)

    def _rows(self, form: str, tensors: tuple[Tensor, ...], **given: Any) -> Tensor:
        function = self.forms[form]
        words = _keywords(function)
        read = {word: value for word, value in given.items() if word in words}
        settings = {word: value for word, value in self.settings.items() if word in words}
        rows = function(*tensors, **read, **settings, **({"reduction": "none"} if "reduction" in words else {}))
        shape = tuple(getattr(rows, "shape", ()))
        if not isinstance(rows, Tensor) or shape != (len(tensors[0]),):
            raise InputError(
                f"the loss {self} returns {'shape ' + str(shape) if isinstance(rows, Tensor) else repr(rows)}; return "
                f"one number per user, {(len(tensors[0]),)}, without averaging"
            )
        if torch.is_grad_enabled() and tensors[0].requires_grad and not rows.requires_grad:
            raise InputError(f"the loss {self} has no gradient; compute it from the arguments, without detach()")
        return rows

    def _try(self) -> None:
        """Run one small batch, so an invalid setting or function fails before anything is encoded."""
        users = torch.eye(2, requires_grad=True)
        temperature, even = torch.tensor(0.5), torch.zeros(2)
        with torch.enable_grad():
            if "in-batch" in self.forms:
                mask = torch.eye(2, dtype=torch.bool)
                label = torch.arange(2)
                rows = self.against_batch(users, users, temperature=temperature, mask=mask, log_q=even, label=label)
                self._check_finite(rows)
            if "own" in self.forms:
                rows = self.against_own(
                    users,
                    users,
                    users.flip(0)[:, None],
                    temperature=temperature,
                    mask=torch.zeros(2, 1, dtype=torch.bool),
                    log_q=even,
                    negative_log_q=even[:, None],
                )
                self._check_finite(rows)

    def _check_finite(self, rows: Tensor) -> None:
        if not rows.isfinite().all():
            raise InputError(f"the loss {self} is {rows.detach().tolist()} on two orthogonal pairs; it must be finite")

    def __str__(self) -> str:
        return repr(self.name or next(getattr(one, "__name__", "function") for one in self.forms.values()))

    def __repr__(self) -> str:
        return "".join((f"Loss({self}", *(f", {name}={value!r}" for name, value in self.settings.items()), ")"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and (self.forms, self.settings) == (other.forms, other.settings)

    __hash__ = None  # type: ignore[assignment]


class _Losses(Registry[Callable[..., Loss]]):
    """Losses by name; a plain function is accepted as a loss, and one that is registered keeps its name."""

    def adapt(self, value: Any) -> Loss:
        if isinstance(value, Loss):
            return value
        if not callable(value):
            raise InputError(f"loss={value!r} is not valid; give a name, a function or a Loss")
        loss = Loss.of(value)
        return next((known for known in (make() for make in self.values()) if known == loss), loss)

    def describe(self, value: Loss) -> dict[str, Any]:
        if value.name not in self:
            raise InputError(
                f"the loss {value} has no registered name, so it cannot be saved; register it with add_loss(NAME, ...)"
            )
        return {"name": value.name, **value.settings}


LOSSES = _Losses("loss")
"""Name to a factory that takes settings: ``LOSSES["triplet"](margin=0.3)``."""


def add_loss(
    name: str,
    *,
    in_batch: Callable[..., Tensor] | None = None,
    own: Callable[..., Tensor] | None = None,
    square: bool = False,
) -> None:
    """Register a loss, so models, configs and the command line can refer to it by name.

    Args:
        name: Name of the loss, as in ``two-tower:loss=NAME``.
        in_batch: Loss against the other items of the batch, ``f(users, items)``.
        own: Loss against each user's own negatives, ``f(users, items, negatives)``.
        square: Whether ``in_batch`` needs as many items as users.

    Raises:
        InputError: If the name is taken by other functions, or a function does not return one loss per user.

    See: chapter 4.
    """
    loss = Loss(name, in_batch=in_batch, own=own, square=square)
    if name in LOSSES and not _same_forms(LOSSES[name]().forms, loss.forms):
        raise InputError(f"the loss name {name!r} is taken; choose another")
    LOSSES.replace(name, partial(Loss, name, in_batch=in_batch, own=own, square=square))


def two_views(users: Tensor, items: Tensor, *, temperature: Tensor) -> Tensor:
    """NT-Xent with users and items as the two views: all other users and items of the batch are negatives."""
    return nt_xent_loss(users, items, temperature=temperature, reduction="none").view(2, -1).mean(0)  # (B,)


def same_item(users: Tensor, items: Tensor, *, temperature: Tensor, label: Tensor) -> Tensor:
    """Supervised contrastive loss over user and item vectors, labelled by item number."""
    rows = supervised_contrastive_loss(
        torch.cat([users, items]), torch.cat([label, label]), temperature=temperature, reduction="none"
    )  # (2B,)
    return rows.view(2, -1).mean(0)  # (B,)


def all_known(users: Tensor, items: Tensor, *, temperature: Tensor, mask: Mask | None) -> Tensor:
    """Multi-positive loss: every item of the batch that the user is known to like is a positive."""
    positive = torch.eye(len(users), len(items), dtype=torch.bool, device=users.device)  # (B, N)
    if mask is not None:
        positive = positive | rows_of(mask, slice(0, len(users)), (len(users), len(items)), users.device)  # (B, N)
    return multi_positive_loss(users, items, positive, temperature=temperature, reduction="none")  # (B,)


def each_pair(users: Tensor, items: Tensor, *, temperature: Tensor, mask: Mask | None) -> Tensor:
    """Logistic loss with the other items of the batch as negatives."""
    return sigmoid_loss(users, items, temperature=temperature, bias=0.0, mask=mask, reduction="none")  # (B,)


def _same_forms(known: Mapping[str, object], given: Mapping[str, object]) -> bool:
    return known.keys() == given.keys() and all(same_definition(known[form], given[form]) for form in given)


def _keywords(function: Callable[..., Tensor]) -> set[str]:
    """Keyword-only parameters of a function."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}


def _settings(function: Callable[..., Tensor]) -> set[str]:
    """Keywords that are settings: those with a default, except those that a model passes."""
    parameters = inspect.signature(function).parameters
    return {
        word
        for word in _keywords(function) - set(MODEL_KEYWORDS)
        if parameters[word].default not in (None, inspect._empty)
    }


def _positionals(function: Callable[..., Tensor]) -> int:
    """Number of positional parameters without a default."""
    parameters = inspect.signature(function).parameters.values()
    return sum(
        one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty for one in parameters
    )


def _cut(values: Tensor | None, part: slice) -> Tensor | None:
    return None if values is None else values[part]


def _columns(mask: Mask, users: Tensor, columns: slice, rows: slice) -> Tensor:
    """Some columns of some rows of a mask."""
    return (mask(rows) if callable(mask) else mask[rows])[:, columns]  # (R, n)


add_loss("info-nce", in_batch=info_nce_loss, own=sampled_softmax_loss)
add_loss("symmetric-info-nce", in_batch=symmetric_info_nce_loss, square=True)
add_loss("sampled-softmax", own=sampled_softmax_loss)
add_loss("decoupled", in_batch=decoupled_contrastive_loss)
add_loss("debiased", in_batch=debiased_contrastive_loss)
add_loss("nt-xent", in_batch=two_views, square=True)
add_loss("supervised", in_batch=same_item, square=True)
add_loss("multi-positive", in_batch=all_known)
add_loss("sigmoid", in_batch=sigmoid_loss, square=True)
add_loss("logistic", in_batch=each_pair, own=logistic_loss, square=True)
add_loss("bpr", own=bpr_loss)
add_loss("triplet", own=triplet_loss)
add_loss("soft-triplet", own=soft_triplet_loss)
add_loss("pairwise", own=pairwise_contrastive_loss)
