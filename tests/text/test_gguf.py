"""A GGUF file becomes, once, a folder of the same weights that can be loaded, trained and saved."""

import json

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from recsys_cl.errors import InputError
from recsys_cl.text.gguf import safetensors_folder

DIM, HIDDEN, LAYERS, HEADS, CONTEXT = 64, 96, 2, 2, 32
TOKENS = ["<end>", "<start>", *[chr(letter) for letter in range(ord("a"), ord("z") + 1)], "Ġ", "th", "the"]
TEMPLATE = "{% for m in messages %}<start>{{ m['content'] }}{% endfor %}"


def weights() -> dict[str, np.ndarray]:
    """A random Llama under the names that GGUF uses, tied to its embeddings."""
    rng = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(TOKENS), DIM), "output_norm.weight": (DIM,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (DIM,),
            f"blk.{layer}.ffn_norm.weight": (DIM,),
            f"blk.{layer}.attn_output.weight": (DIM, DIM),
            f"blk.{layer}.ffn_gate.weight": (HIDDEN, DIM),
            f"blk.{layer}.ffn_up.weight": (HIDDEN, DIM),
            f"blk.{layer}.ffn_down.weight": (DIM, HIDDEN),
        }
        shapes |= {f"blk.{layer}.attn_{name}.weight": (DIM, DIM) for name in "qkv"}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(file, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Matrices in Q4_1, vectors as they are; returns what the file stands for."""
    writer = GGUFWriter(str(file), "llama")
    writer.add_name("toy")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(DIM // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template(TEMPLATE)
    kind = GGMLQuantizationType.Q4_1
    meant = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
            meant[name] = tensor
        else:
            packed = gguf.quantize(tensor, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            meant[name] = gguf.dequantize(packed, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


@pytest.fixture
def toy(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    return folder, write_gguf(folder / "toy.gguf", weights())


def test_weights_are_exactly_what_the_file_stands_for(toy):
    folder, meant = toy
    state = load_file(safetensors_folder(folder) / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert_close(
        state["model.embed_tokens.weight"], torch.from_numpy(meant["token_embd.weight"].copy()), rtol=0, atol=0
    )
    for gguf_name, name in (("ffn_down", "mlp.down_proj"), ("attn_v", "self_attn.v_proj")):
        expected = torch.from_numpy(meant[f"blk.1.{gguf_name}.weight"].copy())
        assert_close(state[f"model.layers.1.{name}.weight"], expected, rtol=0, atol=0)


def test_converted_model_is_the_one_that_transformers_opens_and_nothing_marks_it_as_quantised(toy, tmp_path):
    folder, _ = toy
    converted = safetensors_folder(folder)
    ids = torch.tensor([[1, 5, 9, 3]])
    model = AutoModelForCausalLM.from_pretrained(converted, use_safetensors=True)
    opened = AutoModelForCausalLM.from_pretrained(folder, gguf_file="toy.gguf", dtype=torch.float32)
    with torch.no_grad():
        assert_close(model(ids).logits, opened(ids).logits)
    assert "quantization_config" not in json.loads((converted / "config.json").read_text())
    model.double().save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").is_file()


def test_tokenizer_and_chat_template_come_along(toy):
    tokenizer = AutoTokenizer.from_pretrained(safetensors_folder(toy[0]))
    assert tokenizer.tokenize("the") == ["the"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<start>", "<end>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<start>a"


def test_second_call_reads_what_the_first_has_written(toy, cache):
    first = safetensors_folder(toy[0])
    before = (first / "model.safetensors").stat().st_mtime_ns
    assert safetensors_folder(toy[0] / "toy.gguf") == first
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".")] == [first.name]


def test_another_content_under_the_same_name_is_another_folder(toy):
    folder, _ = toy
    first = safetensors_folder(folder)
    changed = weights()
    changed["output_norm.weight"] += 1
    write_gguf(folder / "toy.gguf", changed)
    second = safetensors_folder(folder)
    assert second != first
    assert_close(
        load_file(second / "model.safetensors")["model.norm.weight"],
        load_file(first / "model.safetensors")["model.norm.weight"] + 1,
    )


def test_damaged_conversion_is_made_again_with_a_warning(toy):
    file = safetensors_folder(toy[0]) / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.warns(UserWarning, match="damaged"):
        safetensors_folder(toy[0])
    assert file.read_bytes() == whole


def test_interrupted_conversion_leaves_nothing_visible(toy, cache, monkeypatch):
    monkeypatch.setattr("recsys_cl.text.gguf._save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        safetensors_folder(toy[0])
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_leftovers_of_a_killed_process_are_removed(toy, cache):
    name = safetensors_folder(toy[0]).name
    (cache / name).rename(cache / f".{name}@killed")
    safetensors_folder(toy[0])
    assert {path.name for path in cache.iterdir()} == {name, f".{name}.lock"}


def test_folder_without_gguf_or_with_safetensors_is_returned_as_it_is(toy, tmp_path, cache):
    (tmp_path / "empty").mkdir()
    assert safetensors_folder(tmp_path / "empty") == tmp_path / "empty"
    (toy[0] / "model.safetensors").write_bytes(b"")
    assert safetensors_folder(toy[0]) == toy[0]
    assert not cache.exists()


def test_several_files_are_named(toy):
    (toy[0] / "other.gguf").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 GGUF files \(other\.gguf, toy\.gguf\); give one"):
        safetensors_folder(toy[0])


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model" * 100])
def test_unreadable_file_is_one_line(content, tmp_path, cache):
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*bad\.gguf") as caught:
        safetensors_folder(tmp_path / "bad.gguf")
    assert "\n" not in str(caught.value)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
