"""Other words for the same text: a function of seed, step and place, at the rate asked for."""

import numpy as np
import pytest

from recsys_cl.data.text import drop_fragments, replace_words
from recsys_cl.errors import InputError

TEXT = "Heat (1995). Action, Crime, Thriller."
SYNONYMS = {"action": ["deed", "motion"], "crime": ["felony"]}


@pytest.mark.parametrize("vary", [drop_fragments, lambda *a, **k: replace_words(*a, synonyms=SYNONYMS, **k)])
class TestBoth:
    def test_the_same_step_and_seed_give_the_same_texts(self, vary):
        assert vary([TEXT] * 50, 3, seed=1) == vary([TEXT] * 50, 3, seed=1)

    def test_another_step_another_seed_and_another_row_give_other_texts(self, vary):
        first = vary([TEXT] * 50, 3, seed=1)
        assert first != vary([TEXT] * 50, 4, seed=1)
        assert first != vary([TEXT] * 50, 3, seed=2)
        assert len(set(first)) > 1

    def test_at_rate_zero_texts_stay_as_they_are(self, vary):
        texts = [TEXT, "", "one  two", "tab\there; end."]
        assert [text.split() for text in vary(texts, 0, rate=0.0)] == [text.split() for text in texts]

    @pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
    def test_a_rate_that_is_no_share_is_refused(self, vary, rate):
        with pytest.raises(InputError, match="out of range"):
            vary([TEXT], 0, rate=rate)

    def test_no_texts_give_none(self, vary):
        assert vary([], 0) == []


def test_fragments_are_left_out_whole_and_in_order_and_the_first_stays():
    whole = ["Heat (1995).", "Action,", "Crime,", "Thriller."]
    for varied in drop_fragments([TEXT] * 200, 0, rate=0.5):
        assert varied.startswith("Heat (1995).")
        places = [whole.index(part) for part in varied.removeprefix("Heat ").split() if part != "(1995)."]
        assert places == sorted(places)


def test_fragments_are_left_out_at_the_rate():
    varied = drop_fragments([TEXT] * 3000, 0, rate=0.3)
    kept = np.mean([text.count("Crime,") for text in varied])
    assert kept == pytest.approx(0.7, abs=0.03)


def test_words_are_replaced_at_the_rate_by_each_of_their_replacements():
    varied = replace_words([TEXT] * 3000, 0, synonyms=SYNONYMS, rate=0.4)
    share = {word: np.mean([word in text for text in varied]) for word in ("deed", "motion", "felony")}
    assert share["felony"] == pytest.approx(0.4, abs=0.03)
    assert share["deed"] == pytest.approx(0.2, abs=0.03)
    assert share["motion"] == pytest.approx(0.2, abs=0.03)


def test_other_words_punctuation_and_parts_of_words_stay():
    varied = replace_words(["Crime (crimes), CRIME; action-crime."], 0, synonyms=SYNONYMS, rate=0.999)[0]
    assert varied in {f"felony (crimes), felony; {word}-felony." for word in ("deed", "motion")}
