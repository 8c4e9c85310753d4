"""The monitor of a training: called after each epoch, it chooses the best one, and can end the training."""

import pytest

from recsys_cl.data import Split, leave_one_out, synthetic
from recsys_cl.evaluation import evaluate
from recsys_cl.recommenders import TrainedRecommender, create

MODELS = pytest.mark.parametrize("model", ["two-tower-id", "sasrec"])


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(synthetic(100, 100))


def untrained(model: str, epochs: int) -> TrainedRecommender:
    recommender = create(model, epochs=epochs, patience=epochs, dim=8)
    assert isinstance(recommender, TrainedRecommender)
    return recommender


@MODELS
def test_the_monitor_replaces_the_validation(model: str, split: Split) -> None:
    recommender, values = untrained(model, 3), iter([0.1, 0.3, 0.2])
    recommender.monitor = lambda: {"ndcg@10": next(values), "hr@10": evaluate(recommender, split.test).mean("hr@10")}
    report = recommender.fit(split).report
    assert report.best == 0.3
    assert [epoch["ndcg@10"] for epoch in report.history] == [0.1, 0.3, 0.2]
    assert report.history[1]["hr@10"] == evaluate(recommender, split.test).mean("hr@10")


@MODELS
def test_the_monitor_ends_the_training(model: str, split: Split) -> None:
    class Enough(Exception):
        pass

    recommender, called = untrained(model, 5), []

    def monitor() -> dict[str, float]:
        called.append(recommender.score(split.test.history).shape)
        if len(called) == 2:
            raise Enough
        return {"ndcg@10": 0.0}

    recommender.monitor = monitor
    with pytest.raises(Enough):
        recommender.fit(split)
    assert called == [(len(split.test), split.n_items)] * 2
