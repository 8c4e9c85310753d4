"""Recommendations: unseen items in descending order, and errors that offer what was probably meant."""

import pytest

from recsys_cl.data import Interactions, synthetic
from recsys_cl.errors import InputError
from recsys_cl.recommenders import Recommender
from recsys_cl.workflow import find_items, history_of, open_model, recommend


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthetic(100, 80, seed=1)


@pytest.fixture(scope="module")
def ease(data: Interactions) -> Recommender:
    return open_model(data, "ease")


def test_nothing_seen_is_recommended_and_the_best_comes_first(data: Interactions, ease: Recommender) -> None:
    history = history_of(data, str(data.user_ids[5]))
    seen = {data.item_ids[item] for item in history.items[history.start[0] : history.stop[0]]}
    found = recommend(ease, history=history, k=200)
    assert not seen & {item["item_id"] for item in found}
    assert len(found) == data.n_items - len(seen)
    scores = [item["score"] for item in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("wishes", [{}, {"liked": ["a"], "text": "b"}])
def test_exactly_one_kind_of_wish(ease: Recommender, wishes: dict) -> None:
    with pytest.raises(InputError, match="exactly one"):
        recommend(ease, **wishes)


def test_items_are_found_by_title_in_any_case_and_by_id(ease: Recommender) -> None:
    title, item_id = ease.items["title"][7], str(ease.items["item_id"][7])
    assert find_items(ease, [title.upper(), item_id, str(ease.items["item_id"][2])]) == [7, 2]


def test_an_unknown_name_needs_data(ease: Recommender) -> None:
    with pytest.raises(InputError, match="give data"):
        open_model(None, "ease")
