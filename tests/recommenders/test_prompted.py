"""Prompted rankers: what each score means, whom the prompt shows, and that places in the list cancel out."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from recsys_cl.data import Queries, Sequences
from recsys_cl.errors import InputError
from recsys_cl.recommenders.prompted import (
    LikelihoodRanker,
    ListRanker,
    sample_candidates,
    write_profiles,
    write_reasons,
)
from recsys_cl.text.decoder import LanguageModel
from recsys_cl.text.decoding import Generation

HISTORY = ["Emma", "Dune", "Ulysses"]


class WordModel:
    """Stands in for a language model: a word that the prompt holds has twice the probability of another."""

    def __init__(self):
        self.prompts = []

    def chat(self, message):
        return f"<user>{message}<assistant>"

    def log_likelihood(self, prompt, continuations):
        self.prompts.append(prompt)
        words = [text.split() for text in continuations]
        log_prob = [sum(math.log(0.2 if word in prompt.split() else 0.1) for word in row) for row in words]
        return torch.tensor(log_prob), torch.tensor([len(row) for row in words])

    def generate(self, prompts, *, max_new_tokens, timeout):
        return [Generation(prompt, max_new_tokens, "stop") for prompt in prompts]


class PlaceModel(WordModel):
    """Prefers the letter A by 2 nats, and by 1 nat the letter in front of the title that is right."""

    def log_likelihood(self, prompt, letters):
        self.prompts.append(prompt)
        right = next(line[0] for line in prompt.splitlines() if "Right" in line)
        log_prob = torch.tensor([2.0 * (letter == "A") + 1.0 * (letter == right) for letter in letters])
        return log_prob - 10, torch.ones(len(letters))


def test_calibration_takes_away_what_a_title_gets_without_a_history():
    scores = LikelihoodRanker(WordModel()).score(HISTORY, ["Emma", "Persuasion", "Dune Dune"])
    # a candidate ends in a semicolon, as the titles of the history do: "Emma;" stands in the prompt, "Dune" does not
    assert_close(scores.total, torch.tensor([0.2, 0.1, 0.02]).log())
    assert_close(scores.mean, torch.tensor([0.2, 0.1, math.sqrt(0.02)]).log())
    assert_close(scores.calibrated, torch.tensor([2.0, 1.0, 2.0]).log())


def test_prompt_names_the_latest_titles_and_the_empty_history_has_the_opening_alone():
    ranker = LikelihoodRanker(WordModel(), last=2, opening="Read:")
    assert ranker.prompt(HISTORY) == "Read: Dune; Ulysses;"
    assert ranker.prompt([]) == "Read:"
    assert_close(ranker.score([], ["Emma"]).calibrated, torch.zeros(1))


def test_likelihood_without_history_is_asked_once_for_each_title():
    model = WordModel()
    ranker = LikelihoodRanker(model)
    ranker.score(HISTORY, ["Emma", "Solaris"])
    ranker.score(HISTORY[:1], ["Solaris", "Emma"])
    assert [prompt.endswith(";") for prompt in model.prompts] == [True, False, True]


def test_one_order_is_won_by_the_place_and_the_average_over_all_places_by_the_title():
    candidates = ["Wrong one", "Wrong two", "Right", "Wrong three"]
    assert ListRanker(PlaceModel()).label_log_probs(HISTORY, candidates).argmax() == 0
    scores = ListRanker(PlaceModel(), orders=4).score(HISTORY, candidates)
    assert scores.argmax() == 2
    wrong = scores[[0, 1, 3]]
    assert_close(wrong, wrong.mean().expand(3))


def test_labels_are_probabilities_among_the_candidates():
    log_prob = ListRanker(PlaceModel()).label_log_probs(HISTORY, ["Right", "Wrong"])
    assert_close(log_prob.exp().sum(), torch.tensor(1.0))
    assert_close(log_prob, torch.tensor([3.0, 0.0]).log_softmax(0))


@pytest.mark.parametrize(("n", "orders"), [(20, 5), (4, 4), (7, 3), (3, 1)])
def test_orders_are_permutations_that_bring_a_candidate_to_places_all_over_the_list(n, orders):
    candidates = ["Right", *(f"Wrong {number}" for number in range(n - 1))]
    places, log_prob = ListRanker(PlaceModel(), orders=orders).by_place(HISTORY, candidates)
    assert places.shape == log_prob.shape == (orders, n)
    assert (np.sort(places, axis=1) == np.arange(n)).all()
    stands = np.sort(places.argsort(axis=1), axis=0)  # where each candidate stands, in every order
    gaps = np.diff(stands, axis=0, append=stands[:1] + n)
    assert gaps.min() >= n // orders
    assert gaps.max() <= n // orders + 1


def test_seed_decides_the_orders():
    ask = [
        ListRanker(PlaceModel(), seed=seed).by_place(HISTORY, ["Right", "b", "c", "d", "e"])[0] for seed in (0, 0, 1)
    ]
    assert np.array_equal(ask[0], ask[1])
    assert not np.array_equal(ask[0], ask[2])


def test_list_prompt_shows_history_and_lettered_candidates():
    prompt = ListRanker(WordModel(), last=2, opening="Read:", question="Which?").prompt(HISTORY, ["Emma", "Solaris"])
    assert prompt == "<user>Read: Dune; Ulysses.\n\nWhich?\nA. Emma\nB. Solaris<assistant>"
    assert "Read: nothing." in ListRanker(WordModel(), opening="Read:").prompt([], ["Emma"])


def test_more_candidates_than_letters_are_refused():
    with pytest.raises(InputError, match="27 candidates; give at most 26"):
        ListRanker(PlaceModel()).score(HISTORY, ["Right"] * 27)


def test_profiles_and_reasons_name_the_latest_titles_in_the_chat_template():
    (profile,) = write_profiles(WordModel(), [HISTORY], last=2, template="Taste? {history}", max_new_tokens=7)
    assert profile == Generation("<user>Taste? Dune; Ulysses<assistant>", 7, "stop")
    (reason,) = write_reasons(WordModel(), [[]], ["Emma"], template="{item}? {history}")
    assert reason.text == "<user>Emma? none<assistant>"
    with pytest.raises(InputError, match="1 histories but 2 items"):
        write_reasons(WordModel(), [HISTORY], ["Emma", "Dune"])


def queries(histories, targets) -> Queries:
    return Queries(np.arange(len(histories)), Sequences.from_lists(histories), Sequences.from_lists(targets))


def test_candidates_are_the_target_and_unseen_items_each_once():
    asked = queries([[0, 1, 2], [5]], [[3], [0]])
    candidates = sample_candidates(asked, np.ones(8), n=5, seed=1)
    for row, (seen, target) in zip(candidates.tolist(), (({0, 1, 2}, 3), ({5}, 0)), strict=True):
        assert len(set(row)) == 5
        assert target in row
        assert not seen & set(row)
    assert np.array_equal(candidates, sample_candidates(asked, np.ones(8), n=5, seed=1))
    assert np.array_equal(candidates[1:], sample_candidates(asked[1:], np.ones(8), n=5, seed=1))


def test_target_stands_at_every_place_and_items_come_as_often_as_their_weights_say():
    n_users, weights = 3000, np.array([0.0, 0.0, 1.0, 3.0])
    asked = queries([[0]] * n_users, [[1]] * n_users)
    candidates = sample_candidates(asked, weights, n=2, seed=0)
    assert abs((candidates[:, 0] == 1).mean() - 0.5) < 0.04  # 4 standard errors
    drawn = candidates[candidates != 1]
    assert abs((drawn == 3).mean() - 0.75) < 0.04


def test_candidates_that_cannot_be_drawn_are_refused():
    with pytest.raises(InputError, match="user 0 has 2 unseen items with a weight; give n of at most 3"):
        sample_candidates(queries([[0]], [[1]]), np.ones(4), n=4)
    with pytest.raises(InputError, match="several targets"):
        sample_candidates(queries([[0]], [[1, 2]]), np.ones(4), n=2)


@pytest.mark.network
def test_smollm2_continues_a_series_and_gives_the_same_answer_twice():
    model = LanguageModel("smollm2", device="cpu")
    ranker = LikelihoodRanker(model)
    history = ["The Godfather", "Star Wars: Episode IV", "Star Wars: Episode V"]
    candidates = ["Star Wars: Episode VI", "Persuasion", "Babe"]
    scores = ranker.score(history, candidates)
    assert scores.calibrated.argmax() == 0
    assert_close(LikelihoodRanker(model).score(history, candidates).calibrated, scores.calibrated, rtol=0, atol=0)
