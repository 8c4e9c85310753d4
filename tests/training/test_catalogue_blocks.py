"""Blocks of the catalogue: every item once an epoch, halves that do not overlap, chance without state."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from recsys_cl.data import Sequences
from recsys_cl.errors import InputError
from recsys_cl.recommenders.text_networks import BlockNetwork, ProjectedTower
from recsys_cl.training import CatalogueBlocks, TrainingConfig
from recsys_cl.training import train as run

N_ITEMS = 30


@pytest.fixture
def train() -> Sequences:
    rng = np.random.default_rng(0)
    return Sequences.from_lists([rng.choice(24, size=rng.integers(1, 12), replace=False).tolist() for _ in range(40)])


@pytest.fixture
def train_skewed() -> Sequences:
    """Sixteen items, of which the order of an epoch puts those that most people chose into one block."""
    rng = np.random.default_rng(1)
    popular = np.random.default_rng([0, 0, 0]).permutation(16)[:8]
    rest = np.setdiff1d(np.arange(16), popular)
    rows = [rng.choice(popular, size=4, replace=False).tolist() for _ in range(40)]
    return Sequences.from_lists(rows + [rng.choice(rest, size=4, replace=False).tolist() for _ in range(12)])


def test_an_epoch_takes_every_warm_item_once(train: Sequences) -> None:
    blocks = CatalogueBlocks(train, N_ITEMS, block=6, seed=0)
    seen = torch.cat([blocks.collate([(0, number)])["item"] for number in range(len(blocks))])
    assert sorted(seen.tolist()) == sorted(set(train.items.tolist()))
    assert blocks.collate([(0, 0)])["item"].tolist() != blocks.collate([(1, 0)])["item"].tolist()


def test_given_and_asked_are_the_events_of_their_users_and_share_none(train: Sequences) -> None:
    blocks = CatalogueBlocks(train, N_ITEMS, block=12, seed=0)
    batch = blocks.collate([(0, 0)])
    given, asked = batch["context"], batch["target"]
    assert not (given & asked).any()
    assert given.any(1).all()
    assert asked.any(1).all()
    everybody = train.matrix(N_ITEMS).toarray()[:, batch["item"].numpy()] > 0
    rows = {tuple(row) for row in everybody.tolist()}
    assert all(tuple(row) in rows for row in (given | asked).tolist())
    expected = sum(1 for row in everybody if row.sum() >= 2)
    assert len(given) <= expected


def test_half_of_the_events_are_asked_for(train: Sequences) -> None:
    blocks = CatalogueBlocks(train, N_ITEMS, block=24, seed=3)
    batches = [blocks.collate([(epoch, 0)]) for epoch in range(200)]
    asked = sum(int(batch["target"].sum()) for batch in batches)
    given = sum(int(batch["context"].sum()) for batch in batches)
    assert asked / (asked + given) == pytest.approx(0.5, abs=0.02)


def test_a_batch_is_a_function_of_seed_epoch_and_number(train: Sequences) -> None:
    one, other = (CatalogueBlocks(train, N_ITEMS, block=8, users=5, seed=1) for _ in range(2))
    other.collate([(0, 1)])
    for name, tensor in one.collate([(2, 1)]).items():
        assert torch.equal(tensor, other.collate([(2, 1)])[name])
    reseeded = CatalogueBlocks(train, N_ITEMS, block=8, users=5, seed=2).collate([(2, 1)])
    assert not torch.equal(reseeded["item"], one.collate([(2, 1)])["item"])


def test_at_most_so_many_users_each_time_others(train: Sequences) -> None:
    blocks = CatalogueBlocks(train, N_ITEMS, block=24, users=5, seed=0)
    first, second = (blocks.collate([(epoch, 0)]) for epoch in (0, 1))
    assert len(first["context"]) == len(second["context"]) == 5
    assert not torch.equal(first["context"] | first["target"], second["context"] | second["target"])


def test_a_block_larger_than_the_catalogue_is_the_catalogue(train: Sequences) -> None:
    blocks = CatalogueBlocks(train, N_ITEMS, block=1000, seed=0)
    assert len(blocks) == 1
    assert len(blocks.collate([(0, 0)])["item"]) == len(set(train.items.tolist()))


def test_people_with_one_item_cannot_be_asked_for_another() -> None:
    with pytest.raises(InputError, match="two different items"):
        CatalogueBlocks(Sequences.from_lists([[1, 1], [2]]), 3)


def test_a_block_of_one_is_refused(train: Sequences) -> None:
    with pytest.raises(InputError, match="block=1"):
        CatalogueBlocks(train, N_ITEMS, block=1)


def test_every_pass_of_an_epoch_takes_every_warm_item_once_in_another_order(train: Sequences) -> None:
    blocks = CatalogueBlocks(train, N_ITEMS, block=6, passes=3, seed=0)
    items = [blocks.collate([(0, number)])["item"] for number in range(len(blocks))]
    per_pass = len(blocks) // 3
    passes = [torch.cat(items[start : start + per_pass]) for start in range(0, len(blocks), per_pass)]
    assert len(passes) == 3
    for one in passes:
        assert sorted(one.tolist()) == sorted(set(train.items.tolist()))
    assert len({tuple(one.tolist()) for one in passes}) == 3


def test_the_same_block_of_another_pass_asks_for_another_half(train: Sequences) -> None:
    blocks = CatalogueBlocks(train, N_ITEMS, block=24, passes=2, seed=0)
    first, second = (blocks.collate([(0, number)]) for number in (0, 1))
    assert torch.equal(first["item"], second["item"])
    assert not torch.equal(first["target"], second["target"])


def test_what_fills_no_block_waits_for_another_pass(train: Sequences) -> None:
    blocks = CatalogueBlocks(train, N_ITEMS, block=10, passes=20, seed=0)
    warm = set(train.items.tolist())
    assert len(blocks) == 20 * (len(warm) // 10)
    items = [blocks.collate([(0, number)])["item"].tolist() for number in range(len(blocks))]
    assert {len(item) for item in items} == {10}
    assert {one for item in items for one in item} == warm


class Gradients(TrainerCallback):
    """Notes the gradient of the projection before each step."""

    def __init__(self) -> None:
        self.taken: list[Tensor] = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs: Any) -> None:  # type: ignore[no-untyped-def]
        self.taken.append(kwargs["model"].tower.project.weight.grad.clone())


def test_accumulated_blocks_weigh_by_users_not_by_items(train_skewed: Sequences) -> None:
    """The gradient of two blocks is that of the mean over the users of both, though both have as many items."""
    blocks = CatalogueBlocks(train_skewed, N_ITEMS, block=8, seed=0)
    assert len(blocks) == 2
    embeddings = torch.randn(N_ITEMS, 6, generator=torch.Generator().manual_seed(0))

    def network() -> BlockNetwork:
        return BlockNetwork(ProjectedTower(embeddings), temperature=0.5)

    batches = [blocks.collate([(0, number)]) for number in range(2)]
    counts = [blocks.count(batch) for batch in batches]
    assert counts == [len(batch["context"]) for batch in batches]
    assert {len(batch["item"]) for batch in batches} == {8}
    assert max(counts) > 1.5 * min(counts)

    def gradient(batch: dict[str, Tensor]) -> Tensor:
        model = network()
        model(**batch)["loss"].backward()
        weight = model.tower.project.weight.grad  # type: ignore[union-attr]
        assert weight is not None
        return weight

    one, other = (gradient(batch) for batch in batches)
    by_users = (counts[0] * one + counts[1] * other) / sum(counts)
    seen = Gradients()
    config = TrainingConfig(epochs=1, batch_size=1, accumulate=2, keep="last")
    run(network(), blocks, validate=lambda: {"ndcg@10": 0.0}, config=config, callbacks=[seen])
    assert len(seen.taken) == 1
    assert float(by_users.norm()) < 1, "a longer gradient would be clipped"
    torch.testing.assert_close(seen.taken[0], by_users, rtol=1e-4, atol=1e-6)
    assert float((seen.taken[0] - (one + other) / 2).norm() / by_users.norm()) > 0.02
