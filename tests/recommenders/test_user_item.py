"""Contrast within and across users as a recommender: pairs, losses, ranking, ratings, newcomers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from recsys_cl.data import PAD, Queries, Sequences, Split, leave_one_out, synthetic
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.evaluation.ratings import SQUARED_ERROR, evaluate_ratings
from recsys_cl.negatives import KnownPositives
from recsys_cl.recommenders import Random, UserItem, create, load_recommender
from recsys_cl.recommenders.ratings import RatingBaseline
from recsys_cl.recommenders.user_item import UserItemNetwork
from recsys_cl.training.examples import UserItemExamples

QUICK = {"dim": 16, "epochs": 2, "batch_size": 128}
OBJECTIVES = pytest.mark.parametrize("objective", ["contrast", "rating", "mix", "alternate"])


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(synthetic(300, 100, seed=5), seed=0)


@pytest.fixture(scope="module")
def examples(split: Split) -> UserItemExamples:
    surprise = RatingBaseline(split.n_items).fit(split.train).surprise(split.train)
    return UserItemExamples(split.train, split.n_items, surprise=surprise, length=10)


class TestExamples:
    def test_pairs_share_a_user_and_an_item(self, split: Split, examples: UserItemExamples) -> None:
        batch = examples.collate([(3, example) for example in range(0, len(examples), 7)])
        has = KnownPositives(split.train, split.n_items)
        for users, items in (("user", "item"), ("user", "other_item"), ("other_user", "item")):
            assert has.mask(batch[users], batch[items]).diagonal().all()
        assert (batch["item"] != batch["other_item"]).all()
        assert (batch["user"] != batch["other_user"]).all()

    def test_neither_history_holds_the_shared_item_and_none_is_empty(self, examples: UserItemExamples) -> None:
        batch = examples.collate([(0, example) for example in range(0, len(examples), 5)])
        for name in ("history", "other_history"):
            assert not (batch[name] == batch["item"][:, None]).any()
            assert (batch[name] != PAD).any(1).all()

    def test_surprises_stand_beside_their_items(self, split: Split, examples: UserItemExamples) -> None:
        batch = examples.collate([(0, 11)])
        event = examples.event[11]
        past = np.arange(max(split.train.start[examples.user[event]], event - 10), event)
        assert batch["history"][0, -len(past) :].tolist() == split.train.items[past].tolist()
        assert_close(batch["history_surprise"][0, -len(past) :], torch.from_numpy(examples.surprise[past]))

    def test_an_example_is_the_same_in_every_batch_and_another_in_every_epoch(self, examples: UserItemExamples) -> None:
        alone, among = examples.collate([(2, 9)]), examples.collate([(2, 5), (2, 9)])
        for name in set(alone) - {"turn"}:
            assert torch.equal(alone[name][0], among[name][1])
        partners = [examples.collate([(epoch, 9)])["other_item"].item() for epoch in range(12)]
        assert len(set(partners)) > 1

    def test_half_of_the_turns_are_on_either_side(self, examples: UserItemExamples) -> None:
        turns = np.array([examples.collate([(epoch, 0)])["turn"] for epoch in range(400)])
        assert abs((turns < 0.5).mean() - 0.5) < 0.1

    def test_without_pairs_there_is_nothing_to_train_on(self) -> None:
        strangers = Sequences.from_lists([[0, 1, 2], [3, 4, 5]])
        with pytest.raises(InputError, match="train on more data"):
            UserItemExamples(strangers, 6, surprise=np.zeros(6, dtype=np.float32), length=10)


def network_of(recommender: UserItem, split: Split) -> UserItemNetwork:
    """The network of a recommender before its first step."""
    recommender.sizes = {"items": split.n_items}
    return recommender._build().learn_from(torch.from_numpy(split.counts), KnownPositives(split.train, split.n_items))


class TestLoss:
    def loss(self, split: Split, examples: UserItemExamples, turn: float = 0.0, **settings) -> float:
        torch.manual_seed(0)
        network = network_of(UserItem(**{**QUICK, "dropout": 0.0, **settings}), split)
        batch = examples.collate([(0, example) for example in range(0, 640, 10)])
        return float(network(**{**batch, "turn": torch.tensor(turn)})["loss"].detach())

    def test_the_total_is_the_rating_loss_plus_the_weighted_contrast(self, split, examples) -> None:
        rating = self.loss(split, examples, objective="rating")
        contrast = self.loss(split, examples, objective="contrast", alpha=0.25) - rating
        mix = self.loss(split, examples, objective="mix", alpha=0.25, weight=0.7)
        assert mix == pytest.approx(rating + 0.7 * contrast, rel=1e-5)

    def test_alpha_weighs_the_two_contrasts(self, split, examples) -> None:
        cross, half, within = (self.loss(split, examples, objective="contrast", alpha=a) for a in (0.0, 0.5, 1.0))
        assert half == pytest.approx((cross + within) / 2, rel=1e-5)

    def test_alternating_batches_have_either_loss(self, split, examples) -> None:
        rating = self.loss(split, examples, objective="rating")
        contrast = self.loss(split, examples, objective="contrast") - rating
        assert self.loss(split, examples, turn=0.2, objective="alternate") == pytest.approx(rating, rel=1e-5)
        late = self.loss(split, examples, turn=0.8, objective="alternate", weight=0.7)
        assert late == pytest.approx(0.7 * contrast, rel=1e-5)

    @OBJECTIVES
    def test_who_learns_from_what(self, split, examples, objective) -> None:
        """Under contrast the ratings teach the gain alone; under ratings the temperature is never asked."""
        network = network_of(UserItem(**QUICK, objective=objective), split)
        batch = examples.collate([(0, example) for example in range(0, 640, 10)])
        network(**{**batch, "turn": torch.tensor(0.2)})["loss"].backward()
        assert all(weight.grad is not None for weight in network.parameters())
        assert (network.towers.temperature.log_scale.grad != 0) == (objective in ("contrast", "mix"))
        assert network.gain.grad != 0


def test_contrast_ranks_above_chance(split: Split) -> None:
    chance = evaluate(Random().fit(split), split.test).mean()
    for alpha in (0.5, 1.0):
        trained = UserItem(**{**QUICK, "epochs": 6}, objective="contrast", alpha=alpha).fit(split)
        assert evaluate(trained, split.test).mean() > 1.5 * chance


def by_kind(split: Split) -> Split:
    """The same events with ratings by the user's taste for four kinds of items."""
    rows, positions = split.data.sequences(seed=split.seed).flat()
    taste = np.random.default_rng(0).normal(size=(split.data.n_users, 4))
    ratings = np.zeros(len(split.train.items), dtype=np.float32)
    ratings[positions] = 3 + taste[rows, split.train.items[positions] % 4]

    def rated(queries: Queries) -> Queries:
        return replace(
            queries,
            history=replace(queries.history, ratings=ratings),
            target=replace(queries.target, ratings=ratings),
        )

    train = replace(split.train, ratings=ratings)
    return replace(split, train=train, validation=rated(split.validation), test=rated(split.test))


def test_ratings_alone_rank_by_predicted_rating_and_predict_better_than_the_biases(split: Split) -> None:
    rated = by_kind(split)
    trained = UserItem(**{**QUICK, "epochs": 8, "patience": 8}, objective="rating").fit(rated)
    assert_close(trained.score(rated.test.history), trained.predict_ratings(rated.test.history))
    with_taste = evaluate_ratings(trained, rated.test).mean(SQUARED_ERROR)
    trained.network.gain.data.zero_()
    assert with_taste < 0.9 * evaluate_ratings(trained, rated.test).mean(SQUARED_ERROR)


@OBJECTIVES
def test_saved_and_loaded_scores_the_same(split: Split, tmp_path: Path, objective: str) -> None:
    trained = create("user-item", **{**QUICK, "epochs": 1}, objective=objective).fit(split)
    trained.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert loaded == trained
    histories = split.test.history[:50]
    assert_close(loaded.score(histories), trained.score(histories), rtol=0, atol=0)
    assert_close(loaded.predict_ratings(histories), trained.predict_ratings(histories), rtol=0, atol=0)
    newcomer = Sequences.from_lists([[3, 7], []])
    assert loaded.score(newcomer).shape == (2, split.n_items)
    assert loaded.predict_ratings(newcomer).isfinite().all()


def test_ratings_that_are_all_equal_teach_nothing(split: Split) -> None:
    same = replace(split, train=replace(split.train, ratings=np.ones_like(split.train.ratings)))
    with pytest.raises(InputError, match="all ratings are equal"):
        UserItem(**QUICK, objective="rating").fit(same)
    assert UserItem(**QUICK).fit(same).score(same.test.history).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, r"alpha=1.5 is out of range; give 0 to 1"),
        ({"alpha": -1.0}, "alpha=-1.0 is out of range"),
        ({"objective": "both"}, "objective='both' is unknown; valid names are contrast, rating, mix, alternate"),
    ],
)
def test_settings_are_checked(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        UserItem(**settings)
