"""In blocks a loss is what it is dense, in value and in gradient, without memory for all pairs."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from recsys_cl.errors import InputError
from recsys_cl.losses import (
    LearnedTemperature,
    debiased_contrastive_loss,
    decoupled_contrastive_loss,
    info_nce_loss,
    nt_xent_loss,
    partition,
    supervised_contrastive_loss,
    symmetric_info_nce_loss,
    uniformity,
)
from recsys_cl.losses.partition import log_partition, symmetric_negative_log_likelihoods

ROWS = {"reduction": "none"}


def masked(u: Tensor, v: Tensor) -> Callable[[slice], Tensor]:
    """About a fifth of the pairs, as a function of the numbers of row and column."""
    rows, columns = torch.arange(len(u))[:, None], torch.arange(len(v))
    return lambda part: (rows[part] * 7 + columns * 13) % 5 == 0


def log_q(vectors: Tensor) -> Tensor:
    return torch.linspace(-6, -2, len(vectors))


def partners(u: Tensor, v: Tensor) -> Tensor:
    return v[: len(u)]


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | float], Tensor]] = {
    "InfoNCE": lambda u, v, t: info_nce_loss(u, v, temperature=t, **ROWS),
    "InfoNCE with a matrix for a mask": lambda u, v, t: info_nce_loss(
        u, v, temperature=t, mask=masked(u, v)(slice(None)), **ROWS
    ),
    "InfoNCE with a function for a mask, and log q": lambda u, v, t: info_nce_loss(
        u, v, temperature=t, mask=masked(u, v), log_q=log_q(v), **ROWS
    ),
    "InfoNCE with own negatives": lambda u, v, t: info_nce_loss(
        u, v, temperature=t, log_q=log_q(v), negative=v[-3:].expand(len(u), -1, -1), **ROWS
    ),
    "symmetric": lambda u, v, t: symmetric_info_nce_loss(u, partners(u, v), temperature=t, **ROWS),
    "symmetric with a mask and both log q": lambda u, v, t: symmetric_info_nce_loss(
        u,
        partners(u, v),
        temperature=t,
        mask=masked(u, partners(u, v)),
        log_q=log_q(u),
        query_log_q=log_q(u).flip(0),
        **ROWS,
    ),
    "NT-Xent": lambda u, v, t: nt_xent_loss(u, partners(u, v), temperature=t, **ROWS),
    "supervised": lambda u, v, t: supervised_contrastive_loss(
        u + partners(u, v), torch.arange(len(u)) % 50, temperature=t, **ROWS
    ),
    "decoupled": lambda u, v, t: decoupled_contrastive_loss(
        u, v, temperature=t, mask=masked(u, v), log_q=log_q(v), **ROWS
    ),
    "debiased": lambda u, v, t: debiased_contrastive_loss(u, v, temperature=t, mask=masked(u, v), **ROWS),
    "debiased, hard": lambda u, v, t: debiased_contrastive_loss(u, v, temperature=t, hardness=1.0, **ROWS),
    "uniformity": lambda u, v, t: uniformity(torch.cat([u, v + t]))[None],
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def unit_vectors(drawn, batch: int, n: int) -> tuple[Tensor, Tensor]:
    """Two sides that want their gradient, in single precision as in training."""
    query, item = drawn(0, (batch, 8), (n, 8), dtype=torch.float32)
    return F.normalize(query).requires_grad_(), F.normalize(item).requires_grad_()


@pytest.fixture
def small(drawn, monkeypatch) -> tuple[Tensor, Tensor]:
    """Vectors of a batch that is cut into blocks of thirty rows or so, the last one shorter."""
    monkeypatch.setattr(partition, "DENSE", 0)
    monkeypatch.setattr(partition, "BLOCK", 2**12)
    return unit_vectors(drawn, 110, 130)


def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "DENSE", 2**40)


def assert_equal(ours: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(ours, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("weights", ["alike", "drawn"])
@every_loss
def test_value_and_gradient_are_those_of_the_dense_form(name, weights, drawn, monkeypatch):
    """At a size that is computed in blocks by itself."""
    vectors, temperature = unit_vectors(drawn, 1_030, 1_100), LearnedTemperature(0.1)
    monkeypatch.setattr(partition, "BLOCK", 2**18)
    results = []
    for use in (lambda _: None, dense):
        use(monkeypatch)
        rows = LOSSES[name](*vectors, temperature())
        (weight,) = drawn(1, rows.shape, dtype=torch.float32)
        loss = rows.mean() if weights == "alike" else (rows * weight.abs()).sum() / weight.abs().sum()
        results.append((rows.detach(), loss.detach(), *torch.autograd.grad(loss, (*vectors, temperature.log_scale))))
    assert_equal(*results)


class Sizes(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else (out,)
        self.largest = max([self.largest, *(tensor.numel() for tensor in made if isinstance(tensor, Tensor))])
        return out


@pytest.mark.parametrize("weights", ["alike", "drawn"])
@pytest.mark.parametrize("name", [name for name in LOSSES if "matrix" not in name])
def test_no_tensor_is_larger_than_a_block_and_none_of_them_is_kept(name, weights, small, monkeypatch):
    kept = []
    with Sizes() as sizes, saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda x: x):
        rows = LOSSES[name](*small, torch.tensor(0.1))
        loss = rows.mean() if weights == "alike" else (rows * torch.linspace(1, 2, len(rows))).sum()
        torch.autograd.grad(loss, small)
    assert partition.BLOCK / 2 < sizes.largest <= partition.BLOCK
    assert max(kept) < 110 * 110 / 4
    dense(monkeypatch)
    with Sizes() as sizes:
        LOSSES[name](*small, torch.tensor(0.1))
    assert sizes.largest >= 110 * 110


@every_loss
def test_the_gradient_may_be_taken_twice_and_for_one_side_only(name, small):
    query, item = small
    loss = LOSSES[name](query, item, 0.1).square().mean()
    first = torch.autograd.grad(loss, small, retain_graph=True)
    assert all(a.equal(b) for a, b in zip(torch.autograd.grad(loss, small), first, strict=True))
    (one_side,) = torch.autograd.grad(LOSSES[name](query.detach(), item, 0.1).square().mean(), item)
    assert_equal((one_side,), first[1:])
    (one_side,) = torch.autograd.grad(LOSSES[name](query, item.detach(), 0.1).square().mean(), query)
    assert_equal((one_side,), first[:1])


@every_loss
def test_without_gradients_the_value_is_the_same(name, small):
    expected = LOSSES[name](*small, 0.1)
    with torch.no_grad():
        assert LOSSES[name](*small, 0.1).equal(expected)
    with torch.inference_mode():
        assert LOSSES[name](*small, 0.1).equal(expected)


@pytest.mark.parametrize("name", ["InfoNCE", "symmetric", "NT-Xent"])
def test_with_dropout_in_the_encoder_its_parameters_get_the_dense_gradient(name, small, monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.4), nn.Tanh(), nn.Linear(16, 8))
        results = []
        for use in (lambda _: None, dense):
            use(monkeypatch)
            torch.manual_seed(4)
            loss = LOSSES[name](encoder(small[0]), encoder(small[1]), 0.2).mean()
            results.append((loss.detach(), *torch.autograd.grad(loss, list(encoder.parameters()))))
    assert_equal(*results)


@pytest.mark.parametrize("name", ["InfoNCE", "symmetric", "debiased, hard"])
def test_under_mixed_precision_the_same_vectors_give_the_same_loss_and_gradient(name, small):
    expected = LOSSES[name](*small, 0.1).square().mean()
    gradients = torch.autograd.grad(expected, small)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](*small, 0.1).square().mean()
        assert loss.equal(expected)
        assert all(a.equal(b) for a, b in zip(torch.autograd.grad(loss, small), gradients, strict=True))


@pytest.mark.parametrize("rows", [109, 111])
def test_masks_that_do_not_fit_are_refused_in_blocks_too(rows, small):
    mask = torch.ones(rows, 130, dtype=torch.bool)
    for form in (mask, lambda part: mask[part][:, 1:]):
        with pytest.raises(InputError, match=r"mask .* does not fit"):
            info_nce_loss(*small, mask=form)


def test_up_to_a_million_logits_the_form_is_dense_and_beyond_in_blocks():
    def form(batch: int, n: int) -> str:
        query, item = torch.zeros(batch, 1, requires_grad=True), torch.zeros(n, 1)
        return type(log_partition(query, item, 1.0).grad_fn).__name__

    assert form(1_024, 1_024) == "LogsumexpBackward0"
    assert form(1_024, 1_025) == "_RowLikelihoodBackward"


def test_the_partition_is_logsumexp_with_corrections_and_nothing_where_nothing_counts(drawn, form):
    query, item, log_q = drawn(0, (4, 3), (6, 3), (6,))
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1, 2] = mask[2, :] = True
    logits = (query @ item.T / 0.3).masked_fill(mask, -torch.inf)
    expected = (logits - log_q).logsumexp(1)
    ours = log_partition(query, item, 0.3, mask=mask, log_q=log_q)
    assert ours[2] < -1e300
    kept = torch.arange(4) != 2
    assert_close(ours[kept], expected[kept])


def test_the_symmetric_form_is_both_cross_entropies_and_never_masks_the_diagonal(drawn, form):
    query, item, log_q, query_log_q = drawn(0, (5, 3), (5, 3), (5,), (5,))
    mask = torch.eye(5, dtype=torch.bool)
    mask[1, 2] = mask[4, :4] = True
    logits = (query @ item.T / 0.3).masked_fill(mask & ~torch.eye(5, dtype=torch.bool), -torch.inf)
    by_row, by_column = symmetric_negative_log_likelihoods(
        query, item, 0.3, mask=mask, log_q=log_q, query_log_q=query_log_q
    )
    assert_close(by_row, F.cross_entropy(logits - log_q, torch.arange(5), reduction="none"))
    assert_close(by_column, F.cross_entropy((logits - query_log_q[:, None]).T, torch.arange(5), reduction="none"))


@pytest.mark.parametrize("loss", [info_nce_loss, symmetric_info_nce_loss])
def test_second_derivatives_exist_dense_and_are_refused_in_blocks(loss, drawn, form):
    """Without the refusal those of the positive's score alone would come back, which is wrong in silence."""
    query, item = (side.requires_grad_() for side in drawn(0, (4, 3), (4, 3)))
    if form == "dense":
        assert torch.autograd.gradgradcheck(lambda u, v: loss(u, v, temperature=0.5), (query, item))
    else:
        value = loss(query, item)
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(value, query, create_graph=True)
