"""The stored run of the prompted rankers agrees with what the code computes today, and with itself."""

from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

from recsys_cl.book.results import read_result
from recsys_cl.data import leave_one_out, load_movielens
from recsys_cl.recommenders.prompted import LikelihoodRanker, ListRanker, sample_candidates
from recsys_cl.text.decoder import LanguageModel

RESULTS = Path(__file__).parents[2] / "book" / "results"


@pytest.fixture(scope="module")
def stored():
    return read_result("llm-ranker", RESULTS)["result"]


@pytest.mark.network
def test_scores_of_a_stored_user_come_out_again_up_to_precision(stored):
    """Stored in bfloat16, computed again in float32: single log-probabilities move, the order hardly."""
    config, spot = stored["config"], stored["spot"]["uniform"]
    data = load_movielens()
    split = leave_one_out(data, seed=config["seed"])
    query = split.test[split.test.user == spot["users"][0]]
    weights = torch.ones(data.n_items).numpy()
    candidates = sample_candidates(query, weights, n=config["candidates"], seed=config["seed"])[0]
    assert candidates.tolist() == spot["candidates"][0]
    titles = [str(title) for title in data.items["title"]]
    history = [titles[item] for item in query.history.items[query.history.start[0] : query.history.stop[0]]]
    names = [titles[item] for item in candidates]
    model, last = LanguageModel(config["model"], device="cpu"), config["titles in the prompt"]
    total = LikelihoodRanker(model, last=last).score(history, names).total
    assert spearmanr(total, spot["total"][0]).statistic > 0.97
    _, letters = ListRanker(model, last=last, orders=1, seed=config["seed"]).by_place(history, names)
    assert spearmanr(letters[0], spot["first order"][0]).statistic > 0.9


def test_every_table_has_all_scorers_and_intervals_around_means(stored):
    for table in stored["tables"].values():
        names = {row["model"] for row in table["rows"]}
        assert {"random", "popularity", "smollm2 likelihood, calibrated", "smollm2 list, 5 orders"} <= names
        assert set(table["tests"]) == names - {"popularity"}
        for row in table["rows"]:
            for value in row["metrics"].values():
                assert value["low"] <= value["mean"] <= value["high"]
                assert value["n"] == stored["config"]["users"] >= 200


def test_probabilities_of_the_places_add_up_to_one(stored):
    for places in stored["places"].values():
        for key in ("probability", "first choice"):
            assert sum(place["mean"] for place in places[key]) == pytest.approx(1, abs=1e-3)
