"""The formulas against a counter of PyTorch's operations, and against the weights of real networks."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from recsys_cl.book.flops import block_flops, parameters, softmax_flops, training_flops
from recsys_cl.encoders import ItemTower
from recsys_cl.encoders.sequence import Transformer
from recsys_cl.losses.partition import DENSE
from recsys_cl.recommenders.sequence_network import SequenceNetwork

SIZES = [(8, 1, 30, 5), (16, 3, 50, 7)]


def sasrec(dim: int, blocks: int, n_items: int) -> SequenceNetwork:
    return SequenceNetwork(
        ItemTower(torch.ones(n_items), None, dim=dim, ids=True),
        Transformer(dim, blocks=blocks, heads=2, dropout=0.0, causal=True),
        similarity="cosine",
        temperature=0.1,
    )


@pytest.mark.parametrize(("dim", "blocks", "n_items", "span"), SIZES)
def test_parameters_are_those_of_the_network(dim: int, blocks: int, n_items: int, span: int) -> None:
    network = sasrec(dim, blocks, n_items)
    assert parameters(dim=dim, blocks=blocks, n_items=n_items) == sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(("dim", "blocks", "n_items", "span"), SIZES)
def test_forward_is_what_a_counter_counts(dim: int, blocks: int, n_items: int, span: int) -> None:
    network, rows = sasrec(dim, blocks, n_items), 4
    lengths = torch.full((rows,), span)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network.encoder(torch.randn(rows * span, dim), lengths)
    assert counter.get_total_flops() == rows * span * blocks * block_flops(dim=dim, span=span)


@pytest.mark.parametrize(("dim", "blocks", "n_items", "span"), SIZES)
def test_a_training_step_is_three_forward_passes(dim: int, blocks: int, n_items: int, span: int) -> None:
    network, rows = sasrec(dim, blocks, n_items), 4
    events = rows * span
    assert events * n_items <= DENSE, "in blocks, some products are written in place and not counted"
    items = torch.randint(n_items, (events,), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(items=items, lengths=torch.full((rows,), span), target=items.flip(0))["loss"].backward()
    expected = training_flops(events, dim=dim, blocks=blocks, span=span, n_items=n_items)
    assert counter.get_total_flops() == expected


def test_the_catalogue_outweighs_a_small_network() -> None:
    assert softmax_flops(dim=64, n_items=1682) > 2 * block_flops(dim=64, span=50)
