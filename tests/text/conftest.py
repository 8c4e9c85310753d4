"""Random language models of a few thousand weights, with a tokenizer of a few words."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

WORDS = ["a", "the", "film", "about", "toys", "war", "space", "drama", "tax", "law", "of", "and"]


def build_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """BERT's puts every text between two tokens; Llama's adds nothing, and has no token to pad with."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if kind == "bert" else ["<unk>", "<s>", "</s>"]
    vocabulary = {token: row for row, token in enumerate(special + WORDS)}
    base = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1] if kind == "bert" else special[0]))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind == "bert":
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        base.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=base, model_max_length=32, **names)


@pytest.fixture(scope="session")
def tokenizer() -> Callable[[str], PreTrainedTokenizerFast]:
    return build_tokenizer


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
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
        build_tokenizer(kind).save_pretrained(made[kind])
    return made
