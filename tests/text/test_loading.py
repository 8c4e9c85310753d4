"""A model is found by name, folder or file, and what cannot be loaded is said in one line."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from recsys_cl.errors import InputError
from recsys_cl.text.encoder import LanguageEncoder
from recsys_cl.text.storage import choose_device, find_pretrained


def test_pickled_weights_are_refused(folders, tmp_path, tokenizer):
    folder = tmp_path / "pickled"
    tokenizer("bert").save_pretrained(folder)
    (folder / "config.json").write_text((folders["bert"] / "config.json").read_text())
    torch.save(BertModel.from_pretrained(folders["bert"]).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        LanguageEncoder(folder, device="cpu").encode(["war"])


def test_remote_code_is_refused(folders, tmp_path, tokenizer):
    folder = tmp_path / "remote"
    tokenizer("bert").save_pretrained(folder)
    config = json.loads((folders["bert"] / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    BertModel.from_pretrained(folders["bert"]).save_pretrained(folder)
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


def test_a_folder_without_weights_is_said_before_anything_is_loaded(folders, tmp_path):
    (tmp_path / "config.json").write_text((folders["bert"] / "config.json").read_text())
    with pytest.raises(InputError, match=r"no safetensors"):
        LanguageEncoder(tmp_path)


def test_a_tokenizer_without_any_token_to_pad_with_is_said(folders, tmp_path, tokenizer):
    bare = tokenizer("llama")
    bare.unk_token = bare.bos_token = bare.eos_token = None
    bare.save_pretrained(tmp_path)
    AutoModel.from_pretrained(folders["llama"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no pad, eos, unk or bos token"):
        LanguageEncoder(tmp_path)


def test_a_decoder_without_an_end_of_text_cannot_be_pooled_there(folders, tmp_path, tokenizer):
    endless = tokenizer("llama")
    endless.eos_token = None
    endless.save_pretrained(tmp_path)
    AutoModel.from_pretrained(folders["llama"]).save_pretrained(tmp_path)
    assert LanguageEncoder(tmp_path, device="cpu", cache=False).encode(["war"]).shape == (1, 16)
    with pytest.raises(InputError, match="no end-of-text token"):
        LanguageEncoder(tmp_path, pooling="last")


def test_a_folder_is_found_by_a_relative_path_too(folders, monkeypatch):
    monkeypatch.chdir(folders["bert"].parent)
    found = find_pretrained("bert")
    assert (found.name, found.folder) == ("bert", folders["bert"])
    assert found.reference == str(folders["bert"])
    assert isinstance(found.load(AutoConfig), BertConfig)


def test_a_hub_name_is_pinned_to_the_commit_that_was_found(folders):
    assert find_pretrained("someone/something", "main").at_commit("abc").revision == "abc"
    assert find_pretrained(folders["bert"]).at_commit("abc").revision is None


def test_a_device_is_checked():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"unknown device 'abacus'.*cuda"):
        choose_device("abacus")
