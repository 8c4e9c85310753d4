"""Arms of the stored runs that the claims ledger reads: the settings behind each name in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ch05_two_towers import TOWERS, USER_ITEM
from ch07_sequences import tuned
from ch09_perturbations import EPOCHS, chosen, with_ablation
from ch11_full_table import SHARES, WIDTHS
from common import Settings, percent, record, with_settings

Arms = dict[str, str | Settings]

TWINS: Arms = {
    "two-tower": "two-tower",
    "two-tower, negatives of the pointwise": "two-tower:sampler=uniform",
    "two-tower, pointwise": "two-tower:loss=logistic,sampler=uniform",
}


def as_named(*models: str) -> Arms:
    """Return models whose name in the table is that of the registry."""
    return {model: model for model in models}


def sizes() -> Arms:
    """Return the sequence models of the scaling run, trained on all users."""
    whole = percent(SHARES[-1])
    return {f"{whole} of the users, {width} wide": with_settings(tuned("sasrec"), dim=width) for width in WIDTHS}


def against_attacks() -> Arms:
    """Return the methods of chapter 9 at their searched settings."""
    methods = with_ablation(chosen("search-attacks"))
    return {name: with_settings("two-tower", epochs=EPOCHS, **settings) for name, settings in methods.items()}


def language_models() -> Arms:
    """Return the ways in which a chat model ranks, and the popularity that they are compared with."""
    ways = ("smollm2 list, 5 orders", "smollm2 likelihood, total", "smollm2 likelihood, mean")
    return {**{way: {"method": way} for way in ways}, "popularity": {"method": "popularity"}}


def readings() -> Arms:
    """Return the two ways to make a user's vector from texts."""
    return {
        f"{texts}, {reading}": {"texts": texts, "reading": reading}
        for texts in ("titles", "whole texts")
        for reading in ("one text", "averaged")
    }


def cleanings() -> Arms:
    """Return the steps of cleaning."""
    steps = ("as written", "stop words", "all steps")
    return {step: {"model": "minilm", "cleaning": step} for step in steps}


ARMS: Mapping[str, Callable[[], Arms]] = {
    "claims-cleaning": cleanings,
    "claims-diversity": lambda: TWINS,
    "claims-new-users": lambda: TWINS | as_named("sasrec", "ease-recency", "ials", "popularity", "minilm"),
    "claims-noise": lambda: TWINS | as_named("popularity", "ease", "ease-recency"),
    "claims-overfitting": against_attacks,
    "claims-related": lambda: TWINS | as_named("minilm", "minilm-raw", "popularity"),
    "claims-small-data": lambda: as_named("two-tower", "two-tower-id"),
    "feedback": lambda: {name: {"events": name} for name in ("updated", "left as it is", "fitted anew")},
    "llm-ranker": language_models,
    "scaling": sizes,
    "user-as-text": readings,
    "user-item": lambda: as_named(*USER_ITEM),
    "user-towers": lambda: as_named(*TOWERS),
}


def records(name: str) -> dict[str, Any]:
    """Return the arms of a run with all of their settings, empty if the ledger does not read them."""
    return {arm: record(settings) for arm, settings in ARMS[name]().items()} if name in ARMS else {}
