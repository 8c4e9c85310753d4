"""Synthetic data: seeded users and items with known taste, popularity, text and drift, at any size."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys_cl.data.interactions import Interactions
from recsys_cl.errors import InputError

TOPICS = 16
WORDS_PER_TOPIC = 40
WORDS_PER_TEXT = 12
YEARS = 2
SECONDS_PER_YEAR = 365 * 86_400

STAGES = np.array(["view", "click", "purchase"])


def synthetic(
    n_users: int = 1_000,
    n_items: int = 500,
    n_events: int | None = None,
    *,
    skew: float = 1.0,
    drift: float = 0.5,
    ties: float = 0.3,
    seed: int = 0,
) -> Interactions:
    r"""Generate users with latent tastes, and items whose texts reflect their topics.

    Each item belongs to one of 16 topics and has popularity :math:`\propto 1 / \text{rank}^{\text{skew}}`;
    its text consists mostly of words of its topic. Each user follows a main topic 60 % of the time, a second one
    25 % and any topic 15 %; for a share ``drift`` of the users the main topic changes once, at a random
    time. An interaction that fits the user's taste better tends to reach a later stage of the funnel *view*, *click*,
    *purchase* and to get a higher rating, from 1 to 5.

    Args:
        n_users: Number of users, 10² to 10⁶.
        n_items: Number of items, at least 32.
        n_events: Number of interactions, default 20 per user; every user has at least 5.
        skew: Exponent of the power law of popularity; 0 makes all items equally popular.
        drift: Share of the users whose main topic changes.
        ties: Share of the events that share their timestamp with the user's previous one.
        seed: Seed of all draws.

    Returns:
        Interactions with event types, ratings, item texts and user attributes (an age that correlates with taste).

    Raises:
        InputError: If there are too few items, or too few or too many events for the users and items.

    See: chapter 2.

    >>> data = synthetic(n_users=100, n_items=100)
    >>> data.n_users, data.n_items, len(data.items[0]["text"].split())
    (100, 100, 12)
    """
    n_events = 20 * n_users if n_events is None else n_events
    if n_items < 32:
        raise InputError(f"n_items={n_items}; give at least 32 (two per topic)")
    if not 5 * n_users <= n_events <= n_users * n_items // 4:
        raise InputError(f"n_events={n_events}; give between 5 and n_items / 4 = {n_items // 4} per user")
    rng = np.random.default_rng(seed)

    topic_of_item = rng.permutation(np.arange(n_items) % TOPICS)
    popularity = (1.0 + rng.permutation(n_items)) ** -skew

    main, later, second = rng.integers(TOPICS, size=(3, n_users))
    later = np.where(rng.random(n_users) < drift, later, main)
    change = rng.random(n_users)

    lengths = 5 + rng.multinomial(n_events - 5 * n_users, rng.dirichlet(np.full(n_users, 1.5)))
    lengths = _shorten(lengths, n_items // 3)
    user = np.repeat(np.arange(n_users), lengths)
    age = np.arange(n_events) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # 0 for a user's first event
    progress = age / lengths[user]

    item = np.full(n_events, -1, dtype=np.int64)
    fit = np.zeros(n_events, dtype=np.int64)  # 2 main topic, 1 second topic, 0 any
    open_rows = np.arange(n_events)
    while len(open_rows):
        who = user[open_rows]
        chance = rng.random(len(who))
        fit[open_rows] = np.where(chance < 0.6, 2, np.where(chance < 0.85, 1, 0))
        current = np.where(progress[open_rows] < change[who], main[who], later[who])
        topic = np.select(
            [fit[open_rows] == 2, fit[open_rows] == 1],
            [current, second[who]],
            rng.integers(TOPICS, size=len(who)),
        )
        item[open_rows] = _draw_items(topic, topic_of_item, popularity, rng)
        again = pd.Series(user * n_items + item).duplicated().to_numpy()
        open_rows = np.flatnonzero(again)
        popularity = popularity**0.9  # flatter every round, so users who have seen the hits finish

    stage = np.minimum(2, (rng.random(n_events) < np.array([0.2, 0.4, 0.6])[fit]) * (1 + (rng.random(n_events) < 0.3)))
    rating = np.clip(np.round(2.5 + 0.75 * fit + rng.normal(0, 1, n_events)), 1, 5)
    together = (rng.random(n_events) < ties) & (age > 0)
    pause = 0.25 * YEARS * SECONDS_PER_YEAR / lengths[user]  # a user is active for about half a year
    gaps = np.where(together, 0.0, 60.0 + rng.exponential(pause))
    clock = np.cumsum(gaps)
    begin = 0.75 * rng.random(n_users) * YEARS * SECONDS_PER_YEAR
    first = np.cumsum(lengths) - lengths
    timestamp = np.floor(begin[user] + clock - clock[first][user])

    order = np.argsort(timestamp, kind="stable")
    events = pd.DataFrame(
        {"user_id": user, "item_id": item, "rating": rating, "timestamp": timestamp, "event": STAGES[stage]}
    ).iloc[order]
    items = pd.DataFrame(
        {
            "item_id": np.arange(n_items),
            "title": [f"Item {number}" for number in range(n_items)],
            "topic": topic_of_item,
            "text": _texts(topic_of_item, rng),
        }
    )
    users = pd.DataFrame(
        {"user_id": np.arange(n_users), "age": np.clip(20 + 3 * main + rng.normal(0, 5, n_users), 16, 90)}
    )
    return Interactions.from_tables(events.reset_index(drop=True), items, users, name=f"synthetic-{n_users}")


def _shorten(lengths: np.ndarray, longest: int) -> np.ndarray:
    """Cut lengths at ``longest`` and move the surplus to the shortest users; the sum stays the same."""
    surplus = int(np.maximum(lengths - longest, 0).sum())
    lengths = np.minimum(lengths, longest)
    while surplus:
        short = np.argsort(lengths, kind="stable")[: max(1, min(surplus, len(lengths) // 2))]
        room = np.minimum(longest - lengths[short], -(-surplus // len(short)))
        given = np.minimum(np.cumsum(room), surplus)
        lengths[short] += np.diff(given, prepend=0)
        surplus -= int(given[-1])
    return lengths


def _draw_items(
    topic: np.ndarray, topic_of_item: np.ndarray, popularity: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw an item of each given topic, in proportion to popularity: one search in stacked intervals."""
    order = np.argsort(topic_of_item, kind="stable")
    mass = np.bincount(topic_of_item, weights=popularity, minlength=TOPICS)
    share = popularity[order] / mass[topic_of_item[order]]
    ends = np.cumsum(share)  # topic t owns the interval (t, t + 1]
    place = np.searchsorted(ends, topic + rng.random(len(topic)))
    sizes = np.bincount(topic_of_item, minlength=TOPICS)
    stop = np.cumsum(sizes)
    return order[np.clip(place, (stop - sizes)[topic], stop[topic] - 1)]


def _texts(topic_of_item: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Twelve words per item, three quarters of them from its topic's vocabulary."""
    letters = np.array(list("bdfgklmnprstvz")), np.array(list("aeiou"))
    syllables = np.array([consonant + vowel for consonant in letters[0] for vowel in letters[1]])
    words = np.array(["".join(word) for word in rng.choice(syllables, size=(TOPICS * WORDS_PER_TOPIC, 3))])
    on_topic = rng.random((len(topic_of_item), WORDS_PER_TEXT)) < 0.75
    topic = np.where(on_topic, topic_of_item[:, None], rng.integers(TOPICS, size=on_topic.shape))
    chosen = words[topic * WORDS_PER_TOPIC + rng.integers(WORDS_PER_TOPIC, size=topic.shape)]
    return [" ".join(text) for text in chosen]
