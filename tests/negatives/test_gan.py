"""Negatives that are chosen, moved, generated or drawn by a policy."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from recsys_cl.data import Split, leave_one_out, synthetic
from recsys_cl.errors import InputError
from recsys_cl.losses import sampled_softmax_loss
from recsys_cl.negatives import (
    Candidates,
    DrawnNegatives,
    GanNegatives,
    HardNegatives,
    NegativeSample,
    PerturbedNegatives,
    PolicyNegatives,
)
from recsys_cl.negatives.gan import decode, nearest_item_entropy
from recsys_cl.negatives.gan_diagnostics import GanDiagnostics
from recsys_cl.recommenders import Sequential, TwoTower, load_recommender

B, N, K, D = 24, 50, 8, 6


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def given() -> Candidates:
    table = torch.nn.functional.normalize(torch.randn(N, D), dim=1).requires_grad_()
    query = torch.nn.functional.normalize(torch.randn(B, D), dim=1).requires_grad_()
    liked = torch.rand(B, N) < 0.1
    return Candidates(
        query,
        table,
        torch.arange(B),
        NegativeSample(torch.randint(N, (B, K)), torch.zeros(B, K)),
        known=lambda rows, items: liked[rows][:, items] if items.ndim == 1 else liked[rows].gather(1, items),
        temperature=torch.tensor(0.1),
    )


def makers() -> dict[str, DrawnNegatives]:
    return {
        "drawn": DrawnNegatives(),
        "hard": HardNegatives(0.5),
        "perturbed": PerturbedNegatives(0.5, epsilon=0.3),
        "generated": GanNegatives(D, 0.5, epsilon=0.3, hardness=0.5, threshold=0.4),
        "policy": PolicyNegatives(D, 0.5),
    }


def play(maker: DrawnNegatives, given: Candidates, *, steps: int, rate: float) -> None:
    """Let the players of a game minimise what they lose."""
    optimiser = torch.optim.Adam(maker.parameters(), lr=rate)
    for _ in range(steps):
        loss = maker(given).loss
        assert isinstance(loss, torch.Tensor)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("name", makers())
def test_their_number_is_always_the_same_and_the_rest_is_as_drawn(name: str, given: Candidates) -> None:
    made = makers()[name](given)
    assert made.vectors.shape == (B, K, D)
    assert made.mask.shape == made.log_q.shape == (B, K)
    drawn = DrawnNegatives()(given)
    assert_close(made.vectors[:, K // 2 :], drawn.vectors[:, K // 2 :])
    assert_close(made.mask[:, K // 2 :], drawn.mask[:, K // 2 :])


@pytest.mark.parametrize("name", makers())
def test_items_learn_from_every_kind(name: str, given: Candidates) -> None:
    made = makers()[name](given)
    zeros = torch.zeros(B)
    loss = sampled_softmax_loss(
        given.query,
        given.table[given.target].detach(),
        made.vectors[:, : K // 2],
        log_q=zeros,
        negative_log_q=made.log_q[:, : K // 2],
    )
    (gradient,) = torch.autograd.grad(loss, given.table)
    assert gradient.abs().sum() > 0


def test_the_hardest_are_those_of_highest_score(given: Candidates) -> None:
    made = HardNegatives(0.5)(given)
    scores = given.query @ given.table.T
    everything = torch.arange(N)
    scores = scores.masked_fill(given.known(slice(None), everything), -9).scatter(1, given.target[:, None], -9)
    assert_close((made.vectors[:, :4] * given.query[:, None]).sum(-1), scores.topk(4, dim=1).values)


def test_a_perturbed_negative_goes_where_the_loss_grows_most(given: Candidates) -> None:
    negative = given.table[given.drawn.items].detach().requires_grad_()
    zeros = torch.zeros(B)
    loss = sampled_softmax_loss(
        given.query, given.table[given.target], negative, log_q=zeros, negative_log_q=torch.zeros(B, K), temperature=0.1
    )
    (gradient,) = torch.autograd.grad(loss, negative)
    worst = torch.nn.functional.normalize(gradient, dim=-1)
    assert_close(worst, given.query[:, None].expand_as(worst), rtol=1e-3, atol=1e-3)
    moved = PerturbedNegatives(1.0, epsilon=0.3).moved(given.query, negative)
    assert_close(moved.norm(dim=-1), negative.norm(dim=-1))
    assert_close(moved, torch.nn.functional.normalize(negative + 0.3 * worst, dim=-1), rtol=1e-3, atol=1e-3)


def test_generated_ones_stay_near_their_item(given: Candidates) -> None:
    game = GanNegatives(D, 1.0, epsilon=0.2, hardness=0.0, threshold=0.0)
    real = given.table[given.drawn.items].detach()
    made = game.moved(given.query.detach(), real)
    assert_close(made.norm(dim=-1), real.norm(dim=-1))
    angle = (made * real).sum(-1).clamp(max=1).acos()
    assert (angle <= math.asin(0.2) + 1e-4).all()


def test_the_filter_takes_back_what_the_discriminator_does_not_believe(given: Candidates) -> None:
    game = GanNegatives(D, 1.0, epsilon=0.3, hardness=0.0, threshold=0.5)
    made = game(given)
    drawn = given.table[given.drawn.items]
    moved = game.moved(given.query.detach(), drawn)
    believed = game.discriminator(moved, given.query[:, None]).sigmoid() >= 0.5
    assert 0 < believed.float().mean() < 1
    assert_close(made.vectors, torch.where(believed[..., None], moved, drawn))
    assert game.diagnostics(N)["share_filtered"] == pytest.approx(1 - float(believed.float().mean()))


def test_players_lose_apart_from_one_another(given: Candidates) -> None:
    game = GanNegatives(D, 0.5, epsilon=0.3, hardness=0.5, threshold=0.0)
    loss = game(given).loss
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert given.query.grad is None
    assert given.table.grad is None
    assert all(weight.grad is not None for weight in game.parameters())


def test_a_hard_generator_moves_towards_the_user(given: Candidates) -> None:
    def closeness(hardness: float) -> float:
        torch.manual_seed(1)
        game = GanNegatives(D, 1.0, epsilon=0.5, hardness=hardness, threshold=0.0)
        play(game, given, steps=150, rate=1e-2)
        game.diagnostics(N)
        game(given)
        return game.diagnostics(N)["closeness"]

    assert closeness(10.0) > closeness(0.0) + 0.1


def test_the_policy_becomes_the_softmax_of_the_scores(given: Candidates) -> None:
    given = replace(given, temperature=torch.tensor(0.5))
    maker = PolicyNegatives(D, 1.0)
    target = (given.query @ given.table.T / 0.5).log_softmax(1).detach()

    def gap() -> float:
        found = maker.policy(given.query, given.table)
        return float((found.exp() * (found - target)).sum(1).mean().detach())

    before = gap()
    play(maker, given, steps=300, rate=0.02)
    assert gap() < 1e-4 < before


def test_a_policy_with_one_draw_has_nothing_to_compare(given: Candidates) -> None:
    single = replace(given, drawn=NegativeSample(given.drawn.items[:, :1], given.drawn.log_q[:, :1]))
    with pytest.raises(InputError, match="negatives=1"):
        PolicyNegatives(D, 1.0)(single)


def test_decoding_and_spread(given: Candidates) -> None:
    table = given.table.detach()
    items = torch.randint(N, (5, 3))
    assert decode(2 * table[items], table).tolist() == items.tolist()
    assert float(nearest_item_entropy(table[None], table)) == pytest.approx(math.log(N), abs=1e-5)
    assert float(nearest_item_entropy(table[:1].expand(1, 9, D), table)) == pytest.approx(0, abs=1e-6)


def test_players_that_stop_playing_say_so() -> None:
    def watch(**values: float) -> GanDiagnostics:
        statistics = GanDiagnostics()
        statistics.add(**{name: torch.tensor(value) for name, value in values.items()})
        return statistics

    assert watch(generator_entropy=3.0, discriminator_accuracy=0.7, share_filtered=0.5).report(n_items=100)
    with pytest.warns(UserWarning, match="collapsed"):
        watch(generator_entropy=0.5).report(n_items=100)
    for accuracy in (0.0, 1.0):
        with pytest.warns(UserWarning, match="pinned"):
            watch(discriminator_accuracy=accuracy).report(n_items=100)
    with pytest.warns(UserWarning, match="lower the threshold"):
        watch(share_filtered=1.0).report(n_items=100)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 2.0])
def test_a_threshold_that_leaves_nothing(threshold: float) -> None:
    with pytest.raises(InputError, match=f"threshold={threshold}"):
        GanNegatives(D, 0.5, epsilon=0.1, hardness=0.0, threshold=threshold)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_shares_that_are_none(share: float) -> None:
    for make in (HardNegatives, lambda s: PolicyNegatives(D, s), lambda s: PerturbedNegatives(s, epsilon=0.1)):
        with pytest.raises(InputError, match=f"share={share}"):
            make(share)


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(synthetic(300, 100, seed=5), seed=0)


@pytest.mark.parametrize("sampler", ["uniform", "popular", "hard", "perturbed", "generated", "policy"])
def test_a_two_tower_learns_from_each(split: Split, tmp_path: Path, sampler: str) -> None:
    settings = {"model": "", "dim": 16, "length": 20, "epochs": 3, "batch_size": 128}
    given = {"name": sampler, "epsilon": 0.1} if sampler in ("perturbed", "generated") else sampler
    trained = TwoTower(sampler=given, **settings).fit(split)  # type: ignore[arg-type]
    chance = sum(1 / math.log2(rank + 1) for rank in range(1, 11)) / 100
    assert trained.report.best > 1.5 * chance
    trained.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert_close(loaded.score(split.test.history[:5]), trained.score(split.test.history[:5]))
    if sampler in ("generated", "policy"):
        assert all("generator_entropy" in epoch for epoch in trained.report.history)


def test_the_game_resumes_where_it_was(split: Split, tmp_path: Path) -> None:
    settings = {"model": "", "dim": 16, "length": 20, "batch_size": 128, "sampler": "generated", "epochs": 3}
    whole = TwoTower(**settings).fit(split, folder=tmp_path)  # type: ignore[arg-type]
    shutil.rmtree(max(tmp_path.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1])))
    resumed = TwoTower(**settings).fit(split, folder=tmp_path, resume=True)  # type: ignore[arg-type]
    assert_close(resumed.score(split.test.history), whole.score(split.test.history), rtol=0, atol=0)


def test_a_sequence_model_learns_from_the_game(split: Split, tmp_path: Path) -> None:
    settings = {"dim": 16, "length": 20, "blocks": 1, "batch_size": 16}
    loss = {"name": "generated", "negatives": 8, "epsilon": 0.1, "exclude_known": True}
    trained = Sequential(loss=loss, epochs=6, **settings).fit(split)  # type: ignore[arg-type]
    assert all("discriminator_accuracy" in epoch for epoch in trained.report.history)
    chance = sum(1 / math.log2(rank + 1) for rank in range(1, 11)) / 100
    assert trained.report.best > 1.5 * chance
    trained.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert_close(loaded.score(split.test.history[:5]), trained.score(split.test.history[:5]))
    with pytest.raises(InputError, match="bidirectional"):
        Sequential(loss="generated", encoder="bidirectional")
