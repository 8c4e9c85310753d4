"""Encoders of behaviour: ragged batches, causality, and attention as the formulas have it."""

import pytest
import torch
from torch import nn

from recsys_cl.encoders.attention import causal_mask, multi_head_attention, rotary
from recsys_cl.encoders.sequence import SEQUENCE_ENCODERS, SelfAttention, Transformer, padded_places
from recsys_cl.errors import InputError

NAMES = ("causal", "bidirectional", "gru")
LENGTHS = torch.tensor([5, 1, 3])


def encoder(name: str) -> nn.Module:
    torch.manual_seed(0)
    return SEQUENCE_ENCODERS[name](8, blocks=2, heads=2, dropout=0.0).eval()


def events() -> torch.Tensor:
    return torch.randn(int(LENGTHS.sum()), 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_history_is_encoded_alone_as_in_a_batch(name: str) -> None:
    model, x = encoder(name), events()
    together = model(x, LENGTHS)
    alone = [model(part, torch.tensor([len(part)])) for part in x.split(LENGTHS.tolist())]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize(("name", "sees_the_future"), [("causal", False), ("bidirectional", True), ("gru", False)])
def test_only_a_bidirectional_encoder_sees_what_comes_after(name: str, sees_the_future: bool) -> None:
    model, x = encoder(name), events()
    changed = x.clone()
    changed[4] = changed[0]  # the last event of the first history
    before, after = model(x, LENGTHS), model(changed, LENGTHS)
    assert torch.allclose(before[:4], after[:4], atol=1e-6) is not sees_the_future
    assert not torch.allclose(before[4], after[4])
    torch.testing.assert_close(before[5:], after[5:])  # other histories never


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_that_of_the_formula(causal: bool) -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(8, heads=2, causal=causal), torch.randn(4, 8)
    query, key, value = (
        (lambda y, w=w, b=b: y @ w.T + b)
        for w, b in zip(attention.project.weight.chunk(3), attention.project.bias.chunk(3), strict=True)
    )
    mask = causal_mask(4) if causal else None
    expected = multi_head_attention(x[None], query, key, value, attention.out, heads=2, mask=mask, rotate=rotary)[0]
    torch.testing.assert_close(attention(x, torch.tensor([4])), expected)


def test_attention_knows_distances_and_not_places() -> None:
    """The same two events at the end of a longer window of which nothing is seen: shifting both changes nothing."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    scores = [
        (rotary(q, position=torch.tensor([place + 3])) * rotary(k, position=torch.tensor([place]))).sum()
        for place in (0, 40)
    ]
    torch.testing.assert_close(scores[0], scores[1])


def test_linear_maps_see_real_events_alone() -> None:
    model, rows = encoder("causal"), []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    model(events(), LENGTHS)
    assert set(rows) == {int(LENGTHS.sum())}


def test_places_are_those_of_a_padded_batch() -> None:
    where, longest = padded_places(LENGTHS)
    padded = torch.zeros(len(LENGTHS), longest, dtype=torch.bool).flatten()
    padded[where] = True
    assert padded.view(3, 5).sum(1).tolist() == LENGTHS.tolist()
    assert bool((padded.view(3, 5) == (torch.arange(5) < LENGTHS[:, None])).all())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_parameters(name: str) -> None:
    model = encoder(name)
    model(events(), LENGTHS).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="dim=10 does not split into 2 heads"):
        Transformer(10, blocks=1, heads=2, dropout=0.0, causal=True)
