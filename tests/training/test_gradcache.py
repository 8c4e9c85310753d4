"""Encoding in chunks gives the vectors and gradients of encoding at once, and forgets the activations in between."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import info_nce_loss
from recsys_cl.training import encode_in_chunks

Encode = Callable[..., Tensor]


class Towers(nn.Module):
    """Two encoders with dropout, and a learned temperature."""

    def __init__(self, dim: int = 6, hidden: int = 16) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Dropout(0.4), nn.Linear(hidden, 4))
        self.item = nn.Sequential(nn.Linear(dim, hidden), nn.Dropout(0.4), nn.Tanh(), nn.Linear(hidden, 4))
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def loss(self, encode: Encode, query: Tensor, item: Tensor, chunk_size: int) -> Tensor:
        """InfoNCE of a batch whose vectors come from ``encode``."""
        queries = encode(self.query, query, chunk_size=chunk_size)  # (B, d)
        items = encode(self.item, item, chunk_size=chunk_size)  # (B, d)
        return info_nce_loss(queries, items, temperature=(-self.log_scale).exp())


def plainly(encode: Encode, *inputs: Tensor, chunk_size: int) -> Tensor:
    """The same chunks, every activation kept."""
    chunks = zip(*(tensor.split(chunk_size) for tensor in inputs), strict=True)
    return torch.cat([encode(*chunk) for chunk in chunks])


def batch(size: int, dim: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    draw = torch.randn(2 * size, dim, generator=torch.Generator().manual_seed(size), dtype=dtype)
    return draw[:size], draw[size:]


def loss_and_gradients(towers: Towers, encode: Encode, inputs: tuple[Tensor, Tensor], chunk_size: int) -> list[Tensor]:
    towers.zero_grad()
    inputs = tuple(tensor.clone().requires_grad_() for tensor in inputs)
    loss = towers.loss(encode, *inputs, chunk_size)
    loss.backward()
    weights = [*towers.parameters(), *inputs]
    assert all(weight.grad is not None for weight in weights)
    return [loss.detach(), *(weight.grad.clone() for weight in weights)]


@pytest.mark.parametrize(("size", "chunk_size"), [(10, 3), (10, 5), (10, 1), (3, 8), (2304, 500)])
def test_value_and_every_gradient_are_those_of_the_same_chunks_with_dropout_on(size: int, chunk_size: int) -> None:
    towers = Towers().double()
    for step in range(2):
        torch.manual_seed(step)
        expected = loss_and_gradients(towers, plainly, batch(size), chunk_size)
        after = torch.get_rng_state()
        torch.manual_seed(step)
        found = loss_and_gradients(towers, encode_in_chunks, batch(size), chunk_size)
        assert torch.equal(torch.get_rng_state(), after), "the second pass moved the generator"
        assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_without_chance_the_chunks_do_not_show() -> None:
    towers = Towers().double().eval()
    whole = loss_and_gradients(towers, plainly, batch(20), 20)
    for chunk_size in (1, 7, 20, 99):
        assert_close(loss_and_gradients(towers, encode_in_chunks, batch(20), chunk_size), whole, rtol=1e-10, atol=1e-12)


def test_the_second_pass_runs_in_the_precision_of_the_first() -> None:
    towers, found = Towers(), []
    for encode in (plainly, encode_in_chunks):
        torch.manual_seed(0)
        towers.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = towers.loss(encode, *batch(12, dtype=torch.float32), 5)
        loss.backward()  # outside of autocast
        found.append([loss.detach(), *(weight.grad.clone() for weight in towers.parameters())])
    assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)


def test_a_training_loop_ends_with_the_same_weights() -> None:
    ends = []
    for encode in (plainly, encode_in_chunks):
        torch.manual_seed(0)
        towers = Towers().double()
        optimiser = torch.optim.AdamW(towers.parameters(), lr=0.01)
        for size in (10, 12, 7):
            optimiser.zero_grad()
            towers.loss(encode, *batch(size), 4).backward()
            optimiser.step()
        ends.append(list(towers.state_dict().values()))
    assert_close(ends[1], ends[0], rtol=1e-10, atol=1e-12)


def test_without_gradients_each_chunk_is_encoded_once() -> None:
    seen: list[int] = []

    def encode(rows: Tensor) -> Tensor:
        seen.append(len(rows))
        return rows * weight

    weight = torch.ones(1, requires_grad=True)
    with torch.no_grad():
        assert not encode_in_chunks(encode, torch.ones(5, 2), chunk_size=2).requires_grad
    assert seen == [2, 2, 1]
    encode_in_chunks(encode, torch.ones(5, 2), chunk_size=2).sum().backward()
    assert sorted(seen[3:]) == [1, 1, 2, 2, 2, 2]


def test_forward_keeps_inputs_and_vectors_but_no_activations() -> None:
    size, dim, hidden, out = 64, 8, 512, 4
    tower = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Dropout(0.1), nn.Linear(hidden, out))
    rows = torch.randn(size, dim)

    def kept(encode: Encode) -> int:
        """Bytes that are still alive between forward and backward, the weights aside."""
        storages: dict[int, int] = {}
        weights = {weight.untyped_storage().data_ptr() for weight in tower.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encode(tower, rows, chunk_size=8).square().sum()
        return sum(storages.values())

    assert kept(plainly) > rows.nbytes + size * hidden * 4
    assert kept(encode_in_chunks) <= rows.nbytes + size * out * 4


def test_backward_holds_the_activations_of_one_chunk_at_a_time() -> None:
    alive: list[StorageWeakRef] = []
    peak = 0

    def encode(rows: Tensor) -> Tensor:
        nonlocal peak
        hidden = (rows @ weight).tanh()
        alive.append(StorageWeakRef(hidden.untyped_storage()))  # tanh keeps its result for backward
        peak = max(peak, sum(not reference.expired() for reference in alive))
        return hidden.sum(1, keepdim=True)

    weight = torch.randn(3, 50, requires_grad=True)
    for way, most in ((encode_in_chunks, 1), (plainly, 6)):
        alive.clear()
        peak = 0
        way(encode, torch.randn(12, 3), chunk_size=2).square().sum().backward()
        assert peak == most


def test_several_inputs_are_cut_alike() -> None:
    history, mask = torch.arange(12.0).view(6, 2), torch.arange(6) % 2
    vectors = encode_in_chunks(lambda rows, keep: rows * keep[:, None], history, mask, chunk_size=4)
    assert_close(vectors, history * mask[:, None])


@pytest.mark.parametrize("chunk_size", [0, -3])
def test_chunks_without_rows_are_an_error(chunk_size: int) -> None:
    with pytest.raises(InputError, match=rf"chunk_size={chunk_size} is not valid; give 1 or more"):
        encode_in_chunks(nn.Identity(), torch.ones(2, 2), chunk_size=chunk_size)


@pytest.mark.parametrize(("shapes", "message"), [
    ([], "inputs none do not fit"),
    ([(0, 2)], r"inputs \(0, 2\) do not fit"),
    ([(3, 2), (2,)], r"inputs \(3, 2\), \(2,\) do not fit; give tensors with the same number of rows"),
])  # fmt: skip
def test_inputs_that_do_not_fit_are_an_error(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_in_chunks(nn.Identity(), *map(torch.ones, shapes), chunk_size=2)
