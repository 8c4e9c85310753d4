"""A language model fine-tuned to recommend: every way to learn, on a random BERT that reads a made-up language."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.testing import assert_close
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from recsys_cl.data import Sequences, Split, cold_item_split, synthetic
from recsys_cl.errors import InputError
from recsys_cl.evaluation import evaluate
from recsys_cl.recommenders import MODELS, create, load_recommender
from recsys_cl.recommenders.fine_tuned import FineTuned
from recsys_cl.text import LanguageEncoder
from recsys_cl.text.adapters import parameter_counts

METHODS = ["full", "lora", "adalora", "ia3", "prefix", "projection"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def split() -> Split:
    return cold_item_split(synthetic(150, 120, skew=0.3, seed=5), share=0.2, seed=0)


@pytest.fixture(scope="module")
def folder(split: Split, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BERT, and a tokenizer that knows the words of the catalogue."""
    words = sorted({word for text in [*split.data.texts, *split.data.titles, ";"] for word in text.split()})
    vocabulary = {token: row for row, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    base = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    base.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    made = tmp_path_factory.mktemp("models") / "bert"
    PreTrainedTokenizerFast(tokenizer_object=base, model_max_length=32, **names).save_pretrained(made)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(**size, vocab_size=len(vocabulary), max_position_embeddings=32, initializer_range=0.3)
        BertModel(config).save_pretrained(made)
    return str(made)


@pytest.fixture(scope="module")
def quick(folder: str) -> dict:
    return {"model": folder, "epochs": 1, "passes": 1, "block": 24, "rank": 2, "warmup": 1}


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_scores_the_same(split: Split, quick: dict, method: str, tmp_path: Path) -> None:
    trained = FineTuned(**quick, method=method).fit(split)
    trained.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert isinstance(loaded, FineTuned)
    histories = split.test.history[:5]
    assert trained.score(histories).shape == (5, split.n_items)
    assert_close(loaded.score(histories), trained.score(histories), rtol=0, atol=0)
    text = split.data.texts[3]
    assert_close(loaded.score_text(text), trained.score_text(text), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_part_that_was_asked_for_learns(split: Split, quick: dict, method: str) -> None:
    trained = FineTuned(**quick, method=method).fit(split)
    learned, total = trained.parameters
    temperature = 1
    if method == "full":
        assert learned == total
    elif method == "projection":
        assert learned == 16 * 16 + temperature
    else:
        assert learned == parameter_counts(trained.encoder.model)[0] + temperature
        assert learned < 0.25 * total


@pytest.mark.parametrize("method", ["full", "lora", "adalora", "ia3", "projection"])
def test_without_a_step_it_is_the_untouched_model_centred_on_warm_items(split: Split, quick: dict, method: str) -> None:
    trained = FineTuned(**{**quick, "method": method, "learning_rate": 0.0, "weight_decay": 0.0}).fit(split)
    vectors = LanguageEncoder(quick["model"], max_length=32).encode(split.data.texts)
    v = F.normalize(vectors - vectors[torch.from_numpy(split.counts > 0)].mean(0), dim=1)
    u = F.normalize(torch.from_numpy(split.test.history[:5].matrix(split.n_items).toarray()) @ v, dim=1)
    assert_close(trained.score(split.test.history[:5]), u @ v.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["full", "lora", "projection"])
def test_training_finds_cold_items_better_than_the_untouched_model(split: Split, quick: dict, method: str) -> None:
    before = create("minilm", model=quick["model"]).fit(split)
    after = FineTuned(
        **{**quick, "method": method, "epochs": 4, "passes": 5, "learning_rate": 3e-3, "dropout": 0.0}
    ).fit(split)
    assert evaluate(after, split.test).mean() > evaluate(before, split.test).mean() + 0.01
    losses = [epoch["loss"] for epoch in after.report.history]
    assert losses[-1] < losses[0]


def test_the_residual_keeps_the_untouched_similarities_beside_the_trained(split: Split, quick: dict) -> None:
    trained = FineTuned(**{**quick, "residual": 0.7}).fit(split)
    vectors = trained.state["vectors"]
    assert vectors.shape == (split.n_items, 2 * 16)
    warm = torch.from_numpy(split.counts > 0)
    cosines = []
    for encoder in (trained.encoder, LanguageEncoder(quick["model"])):
        z = encoder.encode(split.data.texts)
        v = F.normalize(z - z[warm].mean(0), dim=1)
        cosines.append(v @ v.T)
    assert_close(vectors @ vectors.T, (cosines[0] + 0.7 * cosines[1]) / 1.7, atol=1e-5, rtol=0)
    assert FineTuned(**{**quick, "residual": 0.0}).fit(split).state["vectors"].shape == (split.n_items, 16)


@pytest.mark.parametrize("settings", [{}, {"augment": "fragments"}, {"augment": "synonyms"}, {"views": 0.1}])
def test_same_seed_same_scores_other_seed_other_scores(split: Split, quick: dict, settings: dict) -> None:
    histories = split.test.history[:5]
    first, again, other = (FineTuned(**quick, **settings, seed=seed).fit(split).score(histories) for seed in (0, 0, 1))
    assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)


def test_a_run_that_is_resumed_ends_where_the_whole_run_ends(split: Split, quick: dict, tmp_path: Path) -> None:
    settings = {**quick, "epochs": 3, "augment": "fragments", "precision": "float32"}
    histories = split.test.history[:5]
    whole = FineTuned(**settings).fit(split, folder=tmp_path).score(histories)
    checkpoints = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(checkpoints) == 3
    finished = FineTuned(**settings).fit(split, folder=tmp_path, resume=True)
    assert_close(finished.score(histories), whole, rtol=0, atol=0)
    for checkpoint in checkpoints[1:]:
        checkpoint.rename(tmp_path / f"away-{checkpoint.name}")
    resumed = FineTuned(**settings).fit(split, folder=tmp_path, resume=True)
    assert_close(resumed.score(histories), whole, rtol=0, atol=0)


def test_users_as_texts_score_by_the_latest_titles(split: Split, quick: dict, tmp_path: Path) -> None:
    trained = FineTuned(**quick, user="text", length=2, pairs=64, batch_size=16).fit(split)
    titles = split.data.titles
    histories = Sequences.from_lists([[5, 9, 4], [7]])
    texts = [f"{titles[4]}; {titles[9]}", titles[7]]
    assert_close(trained.score(histories), torch.cat([trained.score_text(text) for text in texts]), atol=1e-5, rtol=0)
    assert trained.state["vectors"].shape == (split.n_items, 16)
    trained.save(tmp_path)
    assert_close(load_recommender(tmp_path).score(histories), trained.score(histories), atol=1e-6, rtol=0)


def test_an_items_own_text_finds_the_item(split: Split, quick: dict) -> None:
    trained = FineTuned(**quick).fit(split)
    scores = trained.score_text(split.data.texts[17])[0]
    assert int(scores.argmax()) == 17
    assert float(scores[17]) == pytest.approx(1, abs=1e-5)


def test_half_precision_ends_near_full_precision(split: Split, quick: dict) -> None:
    full, half = (
        FineTuned(**{**quick, "precision": precision, "dropout": 0.0}).fit(split).score(split.test.history)
        for precision in ("float32", "bfloat16")
    )
    assert_close(half, full, atol=0.05, rtol=0)
    assert not torch.equal(half, full)


def test_dropout_is_set_in_the_language_model(split: Split, quick: dict) -> None:
    trained = FineTuned(**{**quick, "dropout": 0.37}).fit(split)
    rates = {part.p for part in trained.encoder.model.modules() if isinstance(part, torch.nn.Dropout)}
    assert 0.37 in rates


def test_cold_items_move_neither_the_means_nor_the_training(split: Split, quick: dict) -> None:
    """What happened to validation and test items is nothing that training may see."""
    shuffled = replace(split, test=split.test[:1], validation=split.validation[:3])
    first, second = (FineTuned(**quick).fit(one) for one in (split, shuffled))
    for name, tensor in first.state.items():
        assert_close(second.state[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"method": "adapter"}, "valid names are full, lora, adalora, ia3, prefix, projection"),
        ({"user": "titles"}, "valid names are items, text"),
        ({"pooling": "max"}, "valid names are mean, cls, last"),
        ({"augment": "translation"}, "valid names are none, fragments, synonyms"),
        ({"precision": "float16"}, "valid names are auto, float32, bfloat16"),
        ({"residual": -1.0}, "residual=-1.0 is out of range"),
        ({"dropout": 1.0}, "dropout=1.0 is out of range"),
    ],
)
def test_bad_settings_name_the_valid_ones(settings: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        FineTuned(**settings)


def test_a_projection_cannot_learn_from_pairs_of_texts(split: Split, quick: dict) -> None:
    with pytest.raises(InputError, match="a projection is trained on blocks"):
        FineTuned(**quick, method="projection", user="text").fit(split)


def test_a_rank_of_nothing_is_refused(split: Split, quick: dict) -> None:
    with pytest.raises(InputError, match="rank=0"):
        FineTuned(**{**quick, "rank": 0}).fit(split)


def test_names_of_tables_make_the_settings_that_they_say() -> None:
    assert {"minilm-tuned", "minilm-projection"} <= MODELS.keys()
    assert create("minilm-projection").method == "projection"
    assert create("minilm-tuned:method=full,residual=0").residual == 0
