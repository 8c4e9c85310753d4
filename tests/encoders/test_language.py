"""A language encoder gives the same vector to a text whatever its neighbours, batch, padding or cache."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.testing import assert_close
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from recsys_cl import assets
from recsys_cl.encoders.language import LanguageEncoder, cls_pool, last_token_pool, mean_pool
from recsys_cl.errors import InputError

WORDS = ["a", "the", "film", "about", "toys", "war", "space", "drama", "tax", "law", "of", "and"]
TEXTS = [
    "a film about toys",
    "",
    "war",
    "the space drama and the war of the toys",
    "tax law",
    "war",
    "a film",
]
POOLS = {"mean": mean_pool, "cls": cls_pool, "last": last_token_pool}


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if kind == "bert" else ["<unk>", "<s>", "</s>"]
    vocabulary = {token: row for row, token in enumerate(special + WORDS)}
    base = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1] if kind == "bert" else special[0]))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind == "bert":
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        base.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:  # like many decoders: nothing is added to the text, and there is no padding token
        names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=base, model_max_length=32, **names)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A random BERT and a random Llama, each with its tokenizer, as folders."""
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"vocab_size": 16, "max_position_embeddings": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = {
            "bert": BertModel(BertConfig(**size, initializer_range=0.5)),
            "llama": LlamaModel(LlamaConfig(**size, num_key_value_heads=2, initializer_range=0.5)),
        }
    made = {}
    for kind, model in built.items():
        made[kind] = tmp_path_factory.mktemp("models") / kind
        model.save_pretrained(made[kind])
        tokenizer(kind).save_pretrained(made[kind])
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


def forbid_running(monkeypatch):
    monkeypatch.setattr(LanguageEncoder, "_loaded", lambda _: pytest.fail("the model was run"))


masks = st.integers(1, 6).flatmap(
    lambda width: st.lists(st.tuples(st.integers(1, width), st.booleans()), min_size=1, max_size=4).map(
        lambda rows: [[1] * n + [0] * (width - n) if right else [0] * (width - n) + [1] * n for n, right in rows]
    )
)


@given(masks, st.integers(0, 2**31))
@settings(deadline=None)
def test_pooling_matches_a_loop_under_right_and_left_padding(rows, seed):
    mask = torch.tensor(rows)
    hidden = torch.randn(*mask.shape, 3, generator=torch.Generator().manual_seed(seed))
    hidden[mask == 0] = float("nan")  # whatever stands in the padding must not matter
    tokens = [[hidden[b, t] for t in range(mask.shape[1]) if mask[b, t]] for b in range(len(mask))]
    assert_close(mean_pool(hidden, mask), torch.stack([sum(row) / len(row) for row in tokens]))
    assert_close(cls_pool(hidden, mask), torch.stack([row[0] for row in tokens]))
    assert_close(last_token_pool(hidden, mask), torch.stack([row[-1] for row in tokens]))


def test_mean_of_no_token_is_zero_and_not_nan():
    assert_close(mean_pool(torch.ones(1, 2, 3), torch.zeros(1, 2)), torch.zeros(1, 3))


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_equal_those_of_each_text_alone(kind, pooling, folders):
    encoder = LanguageEncoder(folders[kind], pooling=pooling, normalize=False, cache=False, device="cpu")
    model = (BertModel if kind == "bert" else LlamaModel).from_pretrained(folders[kind]).eval()
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dim)
    assert vectors.dtype == torch.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = torch.tensor([tokenizer(kind)(text)["input_ids"] or [2]])  # Llama: '' becomes its padding token
        with torch.no_grad():
            hidden = model(input_ids=ids).last_hidden_state
        assert_close(vector, POOLS[pooling](hidden, torch.ones_like(ids))[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_batch_size_and_order_do_not_matter(kind, folders):
    vectors = LanguageEncoder(folders[kind], cache=False, device="cpu").encode(TEXTS)
    order = torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(1)).tolist()
    for size in (1, 2, 3):
        encoder = LanguageEncoder(folders[kind], batch_size=size, cache=False, device="cpu")
        assert_close(encoder.encode([TEXTS[row] for row in order]), vectors[order], atol=1e-5, rtol=0)


def test_left_padding_by_the_tokenizer_does_not_matter(folders, tmp_path):
    left = tmp_path / "left"
    LlamaModel.from_pretrained(folders["llama"]).save_pretrained(left)
    padded = tokenizer("llama")
    padded.padding_side = "left"
    padded.save_pretrained(left)
    expected = LanguageEncoder(folders["llama"], pooling="last", cache=False, device="cpu").encode(TEXTS)
    assert_close(LanguageEncoder(left, pooling="last", cache=False, device="cpu").encode(TEXTS), expected)


def test_normalised_vectors_have_unit_length(folders):
    vectors = LanguageEncoder(folders["llama"], cache=False, device="cpu").encode(TEXTS)
    assert_close(vectors.norm(dim=1), torch.ones(len(TEXTS)))


def test_no_texts_give_no_rows_and_load_nothing(folders, monkeypatch):
    forbid_running(monkeypatch)
    assert LanguageEncoder(folders["bert"]).encode([]).shape == (0, 16)


def test_equal_texts_are_computed_once(folders, monkeypatch):
    encoder = LanguageEncoder(folders["bert"], cache=False, device="cpu")
    seen = []
    embed = encoder.embed
    monkeypatch.setattr(encoder, "embed", lambda ids, mask: seen.append(len(ids)) or embed(ids, mask))
    vectors = encoder.encode(["war"] * 50 + ["toys"])
    assert sum(seen) == 2
    assert_close(vectors[0], vectors[49])


def test_long_texts_are_cut_at_max_length_and_at_the_limit_of_the_model(folders):
    encoder = LanguageEncoder(folders["bert"], max_length=4, cache=False, device="cpu")
    assert_close(encoder.encode(["war space tax law"]), encoder.encode(["war space film film film"]))
    whole = LanguageEncoder(folders["bert"], max_length=10_000, cache=False, device="cpu")
    assert whole.max_length == 32
    assert whole.encode(["war " * 100]).isfinite().all()


def test_second_call_reads_the_disk_and_does_not_run_the_model(folders, cache, monkeypatch):
    vectors = LanguageEncoder(folders["bert"], device="cpu").encode(TEXTS)
    assert len(list(cache.iterdir())) == 1
    forbid_running(monkeypatch)
    again = LanguageEncoder(folders["bert"], device="cpu", batch_size=1).encode(TEXTS[::-1])
    assert torch.equal(again.flip(0), vectors)


def test_every_option_that_changes_a_vector_changes_the_key(folders, cache):
    for kind in folders:
        for options in ({}, {"pooling": "cls"}, {"normalize": False}, {"max_length": 3}):
            LanguageEncoder(folders[kind], device="cpu", **options).encode(["a film about toys"])
    LanguageEncoder(folders["bert"], device="cpu").encode(["a film about", "toys"])
    assert len(list(cache.iterdir())) == 9


def test_a_folder_with_new_weights_is_another_model(folders, tmp_path):
    torch.manual_seed(2)
    folder = tmp_path / "model"
    tokenizer("bert").save_pretrained(folder)
    config = BertConfig.from_pretrained(folders["bert"])
    results = []
    for _ in range(2):
        BertModel(config).save_pretrained(folder)
        results.append(LanguageEncoder(folder, device="cpu").encode(["war"]))
    assert not torch.allclose(*results)


@pytest.mark.parametrize("how", ["garbage", "truncated", "flipped bit"])
def test_damaged_cache_file_is_ignored_with_a_warning_and_repaired(how, folders, cache, monkeypatch):
    vectors = LanguageEncoder(folders["bert"], device="cpu").encode(TEXTS)
    (file,) = cache.iterdir()
    data = bytearray(file.read_bytes())
    data[-3] ^= 64
    file.write_bytes({"garbage": b"garbage", "truncated": bytes(data[:-50]), "flipped bit": bytes(data)}[how])
    with pytest.warns(UserWarning, match="damaged embedding cache"):
        assert_close(LanguageEncoder(folders["bert"], device="cpu").encode(TEXTS), vectors)
    forbid_running(monkeypatch)
    assert_close(LanguageEncoder(folders["bert"], device="cpu").encode(TEXTS), vectors)


def test_cache_that_cannot_be_written_costs_a_warning_only(folders, cache):
    cache.parent.mkdir()
    cache.write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot cache embeddings"):
        assert LanguageEncoder(folders["bert"], device="cpu").encode(["war"]).shape == (1, 16)


def test_trained_weights_never_meet_the_cache(folders, cache):
    encoder = LanguageEncoder(folders["bert"], device="cpu")
    before = encoder.encode(["war"])
    files = {file: file.read_bytes() for file in cache.iterdir()}
    with torch.no_grad():
        for weight in encoder.model.parameters():
            weight.data.mul_(0.5)
    assert not torch.allclose(encoder.encode(["war"]), before)
    assert {file: file.read_bytes() for file in cache.iterdir()} == files
    assert torch.equal(LanguageEncoder(folders["bert"], device="cpu").encode(["war"]), before)


def test_embed_has_a_gradient_and_agrees_with_encode(folders):
    encoder = LanguageEncoder(folders["bert"], cache=False, device="cpu")
    vectors = encoder.embed(*encoder.tokenize(TEXTS))
    vectors.sum().backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in encoder.model.parameters())
    assert_close(vectors.detach(), encoder.encode(TEXTS), atol=1e-5, rtol=0)


def test_encode_leaves_the_training_mode_as_it_was_and_uses_no_dropout(folders):
    encoder = LanguageEncoder(folders["bert"], cache=False, device="cpu")
    encoder.model.train()
    assert_close(encoder.encode(TEXTS), encoder.encode(TEXTS))
    assert encoder.model.training


def test_pickled_weights_are_refused(folders, tmp_path):
    folder = tmp_path / "pickled"
    tokenizer("bert").save_pretrained(folder)
    (folder / "config.json").write_text((folders["bert"] / "config.json").read_text())
    torch.save(BertModel.from_pretrained(folders["bert"]).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        LanguageEncoder(folder, device="cpu").encode(["war"])


def test_remote_code_is_refused(folders, tmp_path):
    folder = tmp_path / "remote"
    tokenizer("bert").save_pretrained(folder)
    config = json.loads((folders["bert"] / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('executed')")
    with pytest.raises(InputError, match="cannot load model"):
        LanguageEncoder(folder)


@pytest.mark.parametrize("model", ["no/such/model", "./nowhere", "ml-100k", "what is this?"])
def test_unknown_model_is_one_line(model):
    with pytest.raises(InputError, match=r"unknown model.*minilm.*folder.*hub") as caught:
        LanguageEncoder(model)
    assert "\n" not in str(caught.value)


def test_hub_name_that_cannot_be_had_is_one_line(monkeypatch):
    monkeypatch.setenv("RECSYS_CL_OFFLINE", "1")
    with pytest.raises(InputError, match=r"cannot load model 'nobody/nothing-at-all'") as caught:
        LanguageEncoder("nobody/nothing-at-all")
    assert "\n" not in str(caught.value)


def test_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot load model") as caught:
        LanguageEncoder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "mean, cls, last"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_length": 0}, "max_length=0"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_bad_options_name_the_valid_ones(options, message, folders):
    with pytest.raises(InputError, match=message):
        LanguageEncoder(folders["bert"], **options)


def test_bad_texts_name_the_row(folders):
    encoder = LanguageEncoder(folders["bert"])
    with pytest.raises(InputError, match="one string"):
        encoder.encode("war")
    with pytest.raises(InputError, match=r"text 1 is None \(NoneType\)"):
        encoder.encode(["war", None])


@pytest.mark.network
def test_minilm_puts_similar_sentences_together(monkeypatch):
    monkeypatch.delenv("RECSYS_CL_CACHE")
    assets.fetch("minilm")
    encoder = LanguageEncoder("minilm", cache=False, device="cpu")
    texts = ["A cowboy doll and a space ranger", "A film about toys that come alive", "Reform of the tax law"]
    vectors = encoder.encode(texts)
    assert (encoder.name, encoder.dim) == ("minilm", 384)
    assert_close(vectors.norm(dim=1), torch.ones(3))
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > similarity[0, 2] + 0.1
    assert similarity[0, 1] > similarity[1, 2] + 0.1
