"""An adapter starts as the identity, learns alone, and can be folded into the weights."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    T5Config,
    T5EncoderModel,
    Trainer,
    TrainingArguments,
)

from recsys_cl.errors import InputError
from recsys_cl.text.adapters import (
    Adapter,
    RankAllocation,
    adapt,
    allocate_ranks,
    merge,
    orthogonality_penalty,
    parameter_counts,
)

SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZE |= {"vocab_size": 20, "max_position_embeddings": 32, "initializer_range": 0.5}
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
KINDS = [Adapter("lora", rank=2), Adapter("adalora", rank=2, steps=200), Adapter("ia3"), Adapter("prefix", rank=3)]


def model(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "bert":
            return BertModel(BertConfig(**SIZE)).eval()
        if name == "gpt2":
            return GPT2Model(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20, n_positions=32)).eval()
        if name == "t5":
            return T5EncoderModel(
                T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=20)
            ).eval()
        return LlamaModel(LlamaConfig(**SIZE, num_key_value_heads=1)).eval()


def hidden(module: nn.Module, ids: torch.Tensor = IDS, mask: torch.Tensor = MASK) -> torch.Tensor:
    return module(input_ids=ids, attention_mask=mask).last_hidden_state


def learn(module: nn.Module, steps: int, rate: float = 0.05) -> None:
    """Plain descent on an arbitrary loss, with AdaLoRA's allocation where there is one."""
    optimizer = torch.optim.Adam([weight for weight in module.parameters() if weight.requires_grad], rate)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        (hidden(module)[MASK.bool()] - 1).square().mean().backward()
        optimizer.step()
        allocate_ranks(module, step)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [("gpt2", KINDS[0]), ("gpt2", KINDS[1]), *((name, kind) for name in ("bert", "llama", "t5") for kind in KINDS[:3])],
    ids=lambda value: getattr(value, "kind", value),
)
def test_every_adapter_but_the_prefix_begins_as_the_identity(name, adapter):
    assert_close(hidden(adapt(model(name), adapter).eval()), hidden(model(name)))


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("adapter", KINDS, ids=lambda adapter: adapter.kind)
def test_only_the_adapter_learns_and_all_of_it(name, adapter):
    module = adapt(model(name), adapter)
    before = {key: weight.clone() for key, weight in module.named_parameters()}
    learn(module, 3)
    changed = {key for key, weight in module.named_parameters() if not torch.equal(weight, before[key])}
    assert changed == {key for key, weight in module.named_parameters() if weight.requires_grad}
    assert 0 < parameter_counts(module)[0] < sum(before[key].numel() for key in before) / 2


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("adapter", KINDS[:3], ids=lambda adapter: adapter.kind)
def test_merging_keeps_the_function_and_leaves_a_plain_model(name, adapter):
    module = adapt(model(name), adapter)
    learn(module, 60)
    expected = hidden(module.eval()).detach()
    assert not torch.allclose(expected, hidden(model(name)), atol=1e-2)
    plain = merge(module)
    assert type(plain) is type(model(name))
    assert_close(hidden(plain), expected, atol=1e-4, rtol=1e-4)
    assert parameter_counts(plain)[1] == parameter_counts(model(name))[1]


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_prefix_reaches_every_token_whatever_the_padding(name):
    module = adapt(model(name), Adapter("prefix", rank=3)).eval()
    learned = module.prompt_encoder["default"].embedding.weight
    assert learned.std() < 0.03
    both = hidden(module)
    assert_close(both[1, :2], hidden(module, IDS[1:, :2], MASK[1:, :2])[0], atol=1e-5, rtol=1e-5)
    assert ((both - hidden(model(name))).abs()[MASK.bool()].amax(-1) > 1e-3).all()


def test_the_prefix_of_an_encoder_is_read_in_both_directions_and_moves_the_positions():
    """By hand: three more keys and values in the only layer, and positions that begin after them."""
    bert = BertModel(BertConfig(**SIZE | {"num_hidden_layers": 1})).eval()
    ids = IDS[:1]
    prefixed = adapt(bert, Adapter("prefix", rank=3)).eval()
    output = hidden(prefixed, ids, MASK[:1])
    learned = prefixed.prompt_encoder["default"].embedding.weight.view(3, 2, 2, 8)  # (3, key or value, heads, 8)
    layer = bert.encoder.layer[0]
    x = bert.embeddings(input_ids=ids, position_ids=torch.arange(3, 7)[None])  # (1, 4, 16)
    attention = layer.attention.self
    read = [part(x).view(4, 2, 8) for part in (attention.query, attention.key, attention.value)]
    q, k, v = (part.transpose(0, 1) for part in read)  # (heads, 4, 8)
    k, v = (torch.cat([learned[:, i].transpose(0, 1), part], 1) for i, part in enumerate((k, v)))  # (heads, 7, 8)
    seen = ((q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v).transpose(0, 1).reshape(1, 4, 16)
    inner = layer.attention.output(seen, x)
    assert_close(output, layer.output(layer.intermediate(inner), inner), atol=1e-5, rtol=1e-5)


def test_what_is_adapted_by_default():
    bert = {key for key, _ in adapt(model("bert"), Adapter(rank=1)).named_parameters() if "lora_A" in key}
    assert len(bert) == 2 * 6
    assert not any("pooler" in key for key in bert)  # pooling never asks it: its gradient would be missing
    llama = adapt(model("llama"), Adapter("ia3"))
    scaled = {key.split("layers.0.")[1]: weight.shape for key, weight in llama.named_parameters() if "layers.0" in key}
    scaled = {key.removesuffix(".ia3_l.default"): tuple(shape) for key, shape in scaled.items() if "ia3" in key}
    assert scaled == {"self_attn.k_proj": (8, 1), "self_attn.v_proj": (8, 1), "mlp.down_proj": (1, 32)}


def test_parameters_are_counted_by_the_formula():
    assert parameter_counts(adapt(model("bert"), Adapter(rank=4, targets=("query",))))[0] == 2 * 4 * (16 + 16)
    assert parameter_counts(adapt(model("bert"), Adapter("ia3")))[0] == 2 * (16 + 16 + 32)
    assert parameter_counts(adapt(model("bert"), Adapter("prefix", rank=5)))[0] == 2 * 5 * 2 * 16
    trained, total = parameter_counts(model("bert"))
    assert trained == total


def test_new_weights_come_from_the_seed_and_leave_the_global_state_alone():
    state = torch.get_rng_state()
    first, same, other = (
        next(weight for key, weight in adapt(model("bert"), Adapter(seed=seed)).named_parameters() if "lora_A" in key)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def remaining_ranks(module: nn.Module) -> list[int]:
    return [int((weight != 0).sum()) for key, weight in module.named_parameters() if "lora_E" in key]


def test_adalora_ends_with_the_budget_and_spreads_it_unevenly():
    module = adapt(model("bert"), Adapter("adalora", rank=2, steps=40))
    learn(module, 40)
    ranks = remaining_ranks(module)
    assert sum(ranks) == 2 * len(ranks)
    assert len(set(ranks)) > 1


class Wrapped(nn.Module):
    """The least that the Trainer trains: a loss around an adapted encoder."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.encoder = adapt(model("bert"), adapter)

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        output = hidden(self.encoder, input_ids, torch.ones_like(input_ids))
        return {"loss": (output - 1).square().mean() + 0.1 * orthogonality_penalty(self.encoder)}


def trained(folder: Path, steps: int, resume: bool = False) -> Wrapped:
    wrapped = Wrapped(Adapter("adalora", rank=2, steps=12))
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=2, max_steps=steps, learning_rate=0.01, save_steps=1, report_to="none"
    )
    rows = [{"input_ids": torch.tensor([5, 6, 7])} for _ in range(24)]
    trainer = Trainer(wrapped, arguments, train_dataset=rows, callbacks=[RankAllocation()])
    trainer.train(resume_from_checkpoint=resume)
    return wrapped


def test_the_callback_allocates_ranks_under_the_trainer(tmp_path):
    ranks = remaining_ranks(trained(tmp_path, 12))
    assert sum(ranks) == 2 * len(ranks)


def test_adalora_resumed_after_the_last_cut_keeps_the_ranks_that_it_had(tmp_path):
    ranks = remaining_ranks(trained(tmp_path, 10))
    assert len(set(ranks)) > 1
    assert remaining_ranks(trained(tmp_path, 12, resume=True)) == ranks


def test_the_penalty_is_the_mean_gap_to_orthogonal_factors():
    module = adapt(model("bert"), Adapter("adalora", rank=2, steps=5))
    gaps = []
    for key, weight in module.named_parameters():
        if "lora_A" in key or "lora_B" in key:
            rows = weight if "lora_A" in key else weight.T
            gaps.append((rows @ rows.T - torch.eye(3)).square().sum().sqrt())
    assert_close(orthogonality_penalty(module), torch.stack(gaps).mean())
    assert orthogonality_penalty(adapt(model("bert"), Adapter())) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "dora"}, r"unknown adapter 'dora': choose one of lora, adalora, ia3, prefix"),
        ({"rank": 0}, "rank=0"),
        ({"alpha": 0.0}, "alpha=0"),
        ({"dropout": 1.0}, "dropout=1"),
        ({"targets": "query"}, "one string"),
    ],
)
def test_bad_options_name_the_valid_ones(options, message):
    with pytest.raises(InputError, match=message):
        Adapter(**options)


@pytest.mark.parametrize("kind", ["lora", "adalora", "ia3"])
def test_a_target_that_matches_nothing_names_the_layers(kind):
    with pytest.raises(InputError, match=r"'q_proj' matches no linear layer: .*attention\.self\.query.*output\.dense"):
        adapt(model("bert"), Adapter(kind, targets=("q_proj",), steps=5))


@pytest.mark.parametrize(
    ("change", "adapter", "message"),
    [
        (lambda module: module, Adapter("adalora"), "steps=0"),
        (lambda module: module, Adapter("prefix", targets=("query",)), "no targets"),
        (lambda module: adapt(module, Adapter()), Adapter(), "adapter already"),
        (lambda module: nn.Sequential(nn.Linear(2, 2)), Adapter(), "no linear layer in a list of blocks"),
        (lambda _: model("gpt2"), Adapter("ia3"), "IA³ cannot tell"),
    ],
)
def test_what_cannot_be_adapted_is_said(change, adapter, message):
    with pytest.raises(InputError, match=message):
        adapt(change(model("bert")), adapter)


def test_what_cannot_be_merged_is_said():
    with pytest.raises(InputError, match="prefix cannot be merged"):
        merge(adapt(model("bert"), Adapter("prefix")))
    with pytest.raises(InputError, match="no adapter to merge"):
        merge(model("bert"))
