"""recsys_cl models as benchmark contenders at their defaults: the referee decides after each epoch when to stop."""

from collections.abc import Callable

import numpy as np
import splits
from exchange import Enough, Histories, Referee, arguments

from recsys_cl.data import Split
from recsys_cl.recommenders import MODELS, Sequential, TrainedRecommender, create
from recsys_cl.training.windows import Windows

ENDLESS = 10_000  # epochs, and patience: the referee ends the training


def monitor(recommender: TrainedRecommender, split: Split, referee: Referee) -> Callable[[], dict[str, float]]:
    """What reports an epoch to the referee."""
    predictions = int((split.train.lengths - 1).clip(min=0).sum())  # an epoch predicts each event with a past
    sequences = predictions
    if isinstance(recommender, Sequential):
        sequences = len(Windows(split.train, length=recommender.length))

    def scores(_: Histories) -> np.ndarray:
        recommender.network.eval()
        return recommender.score(split.validation.history).numpy()

    def report() -> dict[str, float]:
        referee.count(sequences, predictions)
        referee.epoch(scores)
        return {"ndcg@10": 0.0}  # the referee judges

    return report


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--users", type=int, help="users of a synthetic world; without them the real data")
    options = parser.parse_args()
    referee = Referee(options.folder, limit=options.limit)
    split = splits.world(options.users) if options.users else splits.real()
    recommender = create(options.model, seed=options.seed, epochs=ENDLESS, patience=ENDLESS)
    assert isinstance(recommender, TrainedRecommender)
    recommender.monitor = monitor(recommender, split, referee)
    referee.start()
    try:
        recommender.fit(split)
    except Enough:
        return


if __name__ == "__main__":
    main()
