"""Our models as contenders, at their defaults: ``fit`` as anybody calls it, heard out after every epoch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import splits
from exchange import Enough, Histories, Referee, arguments
from torch import nn

from recsys_cl.data import Split
from recsys_cl.recommenders import MODELS, TrainedRecommender, create

ENDLESS = 10_000  # epochs, and patience: the referee ends the training


def heard(recommender: TrainedRecommender, referee: Referee) -> TrainedRecommender:
    """The recommender, whose training reports to the referee where it would validate."""
    train = recommender._train

    def reporting(
        split: Split, network: nn.Module, examples: Any, validate: Callable[[], dict[str, float]], **options: Any
    ) -> None:
        predictions = int((split.train.lengths - 1).clip(min=0).sum())  # an epoch predicts each event with a past

        def scores(_: Histories) -> np.ndarray:
            network.eval()
            return recommender.score(split.validation.history).numpy()

        def report() -> dict[str, float]:
            referee.count(len(examples), predictions)
            referee.epoch(scores)
            return {"ndcg@10": 0.0}  # the referee judges

        train(split, network, examples, report, **options)

    recommender._train = reporting  # type: ignore[method-assign]
    return recommender


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--users", type=int, help="users of a synthetic world; without them the real data")
    options = parser.parse_args()
    referee = Referee(options.folder, limit=options.limit)
    split = splits.world(options.users) if options.users else splits.real()
    recommender = create(options.model, seed=options.seed, epochs=ENDLESS, patience=ENDLESS)
    assert isinstance(recommender, TrainedRecommender)
    referee.start()
    try:
        heard(recommender, referee).fit(split)
    except Enough:
        return


if __name__ == "__main__":
    main()
