"""Chapter 9 experiments: noisy logs, shilling attacks and rewritten texts, with and without adversarial training."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ch09_perturbations import fitted
from common import Experiment, Parts, Settings, best_settings, world

from recsys_cl.data import Split
from recsys_cl.data.perturb.corruption import CORRUPTIONS
from recsys_cl.data.perturb.shilling import ATTACKS, inject
from recsys_cl.data.perturb.text_attacks import stuff_keywords, telling_words, typos
from recsys_cl.evaluation import evaluate, top_items
from recsys_cl.evaluation.robustness import detect, exposure, precision_recall
from recsys_cl.recommenders import TwoTower
from recsys_cl.text import LanguageEncoder

COMPARED = ("plain", "APR")
"""Methods that are compared."""

RATES = (0.1, 0.4)


def compared() -> dict[str, Settings]:
    """Return the methods at their best settings."""
    return {name: best_settings("search-attacks", name) for name in COMPARED}


class Once:
    """A model that is fitted when it is first needed."""

    def __init__(self, settings: Settings, split: Split) -> None:
        self.settings, self.split = settings, split

    @cached_property
    def model(self) -> TwoTower:
        """The fitted model."""
        return fitted(self.settings, self.split)


def noise(parts: Parts) -> dict[str, Any]:
    """Fit the methods again on noisy logs."""
    methods, clean = compared(), world(0)
    rows: dict[str, Any] = {
        name: {"clean": parts.keep(name, partial(noisy_fit, settings, clean, clean), of=settings)}
        for name, settings in methods.items()
    }
    for kind in CORRUPTIONS:
        for rate in RATES:
            noisy = CORRUPTIONS[kind](clean, rate, seed=0)
            for name, settings in methods.items():
                part = parts.keep(f"{name}-{kind}-{rate}", partial(noisy_fit, settings, noisy, clean), of=settings)
                rows[name].setdefault(kind, {})[str(rate)] = part
    return {"split": clean.protocol, "rates": RATES, "settings": methods, "rows": rows}


def noisy_fit(settings: Settings, noisy: Split, clean: Split) -> dict[str, Any]:
    """Fit on a noisy log, and test on clean and on noisy histories."""
    model = fitted(settings, noisy)
    answers = evaluate(model, clean.test)
    asked_noisily = evaluate(model, noisy.test).mean()
    return {"ndcg@10": answers.mean(), "interval": answers.interval(), "noisy histories": asked_noisily}


FAKES, PROFILE, TARGETS = 47, 10, 3


def shilling(parts: Parts) -> dict[str, Any]:
    """Let 5 % fake users push an item; measure how often others see it, and whether the fakes are detected."""
    split = world(0)
    rare = np.flatnonzero((split.counts >= 2) & (split.counts <= 5))
    targets = np.random.default_rng(0).choice(rare, TARGETS, replace=False)
    rows: list[dict[str, Any]] = []
    for name, settings in compared().items():
        once = Once(settings, split)
        for target in targets.tolist():
            before = parts.keep(f"{name}-before-{target}", partial(exposed, once, target), of=settings)["exposure"]
            for kind in ATTACKS:
                push = partial(one_push, settings, split, target, kind)
                made = parts.keep(f"{name}-{kind}-{target}", push, of=settings)
                rows.append({"method": name, "kind": kind, "target": target, "before": before, **made})
    return {
        "fake users": FAKES,
        "profile": PROFILE,
        "users": len(split.train),
        "targets": targets.tolist(),
        "rows": rows,
    }


def exposed(once: Once, target: int) -> dict[str, Any]:
    """Return how often the item is shown before anybody pushes it."""
    return {"exposure": shown(once.model, once.split, target)}


def one_push(settings: Settings, split: Split, target: int, kind: str) -> dict[str, Any]:
    """Fit on a log with fake users, and return what they achieve, what they cost, and whether they are found."""
    attacked, fake = inject(split, target, kind, users=FAKES, profile=PROFILE, seed=0)
    model = fitted(settings, attacked)
    with torch.no_grad():
        vectors = model.network.embed_users(torch.from_numpy(attacked.train.recent(model.length))).numpy()  # (U, d)
    found = precision_recall(detect(vectors, FAKES / len(vectors)), fake)
    quality = evaluate(model, split.test).mean()
    return {"exposure": shown(model, split, target), "ndcg@10": quality, "detection": vars(found)}


def shown(model: TwoTower, split: Split, target: int) -> float:
    """Return the share of lists of ten, one per user without the item, that show the item."""
    latest = split.test[np.unique(split.test.user, return_index=True)[1]]
    rows, positions = latest.history.flat()
    had = np.unique(rows[latest.history.items[positions] == target])
    others = np.setdiff1d(np.arange(len(latest)), had)
    return exposure(top_items(model, latest[others]), target)


def texts(parts: Parts) -> dict[str, Any]:
    """Rewrite item texts after training, with typos and with stuffed keywords."""
    split = world(0)
    words = split.data.texts
    stuffed = np.random.default_rng(1).choice(np.flatnonzero(split.counts <= 5), 50, replace=False)
    keywords = telling_words(words, split.counts)
    versions = {"as they are": words}
    versions |= {f"typos {rate:g}": typos(words, rate, seed=0) for rate in (0.05, 0.1, 0.2, 0.4)}
    versions["keywords stuffed"] = stuff_keywords(words, stuffed.tolist(), keywords)
    methods = compared()
    methods["text alone"] = {**methods["plain"], "ids": False}
    rows: dict[str, Any] = {}
    for name, settings in methods.items():
        once = Once(settings, split)
        rows[name] = {
            version: parts.keep(f"{name}-{version}", partial(rewritten, once, text, stuffed), of=settings)
            for version, text in versions.items()
        }
    return {"keywords": keywords, "stuffed": len(stuffed), "rows": rows}


def rewritten(once: Once, texts: list[str], stuffed: np.ndarray) -> dict[str, Any]:
    """Return the quality of a fitted model whose items have other texts, and how often stuffed items are shown."""
    encoder, (model, split) = LanguageEncoder("minilm"), (once.model, once.split)
    mean = encoder.encode(split.data.texts).mean(0)  # (t,)
    model.network.items.text = F.normalize(encoder.encode(texts) - mean, dim=1)  # (N, t)
    lists = top_items(model, split.test)  # (Q, 10)
    promoted = float(np.isin(lists, stuffed).any(1).mean())
    return {"ndcg@10": evaluate(model, split.test).mean(), "lists with a stuffed item": promoted}


RUNS: dict[str, Experiment] = {
    "robustness-noise": noise,
    "robustness-shilling": shilling,
    "robustness-texts": texts,
}
