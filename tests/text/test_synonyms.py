"""Synonyms by input embeddings: of words that are whole tokens, above a cosine, nearest first."""

import pytest
import torch

from recsys_cl import assets
from recsys_cl.text import LanguageEncoder
from recsys_cl.text.geometry import nearest_words


@pytest.fixture
def encoder(folders) -> LanguageEncoder:
    """``film`` near ``drama`` (cosine .9) and ``space`` (.6), everything else at right angles."""
    encoder = LanguageEncoder(folders["bert"], cache=False, device="cpu")
    vocabulary = encoder.tokenizer.get_vocab()
    weights = torch.eye(len(vocabulary), encoder.dim)
    weights[vocabulary["drama"]] = 0.9 * weights[vocabulary["film"]] + 0.19**0.5 * weights[vocabulary["drama"]]
    weights[vocabulary["space"]] = 0.6 * weights[vocabulary["film"]] + 0.8 * weights[vocabulary["space"]]
    encoder.model.get_input_embeddings().weight.data = 7 * weights  # lengths do not count
    return encoder


def test_neighbours_come_nearest_first_and_above_the_cosine_only(encoder):
    assert nearest_words(encoder, ["a film"])["film"] == ["drama", "space"]
    assert nearest_words(encoder, ["a film"], similarity=0.7)["film"] == ["drama"]
    assert nearest_words(encoder, ["a film"], n=1)["film"] == ["drama"]


def test_words_without_neighbours_and_unknown_or_short_words_have_no_entry(encoder):
    found = nearest_words(encoder, ["The FILM of a gladiator, about tax: law"])
    assert found.keys() == {"film"}
    assert nearest_words(encoder, ["gladiator", ""]) == {}


def test_no_word_replaces_itself_also_where_two_tokens_are_equal(encoder):
    vocabulary = encoder.tokenizer.get_vocab()
    weights = encoder.model.get_input_embeddings().weight.data
    for twin in ("war", "law", "tax", "toys"):
        weights[vocabulary[twin]] = weights[vocabulary["war"]]
    found = nearest_words(encoder, ["war law tax toys"])
    assert all(word not in others for word, others in found.items())
    assert len(found["toys"]) == 3


def test_minilm_knows_that_films_and_movies_are_one():
    assets.fetch("minilm")
    assert "film" in nearest_words(LanguageEncoder("minilm", cache=False), ["A funny war movie."])["movie"]
