"""Towers against loops, and what they promise about ids, texts and empty histories."""

import pytest
import torch
from torch.testing import assert_close

from recsys_cl.encoders import AttentionPooling, BehaviourMLP, ItemTower, MeanPooling
from recsys_cl.encoders.towers import principal_directions, weighted_sum
from recsys_cl.errors import InputError

WARM = torch.tensor([True, True, False])


@pytest.fixture
def text() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)


def test_item_vector_is_projected_text_plus_id(text: torch.Tensor) -> None:
    tower = ItemTower(WARM, text, dim=2, ids=True)
    expected = text[:2] @ tower.project.weight.T + tower.ids.weight[:2]
    assert_close(tower(torch.tensor([0, 1])), expected)


def test_item_without_training_events_uses_text_alone(text: torch.Tensor) -> None:
    tower = ItemTower(WARM, text, dim=2, ids=True)
    assert_close(tower(torch.tensor([2])), text[2:] @ tower.project.weight.T)


def test_dropped_id_leaves_the_text(text: torch.Tensor) -> None:
    tower = ItemTower(WARM, text, dim=2, ids=True)
    assert_close(tower(torch.tensor([0]), torch.tensor([False])), text[:1] @ tower.project.weight.T)


def test_cold_items_without_text_all_look_alike() -> None:
    tower = ItemTower(WARM, None, dim=2, ids=True)
    assert_close(tower(torch.tensor([2])), torch.zeros(1, 2))


def test_tower_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="needs text embeddings or ids"):
        ItemTower(WARM, None, dim=2, ids=False)


@pytest.mark.parametrize("n", [50, 6_000])
def test_projection_keeps_cosines_when_wide_enough(n: int) -> None:
    vectors = torch.randn(n, 8, generator=torch.Generator().manual_seed(1))
    projected = vectors @ principal_directions(vectors, 10).T
    assert projected.shape == (n, 10)
    assert_close((projected[:20] @ projected[:20].T), (vectors[:20] @ vectors[:20].T), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [50, 6_000])
def test_projection_keeps_the_directions_of_largest_variance(n: int) -> None:
    generator = torch.Generator().manual_seed(2)
    scale = torch.tensor([5.0, 3.0, 0.1, 0.1])
    vectors = torch.randn(n, 4, generator=generator) * scale
    kept = (vectors @ principal_directions(vectors, 2).T).square().sum()
    assert kept / vectors.square().sum() > 0.99


def test_mean_pooling_is_the_mean() -> None:
    vectors = torch.randn(4, 3)
    history = torch.tensor([[0, 1, 2], [0, 0, 3], [0, 0, 0]])
    mask = torch.tensor([[True, True, True], [False, False, True], [False, False, False]])
    expected = torch.stack([vectors[:3].mean(0), vectors[3], torch.zeros(3)])
    assert_close(MeanPooling()(vectors, history, mask), expected)


def test_attention_pooling_agrees_with_a_loop() -> None:
    torch.manual_seed(0)
    pooling = AttentionPooling(3, length=4)
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter)
    vectors = torch.randn(5, 3)
    history = torch.tensor([[0, 1, 2, 3], [0, 0, 4, 4]])
    mask = torch.tensor([[True, True, True, True], [False, False, True, True]])
    for row in range(2):
        places = mask[row].nonzero().flatten().tolist()
        logits = torch.stack(
            [pooling.content.weight[0] @ vectors[history[row, place]] + pooling.recency[place] for place in places]
        )
        weights = torch.exp(logits) / torch.exp(logits).sum()
        pooled = sum(w * vectors[history[row, place]] for w, place in zip(weights, places, strict=True))
        expected = pooling.out.weight @ pooled + pooling.out.bias
        assert_close(pooling(vectors, history, mask)[row], expected)


def test_attention_weights_start_with_recency_and_ignore_padding() -> None:
    pooling = AttentionPooling(3, length=3)
    mask = torch.tensor([[False, True, True], [False, False, False]])
    weights = pooling.weights(torch.randn(1, 3), torch.zeros(2, 3, dtype=torch.int64), mask)
    assert weights[0, 0] == 0
    assert weights[0, 2] > weights[0, 1]
    assert_close(weights.sum(1), torch.tensor([1.0, 0.0]))


def test_weighted_sum_has_the_gradients_of_a_dense_product() -> None:
    vectors = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    history = torch.randint(4, (2, 5))
    dense = torch.autograd.grad((weights[..., None] * vectors[history]).sum(1).square().sum(), (vectors, weights))
    fused = torch.autograd.grad(weighted_sum(vectors, history, weights).square().sum(), (vectors, weights))
    for expected, found in zip(dense, fused, strict=True):
        assert_close(found, expected)


def test_behaviour_mlp_sees_normalised_counts_and_attributes() -> None:
    torch.manual_seed(0)
    tower = BehaviourMLP(4, 2, dim=3, hidden=5)
    items, mask = torch.tensor([[1, 2, 2, 0]]), torch.tensor([[True, True, True, False]])
    attributes = torch.randn(1, 2)
    counts = torch.tensor([[0.0, 1.0, 2.0, 0.0]]) / 3
    expected = tower.out(counts @ tower.counts.weight + tower.attributes(attributes))
    assert_close(tower(items, mask, attributes), expected)
    assert_close(tower(items, mask, None), tower(items, mask, torch.zeros(1, 2)))
