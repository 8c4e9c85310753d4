"""Fine-tuning throughput on text pairs: recsys_cl against sentence-transformers, same model, pairs and batches.

    python benchmarks/finetune_speed.py

The result is book/results/finetune-speed.json.
"""

import statistics
import tempfile
import time
from typing import Any, Literal

import torch
from datasets import Dataset
from results import store
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback

from recsys_cl import assets
from recsys_cl.data import load_movielens
from recsys_cl.losses.contrastive import LOSSES
from recsys_cl.negatives import in_batch_log_q
from recsys_cl.negatives.exclusions import KnownPositives
from recsys_cl.recommenders.text_networks import LanguageTower, PairNetwork, latest_titles
from recsys_cl.text import LanguageEncoder
from recsys_cl.training.examples import HistoryPairs
from recsys_cl.training.run import TrainingConfig, train

BATCH, STEPS, ROUNDS, TOKENS, TITLES = 64, 7, 2, 32, 4


class Stopwatch(TrainerCallback):
    """Seconds from the end of the first step to the end of the last: neither start nor checkpoints count."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())

    @property
    def pairs_per_second(self) -> float:
        """Speed of the steps after the first."""
        return BATCH * (len(self.ends) - 1) / (self.ends[-1] - self.ends[0])


def ours(precision: Literal["float32", "bfloat16"]) -> float:
    data = load_movielens()
    train_events = data.sequences(seed=0)
    encoder = LanguageEncoder("minilm", max_length=TOKENS, precision=precision)
    counts = torch.bincount(torch.from_numpy(train_events.items), minlength=data.n_items)
    network = PairNetwork(
        LanguageTower(encoder, data.texts),
        data.titles,
        loss=LOSSES["info-nce"](),
        temperature=0.05,
        log_q=in_batch_log_q(counts),
        known=KnownPositives(train_events, data.n_items),
    )
    watch = Stopwatch()
    train(
        network,
        HistoryPairs(train_events, data.n_items, length=TITLES, pairs=BATCH * STEPS),
        validate=lambda: {"ndcg@10": 0.0},
        config=TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=2e-5, keep="last"),
        callbacks=[watch],
    )
    return watch.pairs_per_second


def theirs(bf16: bool) -> float:
    data = load_movielens()
    train_events = data.sequences(seed=0)
    examples = HistoryPairs(train_events, data.n_items, length=TITLES, pairs=BATCH * STEPS)
    batch = examples.collate([(0, number) for number in range(len(examples))])
    texts = {
        "anchor": [latest_titles(row, data.titles) for row in batch["history"].tolist()],
        "positive": [data.texts[item] for item in batch["target"].tolist()],
    }
    model = SentenceTransformer(str(assets.fetch("minilm")), device="cpu")
    model.max_seq_length = TOKENS
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=BATCH,
                learning_rate=2e-5,
                use_cpu=True,
                bf16=bf16,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict(texts),
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[watch],
        ).train()
    return watch.pairs_per_second


def everything() -> dict[str, Any]:
    """Let the four sides take turns."""
    sides = {
        "recsys_cl, float32": lambda: ours("float32"),
        "sentence-transformers, float32": lambda: theirs(bf16=False),
        "recsys_cl, bfloat16": lambda: ours("bfloat16"),
        "sentence-transformers, bfloat16": lambda: theirs(bf16=True),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, measure in sides.items():
            speeds[name].append(measure())
            print(name, round(speeds[name][-1], 1), flush=True)
    rows = [{"trainer": name, "pairs/s": statistics.median(runs), "runs": runs} for name, runs in speeds.items()]
    ratios = {
        precision: statistics.median(
            a / b
            for a, b in zip(
                speeds[f"recsys_cl, {precision}"], speeds[f"sentence-transformers, {precision}"], strict=True
            )
        )
        for precision in ("float32", "bfloat16")
    }
    setting = {"batch": BATCH, "steps": STEPS, "rounds": ROUNDS, "tokens": TOKENS, "titles": TITLES}
    return {"setting": setting, "rows": rows, "ratio": ratios}


if __name__ == "__main__":
    store("finetune-speed", "finetune_speed.py", everything)
