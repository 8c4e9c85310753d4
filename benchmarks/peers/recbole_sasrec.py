"""RecBole's SASRec as a benchmark contender, run by its own interpreter (see README.md).

Its loss is the cross-entropy over the whole catalogue, its defaults for everything but size (2 heads, dropout .5,
learning rate .001, batches of 2,048); an epoch has one example for each event that has a past.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from exchange import BLOCKS, DIM, LENGTH, Enough, Histories, Referee, arguments
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataloader import TrainDataLoader
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

NAME = "recbole"


def config(referee: Referee, seed: int) -> Config:
    """Write the training events where RecBole looks for them, and say how to read them."""
    train = referee.train
    file = referee.folder / NAME / f"{NAME}.inter"
    file.parent.mkdir(exist_ok=True)
    events = {"user_id:token": train.row, "item_id:token": train.item, "timestamp:float": train.position}
    pd.DataFrame(events).to_csv(file, sep="\t", index=False)
    settings = {
        "data_path": str(referee.folder),
        "checkpoint_dir": str(referee.folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "hidden_size": DIM,
        "n_layers": BLOCKS,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "use_gpu": False,
        "seed": seed,
        "show_progress": False,
        "state": "ERROR",
    }
    return Config(model="SASRec", dataset=NAME, config_dict=settings)


class Counted:
    """Batches that are counted once they have been trained on."""

    def __init__(self, batches: TrainDataLoader, referee: Referee) -> None:
        self.batches, self.referee = batches, referee

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.batches, start=1):
            yield batch
            self.referee.step(len(batch), len(batch), share=number / len(self.batches))


@torch.no_grad()
def scores(model: SASRec, number: dict[str, int], histories: Histories) -> np.ndarray:
    """``(n_rows, n_items)``, for items without training events -inf."""
    names = [item for item in range(histories.n_items) if str(item) in number]
    columns = [number[str(item)] for item in names]
    column = np.zeros(histories.n_items, dtype=np.int64)  # (N,)
    column[names] = columns
    result = np.full((histories.n_rows, histories.n_items), -np.inf, dtype=np.float32)
    model.eval()
    for row in range(histories.n_rows):
        recent = torch.from_numpy(column[histories.item[histories.row == row][-LENGTH:]])  # (L,)
        padded = torch.nn.functional.pad(recent, (0, LENGTH - len(recent)))
        batch = {model.ITEM_SEQ: padded[None], model.ITEM_SEQ_LEN: torch.tensor([len(recent)])}
        result[row, names] = model.full_sort_predict(batch)[0, columns].numpy()
    return result


def main() -> None:
    options = arguments(__doc__).parse_args()
    del sys.argv[1:]  # RecBole would read them too
    referee = Referee(options.folder, limit=options.limit)
    settings = config(referee, options.seed)
    init_seed(options.seed, reproducibility=True)
    data = create_dataset(settings)
    data._change_feat_format()  # one example per prefix
    model = SASRec(settings, data)
    trainer = Trainer(settings, model)
    batches = Counted(TrainDataLoader(settings, data, None, shuffle=True), referee)
    referee.start()
    try:
        for epoch in range(10**6):
            trainer._train_epoch(batches, epoch)
            referee.epoch(lambda histories: scores(model, data.field2token_id["item_id"], histories))
    except Enough:
        return


if __name__ == "__main__":
    main()
