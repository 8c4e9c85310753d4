"""What was saved gives the same vectors when it is loaded."""

import json

import pytest
import torch
from torch.testing import assert_close

from recsys_cl.errors import InputError
from recsys_cl.text.adapters import Adapter, parameter_counts
from recsys_cl.text.encoder import LanguageEncoder

TEXTS = ["a film about toys", "", "war", "the space drama and the war of the toys"]
OPTIONS = [{"pooling": "cls", "normalize": False, "max_length": 7}, {"pooling": "last", "max_length": 9}]
ADAPTERS = [
    Adapter(rank=2),
    Adapter("adalora", rank=2, steps=5),
    Adapter("ia3"),
    Adapter("prefix", rank=3),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CL_CACHE", str(tmp_path / "cache"))


def disturb(encoder: LanguageEncoder) -> None:
    """Move whatever learns."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in encoder.model.parameters():
            if weight.requires_grad:
                weight += 0.2 * torch.randn(weight.shape, generator=generator)


@pytest.mark.filterwarnings("ignore:.*longer than .* tokens")
@pytest.mark.parametrize("options", OPTIONS, ids=["encoder", "decoder"])
def test_a_trained_model_comes_back_with_its_options(options, folders, tmp_path):
    kind = "llama" if options["pooling"] == "last" else "bert"
    encoder = LanguageEncoder(folders[kind], device="cpu", **options)
    disturb(encoder)
    again = LanguageEncoder(encoder.save(tmp_path / "saved"), device="cpu")
    assert (again.pooling, again.normalize, again.max_length) == (
        encoder.pooling,
        encoder.normalize,
        encoder.max_length,
    )
    assert_close(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6, rtol=0)
    assert LanguageEncoder(tmp_path / "saved", pooling="mean").pooling == "mean"


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.kind)
def test_an_adapter_comes_back_on_its_model(kind, adapter, folders, tmp_path):
    encoder = LanguageEncoder(folders[kind], adapter=adapter, device="cpu")
    disturb(encoder)
    folder = encoder.save(tmp_path / "saved")
    assert not (folder / "model.safetensors").exists()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(folders[kind])
    again = LanguageEncoder(folder, device="cpu")
    assert again.name == "saved"
    assert again.max_length == encoder.max_length == (29 if adapter.kind == "prefix" else 32)
    assert_close(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6, rtol=0)
    assert not torch.allclose(again.encode(TEXTS), LanguageEncoder(folders[kind], device="cpu").encode(TEXTS))
    assert parameter_counts(again.model) == parameter_counts(encoder.model)  # and it can be trained further


def test_a_merged_adapter_is_saved_as_a_whole_model(folders, tmp_path):
    encoder = LanguageEncoder(folders["bert"], adapter=Adapter(rank=2), device="cpu")
    disturb(encoder)
    encoder.save(tmp_path)
    vectors = encoder.encode(TEXTS)
    encoder.merge()
    assert_close(encoder.encode(TEXTS), vectors, atol=1e-5, rtol=0)
    encoder.save(tmp_path)  # over the adapter
    assert (tmp_path / "model.safetensors").exists()
    assert_close(LanguageEncoder(tmp_path, device="cpu").encode(TEXTS), encoder.encode(TEXTS), atol=1e-6, rtol=0)


def test_vectors_of_an_adapted_model_have_their_own_place_in_the_cache(folders, tmp_path):
    prefix = Adapter("prefix", rank=3)
    plain = LanguageEncoder(folders["bert"], device="cpu").encode(TEXTS)
    adapted = LanguageEncoder(folders["bert"], adapter=prefix, device="cpu").encode(TEXTS)
    assert not torch.allclose(plain, adapted)
    saved = []
    for seed in (1, 2):
        encoder = LanguageEncoder(folders["bert"], adapter=Adapter("prefix", rank=3, seed=seed), device="cpu")
        saved.append(LanguageEncoder(encoder.save(tmp_path / "saved"), device="cpu").encode(TEXTS))
    assert not torch.allclose(*saved)


def test_a_prefix_and_checkpointing_exclude_each_other(folders, tmp_path):
    prefix = Adapter("prefix", rank=3)
    with pytest.raises(InputError, match="gradient checkpointing"):
        _ = LanguageEncoder(folders["bert"], adapter=prefix, checkpointing=True, device="cpu").model
    folder = LanguageEncoder(folders["bert"], adapter=prefix, device="cpu").save(tmp_path)
    with pytest.raises(InputError, match=r"does not fit.*gradient checkpointing"):
        _ = LanguageEncoder(folder, checkpointing=True, device="cpu").model


def test_an_adapter_that_cannot_be_used_is_said(folders, tmp_path):
    encoder = LanguageEncoder(folders["bert"], adapter=Adapter(rank=2), device="cpu")
    with pytest.raises(InputError, match="adapter already"):
        _ = LanguageEncoder(encoder.save(tmp_path), adapter=Adapter(rank=2), device="cpu").model
    description = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(description | {"base_model_name_or_path": str(folders["llama"])})
    )
    with pytest.raises(InputError, match="does not fit"):
        _ = LanguageEncoder(tmp_path, device="cpu").model
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot read"):
        LanguageEncoder(tmp_path, device="cpu")


def test_damaged_options_are_said(folders, tmp_path):
    LanguageEncoder(folders["bert"], device="cpu").save(tmp_path)
    (tmp_path / "encoder.json").write_text('{"poling": "cls"}')
    with pytest.raises(InputError, match=r"cannot read .*encoder\.json"):
        LanguageEncoder(tmp_path, device="cpu")
