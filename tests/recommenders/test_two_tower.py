"""The two-tower recommender as a whole: protocol, cold items, newcomers, words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from recsys_cl.data import Sequences, Split, cold_item_split, leave_one_out, load_movielens, synthetic
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.losses import info_nce_loss
from recsys_cl.negatives import KnownPositives, in_batch_log_q
from recsys_cl.recommenders import Popularity, Random, TwoTower, load_recommender
from recsys_cl.recommenders.two_tower_network import TwoTowerNetwork
from recsys_cl.text import LanguageEncoder
from recsys_cl.training import NextItemExamples

QUICK = {"dim": 16, "length": 20, "epochs": 3, "batch_size": 128}


@pytest.fixture(autouse=True)
def bag_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the language model: hashed words, so that no weights are needed."""

    def encode(self: LanguageEncoder, texts: list[str]) -> torch.Tensor:
        vectors = torch.zeros(len(texts), 64)
        for row, text in enumerate(texts):
            for word in text.split():
                vectors[row, sum(map(ord, word)) * 7 % 64] += 1
        return torch.nn.functional.normalize(vectors, dim=1)

    monkeypatch.setattr(LanguageEncoder, "__init__", lambda self, *args, **options: None)
    monkeypatch.setattr(LanguageEncoder, "encode", encode)


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(synthetic(400, 120, seed=5), seed=0)


@pytest.fixture(scope="module")
def cold() -> Split:
    return cold_item_split(synthetic(400, 200, skew=0.3, seed=5), share=0.2, seed=0)


def test_beats_popularity(split: Split) -> None:
    trained = TwoTower(model="", **{**QUICK, "epochs": 8}).fit(split)
    assert evaluate(trained, split.test).mean() > evaluate(Popularity().fit(split), split.test).mean()


@pytest.mark.parametrize("settings", [
    {"model": ""},
    {"ids": False},
    {"ids": True, "similarity": "dot", "temperature": 1.0},
    {"user_tower": "mean"},
    {"user_tower": "mlp"},
    {"user_tower": "mlp", "model": ""},
])  # fmt: skip
def test_saved_and_loaded_scores_the_same(split: Split, tmp_path: Path, settings: dict) -> None:
    trained = TwoTower(**{**QUICK, **settings, "epochs": 1}).fit(split)
    trained.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert loaded == trained
    histories = split.test.history[:50]
    assert_close(loaded.score(histories), trained.score(histories), rtol=0, atol=0)
    newcomer = Sequences.from_lists([[3, 7], []])
    assert loaded.score(newcomer).shape == (2, split.n_items)
    assert loaded.score(newcomer).isfinite().all()


def test_ids_alone_know_nothing_about_cold_items(cold: Split) -> None:
    trained = TwoTower(model="", **QUICK).fit(cold)
    scores = trained.score(cold.test.history)[:, cold.test.candidates]
    assert (scores == scores[:, :1]).all(), "unseen items differ although they have neither text nor training events"
    chance = evaluate(Random().fit(cold), cold.test)
    assert evaluate(trained, cold.test).mean() == pytest.approx(chance.mean(), abs=1e-12)


def test_text_finds_cold_items_far_above_chance(cold: Split) -> None:
    for ids in (True, False):
        trained = TwoTower(ids=ids, **{**QUICK, "id_dropout": 0.5}).fit(cold)
        assert evaluate(trained, cold.test).mean() > 1.6 * evaluate(Random().fit(cold), cold.test).mean()


def test_training_without_log_q_holds_popular_items_down(split: Split) -> None:
    def lift(log_q: bool) -> float:
        scores = TwoTower(model="", log_q=log_q, **QUICK).fit(split).score(split.test.history)
        return float(np.corrcoef(scores.mean(0).numpy(), np.log1p(split.counts))[0, 1])

    assert lift(True) > lift(False) + 0.2


def test_reads_a_sentence(split: Split) -> None:
    trained = TwoTower(ids=False, **QUICK).fit(split)
    text = split.data.texts[11]
    as_words = trained.score_text(text)
    as_history = trained.score(Sequences.from_lists([[11]]))
    assert_close(as_words, as_history, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="does not read text"):
        TwoTower(model="", **QUICK).fit(split).score_text(text)


def test_temperature_is_learned_and_bounded(split: Split) -> None:
    trained = TwoTower(model="", **QUICK).fit(split)
    assert abs(trained.network.temperature().item() - 0.1) > 1e-4
    trained.network.temperature.log_scale.data.fill_(50.0)
    assert trained.network.temperature().item() == pytest.approx(0.01)


@pytest.mark.parametrize("settings", [{}, {"ids": False}, {"model": ""}, {"user_tower": "mean"}, {"user_tower": "mlp"}])
def test_mixed_precision_gives_nearly_the_same_loss_and_gradient(split: Split, settings: dict) -> None:
    trained = TwoTower(**{**QUICK, **settings, "epochs": 1, "dropout": 0.0}).fit(split)
    examples = NextItemExamples(split.train, split.n_items, length=20)
    batch = examples.collate([(0, example) for example in range(0, 640, 10)])

    def loss_and_gradient(enabled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        trained.network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = trained.network(**batch)["loss"]
        loss.backward()
        gradients = [weight.grad.flatten() for weight in trained.network.parameters() if weight.grad is not None]
        return loss.detach(), torch.cat(gradients)

    (full, gradient), (half, gradient_half) = loss_and_gradient(False), loss_and_gradient(True)
    assert_close(half, full, rtol=0.02, atol=0.02)
    assert torch.cosine_similarity(gradient, gradient_half, dim=0) > 0.98


def test_a_loaded_model_scores_and_says_that_it_cannot_be_trained(split: Split, tmp_path: Path) -> None:
    trained = TwoTower(model="", **{**QUICK, "epochs": 1}).fit(split)
    trained.save(tmp_path)
    batch = NextItemExamples(split.train, split.n_items, length=20).collate([(0, 0), (0, 1)])
    assert trained.network(**batch)["loss"].isfinite()
    loaded = load_recommender(tmp_path)
    assert isinstance(loaded, TwoTower)
    loaded.score(split.test.history[:2])
    with pytest.raises(InputError, match="can only score; call learn_from"):
        loaded.network(**batch)


def test_only_what_the_user_does_not_know_is_a_negative(split: Split) -> None:
    """The loss of a batch is InfoNCE over the columns that a loop finds to be unknown."""
    trained = TwoTower(model="", **{**QUICK, "epochs": 1}).fit(split)
    network = trained.network
    batch = NextItemExamples(split.train, split.n_items, length=20).collate([(0, row) for row in range(0, 640, 10)])
    with torch.no_grad():
        users = network.embed_users(batch["history"])
        logits = users @ network.embed_items(batch["target"]).T / network.temperature() - network.log_q[batch["target"]]
        losses = []
        for row, (user, own) in enumerate(zip(batch["user"].tolist(), logits.diagonal(), strict=True)):
            likes = set(split.train.items[split.train.start[user] : split.train.stop[user]].tolist())
            unknown = [column for column, item in enumerate(batch["target"].tolist()) if item not in likes]
            losses.append(torch.cat([own[None], logits[row, unknown]]).logsumexp(0) - own)
        assert_close(network(**batch)["loss"], torch.stack(losses).mean(), rtol=1e-5, atol=1e-5)


def test_unknown_user_tower_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown user tower 'rnn' \(valid names are attention, mean, mlp\)"):
        TwoTower(model="", user_tower="rnn")  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["info-nce", "decoupled", "debiased", "multi-positive"])
def test_vectors_of_previous_batches_are_further_negatives(split: Split, loss: str) -> None:
    plain, queued = (TwoTower(model="", loss=loss, queue=size, **QUICK).fit(split) for size in (0, 200))
    histories = split.test.history
    assert not torch.equal(plain.score(histories), queued.score(histories))
    assert evaluate(queued, split.test).mean() > evaluate(Random().fit(split), split.test).mean()


def queued_network(split: Split, **settings: object) -> tuple[TwoTowerNetwork, NextItemExamples]:
    model = TwoTower(model="", **{**QUICK, "dropout": 0.0, **settings})
    model.sizes = {"items": split.n_items, "text": 0, "attributes": 0}
    counts = torch.from_numpy(split.counts)
    known = KnownPositives(split.train, split.n_items)
    log_q = in_batch_log_q(counts) if model.log_q else None
    network = model._build().learn_from(known, log_q, queue=model.queue)
    network.items.read(counts > 0, None)
    return network, NextItemExamples(split.train, split.n_items, length=model.length)


@pytest.mark.parametrize("log_q", [True, False])
def test_the_queue_adds_columns_with_their_log_q_and_their_mask_and_gets_no_gradient(split: Split, log_q: bool) -> None:
    network, examples = queued_network(split, queue=20, log_q=log_q)
    earlier, batch = (examples.collate([(0, n) for n in range(start, start + 16)]) for start in (0, 40))
    first = network(**earlier)["loss"]
    vectors, held = network.queue.held()
    assert held.items.tolist() == earlier["target"].tolist()
    assert_close(vectors, network.embed_items(earlier["target"]).detach())

    users = network.embed_users(batch["history"])
    items = torch.cat([network.embed_items(batch["target"]), vectors])
    columns = torch.cat([batch["target"], earlier["target"]])
    expected = info_nce_loss(
        users,
        items,
        temperature=network.temperature(),
        mask=network.known.mask(batch["user"], columns),
        log_q=network.log_q[columns] if log_q else None,
    )
    network.eval()
    assert_close(network(**batch)["loss"], expected)
    assert network.queue.held()[1].items.tolist() == earlier["target"].tolist(), "an evaluation leaves the queue alone"

    network.train()(**batch)["loss"].backward()
    only_held = earlier["target"][~torch.isin(earlier["target"], batch["target"])]
    only_held = only_held[~torch.isin(only_held, batch["history"])]
    assert len(only_held)
    assert (network.items.ids.weight.grad[only_held] == 0).all()
    assert not network.queue.held()[0].requires_grad
    assert len(network.queue.held()[0]) == 20, "the oldest make room"
    assert first.isfinite()


def test_a_saved_model_has_no_queue(split: Split, tmp_path: Path) -> None:
    trained = TwoTower(model="", queue=50, **{**QUICK, "epochs": 1}).fit(split)
    trained.save(tmp_path)
    assert not any("queue" in name for name in load_file(tmp_path / "state.safetensors"))
    loaded = load_recommender(tmp_path)
    assert loaded == trained
    assert_close(loaded.score(split.test.history), trained.score(split.test.history), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"loss": "symmetric-info-nce"}, "losses info-nce, decoupled"),
        ({"loss": "triplet"}, "sampler='uniform'"),
        ({"sampler": "hard"}, "sampler='hard'"),
        ({"attack": "fgm"}, "the attack"),
        ({"queue": -1}, "queue"),
    ],
)
def test_a_queue_that_could_not_be_used_is_refused(settings: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        TwoTower(model="", **{"queue": 8, **settings})


def test_a_perceptron_reads_the_attributes_of_real_users() -> None:
    split = leave_one_out(load_movielens())
    few = replace(split, train=split.train[:64], validation=split.validation[:64])
    model = TwoTower(model="", user_tower="mlp", epochs=1, dim=8).fit(few)
    assert model.score(split.test.history[:4]).isfinite().all()
