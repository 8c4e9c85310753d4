"""Top-n recommendation: for a known user, for a new user, or from a sentence.

See: chapter 5.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from recsys_cl.data import Interactions, Sequences
from recsys_cl.errors import InputError
from recsys_cl.recommenders import Recommender
from recsys_cl.workflow.running import load_for, train


def recommend(
    recommender: Recommender,
    *,
    history: Sequences | None = None,
    liked: Sequence[str] = (),
    text: str | None = None,
    k: int = 10,
) -> list[dict[str, Any]]:
    """Recommend the k best unseen items from exactly one of a history, liked titles, and a text.

    Args:
        recommender: A fitted recommender.
        history: One user's history.
        liked: Titles or ids that a new user likes, the most recent last.
        text: A sentence about a user's taste.
        k: Number of recommended items.

    Returns:
        ``rank``, ``item_id``, ``title`` and ``score`` of each item, best first.

    Raises:
        InputError: Unless exactly one of history, liked and text is given, if a title has no match, or if the
            recommender does not read text.

    >>> from recsys_cl.data import leave_one_out, synthetic
    >>> from recsys_cl.recommenders import create
    >>> ease = create("ease").fit(leave_one_out(synthetic(100, 100)))
    >>> liked = ease.items["title"][:3]
    >>> [found["rank"] for found in recommend(ease, liked=liked, k=5)]
    [1, 2, 3, 4, 5]
    """
    if sum((history is not None, bool(liked), text is not None)) != 1:
        raise InputError("give exactly one of a user, liked titles and a text")
    if text is not None:
        scores, seen = _scores_of_text(recommender, text), set[int]()
    else:
        user = history if history is not None else Sequences.from_lists([find_items(recommender, liked)])
        scores, seen = recommender.score(user)[0], set(user.items[user.start[0] : user.stop[0]].tolist())
    order = [item for item in scores.argsort(descending=True, stable=True).tolist() if item not in seen]
    return [
        {
            "rank": rank,
            "item_id": recommender.items[item]["item_id"],
            "title": recommender.items[item]["title"],
            "score": float(scores[item]),
        }
        for rank, item in enumerate(order[:k], start=1)
    ]


def find_items(recommender: Recommender, wanted: Sequence[str]) -> list[int]:
    """Find item numbers by title or id, each item once.

    Raises:
        InputError: If a title matches nothing (the message offers the closest) or several items.
    """
    titles = [str(title) for title in recommender.items["title"]]
    ids = [str(item_id) for item_id in recommender.items["item_id"]]
    by_title: dict[str, list[int]] = {}
    for item, title in enumerate(titles):
        by_title.setdefault(title.casefold(), []).append(item)
    found = []
    by_id = {item_id: [item] for item, item_id in enumerate(ids)}
    for name in wanted:
        matches = by_title.get(name.casefold().strip()) or by_id.get(name)
        if not matches:
            close = difflib.get_close_matches(name.casefold(), by_title, n=3, cutoff=0.5)
            hint = ", ".join(repr(titles[by_title[title][0]]) for title in close) or "none is close"
            raise InputError(f"no item is called {name!r}; the closest titles are: {hint}")
        if len(matches) > 1:
            known_ids = ", ".join(ids[item] for item in matches)
            raise InputError(f"{len(matches)} items are called {name!r}; give the id of one of them: {known_ids}")
        found.append(matches[0])
    return list(dict.fromkeys(found))


def history_of(data: Interactions, user_id: str, *, seed: int = 0) -> Sequences:
    """The whole history of one user.

    Args:
        data: The data set.
        user_id: Id of the user, as text.
        seed: Seed of the order within ties.

    Raises:
        InputError: If there is no such user.
    """
    ids = data.user_ids.astype(str)
    row = np.flatnonzero(ids == str(user_id))
    if len(row) == 0:
        close = difflib.get_close_matches(str(user_id), ids.tolist(), n=3)
        raise InputError(f"no user_id {user_id!r} in {data.name}; ids look like {', '.join(close or ids[:3].tolist())}")
    return data.sequences(seed=seed)[row]


def open_model(data: Interactions | None, model: str, *, seed: int = 0) -> Recommender:
    """Load a saved recommender from its folder, or fit one by name.

    Fitting holds out the last two events of each user, so users with a single event are left out.

    Args:
        data: The data set; optional for a saved recommender.
        model: Folder of a saved recommender, or name of a model.
        seed: Seed of the fit.

    Raises:
        InputError: If ``model`` is neither a folder nor a name, or the folder's catalogue is not that of the data.
    """
    if Path(model).is_dir():
        return load_for(data, model)
    if data is None:
        raise InputError(f"{model!r} is no folder of a saved recommender; give data to fit a model by that name")
    return train(data.filter(min_events=2), model, seed=seed)


def _scores_of_text(recommender: Recommender, text: str) -> Tensor:
    if not text.strip():
        raise InputError("the text is empty; write a sentence about the user's taste")
    scores = recommender.score_text(text)[0]
    if (scores == scores[0]).all():
        raise InputError(f"the text {text!r} matches no item; use other words or another model")
    return scores
