"""A language encoder gives the same vector to a text whatever its neighbours, batch, padding or cache."""

import pytest
import torch
from torch.testing import assert_close
from transformers import BertConfig, BertModel, LlamaModel

from recsys_cl import assets
from recsys_cl.errors import InputError
from recsys_cl.text.backbone import Backbone
from recsys_cl.text.encoder import LanguageEncoder
from recsys_cl.text.tokens import POOLINGS

TEXTS = [
    "a film about toys",
    "",
    "war",
    "the space drama and the war of the toys",
    "tax law",
    "war",
    "a film",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


def forbid_running(monkeypatch):
    monkeypatch.setattr(Backbone, "module", property(lambda _: pytest.fail("the model was run")))


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_equal_those_of_each_text_alone(kind, pooling, folders, tokenizer):
    encoder = LanguageEncoder(folders[kind], pooling=pooling, normalize=False, cache=False, device="cpu")
    model = (BertModel if kind == "bert" else LlamaModel).from_pretrained(folders[kind]).eval()
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dim)
    assert vectors.dtype == torch.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        end = [2] if (kind, pooling) == ("llama", "last") else []  # this tokenizer does not end a text by itself
        ids = torch.tensor([tokenizer(kind)(text)["input_ids"] + end or [2]])  # no token: padding takes its place
        with torch.no_grad():
            hidden = model(input_ids=ids).last_hidden_state
        assert_close(vector, POOLINGS[pooling](hidden, torch.ones_like(ids))[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_batch_size_and_order_do_not_matter(kind, folders):
    vectors = LanguageEncoder(folders[kind], cache=False, device="cpu").encode(TEXTS)
    order = torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(1)).tolist()
    for tokens in (1, 7, 12):
        encoder = LanguageEncoder(folders[kind], batch_tokens=tokens, cache=False, device="cpu")
        assert_close(encoder.encode([TEXTS[row] for row in order]), vectors[order], atol=1e-5, rtol=0)


def test_left_padding_by_the_tokenizer_does_not_matter(folders, tmp_path, tokenizer):
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
    with pytest.warns(UserWarning, match="2 of 3 texts are longer than 4 tokens and were cut; the longest has 7"):
        vectors = encoder.encode(["war space tax law", "war space film film film", "war space"])
    assert_close(vectors[0], vectors[1])
    assert_close(vectors[0], vectors[2])  # [CLS] war space [SEP]: the ends of a text stay
    whole = LanguageEncoder(folders["bert"], max_length=10_000, cache=False, device="cpu")
    assert whole.max_length == 32
    with pytest.warns(UserWarning, match="1 of 1 texts is longer than 32 tokens and was cut"):
        assert whole.encode(["war " * 100]).isfinite().all()


def test_a_decoder_reads_the_end_of_a_text_also_where_it_is_cut(folders):
    encoder = LanguageEncoder(folders["llama"], pooling="last", max_length=3, cache=False, device="cpu")
    with pytest.warns(UserWarning, match="1 of 2 texts"):
        assert encoder.tokenize(["war space tax law", "war"])[0].tolist() == [[8, 9, 2], [8, 2, 2]]


def test_a_tokenizer_that_ends_texts_by_itself_is_left_alone(folders):
    ids, _ = LanguageEncoder(folders["bert"], pooling="last", device="cpu").tokenize(["war"])
    assert ids.tolist() == [[2, 9, 3]]


def test_second_call_reads_the_disk_and_does_not_run_the_model(folders, cache, monkeypatch):
    vectors = LanguageEncoder(folders["bert"], device="cpu").encode(TEXTS)
    assert len(list(cache.iterdir())) == 1
    forbid_running(monkeypatch)
    again = LanguageEncoder(folders["bert"], device="cpu", batch_tokens=1).encode(TEXTS[::-1])
    assert torch.equal(again.flip(0), vectors)


@pytest.mark.filterwarnings("ignore:.*tokens and was cut")
def test_every_option_that_changes_a_vector_changes_the_key(folders, cache):
    for kind in folders:
        for options in ({}, {"pooling": "cls"}, {"normalize": False}, {"max_length": 3}):
            LanguageEncoder(folders[kind], device="cpu", **options).encode(["a film about toys"])
    LanguageEncoder(folders["bert"], device="cpu").encode(["a film about", "toys"])
    assert len(list(cache.iterdir())) == 9


def test_a_folder_with_new_weights_is_another_model(folders, tmp_path, tokenizer):
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "mean, cls, last"),
        ({"batch_tokens": 0}, "batch_tokens=0"),
        ({"precision": "int8"}, "auto, float32, bfloat16"),
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


def test_the_texts_of_a_batch_are_encoded_once_each_and_their_gradients_add_up(folders, monkeypatch):
    encoder = LanguageEncoder(folders["bert"], device="cpu", batch_tokens=8)
    texts = ["war", "a film about toys", "war", "tax law", "war"]
    weights = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    seen = []
    embed = encoder.embed
    monkeypatch.setattr(encoder, "embed", lambda ids, mask: seen.append(ids.numel()) or embed(ids, mask))
    (encoder.embed_unique(texts) * weights).sum().backward()
    assert sum(seen) == 6 + 2 * 4  # the two shorter ones share a batch
    once = {name: weight.grad for name, weight in encoder.model.named_parameters() if weight.grad is not None}
    encoder.model.zero_grad()
    (embed(*encoder.tokenize(texts)) * weights).sum().backward()
    for name, weight in encoder.model.named_parameters():
        if weight.grad is not None:
            assert_close(once[name], weight.grad, atol=1e-4, rtol=1e-4)
    assert_close(encoder.embed_unique(texts).detach(), encoder.encode(texts), atol=1e-5, rtol=0)


def test_a_text_is_tokenised_once_in_a_run(folders, monkeypatch):
    encoder = LanguageEncoder(folders["bert"], device="cpu")
    first = encoder.embed_unique(["war", "toys"])
    monkeypatch.setattr(encoder, "_tokens", encoder._tokens)
    read = []
    call = type(encoder._tokens).__call__
    monkeypatch.setattr(type(encoder._tokens), "__call__", lambda self, texts: read.extend(texts) or call(self, texts))
    assert_close(encoder.embed_unique(["toys", "tax", "war"])[[2, 0]], first)
    assert read == ["tax"]


def test_bad_batches_are_said(folders):
    encoder = LanguageEncoder(folders["bert"])
    with pytest.raises(InputError, match="no texts"):
        encoder.embed_unique([])
    with pytest.raises(InputError, match="one string"):
        encoder.embed_unique("war")


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_checkpointing_changes_no_gradient(kind, folders):
    gradients = []
    for checkpointing in (False, True):
        encoder = LanguageEncoder(folders[kind], device="cpu", checkpointing=checkpointing)
        encoder.model.train()
        torch.manual_seed(0)  # dropout is on: what is computed again has to drop the same
        encoder.embed_unique(TEXTS).square().sum(0)[0].backward()
        gradients.append([weight.grad for weight in encoder.model.parameters() if weight.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        assert_close(plain, again)


def test_checkpointing_keeps_less_for_the_backward_pass(folders):
    kept = []
    for checkpointing in (False, True):
        encoder = LanguageEncoder(folders["bert"], device="cpu", checkpointing=checkpointing)
        encoder.model.train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            encoder.embed_unique(TEXTS)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_bfloat16_is_near_and_not_the_same(folders):
    full, auto, half = (
        LanguageEncoder(folders["bert"], device="cpu", precision=precision, cache=False).encode(TEXTS)
        for precision in ("float32", "auto", "bfloat16")
    )
    assert torch.equal(full, auto)
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert_close(half, full, atol=0.05, rtol=0)


def test_emoji_and_chinese_are_texts_like_others(folders):
    vectors = LanguageEncoder(folders["bert"], cache=False, device="cpu").encode(["🚀🚀", "太空战争", "war"])
    assert_close(vectors.norm(dim=1), torch.ones(3))
