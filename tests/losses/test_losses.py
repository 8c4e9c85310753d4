"""What every contrastive loss satisfies, whatever its formula."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.losses import (
    bpr_loss,
    debiased_contrastive_loss,
    decoupled_contrastive_loss,
    info_nce_loss,
    logistic_loss,
    nt_xent_loss,
    pairwise_contrastive_loss,
    sampled_softmax_loss,
    sigmoid_loss,
    soft_triplet_loss,
    supervised_contrastive_loss,
    symmetric_info_nce_loss,
    triplet_loss,
)

check = settings(deadline=None, max_examples=15, derandomize=True)
SEEDS = st.integers(0, 1000)
BATCH, N, K, DIM = 5, 7, 3, 3

TRIPLETS = {"anchor": (BATCH, DIM), "positive": (BATCH, DIM), "negative": (BATCH, K, DIM)}
PAIRS = {"query": (BATCH, DIM), "item": (BATCH, DIM)}
CANDIDATES = {"query": (BATCH, DIM), "item": (N, DIM)}
OWN = {"negative": (BATCH, K, DIM), "negative_log_q": (BATCH, K)}
LOSSES: dict[str, tuple[Callable[..., Tensor], dict[str, tuple[int, ...]]]] = {
    "triplet, Euclidean": (partial(triplet_loss, margin=4.0), TRIPLETS),
    "triplet, squared": (partial(triplet_loss, margin=4.0, distance="squared"), TRIPLETS),
    "triplet, cosine": (partial(triplet_loss, margin=1.0, distance="cosine"), TRIPLETS),
    "soft triplet, Euclidean": (soft_triplet_loss, TRIPLETS),
    "soft triplet, squared": (partial(soft_triplet_loss, distance="squared"), TRIPLETS),
    "soft triplet, cosine": (partial(soft_triplet_loss, distance="cosine"), TRIPLETS),
    "pairwise": (partial(pairwise_contrastive_loss, margin=3.0), TRIPLETS),
    "logistic": (logistic_loss, TRIPLETS),
    "BPR": (bpr_loss, TRIPLETS),
    "sigmoid": (partial(sigmoid_loss, bias=-1.0), PAIRS),
    "InfoNCE": (info_nce_loss, CANDIDATES),
    "InfoNCE, all that it takes": (info_nce_loss, {**CANDIDATES, "log_q": (N,), **OWN}),
    "symmetric": (symmetric_info_nce_loss, {**PAIRS, "log_q": (BATCH,), "query_log_q": (BATCH,)}),
    "NT-Xent": (nt_xent_loss, {"first": (BATCH, DIM), "second": (BATCH, DIM)}),
    "supervised": (supervised_contrastive_loss, {"embedding": (BATCH, DIM), "label": (BATCH,)}),
    "decoupled": (decoupled_contrastive_loss, {**CANDIDATES, "log_q": (N,)}),
    "sampled": (sampled_softmax_loss, {**PAIRS, "log_q": (BATCH,), **OWN}),
    "debiased": (debiased_contrastive_loss, CANDIDATES),
    "debiased, hard": (partial(debiased_contrastive_loss, hardness=1.5), CANDIDATES),
}
MARGINS = [name for name in LOSSES if "triplet" in name or name == "pairwise"]
HEATED = [name for name in LOSSES if name not in MARGINS]
NORMALISING = ["triplet, cosine", "soft triplet, cosine", "NT-Xent", "supervised", "debiased", "debiased, hard"]
FURTHER = [name for name, (_, shapes) in LOSSES.items() if "negative" in shapes or shapes.get("item") == (N, DIM)]

every_loss = pytest.mark.parametrize("name", LOSSES)
Inputs = dict[str, Tensor]


def inputs_of(name: str, drawn, seed: int = 0) -> Inputs:
    shapes = LOSSES[name][1]
    inputs = dict(zip(shapes, drawn(seed, *shapes.values()), strict=True))
    return inputs | ({"label": torch.tensor([0, 1, 0, 1, 0])} if "label" in shapes else {})


def is_vector(name: str) -> bool:
    return name != "label" and not name.endswith("log_q")


def on_vectors(change: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    return {name: change(value) if is_vector(name) else value for name, value in inputs.items()}


def rows_of(name: str, inputs: Inputs, **options) -> Tensor:
    return LOSSES[name][0](**inputs, reduction="none", **options)


def heat(name: str, temperature: float) -> dict[str, float]:
    return {"temperature": temperature} if name in HEATED else {}


@every_loss
def test_mean_and_sum_are_those_of_the_rows(name, drawn, form):
    loss, inputs = LOSSES[name][0], inputs_of(name, drawn)
    rows = rows_of(name, inputs)
    assert rows.shape == (2 * BATCH if name == "NT-Xent" else BATCH,)
    assert rows.unique().numel() == len(rows)
    assert_close(loss(**inputs), rows.mean())
    assert_close(loss(**inputs, reduction="mean"), rows.mean())
    assert_close(loss(**inputs, reduction="sum"), rows.sum())


@pytest.mark.parametrize("reduction", ["none", "mean"])
@every_loss
def test_the_gradient_is_that_of_finite_differences(name, reduction, drawn, form):
    """Without reduction the check weighs the rows one by one, with it all alike."""
    inputs = inputs_of(name, drawn, seed=1)
    leaves = {key: value.requires_grad_() for key, value in inputs.items() if is_vector(key)}
    if name in HEATED:
        leaves["temperature"] = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    if name == "sigmoid":
        leaves["bias"] = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)

    def loss(*values: Tensor) -> Tensor:
        return LOSSES[name][0](**{**inputs, **dict(zip(leaves, values, strict=True))}, reduction=reduction)

    assert torch.autograd.gradcheck(loss, tuple(leaves.values()))


@every_loss
@given(SEEDS)
@check
def test_batches_in_another_order_give_their_rows_in_that_order(name, drawn, form, seed):
    inputs = inputs_of(name, drawn, seed)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(seed))
    moved = {key: torch.cat([value[order], value[BATCH:]]) for key, value in inputs.items()}
    there = torch.cat([order, order + BATCH]) if name == "NT-Xent" else order
    assert_close(rows_of(name, moved), rows_of(name, inputs)[there])


@pytest.mark.parametrize("name", FURTHER)
@given(SEEDS)
@check
def test_the_order_of_the_negatives_changes_nothing(name, drawn, form, seed):
    inputs = inputs_of(name, drawn, seed)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(seed))
    moved = {key: value[:, order] for key, value in inputs.items() if key in OWN}
    for key in inputs.keys() & {"item", "log_q"}:
        moved[key] = torch.cat([inputs[key][:BATCH], inputs[key][BATCH:].flip(0)])
    assert_close(rows_of(name, inputs | moved), rows_of(name, inputs))


@every_loss
@given(SEEDS)
@check
def test_a_rotation_of_all_vectors_changes_nothing(name, drawn, form, seed):
    inputs = inputs_of(name, drawn, seed)
    rotation = torch.linalg.qr(drawn(seed + 1, (DIM, DIM))[0]).Q
    assert_close(rows_of(name, on_vectors(lambda x: x @ rotation, inputs)), rows_of(name, inputs))


@every_loss
@given(SEEDS)
@check
def test_lengths_count_unless_the_loss_normalises(name, drawn, form, seed):
    inputs = inputs_of(name, drawn, seed)
    stretched = on_vectors(lambda x: x * drawn(seed, x.shape[:-1])[0].exp()[..., None], inputs)
    same = torch.allclose(rows_of(name, stretched), rows_of(name, inputs))
    assert same == (name in NORMALISING)


@pytest.mark.parametrize(("dtype", "logit"), [(torch.float32, 1e4), (torch.float64, 1e4), (torch.bfloat16, 1e2)])
@every_loss
def test_extreme_logits_give_finite_losses_and_gradients(name, dtype, logit, drawn, form):
    """One dimension, so that every similarity is one of the two extremes."""
    size = 1.0 if name in NORMALISING else logit**0.5
    temperature = 1 / logit if name in NORMALISING else 1.0
    one = on_vectors(lambda x: (size * x[..., :1].sign()).to(dtype).requires_grad_(), inputs_of(name, drawn))
    rows = rows_of(name, one, **heat(name, temperature))
    assert rows.isfinite().all()
    assert rows.max() > (0.5 * logit if name in HEATED else 0)
    rows.sum().backward()
    for key in filter(is_vector, one):
        assert one[key].grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_loss
def test_half_precision_is_compared_in_single(name, dtype, drawn, form):
    """Dot products of 300 by 300 overflow float16; the result is that of the same numbers, widened."""
    half = on_vectors(lambda x: (300 * x).to(dtype).requires_grad_(), inputs_of(name, drawn))
    rows = rows_of(name, half)
    assert rows.dtype == torch.float32
    assert_close(rows, rows_of(name, on_vectors(lambda x: x.detach().float(), half)), rtol=0, atol=0)
    rows.sum().backward()
    for key in filter(is_vector, half):
        assert half[key].grad.dtype == dtype
        assert half[key].grad.isfinite().all()


@every_loss
def test_mixed_precision_leaves_the_loss_as_it_is(name, drawn, form):
    inputs = on_vectors(lambda x: x.float().requires_grad_(), inputs_of(name, drawn))
    vectors = [value for key, value in inputs.items() if is_vector(key)]
    rows = rows_of(name, inputs)
    gradients = torch.autograd.grad(rows.sum(), vectors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = rows_of(name, inputs)
    assert_close(mixed, rows, rtol=0, atol=0)
    assert_close(torch.autograd.grad(mixed.sum(), vectors), gradients, rtol=0, atol=0)


@pytest.mark.parametrize("value", [0.0, 1.0])
@every_loss
def test_vectors_all_alike_or_zero_give_finite_losses_and_gradients(name, value, drawn, form):
    temperature = 0.01
    alike = on_vectors(lambda x: torch.full_like(x, value).float().requires_grad_(), inputs_of(name, drawn))
    rows = rows_of(name, alike, **heat(name, temperature))
    assert rows.isfinite().all()
    rows.sum().backward()
    for key in filter(is_vector, alike):
        assert alike[key].grad.isfinite().all()
        assert alike[key].grad.abs().max() <= 10 * N / temperature


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@every_loss
def test_values_that_are_not_finite_are_refused_by_name_and_row(name, value, drawn):
    for key in LOSSES[name][1]:
        if key != "label":
            inputs = inputs_of(name, drawn)
            inputs[key][1] = value
            with pytest.raises(InputError, match=f"{key} has the value {value} in row 1" if is_vector(key) else key):
                rows_of(name, inputs)


@every_loss
def test_whole_numbers_are_refused_by_name(name, drawn):
    inputs = inputs_of(name, drawn)
    for key in filter(is_vector, inputs):
        with pytest.raises(InputError, match=rf"{key} has dtype torch.int64.*{key}.float\(\)"):
            rows_of(name, inputs | {key: inputs[key].long()})


@every_loss
def test_shapes_that_do_not_fit_are_refused_by_shape(name, drawn):
    inputs = inputs_of(name, drawn)
    alone = sum(map(is_vector, inputs)) == 1
    for key, value in inputs.items():
        rows = value.repeat(2, *[1] * (value.ndim - 1)) if key == "query" else value[: BATCH - 1]
        narrower = [value[..., :-1]] if value.ndim > 1 and not alone else []
        for changed in [rows, value[None], *narrower]:
            with pytest.raises(InputError) as caught:
                rows_of(name, inputs | {key: changed})
            assert str(tuple(changed.shape)) in str(caught.value)


@every_loss
def test_a_batch_of_none_is_refused(name, drawn):
    with pytest.raises(InputError, match=r"\(0, 3\)"):
        rows_of(name, {key: value[:0] for key, value in inputs_of(name, drawn).items()})


@every_loss
def test_a_reduction_of_another_name_is_refused(name, drawn):
    with pytest.raises(InputError, match="no reduction 'max'; choose from 'mean', 'sum', 'none'"):
        LOSSES[name][0](**inputs_of(name, drawn), reduction="max")


WRONG = [(0, "0"), (-0.5, "-0.5"), (torch.nan, "nan"), (torch.inf, "inf"), (torch.tensor(0.0), "0.0")]


@pytest.mark.parametrize(("value", "shown"), [*WRONG, (torch.ones(2), r"a tensor of shape \(2,\)")])
@pytest.mark.parametrize("name", HEATED)
def test_temperatures_that_are_no_positive_number_are_refused(name, value, shown, drawn):
    with pytest.raises(InputError, match=f"temperature is {shown}; give one number above 0"):
        rows_of(name, inputs_of(name, drawn), temperature=value)


@pytest.mark.parametrize("name", HEATED)
def test_a_learned_temperature_is_the_number_that_it_holds(name, drawn, form):
    """In any floating type, and whether it holds a scalar or one entry."""
    inputs = inputs_of(name, drawn)
    expected = rows_of(name, inputs, temperature=0.25)
    for learned in (torch.tensor(0.25), torch.tensor([0.25]), torch.tensor(0.25, dtype=torch.float64)):
        assert_close(rows_of(name, inputs, temperature=learned.requires_grad_()), expected)
