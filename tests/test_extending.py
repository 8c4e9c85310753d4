"""A loss, a sequence objective, a data set and a recommender from outside the package, used by name everywhere.

CONTRIBUTING.md describes each of them in as many lines as it takes here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys_cl.data import DATASETS, Interactions, Sequences, Split, leave_one_out, load_data, synthetic
from recsys_cl.errors import InputError
from recsys_cl.losses import LOSSES, add_loss
from recsys_cl.objectives import SEQUENCE_LOSSES, SequenceLoss, Step
from recsys_cl.recommenders import MODELS, Recommender, TwoTower, create, load_recommender
from recsys_cl.settings import Range
from recsys_cl.workflow import compare, recommend

SMALL = "dim=16,epochs=2,batch_size=64"


@pytest.fixture(autouse=True)
def _registries_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (LOSSES, SEQUENCE_LOSSES, DATASETS, MODELS):
        monkeypatch.setattr(registry, "_values", dict(registry._values))


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthetic(n_users=120, n_items=60, n_events=1_500)


def works_everywhere(data: Interactions, model: str, folder: Path) -> None:
    """Train, save, load, compare, and recommend by name."""
    split = leave_one_out(data)
    trained = create(model).fit(split)
    trained.save(folder)
    loaded = load_recommender(folder)
    history = split.test.history[np.arange(5)]
    torch.testing.assert_close(loaded.score(history), trained.score(history))
    assert repr(loaded) == repr(trained)
    table = compare(data, ["popularity", model], seeds=1, draws=1)
    assert table.rows[1].metrics()["hr@10"]["mean"] > 0.05
    found = recommend(loaded, liked=list(data.items["title"])[:2], k=3)
    assert [one["rank"] for one in found] == [1, 2, 3]


def hinge(users: Tensor, items: Tensor, negatives: Tensor, *, mask: Tensor, gap: float = 0.5) -> Tensor:
    """Every negative at least ``gap`` below the positive, in cosine."""
    positive = (users * items).sum(1, keepdim=True)  # (B, 1)
    negative = (negatives @ users[:, :, None])[..., 0]  # (B, K)
    return F.relu(gap + negative - positive).masked_fill(mask, 0).mean(1)  # (B,)


def test_a_loss(data: Interactions, tmp_path: Path) -> None:
    add_loss("hinge", own=hinge)
    works_everywhere(data, f"two-tower-id:loss=hinge,loss.gap=0.3,{SMALL}", tmp_path)
    assert TwoTower(loss=hinge).loss == LOSSES["hinge"]()
    with pytest.raises(InputError, match="setting of the loss 'hinge': 'gpa', did you mean 'gap'"):
        create("two-tower:loss=hinge,loss.gpa=1")


@dataclass(frozen=True)
class LabelSmoothing(SequenceLoss):
    """Softmax over the catalogue that keeps a share of the probability for all items alike."""

    smoothing: Annotated[float, Range(0, 0.99)] = 0.1

    def rows(self, step: Step) -> Tensor:
        logits = step.states @ step.table.T / step.temperature  # (T, N)
        return F.cross_entropy(logits, step.target, label_smoothing=self.smoothing, reduction="none")  # (T,)


def test_a_sequence_objective(data: Interactions, tmp_path: Path) -> None:
    SEQUENCE_LOSSES.add("label-smoothing", LabelSmoothing)
    works_everywhere(data, f"sasrec:loss=label-smoothing,loss.smoothing=0.2,length=8,blocks=1,{SMALL}", tmp_path)
    with pytest.raises(InputError, match=r"smoothing=2 is out of range"):
        create("sasrec:loss=label-smoothing,loss.smoothing=2")


def test_a_data_set(tmp_path: Path) -> None:
    def my_shop() -> Interactions:
        rng = np.random.default_rng(0)
        events = pd.DataFrame({"user_id": np.repeat(np.arange(40), 8), "item_id": rng.integers(20, size=320)})
        events["timestamp"] = np.arange(320)
        items = pd.DataFrame({"item_id": range(20), "title": [f"Item {i}" for i in range(20)]})
        return Interactions.from_tables(events.drop_duplicates(["user_id", "item_id"]), items, name="my-shop")

    DATASETS.add("my-shop", my_shop)
    data = load_data("my-shop")
    assert data.name == "my-shop"
    works_everywhere(data, "ease", tmp_path)
    with pytest.raises(InputError, match="the data set name 'my-shop' is taken"):
        DATASETS.add("my-shop", synthetic)


@dataclass
class LastItem(Recommender):
    """What most often follows the last item: a first-order Markov chain.

    Attributes:
        smoothing: Added to every count.
    """

    smoothing: float = 0.1

    def fit(self, split: Split) -> Self:
        counts = torch.full((split.n_items, split.n_items), self.smoothing)  # (N, N)
        for row in range(len(split.train)):
            items = split.train.items[split.train.start[row] : split.train.stop[row]]
            np.add.at(counts.numpy(), (items[:-1], items[1:]), 1.0)
        self.items, self.state = split.data.items, {"counts": counts}
        return self

    def score(self, histories: Sequences) -> Tensor:
        return self.state["counts"][torch.from_numpy(histories.items[histories.stop - 1])]  # (B, N)


def test_a_recommender(data: Interactions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no registered name"):
        LastItem().fit(leave_one_out(data)).save(tmp_path / "unnamed")
    MODELS.add("last-item", LastItem)
    works_everywhere(data, "last-item:smoothing=0.5", tmp_path / "named")


def test_a_saved_model_of_a_class_that_is_not_registered(data: Interactions, tmp_path: Path) -> None:
    MODELS.add("last-item", LastItem)
    LastItem().fit(leave_one_out(data)).save(tmp_path)
    del MODELS._values["last-item"]
    with pytest.raises(InputError, match="unknown model 'last-item'"):
        load_recommender(tmp_path)


def how_to(thing: str) -> Iterator[str]:
    """Lines of CONTRIBUTING.md on how to add something."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    section = text.split(f"## How to add {thing}\n", 1)[1].split("\n## ", 1)[0]
    return (line for line in section.splitlines() if line.strip())


@pytest.mark.parametrize(
    ("thing", "mentions"),
    [
        ("a loss", ("add_loss(", "test_losses.py")),
        ("a sequence objective", ("SEQUENCE_LOSSES.add(", "rows(")),
        ("a data set", ("DATASETS.add(",)),
        ("a recommender", ("MODELS.add(", "score(")),
    ],
)
def test_how_to_add_is_short_and_says_what_is_done_here(thing: str, mentions: Sequence[str]) -> None:
    lines: list[Any] = list(how_to(thing))
    assert 0 < len(lines) <= 12
    assert all(any(one in line for line in lines) for one in mentions)
