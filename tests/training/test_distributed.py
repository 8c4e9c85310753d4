"""Two processes with gathered negatives take the gradient that one process takes with the whole batch.

The file is also the program that the two processes run.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recsys_cl.data import Sequences, leave_one_out, synthetic
from recsys_cl.encoders import AttentionPooling, ItemTower
from recsys_cl.errors import InputError
from recsys_cl.losses import LOSSES, info_nce_loss, symmetric_info_nce_loss
from recsys_cl.negatives import KnownPositives, in_batch_log_q
from recsys_cl.recommenders.two_tower_network import TwoTowerNetwork
from recsys_cl.training import NextItemExamples, encode_in_chunks, gather_items
from recsys_cl.training.windows import Windows

N_USERS, N_ITEMS, SIZE = 9, 12, 16
LIKES = np.random.default_rng(0).integers(N_ITEMS, size=(N_USERS, 3))
KNOWN = KnownPositives(Sequences.from_lists(LIKES.tolist()), N_ITEMS)
ITEM_LOG_Q, USER_LOG_Q = torch.linspace(-3, -1, N_ITEMS).double(), torch.linspace(-2, -1, N_USERS).double()

Loss = Callable[..., Tensor]
Wrap = Callable[[nn.Module], nn.Module]


def one_way(query: Tensor, item: Tensor, temperature: Tensor, *_: Tensor) -> Tensor:
    return info_nce_loss(query, gather_items(item), temperature=temperature)


def corrected(query: Tensor, item: Tensor, temperature: Tensor, users: Tensor, items: Tensor) -> Tensor:
    columns = gather_items(items)  # (N,)
    mask, log_q = KNOWN.mask(users, columns), ITEM_LOG_Q[columns]
    return info_nce_loss(query, gather_items(item), temperature=temperature, mask=mask, log_q=log_q)


def both_ways(query: Tensor, item: Tensor, temperature: Tensor, users: Tensor, items: Tensor) -> Tensor:
    columns = gather_items(users)  # (N,)
    mask, log_q = KNOWN.mask(columns, items).T, USER_LOG_Q[columns]
    back = info_nce_loss(item, gather_items(query), temperature=temperature, mask=mask, log_q=log_q)
    return (corrected(query, item, temperature, users, items) + back) / 2


def own_negatives(query: Tensor, item: Tensor, temperature: Tensor, *_: Tensor) -> Tensor:
    return info_nce_loss(query, item, temperature=temperature)


def no_gradient_from_elsewhere(query: Tensor, item: Tensor, temperature: Tensor, *_: Tensor) -> Tensor:
    others = gather_items(item.detach())[len(item) :]  # (N - B, d)
    return info_nce_loss(query, torch.cat([item, others]), temperature=temperature)


RIGHT: dict[str, Loss] = {"one way": one_way, "masked and corrected": corrected, "both ways": both_ways}
WRONG: dict[str, Loss] = {"own negatives": own_negatives, "no gradient from elsewhere": no_gradient_from_elsewhere}


class Towers(nn.Module):
    """Two linear towers over features of users and items, and a learned temperature."""

    def __init__(self, loss: Loss, chunk_size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("features", torch.randn(max(N_USERS, N_ITEMS), 6))
        self.query, self.item = nn.Linear(6, 4), nn.Linear(6, 4)
        self.log_scale = nn.Parameter(torch.tensor(0.5))
        self.loss, self.chunk_size = loss, chunk_size
        self.double()

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        query = encode_in_chunks(self.query, self.features[users], chunk_size=self.chunk_size)  # (B, d)
        item = encode_in_chunks(self.item, self.features[items], chunk_size=self.chunk_size)  # (B, d)
        return self.loss(query, item, (-self.log_scale).exp(), users, items)


def whole_batch() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(1)
    users = rng.integers(N_USERS, size=SIZE)
    return torch.from_numpy(users), torch.from_numpy(LIKES[users, rng.integers(3, size=SIZE)])


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def towers(loss: Loss, chunk_size: int, wrap: Wrap, rows: slice) -> Tensor:
    model = wrap(Towers(loss, chunk_size))
    return gradient(model, model(*(tensor[rows] for tensor in whole_batch())))


def recommender(wrap: Wrap, rows: slice) -> Tensor:
    """One step of the two-tower recommender on a collated batch."""
    split = leave_one_out(synthetic(100, 80, seed=3), seed=0)
    torch.manual_seed(0)
    counts = torch.from_numpy(split.counts)
    model = wrap(
        TwoTowerNetwork(
            ItemTower(counts > 0, None, dim=8, ids=True),
            AttentionPooling(8, length=10),
            loss=LOSSES["info-nce"](),
            similarity="cosine",
            temperature=0.1,
            dropout=0.0,
        ).learn_from(KnownPositives(split.train, split.n_items), in_batch_log_q(counts))
    )
    examples = NextItemExamples(split.train, split.n_items, length=10)
    keys = [(0, int(example)) for example in np.random.default_rng(0).permutation(len(examples))[:SIZE]]
    return gradient(model, model(**examples.collate(keys[rows]))["loss"])


def gradients(wrap: Wrap, rows: slice) -> dict[str, Tensor]:
    found = {name: towers(loss, SIZE, wrap, rows) for name, loss in {**RIGHT, **WRONG}.items()}
    return {**found, "in chunks": towers(both_ways, 3, wrap, rows), "recommender": recommender(wrap, rows)}


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def main(folder: Path) -> None:
    """Take each gradient in one process and in two, and write down how far they are apart."""
    expected = gradients(lambda model: model, slice(SIZE))
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = gradients(DistributedDataParallel, slice(rank * SIZE // 2, (rank + 1) * SIZE // 2))
    result: dict[str, object] = {name: distance(found[name], expected[name]) for name in found}
    result["order"] = gather_items(torch.tensor([[2 * rank], [2 * rank + 1]])).flatten().tolist()
    with pytest.raises(InputError) as error:
        gather_items(torch.zeros(3 + rank, 2))
    result["unequal"] = str(error.value)
    (folder / f"rank{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [*launch, __file__, str(folder)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RIGHT, "in chunks"])
def test_two_processes_take_the_gradient_of_the_whole_batch(ranks: list[dict], name: str) -> None:
    assert max(rank[name] for rank in ranks) < 1e-12


@pytest.mark.slow
def test_two_processes_of_the_recommender_take_the_gradient_of_the_whole_batch(ranks: list[dict]) -> None:
    assert max(rank["recommender"] for rank in ranks) < 1e-6  # single precision


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_the_comparison_sees_what_is_left_out(ranks: list[dict], name: str) -> None:
    assert min(rank[name] for rank in ranks) > 1e-3


@pytest.mark.slow
def test_own_rows_come_first(ranks: list[dict]) -> None:
    assert [rank["order"] for rank in ranks] == [[0, 1, 2, 3], [2, 3, 0, 1]]


@pytest.mark.slow
def test_batches_of_different_sizes_are_an_error_in_every_process(ranks: list[dict]) -> None:
    for rank in ranks:
        assert rank["unequal"].startswith("the processes hold batches of [3, 4] rows; give all the same number")


def test_one_process_gathers_nothing() -> None:
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather_items(rows) is rows


def test_two_rectangles_are_the_symmetric_loss() -> None:
    (users, items), draw = whole_batch(), torch.randn(2, SIZE, 4, generator=torch.Generator().manual_seed(0)).double()
    expected = symmetric_info_nce_loss(
        *draw,
        temperature=0.3,
        mask=KNOWN.mask(users, items),
        log_q=ITEM_LOG_Q[items],
        query_log_q=USER_LOG_Q[users],
    )
    torch.testing.assert_close(both_ways(*draw, torch.tensor(0.3), users, items), expected)


def run_cli(folder: Path, batch_size: int, *launch: str) -> tuple[list[float], dict]:
    """Losses of the epochs and test metrics of ``recsys-cl train``, behind a launcher or on its own."""
    settings = {"dim": 8, "length": 10, "dropout": 0, "epochs": 3, "batch_size": batch_size}
    files = ("--interactions", folder.parent / "events.csv", "--output", folder)
    options = (part for name, value in settings.items() for part in ("--set", f"{name}={value}"))
    command = ["-m", "recsys_cl", "train", "--model", "sasrec", *map(str, files), *options, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *command], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "checkpoints" / "run.json").read_text())["report"]
    printed = [line for line in done.stdout.splitlines() if line]
    assert len(printed) == 1, "one process prints the result"
    return [epoch["loss"] for epoch in report["history"]], json.loads(printed[0])["rows"][0]["metrics"]


@pytest.mark.slow
def test_two_processes_of_the_command_line_follow_the_loss_of_one(tmp_path: Path) -> None:
    data = synthetic(120, 80, ties=0.0, seed=4)
    data.events.to_pandas().drop(columns="event").to_csv(tmp_path / "events.csv", index=False)
    windows = Windows(leave_one_out(data).train, length=10)
    size = max(size for size in range(2, 65, 2) if len(windows) % size == 0)
    assert size > 10, "a batch that is not full would be filled up"
    assert len({*windows.collate([(0, key) for key in range(20)])["lengths"].tolist()}) > 1, "windows are ragged"
    one, alone = run_cli(tmp_path / "one", size)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    two, together = run_cli(tmp_path / "two", size // 2, *launch)
    assert two == pytest.approx(one, rel=1e-4)
    assert together["ndcg@10"]["mean"] == pytest.approx(alone["ndcg@10"]["mean"], abs=0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
