"""RecTools' SASRec as a benchmark contender, run by its own interpreter (see README.md).

Its loss is the softmax over the whole catalogue, its defaults for everything but size (4 heads, dropout .2, learning
rate .001, batches of 128 users); an epoch is the latest 51 events of every user.
"""

import numpy as np
import pandas as pd
import torch
from exchange import BLOCKS, DIM, LENGTH, Enough, Histories, Referee, arguments
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def dataset(histories: Histories) -> Dataset:
    events = {
        Columns.User: histories.row,
        Columns.Item: histories.item,
        Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(histories.position, unit="s"),
    }
    return Dataset.construct(pd.DataFrame(events))


def scores(model: SASRecModel, histories: Histories) -> np.ndarray:
    """What ``model.recommend`` ranks by, for items without training events -inf: ``(n_rows, n_items)``."""
    preparator = model.data_preparator
    known = preparator.transform_dataset_u2i(dataset(histories), np.arange(histories.n_rows))
    batches = preparator.get_dataloader_recommend(known, model.recommend_batch_size)
    users, items = model.lightning_model._get_user_item_embeddings(batches, "cpu")  # (B, d), (1 + n, d)
    result = np.full((histories.n_rows, histories.n_items), -np.inf, dtype=np.float32)
    columns = preparator.get_known_items_sorted_internal_ids()  # (n,) without the padding
    names = preparator.item_id_map.convert_to_external(columns).astype(int)  # (n,)
    result[np.ix_(known.user_id_map.external_ids, names)] = (users @ items[columns].T).numpy()  # (B, n)
    return result


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()
    referee = Referee(options.folder, limit=options.limit)

    class Reporting(Callback):
        def on_train_batch_end(
            self, trainer: Trainer, module: LightningModule, outputs: object, batch: dict, index: int
        ) -> None:
            predicted = int((batch["y"] != 0).sum())
            referee.step(len(batch["y"]), predicted, share=(index + 1) / trainer.num_training_batches)

        def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
            with torch.no_grad():
                referee.epoch(lambda histories: scores(model, histories))
            module.train()

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=-1,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
            callbacks=[Reporting()],
        )

    seed_everything(options.seed)
    model = SASRecModel(
        n_factors=DIM,
        n_blocks=BLOCKS,
        session_max_len=LENGTH,
        loss="softmax",
        lr=options.learning_rate,
        get_trainer_func=trainer,
    )
    events = dataset(referee.train)
    referee.start()
    try:
        model.fit(events)
    except Enough:
        return


if __name__ == "__main__":
    main()
