"""Text encoding speed with MiniLM: LanguageEncoder against sentence-transformers, and whether their vectors agree.

    python benchmarks/encode.py

Two sets of texts, those of all items and histories of 1 to 40 titles, from strings to vectors on one thread. Contenders
take turns within every round; what is reported is the median over rounds of seconds, and of the speed relative to the
fastest setting of sentence-transformers in the same round, so that a busy machine slows all alike. The result is
book/results/encode.json.
"""

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from results import store
from sentence_transformers import SentenceTransformer
from torch import Tensor

from recsys_cl import assets
from recsys_cl.data import Interactions, load_movielens
from recsys_cl.text import LanguageEncoder, backbone

Encode = Callable[[list[str]], Tensor]

MAX_LENGTH = 256
HISTORIES, TITLES = 400, 40
ROUNDS = 3


def histories(data: Interactions) -> list[str]:
    """The latest 1 to 40 titles of as many users, the number drawn anew for each."""
    rng = np.random.default_rng(0)
    users = rng.choice(data.n_users, HISTORIES, replace=False)
    order = np.argsort(data.timestamp, kind="stable")
    user_of, item_of = data.user[order], data.item[order]
    texts = []
    for user in users:
        latest = item_of[user_of == user][-rng.integers(1, TITLES + 1) :]
        texts.append("; ".join(data.titles[item] for item in latest))
    return texts


def contenders() -> dict[str, Encode]:
    encoder = LanguageEncoder("minilm", max_length=MAX_LENGTH, device="cpu", cache=False)
    large = LanguageEncoder("minilm", max_length=MAX_LENGTH, device="cpu", cache=False, batch_tokens=32 * MAX_LENGTH)
    peer = SentenceTransformer(str(assets.fetch("minilm")), device="cpu")
    peer.max_seq_length = MAX_LENGTH

    def as_loaded(texts: list[str]) -> Tensor:
        with mock.patch.object(backbone, "LARGEST", 0):
            return encoder.encode(texts)

    def sentence_transformers(size: int) -> Encode:
        return lambda texts: peer.encode(texts, batch_size=size, convert_to_tensor=True, show_progress_bar=False)

    return {
        "recsys_cl": encoder.encode,
        "recsys_cl, weights not packed": as_loaded,
        "recsys_cl, batches of 8,192 tokens": large.encode,
        "sentence-transformers, batches of 32": sentence_transformers(32),
        "sentence-transformers, batches of 8": sentence_transformers(8),
    }


def race(texts: list[str], names: dict[str, Encode]) -> list[dict[str, Any]]:
    """Seconds and relative speed of each contender, and its minimum cosine to the vectors of the default peer."""
    vectors = {name: encode(texts) for name, encode in names.items()}  # the warm-up
    expected = vectors["sentence-transformers, batches of 32"]
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        seconds = {}
        for name, encode in names.items():
            started = time.perf_counter()
            encode(texts)
            seconds[name] = time.perf_counter() - started
        rounds.append(seconds)
        print({name: round(value, 2) for name, value in seconds.items()}, flush=True)
    fastest = [min(value for name, value in one.items() if name.startswith("sentence")) for one in rounds]
    return [
        {
            "contender": name,
            "seconds": statistics.median(one[name] for one in rounds),
            "speed": statistics.median(peer / one[name] for peer, one in zip(fastest, rounds, strict=True)),
            "least cosine": F.cosine_similarity(vectors[name], expected).min().item(),
        }
        for name in names
    ]


def everything() -> dict[str, Any]:
    torch.set_num_threads(1)
    data = load_movielens()
    names = contenders()
    cases = {"items": data.texts, "histories": histories(data)}
    count = LanguageEncoder("minilm", max_length=MAX_LENGTH, device="cpu").tokenize
    result: dict[str, Any] = {"rounds": ROUNDS, "max_length": MAX_LENGTH, "cases": {}}
    for name, texts in cases.items():
        lengths = count(texts)[1].sum(1)
        tokens = {"least": int(lengths.min()), "mean": float(lengths.float().mean()), "most": int(lengths.max())}
        result["cases"][name] = {"texts": len(texts), "tokens": tokens, "rows": race(texts, names)}
    return result


def main() -> None:
    warnings.filterwarnings("ignore", message=".*longer than .* tokens and w.* cut")
    store("encode", "encode.py", everything)


if __name__ == "__main__":
    main()
