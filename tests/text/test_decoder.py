"""A language model's numbers are those of the plain computation, whatever is shared, padded or batched."""

import json
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.testing import assert_close
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recsys_cl.errors import InputError
from recsys_cl.text.decoder import LanguageModel
from recsys_cl.text.decoding import continuation_log_likelihood, sample_token

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}:{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
PROMPT = "i saw that"
CONTINUATIONS = [" hat", " that cat sat", " a", " ten hats"]


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Bytes, and the merges that make "that" one token where "th" + "at" would be two."""
    merges = [("t", "h"), ("a", "t"), ("th", "at"), ("Ġ", "that"), ("h", "at")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: row for row, token in enumerate(["<s>", "</s>", *alphabet, *map("".join, merges)])}
    base = Tokenizer(models.BPE(vocabulary, merges))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=base, **({"bos_token": "<s>", "eos_token": "</s>"} | special))
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A random Llama without a pad token."""
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        **size,
        num_key_value_heads=1,
        vocab_size=263,
        max_position_embeddings=64,
        initializer_range=0.6,
        bos_token_id=0,
        eos_token_id=1,
    )
    made = tmp_path_factory.mktemp("decoder") / "llama"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(made)
    tokenizer().save_pretrained(made)
    return made


@pytest.fixture(scope="session")
def model(folder):
    return LanguageModel(folder, device="cpu")


def plain_log_likelihood(model: LanguageModel, ids: list[int], first: int) -> float:
    """One token after the other, each from a full forward pass over everything before it."""
    total = 0.0
    for place in range(first, len(ids)):
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([ids[:place]])).logits[0, -1]
        total += float(logits.log_softmax(0)[ids[place]])
    return total


def test_log_likelihood_is_that_of_the_plain_computation(model):
    log_prob, tokens = model.log_likelihood(PROMPT, CONTINUATIONS)
    prompt = model.tokenizer(PROMPT)["input_ids"]
    for row, continuation in enumerate(CONTINUATIONS):
        ids = model.tokenizer(PROMPT + continuation)["input_ids"]
        assert ids[: len(prompt)] == prompt
        assert int(tokens[row]) == len(ids) - len(prompt)
        expected = plain_log_likelihood(model, [0, *ids], 1 + len(prompt))
        assert float(log_prob[row]) == pytest.approx(expected, abs=1e-4)


def test_other_continuations_and_batches_do_not_matter(model, monkeypatch):
    whole, _ = model.log_likelihood(PROMPT, CONTINUATIONS)
    monkeypatch.setattr("recsys_cl.text.decoder.SCORED_AT_ONCE", 1)
    one_by_one, _ = model.log_likelihood(PROMPT, CONTINUATIONS)
    assert_close(one_by_one, whole, atol=1e-5, rtol=0)
    alone, _ = model.log_likelihood(PROMPT, CONTINUATIONS[2:3])
    assert_close(alone, whole[2:3], atol=1e-5, rtol=0)


def test_prompt_that_merges_with_a_continuation_is_scored_from_where_the_texts_part(model):
    """ "at" after "th" is the one token "that": neither text has a boundary behind "th"."""
    assert model.tokenizer.tokenize("that") == ["that"]
    log_prob, tokens = model.log_likelihood("th", ["at", "e"])
    assert tokens.tolist() == [1, 2]  # "that" against "th", "e": the start of the text is all that they share
    for row, text in enumerate(("that", "the")):
        ids = model.tokenizer(text)["input_ids"]
        assert float(log_prob[row]) == pytest.approx(plain_log_likelihood(model, [0, *ids], 1), abs=1e-4)


def test_probabilities_of_all_next_tokens_add_up_to_one(model):
    letters = [token for token in model.tokenizer.get_vocab() if token not in {"<s>", "</s>"}]
    ids = model.tokenizer.convert_tokens_to_ids(letters)
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([[0, *model.tokenizer("x")["input_ids"]]])).logits[0, -1]
    log_prob, _ = model.log_likelihood("x", ["y", "z"])
    expected = logits.log_softmax(0)
    assert_close(log_prob, expected[[ids[letters.index("y")], ids[letters.index("z")]]], atol=1e-5, rtol=0)


def test_empty_prompt_begins_with_the_start_token(model):
    log_prob, tokens = model.log_likelihood("", ["that", "hat"])
    assert tokens.tolist() == [1, 1]
    ids = model.tokenizer("that")["input_ids"]
    assert float(log_prob[0]) == pytest.approx(plain_log_likelihood(model, [0, *ids], 1), abs=1e-4)


def test_a_tokenizer_that_starts_texts_itself_gets_no_second_start(folder, tmp_path, model):
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    starting = tokenizer()
    starting.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    assert starting("that")["input_ids"][0] == 0
    starting.save_pretrained(tmp_path)
    assert_close(LanguageModel(tmp_path, device="cpu").perplexity(["that cat"]), model.perplexity(["that cat"]))


def test_perplexity_is_the_exponential_of_the_mean_surprise(model):
    texts = ["that cat", "a", "ten hats sat"]
    log_prob, tokens = model.log_likelihood("", texts)
    assert_close(model.perplexity(texts), (-log_prob / tokens).exp())
    assert model.perplexity([]).shape == (0,)


def test_no_continuations_give_no_rows(model):
    log_prob, tokens = model.log_likelihood(PROMPT, [])
    assert log_prob.shape == tokens.shape == (0,)


def test_chat_fills_the_template(model):
    assert model.chat("hi") == "<s>user:hi</s><s>assistant:"
    assert model.chat("hi", system="be kind") == "<s>system:be kind</s><s>user:hi</s><s>assistant:"
    assert model._ids(model.chat("hi"))[:2] == [0, model.tokenizer("u")["input_ids"][0]]


def greedy(model: LanguageModel, prompt: str, steps: int) -> list[int]:
    ids = [0, *model.tokenizer(prompt)["input_ids"]]
    written = []
    for _ in range(steps):
        with torch.no_grad():
            written.append(int(model.model(input_ids=torch.tensor([ids + written])).logits[0, -1].argmax()))
        if written[-1] == 1:
            break
    return written


def test_generation_is_the_plain_greedy_loop_under_any_padding(model):
    prompts = ["that", "a cat sat on that hat", ""]
    for prompt, one in zip(prompts, model.generate(prompts, max_new_tokens=12), strict=True):
        expected = greedy(model, prompt, 12)
        stopped = expected[-1] == 1
        assert one.text == model.tokenizer.decode(expected, skip_special_tokens=True)
        assert one.tokens == len(expected) - stopped
        assert one.finished == ("stop" if stopped else "length")


def test_generation_ends_at_the_stop_token(folder, model):
    """The most likely first token is made the one that stops."""
    stopping = LanguageModel(folder, device="cpu")
    stopping._stops = greedy(model, "that", 1)
    (one,) = stopping.generate(["that"], max_new_tokens=5)
    assert (one.text, one.tokens, one.finished) == ("", 0, "stop")


def test_sampling_is_a_function_of_seed_and_place_only(model):
    prompts = ["that", "a cat sat", "hat", "that"]
    options = {"temperature": 1.5, "max_new_tokens": 10}
    torch.manual_seed(1)
    first = model.generate(prompts, seed=3, **options)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert model.generate(prompts, seed=3, **options) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert model.generate(prompts[:2], seed=3, **options) == first[:2]
    assert model.generate(prompts, seed=4, **options) != first
    assert first[0] != first[3]


def test_batch_size_does_not_matter(folder, model):
    prompts = ["that", "a cat sat", "hat", "ten"]
    single = LanguageModel(folder, device="cpu", batch_size=1)
    options = {"temperature": 1.0, "max_new_tokens": 8}
    assert single.generate(prompts, **options) == model.generate(prompts, **options)


def test_timeout_returns_what_was_written(model, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("recsys_cl.text.decoder.time.monotonic", lambda: float(next(clock)))
    model_stops, model._stops = model._stops, []
    try:
        (one,) = model.generate(["that"], max_new_tokens=50, timeout=3.5)
        (late,) = model.generate(["that"], max_new_tokens=50, timeout=0.5)
    finally:
        model._stops = model_stops
    assert (one.tokens, one.finished) == (3, "timeout")
    assert (late.text, late.tokens, late.finished) == ("", 0, "timeout")


def test_long_prompts_lose_their_beginning_with_one_counted_warning(model):
    long = "b" * 100
    with pytest.warns(UserWarning, match=r"1 of 2 prompts are longer than 60 tokens .* longest has 105") as caught:
        whole = model.generate([long + "a cat", "a"], max_new_tokens=4)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="1 of 1"):
        assert model.generate(["xyz" + long + "a cat"], max_new_tokens=4) == whole[:1]
    with pytest.warns(UserWarning, match="1 of 1"):
        model.log_likelihood(long, [" a"])


def test_long_text_is_cut_for_perplexity_and_refused_as_a_continuation(model):
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than 64 tokens and were cut; the longest has 101"):
        cut = model.perplexity(["b" * 100, "cat"])
    assert_close(cut[:1], model.perplexity(["b" * 63]))
    with pytest.raises(InputError, match=r"continuation 1 has 100 tokens; the context .* holds 64"):
        model.log_likelihood("a", ["a", "b" * 100])


def test_max_length_is_at_most_the_models_own(folder):
    assert LanguageModel(folder, device="cpu", max_length=10_000).max_length == 64
    assert LanguageModel(folder, device="cpu", max_length=20).max_length == 20


def test_bfloat16_is_close(folder, model):
    half = LanguageModel(folder, device="cpu", precision="bfloat16")
    assert {weight.dtype for weight in half.model.parameters()} == {torch.bfloat16}
    log_prob, _ = half.log_likelihood(PROMPT, CONTINUATIONS)
    assert log_prob.dtype == torch.float32
    assert_close(log_prob, model.log_likelihood(PROMPT, CONTINUATIONS)[0], atol=0.5, rtol=0.05)


def test_continuation_log_likelihood_ignores_padding_even_where_it_is_not_finite():
    logits = torch.log(torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]))
    logits[0, 1] = float("nan")
    value = continuation_log_likelihood(logits, torch.tensor([[1, 0]]), torch.tensor([[1, 0]]))
    assert float(value) == pytest.approx(math.log(0.75))


def test_a_large_vocabulary_costs_no_precision():
    logits = 5 * torch.randn(2, 3, 50_000, generator=torch.Generator().manual_seed(0))
    ids, mask = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.ones(2, 3)
    expected = logits.double().log_softmax(2).gather(2, ids[..., None])[..., 0].sum(1)
    assert_close(continuation_log_likelihood(logits, ids, mask).double(), expected, atol=5e-5, rtol=0)


def test_sampling_follows_the_probabilities():
    p = torch.tensor([0.1, 0.6, 0.3])
    u = (torch.arange(1000) + 0.5) / 1000
    drawn = sample_token(p.log().expand(1000, 3), u, temperature=1.0, top_p=1.0)
    assert_close(torch.bincount(drawn, minlength=3) / 1000, p, atol=2e-3, rtol=0)
    colder = sample_token(p.log().expand(1000, 3), u, temperature=0.5, top_p=1.0)
    assert_close(torch.bincount(colder, minlength=3) / 1000, p**2 / (p**2).sum(), atol=2e-3, rtol=0)
    nucleus = sample_token(p.log().expand(1000, 3), u, temperature=1.0, top_p=0.85)
    assert_close(torch.bincount(nucleus, minlength=3) / 1000, torch.tensor([0, 2 / 3, 1 / 3]), atol=2e-3, rtol=0)


def test_temperature_zero_takes_the_most_likely_token():
    assert sample_token(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([0.99]), temperature=0.0, top_p=1.0).item() == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate("one string"), "prompts is one string"),
        (lambda m: m.generate(["a", None]), r"prompts\[1\] is None"),
        (lambda m: m.generate(["a"], max_new_tokens=0), r"max_new_tokens=0; give 1 to 63"),
        (lambda m: m.generate(["a"], max_new_tokens=64), r"max_new_tokens=64; give 1 to 63"),
        (lambda m: m.generate(["a"], max_new_tokens=4, temperature=-1), "temperature=-1"),
        (lambda m: m.generate(["a"], max_new_tokens=4, top_p=0), "top_p=0"),
        (lambda m: m.log_likelihood("a", ["b", ""]), "continuation 1 is empty"),
        (lambda m: m.log_likelihood("", [""]), "continuation 0 is empty"),
        (lambda m: m.log_likelihood("a", "b"), "continuations is one string"),
        (lambda m: m.perplexity(["a", ""]), "text 1 is empty"),
    ],
)
def test_bad_calls_say_what_is_valid(call, message, model):
    with pytest.raises(InputError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 1}, "max_length=1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"precision": "int4"}, "auto, float32, bfloat16"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_bad_options_name_the_valid_ones(options, message, folder):
    with pytest.raises(InputError, match=message):
        LanguageModel(folder, **options)


@pytest.mark.parametrize("name", ["./nowhere", "ml-100k", "what is this?"])
def test_unknown_model_is_one_line(name):
    with pytest.raises(InputError, match="unknown model") as caught:
        LanguageModel(name)
    assert "\n" not in str(caught.value)


def test_hub_name_that_cannot_be_had_is_one_line(monkeypatch):
    monkeypatch.setenv("RECSYS_CL_OFFLINE", "1")
    with pytest.raises(InputError, match=r"cannot load .*'nobody/nothing-at-all'") as caught:
        LanguageModel("nobody/nothing-at-all")
    assert "\n" not in str(caught.value)


def test_folder_without_weights_is_one_line(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot load") as caught:
        LanguageModel(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_encoder_is_refused(tmp_path):
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**size, vocab_size=263, is_decoder=True)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not a causal language model: it has no weights for"):
        LanguageModel(tmp_path)


def test_pickled_weights_are_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    tokenizer().save_pretrained(tmp_path)
    torch.save(LlamaForCausalLM.from_pretrained(folder).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        LanguageModel(tmp_path)


def test_remote_code_is_refused(folder, tmp_path):
    tokenizer().save_pretrained(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    with pytest.raises(InputError, match="cannot load"):
        LanguageModel(tmp_path)


def test_a_model_without_chat_template_says_so(folder):
    plain = LanguageModel(folder, device="cpu")
    plain.tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        plain.chat("hi")


def test_a_tokenizer_without_any_special_token_says_what_to_set(folder, tmp_path):
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    tokenizer(bos_token=None, eos_token=None).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no bos, eos or pad token"):
        LanguageModel(tmp_path, device="cpu")


@pytest.mark.network
def test_smollm2_reads_and_writes_english(monkeypatch):
    model = LanguageModel("smollm2", device="cpu")
    log_prob, _ = model.log_likelihood("The capital of France is", [" Paris", " Berlin", " Toy Story"])
    assert log_prob.argmax() == 0
    sense, nonsense = model.perplexity(["The dog chased the cat.", "cat the chased dog The."])
    assert float(sense) < float(nonsense) / 5
    (answer,) = model.generate([model.chat("What is the capital of France?")], max_new_tokens=16)
    assert "Paris" in answer.text
    assert np.isfinite(log_prob.numpy()).all()
