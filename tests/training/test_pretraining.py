"""Pre-training lowers the loss of unseen texts, resumes exactly, and refuses what it cannot train on."""

import copy
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recsys_cl.errors import InputError
from recsys_cl.losses.language import IGNORED
from recsys_cl.training.pretraining import (
    CausalExamples,
    CausalLanguageModel,
    MaskedExamples,
    MaskedLanguageModel,
    log_likelihood,
    pretrain,
)
from recsys_cl.training.run import TrainingConfig

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SUBJECTS, VERBS = ["cat", "dog", "king", "toy"], ["eats", "hunts", "rules", "moves"]  # each subject has its own verb
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "max_position_embeddings": 16,
}
TEXTS = [f"the {SUBJECTS[row % 4]} {VERBS[row % 4]} {('well', 'often', 'now')[row % 3]}" for row in range(240)]
HELD_OUT = [f"the {subject} {verb} here" for subject, verb in zip(SUBJECTS, VERBS, strict=True)]
KEYS = [(0, row) for row in range(len(TEXTS))]
CONFIG = TrainingConfig(epochs=6, batch_size=16, learning_rate=3e-3, warmup=5, seed=0)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = SPECIAL + sorted({word for text in TEXTS + HELD_OUT for word in text.split()})
    base = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    base.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=base, model_max_length=16, **names)


def masked() -> MaskedLanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedLanguageModel(BertModel(BertConfig(**SIZE), add_pooling_layer=False))


def causal() -> CausalLanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CausalLanguageModel(LlamaForCausalLM(LlamaConfig(**SIZE, tie_word_embeddings=True)).model)


def test_masked_head_is_that_of_bert_with_the_weights_copied() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bert = BertForMaskedLM(BertConfig(**SIZE)).eval()
    model = MaskedLanguageModel(bert.bert).eval()
    model.dense.load_state_dict(bert.cls.predictions.transform.dense.state_dict())
    model.norm = bert.cls.predictions.transform.LayerNorm
    model.bias = bert.cls.predictions.bias
    ids, real = torch.tensor([[2, 6, 7, 3], [2, 8, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    torch.testing.assert_close(model.logits(ids, real), bert(input_ids=ids, attention_mask=real).logits)


def test_causal_head_is_that_of_a_tied_llama() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        llama = LlamaForCausalLM(LlamaConfig(**SIZE, tie_word_embeddings=True)).eval()
    ids = torch.tensor([[2, 6, 7, 3]])
    torch.testing.assert_close(
        CausalLanguageModel(llama.model).logits(ids, torch.ones_like(ids)), llama(input_ids=ids).logits
    )


def test_batches_predict_real_tokens_only(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["the cat eats well", "the dog"]
    hidden = MaskedExamples(tokenizer, texts, max_length=16, seed=0, share=0.15).collate(
        [(epoch, 1) for epoch in range(64)]
    )
    assert (hidden["labels"][:, [0, 3]] == IGNORED).all()  # [CLS] and [SEP]
    assert (hidden["labels"][:, 1:3] != IGNORED).any(dim=0).all()
    following = CausalExamples(tokenizer, texts, max_length=16, seed=0).collate([(0, 0), (0, 1)])
    assert (following["labels"][1, 4:] == IGNORED).all()  # padding
    torch.testing.assert_close(following["labels"][0, 1:], following["input_ids"][0, 1:])
    assert following["attention_mask"].sum(dim=1).tolist() == [6, 4]


def test_the_share_is_that_of_the_model(tokenizer: PreTrainedTokenizerFast, tmp_path) -> None:
    few, many = (
        (MaskedExamples(tokenizer, TEXTS, max_length=16, seed=0, share=share).collate(KEYS)["labels"] != IGNORED).sum()
        for share in (0.15, 0.6)
    )
    assert many > 3 * few
    config = replace(CONFIG, epochs=1)
    model = masked()
    model.share = 0.4
    pretrain(model, tokenizer, TEXTS, validation_texts=HELD_OUT, config=config, folder=tmp_path)
    model.share = 0.15
    with pytest.raises(InputError, match=r"share=0\.4, not 0\.15"):
        pretrain(model, tokenizer, TEXTS, validation_texts=HELD_OUT, config=config, folder=tmp_path, resume=True)


@pytest.mark.parametrize("make", [masked, causal])
def test_training_predicts_held_out_texts_better(make, tokenizer: PreTrainedTokenizerFast) -> None:
    model = make()
    if isinstance(model, MaskedLanguageModel):
        held_out = MaskedExamples(tokenizer, HELD_OUT, max_length=16, seed=0, share=model.share)
    else:
        held_out = CausalExamples(tokenizer, HELD_OUT, max_length=16, seed=0)
    model.eval()
    before = log_likelihood(model, held_out)
    report = pretrain(model, tokenizer, TEXTS, validation_texts=HELD_OUT, config=CONFIG)
    after = log_likelihood(model, held_out)
    assert after["perplexity"] < 0.6 * before["perplexity"]
    assert after["log_likelihood"] == pytest.approx(report.best)
    assert not model.training


def test_validation_does_not_depend_on_the_batch_size(tokenizer: PreTrainedTokenizerFast) -> None:
    model = masked().eval()
    examples = MaskedExamples(tokenizer, HELD_OUT, max_length=16, seed=0, share=0.15)
    small, large = (log_likelihood(model, examples, batch_size=size) for size in (3, 100))
    assert small == pytest.approx(large)


def test_a_frozen_transformer_stays_and_its_head_learns(tokenizer: PreTrainedTokenizerFast) -> None:
    model = masked()
    model.transformer.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    pretrain(model, tokenizer, TEXTS, validation_texts=HELD_OUT, config=CONFIG)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias"}


def test_resumed_ends_where_the_whole_run_ends(tokenizer: PreTrainedTokenizerFast, tmp_path) -> None:
    config = TrainingConfig(epochs=3, batch_size=16, learning_rate=3e-3, warmup=5, patience=9, seed=0)
    whole, resumed = masked(), masked()
    pretrain(whole, tokenizer, TEXTS, validation_texts=HELD_OUT, config=config, folder=tmp_path)
    newest = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    pretrain(resumed, tokenizer, TEXTS, validation_texts=HELD_OUT, config=config, folder=tmp_path, resume=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_nothing_to_learn_from_is_refused(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> None:
    with pytest.raises(InputError, match=r"^texts has .* no word to predict"):
        pretrain(masked(), tokenizer, texts, validation_texts=HELD_OUT, config=CONFIG)
    with pytest.raises(InputError, match=r"^validation_texts has"):
        pretrain(masked(), tokenizer, TEXTS, validation_texts=texts, config=CONFIG)


def test_a_tokenizer_that_does_not_fit_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    unmasked = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
    with pytest.raises(InputError, match="no mask token"):
        pretrain(masked(), unmasked, TEXTS, validation_texts=HELD_OUT, config=CONFIG)
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens([f"new{row}" for row in range(20)])
    with pytest.raises(InputError, match="model embeds 20"):
        pretrain(masked(), larger, TEXTS, validation_texts=HELD_OUT, config=CONFIG)
