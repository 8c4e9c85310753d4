"""Sequential recommenders: that they read order, learn it by every objective, and say so when they cannot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recsys_cl.data import Interactions, Sequences, Split, leave_last_n, leave_one_out, synthetic
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.objectives import Step, TrainingData, Views
from recsys_cl.objectives.parts import KnownItems
from recsys_cl.recommenders import Sequential, create, load_recommender
from recsys_cl.training.windows import Windows

N = 24
SMALL = {"dim": 16, "blocks": 1, "heads": 1, "length": 8, "batch_size": 16, "dropout": 0.0, "learning_rate": 0.01}


def ring(n_users: int = 40, seed: int = 0) -> Interactions:
    """After an item comes the next one on a ring: order is all there is to know."""
    starts = np.random.default_rng(seed).integers(N, size=n_users)
    rows = [(u, (start + t) % N, 60.0 * t) for u, start in enumerate(starts) for t in range(12)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    items = pd.DataFrame({"item_id": range(N), "title": [f"Item {i}" for i in range(N)]})
    return Interactions.from_tables(events, items, name="ring")


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(ring())


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder": "causal"},
        {"encoder": "gru"},
        {"encoder": "bidirectional", "loss": "cloze", "epochs": 60},
        {"similarity": "dot", "temperature": 1.0},
        {"loss": {"name": "sampled-softmax", "negatives": 8}},
        {"loss": {"name": "bce", "negatives": 1, "exclude_known": True}},
        {"loss": {"name": "gbce", "negatives": 8}},
        {"auxiliary": {"name": "views", "of": "crop+mask+reorder+substitute+insert"}},
        {"auxiliary": "same-target"},
        {"loss": {"name": "softmax", "exclude_known": True}},
    ],
    ids=lambda settings: ",".join(map(str, settings.values())),
)
def test_the_next_item_is_learned(split: Split, settings: dict) -> None:
    model = Sequential(**{**SMALL, "epochs": 30, "patience": 30, **settings}).fit(split)
    assert evaluate(model, split.test, ks=(1,)).mean("hr@1") > 0.9  # chance: 1/12


@pytest.mark.parametrize("loss", ["softmax", {"name": "gbce", "negatives": 16}], ids=["softmax", "gbce"])
def test_items_that_nobody_chose_come_last_whatever_the_scale_of_the_scores(loss: str | dict) -> None:
    """A loss that learns probabilities pushes all scores below 0, and the zero of an unknown item would be first."""
    data = ring()
    strangers = pd.DataFrame({"item_id": [N, N + 1], "title": ["Unknown", "New"], "text": ["Unknown", "New"]})
    items = pd.concat([data.items.to_pandas(), strangers])
    held_out = leave_one_out(Interactions.from_tables(data.events.to_pandas(), items, name="ring and strangers"))
    model = Sequential(**SMALL, epochs=3, loss=loss).fit(held_out)
    scores = model.score(held_out.test.history)
    assert torch.equal(scores[:, N:], scores[:, :N].min(1, keepdim=True).values.expand(-1, 2))


def test_a_run_that_had_stopped_is_not_trained_further_by_a_resumption(split: Split, tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 40, "patience": 1}
    first = Sequential(**settings).fit(split, folder=tmp_path)
    assert first.report.epochs < 40
    again = Sequential(**settings).fit(split, folder=tmp_path, resume=True)
    assert again.report.epochs == first.report.epochs
    assert torch.equal(again.score(split.test.history), first.score(split.test.history))


def test_context_is_not_read_of_people_of_whom_only_items_are_known(split: Split) -> None:
    """A list of liked items has no ratings; read as the placeholder 1, they would all be disliked."""
    model = Sequential(**SMALL, epochs=2, context="rating+gap").fit(split)
    listed = Sequences.from_lists([[3, 4, 5]])
    with torch.no_grad():
        before = model.score(listed)
        for table in model.network.context.tables:
            table.weight += 1.0
        torch.testing.assert_close(model.score(listed), before)
        assert not torch.allclose(model.score(split.test.history[:1]), before)


@pytest.mark.parametrize("name", ["softmax", "sampled-softmax", "bce", "gbce"])
def test_losses_are_computed_in_single_precision_under_autocast(split: Split, name: str) -> None:
    loss = name if name == "softmax" else {"name": name, "negatives": 4}
    model = Sequential(**SMALL, epochs=1, loss=loss).fit(split)
    network, parts = model.network, model.loss.parts(TrainingData(split.train, N, 8, seed=0))
    batch = Windows(split.train, length=8, parts=parts).collate([(0, window) for window in range(8)])
    vectors = network.vectors()
    states = network.states(batch["items"], batch["lengths"], vectors)
    step = Step(network, states, vectors, vectors, batch["target"], batch)
    plain = network.loss.rows(step)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network.loss.rows(step), plain)


def test_known_positives_are_no_negatives(split: Split) -> None:
    """The loss is the cross-entropy over the target and what the user never chose in training."""
    model = Sequential(**SMALL, epochs=1, loss={"name": "softmax", "exclude_known": True}).fit(split)
    network, train = model.network, split.train
    batch = Windows(train, length=8, parts=[KnownItems(train)]).collate([(0, window) for window in range(5)])
    vectors = network.vectors()
    logits = network.states(batch["items"], batch["lengths"], vectors) @ vectors.T / network.temperature()
    row = torch.arange(len(batch["lengths"])).repeat_interleave(batch["lengths"])
    for event, (window, target) in enumerate(zip(row.tolist(), batch["target"].tolist(), strict=True)):
        known = batch["known_item"][batch["known_row"] == window].tolist()
        logits[event, [item for item in known if item != target]] = -torch.inf
    expected = torch.nn.functional.cross_entropy(logits, batch["target"])
    torch.testing.assert_close(network(**batch)["loss"], expected)


def test_saved_is_loaded(split: Split, tmp_path: Path) -> None:
    model = Sequential(**SMALL, epochs=1, context="gap+hour").fit(split)
    model.save(tmp_path)
    loaded = load_recommender(tmp_path)
    torch.testing.assert_close(loaded.score(split.test.history), model.score(split.test.history))


def test_only_the_latest_events_are_read(split: Split) -> None:
    model = Sequential(**SMALL, epochs=1).fit(split)
    histories = split.test.history
    torch.testing.assert_close(model.score(histories), model.score(histories.last(8)))
    assert not torch.allclose(model.score(histories), model.score(histories.last(7)))


def test_newcomers_are_scored_and_those_of_whom_nothing_is_known_get_what_is_popular(split: Split) -> None:
    model = Sequential(**SMALL, epochs=30, patience=30).fit(split)
    scores = model.score(Sequences.from_lists([[3, 4, 5], []]))
    assert int(scores[0, 6:].argmax()) == 0  # of what is new to them, the next on the ring
    torch.testing.assert_close(scores[1], torch.from_numpy(split.counts).float().log1p())


def test_unknown_items_are_named(split: Split) -> None:
    model = Sequential(**SMALL, epochs=1).fit(split)
    with pytest.raises(InputError, match=f"item {N + 3}, but items are numbered from 0 to {N - 1}"):
        model.score(Sequences.from_lists([[1, N + 3]]))


def test_seeds_decide(split: Split) -> None:
    first, again, other = (
        Sequential(**SMALL, epochs=2, seed=seed, auxiliary={"name": "views", "of": "crop+mask"})
        .fit(split)
        .score(split.test.history)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_context_is_read() -> None:
    """Whether the ring is walked forwards or backwards is told by the rating of every event, and by nothing else."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(150):
        start, way = rng.integers(N), rng.choice([-1, 1])
        rows += [(user, (start + way * t) % N, 60.0 * t, 5.0 if way > 0 else 1.0) for t in range(12)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "rating"])
    items = pd.DataFrame({"item_id": range(N), "title": [f"Item {i}" for i in range(N)]})
    data = Interactions.from_tables(events, items, name="two ways")
    split = leave_one_out(data)
    validation, one_event = (
        replace(queries, history=queries.history.last(1)) for queries in (split.validation, split.test)
    )  # a single event shows no direction
    split = replace(split, validation=validation)
    blind, seeing = (
        Sequential(**SMALL, epochs=20, patience=20, context=context).fit(split) for context in ("", "rating")
    )
    assert evaluate(seeing, one_event, ks=(1,)).mean("hr@1") > 0.9
    assert evaluate(blind, one_event, ks=(1,)).mean("hr@1") < 0.75  # cannot know the way; half of them by guessing


def test_the_type_of_the_next_event_is_predicted_better_than_by_its_base_rate() -> None:
    data = synthetic(1500, 128, seed=0)
    split = leave_last_n(data, 2, seed=0)
    settings = {**SMALL, "batch_size": 64, "epochs": 8, "patience": 8}
    model = Sequential(**settings, auxiliary="event-type", context="event_type").fit(split)
    _, asked = split.test.target.flat()
    target, kind = split.test.target.items[asked], split.test.target.event_types[asked]
    chance = model.event_type_probabilities(split.test.history, torch.from_numpy(target))
    torch.testing.assert_close(chance.sum(1), torch.ones(len(chance)))
    loss = -chance.log()[torch.arange(len(kind)), torch.from_numpy(kind)].mean()
    rate = np.bincount(split.train.event_types[split.train.flat()[1]], minlength=3) / split.train.lengths.sum()
    base = -np.log(rate)[kind].mean()
    assert float(loss) < base - 0.004


def test_text_and_id_are_aligned(split: Split) -> None:
    """Alignment brings each item's text vector near its id vector; without it they are strangers."""
    plain, aligned = (
        Sequential(
            **SMALL, model="minilm", epochs=8, patience=8, auxiliary={"name": "item-alignment", "weight": weight}
        ).fit(split)
        for weight in (0.0, 1.0)
    )

    def agreement(model: Sequential) -> float:
        tower, items = model.network.items, torch.arange(N)
        return float(torch.cosine_similarity(tower.of_text(items), tower.of_ids(items)).mean().detach())

    assert agreement(aligned) > agreement(plain) + 0.3


def test_sequences_of_text_and_id_are_aligned(split: Split) -> None:
    model = Sequential(
        **SMALL, model="minilm", epochs=20, patience=20, auxiliary={"name": "sequence-alignment", "weight": 1.0}
    ).fit(split)
    assert evaluate(model, split.test, ks=(1,)).mean("hr@1") > 0.9


def test_a_sentence_is_read(split: Split) -> None:
    model = Sequential(**SMALL, model="minilm", epochs=1).fit(split)
    assert model.score_text("a quiet film").shape == (1, N)
    with pytest.raises(InputError, match="does not read text"):
        Sequential(**SMALL, epochs=1).fit(split).score_text("a quiet film")


def test_an_update_learns_what_is_new() -> None:
    """Later users walk the ring by threes; an update on their events alone learns that."""
    rows = [(f"old {u}", (u + t) % N, 60.0 * t) for u in range(40) for t in range(10)]
    new = [(f"new {u}", (u + 3 * t) % N, 1e6 + 60.0 * t) for u in range(40) for t in range(8)]
    items = pd.DataFrame({"item_id": range(N), "title": [f"Item {i}" for i in range(N)]})
    before, after = (
        Interactions.from_tables(pd.DataFrame(part, columns=["user_id", "item_id", "timestamp"]), items, name="grows")
        for part in (rows, rows + new)
    )
    model = Sequential(**SMALL, epochs=10, patience=10).fit(leave_one_out(before))
    threes = Sequences.from_lists([[(u + 3 * t) % N for t in range(4)] for u in range(N)])
    wanted = torch.tensor([(u + 12) % N for u in range(N)])

    def right() -> float:
        return float((model.score(threes).argmax(1) == wanted).float().mean())

    assert right() < 0.3
    model.update(leave_one_out(after), since=1e6, epochs=20)
    assert right() > 0.9
    with pytest.raises(InputError, match="another catalogue"):
        model.update(leave_one_out(synthetic(100, 64, 600)), since=0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auxiliary": "item-alignment"}, "auxiliary=item-alignment needs texts and ids"),
        ({"auxiliary": "views+sequence-alignment"}, "auxiliary=sequence-alignment needs texts and ids"),
        ({"encoder": "bidirectional", "loss": "cloze", "context": "gap"}, "need a unidirectional encoder"),
        ({"encoder": "bidirectional", "loss": "cloze", "auxiliary": "event-type"}, "need a unidirectional encoder"),
        ({"loss": {"name": "sampled-softmax", "exclude_known": True}}, "exclude_known"),
        ({"auxiliary": {"name": "id-dropout", "share": 0.2}}, "auxiliary=id-dropout needs texts and ids"),
        ({"encoder": "bidirectional", "loss": "bce"}, "'bce' does not train encoder='bidirectional'"),
        ({"encoder": "bidirectional"}, "use loss='cloze' for a bidirectional encoder"),
        ({"loss": "cloze"}, "'cloze' does not train encoder='causal'"),
        ({"context": "weather"}, "no context feature 'weather'"),
        ({"auxiliary": {"name": "views", "of": "crop+blur"}}, "blur"),
        ({"heads": 3}, "does not split into 3 heads"),
        ({"auxiliary": "event-type"}, "auxiliary=event-type on data with 0 event types"),
        ({"ids": False}, "needs text embeddings or ids"),
    ],
)
def test_settings_that_do_not_fit_are_refused(split: Split, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sequential(**{**SMALL, **settings}).fit(split)


def test_presets_are_what_they_are_called() -> None:
    assert create("bert4rec").encoder == "bidirectional"
    assert create("gru4rec").encoder == "gru"
    assert create("sasrec-hybrid").model == "minilm"
    assert create("cl4srec").auxiliary == (Views(),)
    assert "crop" in Views().of
