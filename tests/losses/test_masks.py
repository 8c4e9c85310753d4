"""Masks as matrices and as functions are the same masks, checked alike."""

import pytest
import torch

from recsys_cl.errors import InputError
from recsys_cl.losses.partition import itself, others, rows_of, sparing

CPU = torch.device("cpu")
MASK = torch.tensor([[True, False, True, False], [False, True, True, False], [False, False, False, True]])


@pytest.mark.parametrize("mask", [MASK, lambda rows: MASK[rows]], ids=["matrix", "function"])
@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 3), slice(2, 3)])
def test_rows_of_a_mask_whatever_its_form(mask, rows):
    assert rows_of(mask, rows, (3, 4), CPU).equal(MASK[rows])


@pytest.mark.parametrize("shape", [(2, 4), (4, 4), (3, 3), (3, 5), (4,), (1, 3, 4), ()])
def test_a_matrix_must_fit_all_logits_whichever_rows_are_asked_for(shape):
    with pytest.raises(InputError) as caught:
        rows_of(torch.zeros(shape, dtype=torch.bool), slice(0, 2), (3, 4), CPU)
    assert f"mask {shape}" in str(caught.value)
    assert str((3, 4)) in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (2, 3), (4,)])
def test_a_function_must_give_the_rows_that_it_is_asked_for(shape):
    with pytest.raises(InputError) as caught:
        rows_of(lambda rows: torch.zeros(shape, dtype=torch.bool), slice(1, 3), (3, 4), CPU)
    assert f"mask {shape}" in str(caught.value)
    assert str((2, 4)) in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_masks_are_bool(dtype):
    with pytest.raises(InputError, match=f"of {dtype} does not fit; give bool"):
        rows_of(MASK.to(dtype), slice(0, 3), (3, 4), CPU)
    with pytest.raises(InputError, match=f"of {dtype} does not fit; give bool"):
        rows_of(lambda rows: MASK[rows].to(dtype), slice(0, 3), (3, 4), CPU)


@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 3)])
def test_what_is_spared_counts_and_the_mask_is_left_as_it_was(rows):
    before = MASK.clone()
    spared = sparing(MASK, torch.tensor([2, 2, 0]), 4)(rows)
    expected = torch.tensor([[True, False, False, False], [False, True, False, False], [False, False, False, True]])
    assert spared.equal(expected[rows])
    assert MASK.equal(before)


def test_nothing_is_its_own_negative():
    assert itself(4, CPU)(slice(1, 3)).equal(torch.eye(4, dtype=torch.bool)[1:3])


@pytest.mark.parametrize("rows", [slice(0, 3), slice(2, 3)])
def test_others_are_neither_masked_nor_the_rows_own_positive(rows):
    query, item = torch.zeros(3, 2), torch.zeros(4, 2)
    own = torch.eye(3, 4, dtype=torch.bool)
    assert rows_of(others(None, query, item), rows, (3, 4), CPU).equal(own[rows])
    assert rows_of(others(MASK, query, item), rows, (3, 4), CPU).equal((own | MASK)[rows])
