"""A typo is one slip in one word, a stuffed text is the text and the words, and telling words are TF-IDF's."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from recsys_cl.data.perturb.text_attacks import NEIGHBOURS, stuff_keywords, telling_words, typos
from recsys_cl.errors import InputError

check = settings(deadline=None, max_examples=150, derandomize=True)
words = st.text(alphabet="abcdeABC0123äßé电影好看люблюيحب", min_size=1, max_size=8).filter(
    lambda word: re.fullmatch(r"\w+", word) is not None
)


def slips(word: str) -> set[str]:
    """Every word that is one slip away."""
    cuts = [(word[:at], word[at], word[at + 1 :]) for at in range(len(word))]
    swapped = {before + after[0] + letter + after[1:] for before, letter, after in cuts if after}
    dropped = {before + after for before, _, after in cuts if len(word) > 1}
    doubled = {before + letter + letter + after for before, letter, after in cuts}
    near = {
        before + (key.upper() if letter.isupper() else key) + after
        for before, letter, after in cuts
        for key in NEIGHBOURS.get(letter.lower(), "")
    }
    return (swapped | dropped | doubled | near) - {word}


@given(words, st.integers(0, 999))
@check
def test_a_word_that_is_hit_has_exactly_one_slip(word, seed):
    assert typos([word], 1.0, seed=seed)[0] in slips(word)


@pytest.mark.parametrize("word", ["Bad", "aab", "看看"])
def test_every_slip_happens_and_nothing_else(word):
    found = set(typos([word] * 3000, 1.0))
    assert found == slips(word)


def test_the_four_kinds_are_equally_likely():
    """On this word no slip of one kind is one of another."""
    word, n = "ab电", 4000
    kinds = {
        "swap": {"ba电", "a电b"},
        "drop": {"b电", "a电", "ab"},
        "double": {"aab电", "abb电", "ab电电"},
        "neighbour": {key + "b电" for key in NEIGHBOURS["a"]} | {"a" + key + "电" for key in NEIGHBOURS["b"]},
    }
    assert set.union(*kinds.values()) == slips(word)
    mistyped = typos([word] * n, 1.0)
    for slips_of_kind in kinds.values():
        assert np.mean([one in slips_of_kind for one in mistyped]) == pytest.approx(0.25, abs=0.03)


def test_what_is_between_words_stays():
    text = "  Heat (1995).\tAction,\nCrime — Thriller! "
    for seed in range(50):
        assert re.split(r"\w+", typos([text], 1.0, seed=seed)[0]) == re.split(r"\w+", text)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_words_are_hit_at_the_rate(rate):
    texts = ["one two three four"] * 1500
    pairs = zip(texts, typos(texts, rate), strict=True)
    changed = [new != old for text, mistyped in pairs for old, new in zip(text.split(), mistyped.split(), strict=True)]
    assert np.mean(changed) == pytest.approx(rate, abs=0.02)


def test_typos_at_a_lower_rate_are_a_part_of_those_at_a_higher():
    texts = ["one two three four"] * 100
    rows = zip(*([text.split() for text in typos(texts, rate, seed=2)] for rate in (0.2, 0.6)), strict=True)
    little, much = (np.concatenate(column) for column in zip(*rows, strict=True))
    clean = np.tile(["one", "two", "three", "four"], 100)
    assert ((little == clean) | (little == much)).all()
    assert (much != clean).sum() > (little != clean).sum() > 0


def test_a_seed_repeats_and_another_seed_or_row_differs():
    texts = ["Action, Crime, Thriller"] * 20
    assert typos(texts, 0.5, seed=1) == typos(texts, 0.5, seed=1)
    assert typos(texts, 0.5, seed=1) != typos(texts, 0.5, seed=2)
    assert len(set(typos(texts, 0.5))) > 1


def test_neighbours_are_mutual_and_none_is_its_own():
    assert len(NEIGHBOURS) == 26
    for key, others in NEIGHBOURS.items():
        assert key not in others
        assert all(key in NEIGHBOURS[other] for other in others)
    assert NEIGHBOURS["g"] == "tyfhvb"
    assert set(NEIGHBOURS["p"]) == set("ol")


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(InputError, match=f"rate={rate} is out of range"):
        typos(["Heat"], rate)


def test_texts_without_words_stay():
    assert typos(["", " ?! "], 1.0) == ["", " ?! "]
    assert typos([], 0.5) == []


def test_only_the_sellers_texts_are_stuffed():
    texts = ["Heat. Crime.", "", "Ran."]
    assert stuff_keywords(texts, [1, 0], ["star", "wars"]) == ["Heat. Crime. star wars", "star wars", "Ran."]
    assert texts == ["Heat. Crime.", "", "Ran."]
    assert stuff_keywords(texts, [], ["star"]) == texts


@pytest.mark.parametrize("item", [-1, 2])
def test_an_item_outside_the_catalogue_is_named(item):
    with pytest.raises(InputError, match=f"item {item} is not in the catalogue; items are numbered 0 to 1"):
        stuff_keywords(["Heat", "Ran"], [0, item], ["star"])


def test_stuffing_without_keywords_is_refused():
    with pytest.raises(InputError, match="no keywords"):
        stuff_keywords(["Heat"], [0], [])


def test_telling_words_are_those_of_the_summed_tf_idf():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghij"), size=6)) for _ in range(40)]
    counts = rng.permutation(40)
    vectorizer = CountVectorizer(token_pattern=r"\w+")
    frequency = vectorizer.fit_transform(texts).toarray()
    idf = np.log(41 / (1 + (frequency > 0).sum(0)))
    score = frequency[np.argsort(-counts)[:5]].sum(0) * idf
    expected = vectorizer.get_feature_names_out()[np.argsort(-score)][:4]
    assert telling_words(texts, counts, k=4, popular=5) == list(expected)


def test_words_of_unpopular_items_and_of_all_items_tell_nothing():
    texts = ["film night", "film day", "film rare"]
    assert telling_words(texts, np.array([5, 4, 0]), k=2, popular=2) == ["day", "night"]
    assert "rare" not in telling_words(texts, np.array([5, 4, 0]), k=9, popular=2)
    assert telling_words(["电影 好看", "电影 难看"], np.array([2, 1]), k=1, popular=1) == ["好看"]


@pytest.mark.parametrize(
    ("counts", "settings", "message"),
    [
        ([1], {}, "2 texts and 1 counts"),
        ([1, 2], {"k": 0}, "k=0 words"),
        ([1, 2], {"popular": 0}, "popular=0 items"),
    ],
)
def test_bad_input_for_telling_words_is_named(counts, settings, message):
    with pytest.raises(InputError, match=message):
        telling_words(["a", "b"], np.array(counts), **settings)
