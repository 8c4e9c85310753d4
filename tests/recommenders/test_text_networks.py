"""The networks of fine-tuning: each loss against a loop, and what centring, the residual and augmentation do."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from recsys_cl.data import PAD, Sequences
from recsys_cl.losses import LOSSES, nt_xent_loss
from recsys_cl.negatives import KnownPositives
from recsys_cl.recommenders.text_networks import (
    BlockNetwork,
    LanguageTower,
    PairNetwork,
    ProjectedTower,
    centred,
    concatenate_original,
    latest_titles,
)
from recsys_cl.training.examples import CatalogueBlocks, HistoryPairs

N_ITEMS, DIM = 12, 5
HISTORIES = [[0, 3, 5, 7], [1, 3, 4], [2, 5, 8, 9, 10], [0, 1, 7, 9], [4, 6, 11]]
TITLES = [f"title {item}" for item in range(N_ITEMS)]


class Words(nn.Module):
    """A language encoder of one table: each text has a vector that learns."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__()
        self.place = {text: row for row, text in enumerate(texts)}
        self.model = nn.Embedding(len(texts), DIM)
        nn.init.normal_(self.model.weight, generator=torch.Generator().manual_seed(3))
        self.calls: list[list[str]] = []

    def embed_unique(self, texts: list[str]) -> Tensor:
        self.calls.append(list(texts))
        return self.model(torch.tensor([self.place.get(text, sum(map(ord, text)) % len(self.place)) for text in texts]))


@pytest.fixture
def train() -> Sequences:
    return Sequences.from_lists(HISTORIES)


@pytest.fixture
def embeddings() -> Tensor:
    return torch.randn(N_ITEMS, DIM, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def batch(train: Sequences) -> dict[str, Tensor]:
    return CatalogueBlocks(train, N_ITEMS, block=9, seed=1).collate([(0, 0)])


def test_the_loss_of_a_block_is_that_of_a_loop(embeddings: Tensor, batch: dict[str, Tensor]) -> None:
    network = BlockNetwork(ProjectedTower(embeddings), temperature=0.2)
    z = embeddings[batch["item"]]
    v = F.normalize(z - z.mean(0), dim=1)
    losses = []
    for given, asked in zip(batch["context"], batch["target"], strict=True):
        u = F.normalize(v[given].sum(0), dim=0)
        candidates = (v[~given] @ u / 0.2).exp().sum()
        losses.append(torch.stack([candidates.log() - v[a] @ u / 0.2 for a in asked.nonzero()[:, 0]]).mean())
    assert_close(network(**batch)["loss"], torch.stack(losses).mean())


def test_a_direction_common_to_all_texts_changes_no_loss_and_gets_no_gradient(
    embeddings: Tensor, batch: dict[str, Tensor]
) -> None:
    network = BlockNetwork(ProjectedTower(embeddings), temperature=0.2)
    moved = BlockNetwork(ProjectedTower(embeddings + torch.arange(5.0)), temperature=0.2)
    assert_close(moved(**batch)["loss"], network(**batch)["loss"])
    encoder = Words(TITLES)
    learned = BlockNetwork(LanguageTower(encoder, TITLES), temperature=0.2)  # type: ignore[arg-type]
    learned(**batch)["loss"].backward()
    gradient = encoder.model.weight.grad
    assert gradient.norm() > 1e-3
    assert_close(gradient.sum(0), torch.zeros(DIM), atol=1e-6, rtol=0)


def test_beside_the_original_logits_are_means_of_cosines(embeddings: Tensor, batch: dict[str, Tensor]) -> None:
    other = torch.randn(N_ITEMS, 3, generator=torch.Generator().manual_seed(1))
    v, v0 = centred(embeddings), centred(other)
    both = concatenate_original(v, v0, 0.7)
    assert_close(both.norm(dim=1), torch.ones(N_ITEMS))
    assert_close(both @ both.T, (v @ v.T + 0.7 * v0 @ v0.T) / 1.7)
    loss = BlockNetwork(ProjectedTower(embeddings), temperature=0.2, original=other, residual=0.7)(**batch)["loss"]
    stacked = concatenate_original(centred(embeddings[batch["item"]]), centred(other[batch["item"]]), 0.7)
    u = F.normalize(batch["context"].float() @ stacked, dim=1)
    logits = (u @ stacked.T / 0.2).masked_fill(batch["context"], -torch.inf)
    rows = [row.logsumexp(0) - row[asked].mean() for row, asked in zip(logits, batch["target"], strict=True)]
    assert_close(loss, torch.stack(rows).mean())


def test_weight_zero_leaves_the_trained_vectors_alone(embeddings: Tensor, batch: dict[str, Tensor]) -> None:
    alone = BlockNetwork(ProjectedTower(embeddings), temperature=0.2)
    weightless = BlockNetwork(ProjectedTower(embeddings), temperature=0.2, original=embeddings.flip(0), residual=0.0)
    assert_close(weightless(**batch)["loss"], alone(**batch)["loss"])


def test_views_add_the_loss_of_two_passes(embeddings: Tensor, batch: dict[str, Tensor]) -> None:
    tower = ProjectedTower(embeddings)
    plain, twice = (BlockNetwork(tower, temperature=0.2, views=views)(**batch)["loss"] for views in (0.0, 0.3))
    z = embeddings[batch["item"]]
    assert_close(twice - plain, 0.3 * nt_xent_loss(z, z, temperature=0.05))


def test_the_temperature_learns(embeddings: Tensor, batch: dict[str, Tensor]) -> None:
    network = BlockNetwork(ProjectedTower(embeddings), temperature=0.2)
    assert float(network.temperature().detach()) == pytest.approx(0.2)
    network(**batch)["loss"].backward()
    assert network.temperature.log_scale.grad.abs() > 1e-4


def test_a_projection_begins_as_the_identity(embeddings: Tensor) -> None:
    tower = ProjectedTower(embeddings)
    items = torch.tensor([3, 3, 0])
    assert_close(tower(items), embeddings[items], rtol=0, atol=0)
    assert [name for name, _ in tower.named_parameters()] == ["project.weight"]


def test_texts_vary_in_training_only_and_otherwise_at_each_step() -> None:
    encoder, asked = Words(TITLES), []

    def augment(texts: list[str], step: int) -> list[str]:
        asked.append(step)
        return [f"{text}, variant {step}" for text in texts]

    tower = LanguageTower(encoder, TITLES, augment)  # type: ignore[arg-type]
    tower.train()
    tower(torch.tensor([2]))
    tower(torch.tensor([2, 4]))
    tower.eval()
    tower(torch.tensor([2]))
    assert asked == [0, 1]
    assert encoder.calls == [["title 2, variant 0"], ["title 2, variant 1", "title 4, variant 1"], ["title 2"]]
    assert int(tower.state_dict()["steps"]) == 2, "a resumed run goes on with the next variant"


def test_the_loss_of_pairs_is_that_of_a_loop_without_known_positives(train: Sequences) -> None:
    encoder = Words([*TITLES, *(latest_titles(row, TITLES) for row in HISTORIES)])
    log_q = torch.linspace(-3, -1, N_ITEMS)
    network = PairNetwork(
        LanguageTower(encoder, TITLES),  # type: ignore[arg-type]
        TITLES,
        loss=LOSSES["info-nce"](),
        temperature=0.3,
        log_q=log_q,
        known=KnownPositives(train, N_ITEMS),
    )
    examples = HistoryPairs(train, N_ITEMS, length=2, seed=0)
    batch = examples.collate([(0, row) for row in range(len(examples))])
    texts = [latest_titles(row, TITLES) for row in batch["history"].tolist()]
    items = encoder.embed_unique([TITLES[item] for item in batch["target"]])
    losses = []
    for row, text in enumerate(texts):
        u = encoder.embed_unique([text])[0]
        likes = HISTORIES[int(batch["user"][row])]
        logits = items @ u / 0.3 - log_q[batch["target"]]
        columns = [row, *(c for c, item in enumerate(batch["target"].tolist()) if item not in likes)]
        losses.append(logits[columns].logsumexp(0) - logits[row])
    assert_close(network(**batch)["loss"], torch.stack(losses).mean())


def test_the_latest_title_comes_first_and_empty_places_say_nothing() -> None:
    assert latest_titles([PAD, PAD, 2, 0], TITLES) == "title 0; title 2"
    assert latest_titles([PAD], TITLES) == ""
