"""Markov chain and session-kNN say what loops over their formulas say."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from recsys_cl.data import Sequences, Split, leave_last_n, synthetic
from recsys_cl.recommenders import MarkovChain, SessionKNN

HISTORIES = Sequences.from_lists([[3, 1, 4, 1, 5], [], [7], [5, 9, 2, 6, 11, 30]])


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_n(synthetic(60, 64, 900, seed=1), 3)


def histories_of(split: Split) -> list[list[int]]:
    train = split.train
    return [train.items[start:stop].tolist() for start, stop in zip(train.start, train.stop, strict=True)]


def test_markov_is_the_smoothed_share_of_transitions(split: Split) -> None:
    counts, events = np.zeros((split.n_items, split.n_items)), np.zeros(split.n_items)
    for items in histories_of(split):
        for item in items:
            events[item] += 1
        for before, after in pairwise(items):
            counts[before, after] += 1
    share = events / events.sum()
    expected = [(counts[last] + 2 * share) / (counts[last].sum() + 2) for last in (5, 7, 30)]
    scores = MarkovChain(smoothing=2).fit(split).score(HISTORIES).numpy()
    assert_allclose(scores[[0, 2, 3]], expected, rtol=1e-5)
    assert_allclose(scores[1], share, rtol=1e-5)


@pytest.mark.parametrize("length", [3, 50])
def test_session_knn_by_loop(split: Split, length: int) -> None:
    k, expected = 7, np.zeros((len(HISTORIES), split.n_items))
    sessions = [set(items) for items in histories_of(split)]
    for row in range(len(HISTORIES)):
        events = HISTORIES.items[HISTORIES.start[row] : HISTORIES.stop[row]][::-1][:length]
        weights = [1 - back / length for back in range(len(events))]
        matches = [[w for item, w in zip(events, weights, strict=True) if item in one] for one in sessions]
        similarity = [sum(match) / np.sqrt(len(one)) for match, one in zip(matches, sessions, strict=True)]
        for user in np.argsort(similarity)[::-1][:k]:
            for item in sessions[user]:
                expected[row, item] += similarity[user] * max(matches[user], default=0)
    scores = SessionKNN(neighbours=k, length=length).fit(split).score(HISTORIES).numpy()
    assert_allclose(scores, expected, rtol=1e-5)


def test_the_order_of_events_matters(split: Split) -> None:
    there, back = Sequences.from_lists([[3, 1, 4]]), Sequences.from_lists([[4, 1, 3]])
    for model in (MarkovChain(), SessionKNN(length=5)):
        model.fit(split)
        assert not np.allclose(model.score(there), model.score(back))
