"""Attention in ten lines is that of torch and of loaded models; positions do what their formulas say."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from recsys_cl import assets
from recsys_cl.encoders.attention import (
    attention_weights,
    causal_mask,
    merge_heads,
    multi_head_attention,
    rotary,
    scaled_dot_product_attention,
    sinusoidal_positions,
    split_heads,
)

close = torch.testing.assert_close


@pytest.fixture
def qkv():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 5, 4, generator=generator) for _ in range(3)]  # (B, H, T, d)


def test_attention_is_torchs_without_a_mask(qkv):
    close(scaled_dot_product_attention(*qkv), F.scaled_dot_product_attention(*qkv))


def test_attention_is_torchs_under_a_causal_mask(qkv):
    expected = F.scaled_dot_product_attention(*qkv, is_causal=True)
    close(scaled_dot_product_attention(*qkv, mask=causal_mask(5)), expected)


def test_boolean_and_additive_masks_mean_the_same(qkv):
    allowed = causal_mask(5)
    added = torch.zeros(5, 5).masked_fill(~allowed, -math.inf)
    close(scaled_dot_product_attention(*qkv, mask=added), scaled_dot_product_attention(*qkv, mask=allowed))
    bias = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    expected = F.scaled_dot_product_attention(*qkv, attn_mask=bias)
    close(scaled_dot_product_attention(*qkv, mask=bias), expected)


def test_a_query_that_may_look_nowhere_gets_zeros_and_harms_no_gradient(qkv):
    mask = causal_mask(5)
    mask[0] = False
    q, k, v = (part.requires_grad_() for part in qkv)
    out = scaled_dot_product_attention(q, k, v, mask=mask)
    close(out[:, :, 0], torch.zeros(2, 3, 4))
    out.sum().backward()
    assert all(part.grad.isfinite().all() for part in (q, k, v))
    close(q.grad[:, :, 0], torch.zeros(2, 3, 4))


def test_weights_are_shares(qkv):
    weights = attention_weights(qkv[0], qkv[1], mask=causal_mask(5))
    close(weights.sum(-1), torch.ones(2, 3, 5))
    assert (weights.triu(1) == 0).all()


def test_gradients_are_torchs(qkv):
    for part in qkv:
        part.requires_grad_()
    ours = torch.autograd.grad(scaled_dot_product_attention(*qkv, mask=causal_mask(5)).square().sum(), qkv)
    theirs = torch.autograd.grad(F.scaled_dot_product_attention(*qkv, is_causal=True).square().sum(), qkv)
    close(ours, theirs)


def test_heads_are_consecutive_pieces_of_the_vector():
    x = torch.arange(24.0).view(1, 2, 12)
    close(split_heads(x, 3)[0, 1, 0], x[0, 0, 4:8])
    close(merge_heads(split_heads(x, 3)), x)


def test_multi_head_attention_is_torchs_with_the_weights_copied():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, x = nn.MultiheadAttention(12, 3, batch_first=True), torch.randn(2, 5, 12)
        nn.init.normal_(module.in_proj_bias)
    projections = [nn.Linear(12, 12) for _ in range(3)]
    weights, biases = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    for linear, weight, bias in zip(projections, weights, biases, strict=True):
        linear.load_state_dict({"weight": weight, "bias": bias})
    expected, _ = module(x, x, x, attn_mask=~causal_mask(5))  # torch's mask is true where one may NOT look
    close(multi_head_attention(x, *projections, module.out_proj, heads=3, mask=causal_mask(5)), expected)


def bert_attention(model, ids, real, number):
    """What layer ``number`` of a BERT gives before its residual path, and what we make of its input."""
    layer = model.encoder.layer[number].attention
    seen = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: seen.update(x=(*args, *kwargs.values())[0]), with_kwargs=True
        ),
        layer.output.dense.register_forward_hook(lambda _, __, out: seen.update(out=out)),
    ]
    with torch.no_grad():
        model(input_ids=ids, attention_mask=real)
        for handle in handles:
            handle.remove()
        own, heads = layer.self, model.config.num_attention_heads
        mask = real.bool()[:, None, None, :]  # (B, 1, 1, T)
        ours = multi_head_attention(
            seen["x"], own.query, own.key, own.value, layer.output.dense, heads=heads, mask=mask
        )
    return ours, seen["out"]


def test_attention_of_a_padded_bert_batch():
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(**size, vocab_size=20, initializer_range=0.5)).eval()
    ids, real = torch.tensor([[2, 5, 6, 7], [2, 8, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    ours, theirs = bert_attention(model, ids, real, 1)
    close(ours[real.bool()], theirs[real.bool()])


@pytest.mark.slow
def test_attention_of_every_layer_of_minilm_to_1e_5():
    from transformers import AutoModel, AutoTokenizer

    folder = assets.fetch("minilm")
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["A toy becomes jealous.", "War"], padding=True, return_tensors="pt")
    for number in range(model.config.num_hidden_layers):
        ours, theirs = bert_attention(model, batch["input_ids"], batch["attention_mask"], number)
        close(ours, theirs, rtol=0, atol=1e-5)


def test_grouped_query_attention_with_rotary_positions_is_llamas():
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(**size, num_key_value_heads=2, vocab_size=20, initializer_range=0.5)
        model, ids = LlamaModel(config).eval(), torch.randint(20, (2, 6))
    layer, seen = model.layers[0], {}
    layer.input_layernorm.register_forward_hook(lambda _, __, out: seen.update(x=out))
    layer.self_attn.o_proj.register_forward_hook(lambda _, __, out: seen.update(out=out))
    own = layer.self_attn
    with torch.no_grad():
        model(ids)
        expected = seen["out"]
        ours = multi_head_attention(
            seen["x"],
            own.q_proj,
            own.k_proj,
            own.v_proj,
            own.o_proj,
            heads=4,
            mask=causal_mask(6),
            rotate=rotary,
        )
    close(ours, expected)


def test_the_product_of_sinusoids_depends_on_the_distance_alone():
    positions = sinusoidal_positions(40, 16).double()
    products = positions @ positions.T
    for distance in (0, 1, 7):
        diagonal = products.diagonal(distance)
        close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    close(products.diagonal(), torch.full((40,), 8.0, dtype=torch.double))


def test_rotation_keeps_lengths_and_scores_see_the_distance_alone(qkv):
    q, k, _ = qkv
    close(rotary(q).norm(dim=-1), q.norm(dim=-1))
    at = torch.arange(5)
    here = rotary(q, position=at) @ rotary(k, position=at).mT
    later = rotary(q, position=at + 100) @ rotary(k, position=at + 100).mT
    close(here, later, rtol=0, atol=1e-4)
    close(here.diagonal(dim1=-2, dim2=-1), (q * k).sum(-1))  # distance 0


def test_attention_without_positions_does_not_see_the_order(qkv):
    q, k, v = qkv
    order = torch.tensor([3, 1, 4, 0, 2])
    plain = scaled_dot_product_attention(q, k, v)
    close(scaled_dot_product_attention(q, k[:, :, order], v[:, :, order]), plain)
    turned = scaled_dot_product_attention(rotary(q), rotary(k), v)
    shuffled = scaled_dot_product_attention(rotary(q), rotary(k[:, :, order]), v[:, :, order])
    assert not torch.allclose(turned, shuffled, atol=1e-3)


def test_positions_may_differ_between_texts(qkv):
    q = qkv[0]
    position = torch.stack([torch.arange(5), torch.arange(5) + 3])[:, None]  # (B, 1, T)
    found = rotary(q, position=position)
    close(found[1], rotary(q, position=torch.arange(5) + 3)[1])
