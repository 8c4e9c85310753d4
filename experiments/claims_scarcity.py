"""Claims ledger experiments on data scarcity: new users with short histories, and few users to train on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from claims import CONTRAST, NO_CONTRAST, TWINS
from common import (
    Experiment,
    Make,
    Parts,
    Runs,
    against,
    corrected,
    fit_and_test,
    named,
    percent,
    quickly_validated,
    table,
    with_users,
    world,
)

from recsys_cl.data import Queries, Split, load_movielens, new_user_split
from recsys_cl.evaluation import Evaluation, evaluate, paired_test, pool
from recsys_cl.recommenders import Recommender, TwoTower, create

# new users

GIVEN = (1, 3, 5, 10, 20)
ASKED = 10
DRAWS = 5
NEWCOMERS: dict[str, Make] = {
    CONTRAST: TWINS[CONTRAST],
    "two-tower-text": named("two-tower-text"),
    NO_CONTRAST: TWINS[NO_CONTRAST],
} | {name: named(name) for name in ("sasrec", "ease-recency", "ials", "popularity", "minilm")}


def new_users(parts: Parts) -> dict[str, Any]:
    """Measure what the first events of new users, a fifth of all, are worth to models that never saw them.

    Each number of events has the same test users: those with enough events for the longest history.
    """
    data = load_movielens()
    runs: dict[str, Runs] = {str(given): {} for given in GIVEN}
    for draw in range(DRAWS):
        splits = {given: new_user_split(data, given, n_targets=ASKED, seed=draw) for given in GIVEN}
        enough = splits[max(GIVEN)].test.user
        split = quickly_validated(splits[max(GIVEN)])
        for name, make in NEWCOMERS.items():
            model = cache(partial(fitted, make, split, draw))
            for given in GIVEN:
                test = splits[given].test
                queries = test[np.isin(test.user, enough)]
                values = parts.evaluation(f"{name}-{draw}-{given}", partial(tested, model, queries))
                runs[str(given)].setdefault(name, []).append(values)
    return {
        "protocol": {
            "data": data.name,
            "split": splits[max(GIVEN)].protocol,
            "new users": [len(one.user) for one in runs[str(max(GIVEN))][CONTRAST]],
            "asked": ASKED,
            "draws": DRAWS,
        },
        "given": {given: table(found, ["ndcg@10"]) for given, found in runs.items()},
        "paired": {
            reference: {given: against(found, reference, ["ndcg@10"])["ndcg@10"] for given, found in runs.items()}
            for reference in (CONTRAST, "sasrec")
        },
    }


def fitted(make: Make, split: Split, seed: int) -> Recommender:
    """Fit a model."""
    return make(seed).fit(split)


def tested(model: Callable[[], Recommender], queries: Queries) -> Evaluation:
    """Test a model, which is fitted when it is first needed."""
    return evaluate(model(), queries)


# small data

SHARES = (0.1, 0.25, 0.5, 1.0)
WITH_TEXT, WITHOUT = "two-tower", "two-tower-id"
BASELINE = "ease-recency"


def small_data(parts: Parts) -> dict[str, Any]:
    """Test models trained on a share of the users on the same queries: is text worth most with few users?"""
    runs: dict[float, Runs] = {share: {} for share in SHARES}
    users: dict[float, int] = {}
    for draw in range(DRAWS):
        split = world(draw)
        for share in SHARES:
            part = with_users(split, share)
            users[share] = int((part.train.lengths > 0).sum())
            for model in (WITH_TEXT, WITHOUT, BASELINE):
                make = partial(with_steps, model, share)
                values = parts.evaluation(f"{model}-{share}-{draw}", partial(fit_and_test, make, part, draw))
                runs[share].setdefault(model, []).append(values)
    gain = {share: gain_of_text(found) for share, found in runs.items()}
    whole = gain[SHARES[-1]]
    return {
        "protocol": {"data": split.data.name, "split": split.protocol, "draws": DRAWS},
        "users": {percent(share): number for share, number in users.items()},
        "shares": {percent(share): table(found, ["ndcg@10"]) for share, found in runs.items()},
        "paired": {percent(share): against(found, WITH_TEXT, ["ndcg@10"])["ndcg@10"] for share, found in runs.items()},
        "gain of text minus that with all users": corrected(
            {
                percent(share): vars(paired_test(one.metrics["gain"], whole.metrics["gain"], one.user))
                for share, one in gain.items()
                if one is not whole
            }
        ),
    }


def with_steps(model: str, share: float, seed: int) -> Recommender:
    """Return the model, with more epochs and patience where fewer users make fewer steps per epoch."""
    if model == BASELINE:
        return create(model)
    own = TwoTower()
    return create(model, seed=seed, epochs=round(own.epochs / share), patience=round(own.patience / share))


def gain_of_text(runs: Runs) -> Evaluation:
    """Return the gain of text over ids alone, by query."""
    with_text, without = (pool(runs[name]) for name in (WITH_TEXT, WITHOUT))
    return Evaluation(with_text.user, {"gain": with_text.metrics["ndcg@10"] - without.metrics["ndcg@10"]})


RUNS: dict[str, Experiment] = {"claims-new-users": new_users, "claims-small-data": small_data}
