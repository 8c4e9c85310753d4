"""Ranks are exact, neutral between ties, blind to what was seen, and the same in blocks of any size."""

import importlib
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from recsys_cl.data import (
    Interactions,
    Queries,
    Sequences,
    Split,
    cold_item_split,
    leave_last_n,
    synthetic,
    temporal_split,
)
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate, rank_targets, top_items
from recsys_cl.evaluation.evaluate import masked_scores
from recsys_cl.evaluation.metrics import rank_of_targets

ranking = importlib.import_module("recsys_cl.evaluation.evaluate")  # the package exports a function of this name

check = settings(deadline=None, max_examples=60, derandomize=True)
N_USERS, N_ITEMS = 120, 90


class Table:
    """Scores that depend on the latest item and the length of the history."""

    def __init__(self, n_items: int = N_ITEMS, levels: int | None = None) -> None:
        rng = np.random.default_rng(0)
        size = (n_items, n_items)
        self.scores = rng.normal(size=size) if levels is None else rng.integers(levels, size=size)
        self.largest = 0

    def score(self, histories: Sequences) -> Tensor:
        self.largest = max(self.largest, len(histories))
        last = histories.recent(1)[:, 0]
        return torch.from_numpy(self.scores[last] + 0.5 * (histories.lengths % 3)[:, None])


class Constant:
    def __init__(self, value: float = 0.0, n_items: int = N_ITEMS) -> None:
        self.row = torch.full((1, n_items), value)

    def score(self, histories: Sequences) -> Tensor:
        return self.row.repeat(len(histories), 1)


class Prophet:
    """Knows the item that follows a history in the log it is a view of."""

    def score(self, histories: Sequences) -> Tensor:
        scores = torch.zeros(len(histories), N_ITEMS)
        scores[torch.arange(len(histories)), torch.from_numpy(histories.items[histories.stop])] = 1
        return scores


@pytest.fixture(scope="module")
def data() -> Interactions:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"user_id": rng.integers(N_USERS, size=2500), "item_id": rng.integers(N_ITEMS, size=2500)})
    table = table.drop_duplicates(ignore_index=True)
    table = table.assign(timestamp=rng.integers(400, size=len(table)))
    return Interactions.from_tables(table, pd.DataFrame({"item_id": range(N_ITEMS)}))


@pytest.fixture(scope="module", params=[leave_last_n, temporal_split, cold_item_split], ids=lambda f: f.__name__)
def split(data, request) -> Split:
    return cold_item_split(data, share=0.2) if request.param is cold_item_split else request.param(data)


def by_loop(scorer: Table | Constant, queries: Queries) -> list[int]:
    """Ranks from sorted lists; only right where no two scores are equal."""
    ranks = []
    for row in range(len(queries)):
        one = queries[row : row + 1]
        scores = scorer.score(one.history)[0].tolist()
        seen = set(one.history.items[one.history.flat()[1]].tolist())
        candidates = range(len(scores)) if queries.candidates is None else queries.candidates.tolist()
        order = sorted((item for item in candidates if item not in seen), key=lambda item: -scores[item])
        ranks += [1 + order.index(target) for target in one.target.items[one.target.flat()[1]].tolist()]
    return ranks


def test_ranks_are_those_of_sorted_lists_of_unseen_candidates(split):
    scorer = Table()
    queries = split.test[:60]
    ranks = rank_targets(scorer, queries)
    assert ranks.rank.tolist() == by_loop(scorer, queries)
    assert ranks.n_targets.tolist() == queries.target.lengths.tolist()
    assert ranks.query.tolist() == np.repeat(np.arange(len(queries)), queries.target.lengths).tolist()
    left = N_ITEMS - queries.history.lengths if queries.candidates is None else len(queries.candidates)
    assert (ranks.n_candidates == left).all()
    assert (ranks.rank <= ranks.n_candidates[ranks.query]).all()


@pytest.mark.parametrize("scorer", [Table(), Table(levels=3), Constant()], ids=["distinct", "tied", "constant"])
def test_ranks_do_not_depend_on_the_block_size(split, scorer, monkeypatch):
    expected = rank_targets(scorer, split.test)
    for entries in (1, 7 * N_ITEMS, 50 * N_ITEMS):
        monkeypatch.setattr(ranking, "blocks", partial(blocks, entries=entries))
        found = rank_targets(scorer, split.test)
        for name in ("query", "rank", "n_targets", "n_candidates"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


blocks = ranking.blocks


def test_blocks_bound_the_score_matrix(data, monkeypatch):
    queries = leave_last_n(data).test
    scorer = Table()
    monkeypatch.setattr(ranking, "blocks", partial(blocks, entries=5 * N_ITEMS))
    rank_targets(scorer, queries)
    assert scorer.largest == 5
    covered = [row for block in blocks(23, 10, entries=40) for row in range(23)[block]]
    assert covered == list(range(23))


def test_the_prophet_is_always_first(data):
    queries = leave_last_n(data).test
    assert rank_targets(Prophet(), queries).rank.tolist() == [1] * len(queries)
    found = evaluate(Prophet(), queries, ks=(1, 10))
    for name in ("ndcg@1", "ndcg@10", "hr@1", "recall@10", "mrr@10", "map@10"):
        assert found.mean(name) == 1


def test_a_constant_scorer_gets_the_level_of_chance():
    """Mean HR@10 within four standard errors of the mean of k / N over 3,000 queries."""
    queries = leave_last_n(synthetic(300, 200, 9_000), 10).test
    ranks = rank_targets(Constant(n_items=200), queries)
    chance = 10 / ranks.n_candidates
    hits = evaluate(Constant(n_items=200), queries).metrics["hr@10"]
    error = np.sqrt((chance * (1 - chance)).sum()) / len(queries)
    assert abs(hits.mean() - chance.mean()) < 4 * error


@pytest.mark.parametrize("value", [0.0, -1e30, -np.inf, np.inf])
def test_a_constant_scorer_ranks_uniformly(value):
    """Ranks, spread within their step by a seeded uniform, pass a Kolmogorov-Smirnov test at 0.1 %."""
    queries = leave_last_n(synthetic(300, 200, 9_000), 10).test
    ranks = rank_targets(Constant(value, n_items=200), queries)
    spread = np.random.default_rng(0).random(len(ranks.rank))
    place = (ranks.rank - 1 + spread) / ranks.n_candidates[ranks.query]
    assert kstest(place, "uniform").pvalue > 1e-3


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.integers(0, 50))
@check
def test_tied_items_share_their_ranks_out_among_themselves(levels, first_query):
    """Over all items of a row the ranks are a permutation, ordered by score."""
    scores = torch.tensor([levels], dtype=torch.float32)
    items = torch.arange(len(levels))
    rank = rank_of_targets(scores, torch.zeros_like(items), items, first_query=first_query)
    assert sorted(rank.tolist()) == list(range(1, len(levels) + 1))
    assert [levels[item] for item in rank.argsort().tolist()] == sorted(levels, reverse=True)


def test_the_order_within_ties_differs_from_query_to_query():
    scores, items = torch.zeros(1, 20), torch.arange(20)
    orders = {
        tuple(rank_of_targets(scores, torch.zeros_like(items), items, first_query=query).tolist())
        for query in range(50)
    }
    assert len(orders) == 50


def test_a_monotone_transformation_changes_no_rank(split):
    tied = Table(levels=4)
    expected = rank_targets(tied, split.test).rank
    tied.scores = np.exp(tied.scores) * 3 - 5
    plain = Table(levels=4)
    plain.score = lambda histories: torch.from_numpy(tied.scores[histories.recent(1)[:, 0]])
    np.testing.assert_array_equal(rank_targets(plain, split.test).rank, expected)


@pytest.mark.parametrize("k", [1, 10])
def test_seen_items_are_never_ranked(split, k):
    queries = split.test
    top = top_items(Table(), queries, k)
    assert top.shape == (len(queries), k)
    for row in range(len(queries)):
        one = queries[row : row + 1]
        shown = top[row].tolist()
        assert not set(shown) & set(one.history.items[one.history.flat()[1]].tolist())
        assert len(set(shown)) == k
        assert queries.candidates is None or set(shown) <= set(queries.candidates.tolist())


def test_the_top_items_are_the_best_first(split):
    scorer = Table()
    scores = masked_scores(scorer, split.test).numpy()
    top = top_items(scorer, split.test, 5)
    np.testing.assert_array_equal(np.take_along_axis(scores, top, 1), -np.sort(-scores, axis=1)[:, :5])


@pytest.mark.parametrize("entries", [1, 20 * N_ITEMS])
def test_the_top_items_do_not_depend_on_the_block_size(split, entries, monkeypatch):
    expected = top_items(Table(), split.test)
    monkeypatch.setattr(ranking, "blocks", partial(blocks, entries=entries))
    np.testing.assert_array_equal(top_items(Table(), split.test), expected)


def test_a_user_who_had_nearly_everything_is_shown_nothing_again():
    """Item numbers below zero may mark empty places; what was seen or is no candidate may not fill them."""
    queries = Queries(np.array([0]), Sequences.from_lists([[0, 1, 2, 3]]), Sequences.from_lists([[4]]))
    shown = top_items(Constant(n_items=6), queries, 5)
    assert {item for item in shown[0].tolist() if item >= 0} == {4, 5}


def test_fewer_candidates_than_places_bring_in_no_others():
    histories, targets = Sequences.from_lists([[0]]), Sequences.from_lists([[4]])
    queries = Queries(np.array([0]), histories, targets, candidates=np.array([4, 5]))
    shown = top_items(Constant(n_items=8), queries, 4)
    assert {item for item in shown[0].tolist() if item >= 0} == {4, 5}


@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_score_that_is_nan_is_refused(data, place):
    class Diverged(Constant):
        def score(self, histories: Sequences) -> Tensor:
            scores = super().score(histories)
            scores[-1, place] = torch.nan
            return scores

    queries = leave_last_n(data).test
    for measure in (rank_targets, top_items, evaluate):
        with pytest.raises(InputError, match="Diverged gave NaN"):
            measure(Diverged(), queries)


def test_minus_infinity_from_the_scorer_ranks_last_but_is_ranked():
    row = torch.tensor([[0.0, -torch.inf, 2.0, -3e38, 1.0]])

    class Refusing(Constant):
        def score(self, histories: Sequences) -> Tensor:
            return row

    queries = Queries(np.array([0]), Sequences.from_lists([[2]]), Sequences.from_lists([[1]]))
    ranks = rank_targets(Refusing(), queries)
    assert ranks.rank.tolist() == [4]
    assert ranks.n_candidates.tolist() == [4]
    assert np.isfinite(masked_scores(Refusing(), queries).numpy()[0, [0, 1, 3, 4]]).all()
    assert row[0, 2] == 2  # the scorer's own tensor is left alone


@pytest.mark.parametrize(
    ("history", "target", "candidates"),
    [([3], [3], None), ([1], [3], np.array([0, 2])), ([1], [2, 3], np.array([0, 2]))],
)
def test_a_target_that_cannot_be_found_is_refused(history, target, candidates):
    queries = Queries(np.array([0]), Sequences.from_lists([history]), Sequences.from_lists([target]), candidates)
    with pytest.raises(InputError, match="a target is among the seen items or not among the candidates"):
        rank_targets(Constant(n_items=5), queries)


def test_what_was_seen_is_not_ranked():
    queries = Queries(np.array([0]), Sequences.from_lists([[2]]), Sequences.from_lists([[1]]))
    assert masked_scores(Constant(n_items=4), queries).tolist() == [[0, 0, -np.inf, 0]]
