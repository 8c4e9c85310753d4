"""Counter hashes are functions of their counters, uniform, and unrelated between neighbours."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import recsys_cl
from recsys_cl.data import RowRandom
from recsys_cl.randomness import PURPOSES, counter_hash, counter_uniform, purpose_number

check = settings(deadline=None, max_examples=60, derandomize=True)
PACKAGE = Path(recsys_cl.__file__).parent
COUNTERS = st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=4)


@given(COUNTERS)
@check
def test_the_same_counters_give_the_same_number_alone_or_in_an_array(counters):
    alone = counter_hash(*counters)
    assert alone == counter_hash(*counters)
    first = np.array([counters[0], counters[0] + 1])
    assert counter_hash(first, *counters[1:])[0] == alone


@given(COUNTERS, st.integers(0, 3), st.integers(1, 1000))
@check
def test_another_value_of_any_counter_gives_another_number(counters, place, step):
    moved = list(counters)
    moved[place % len(moved)] += step
    assert counter_hash(*counters) != counter_hash(*moved)


def test_the_order_and_the_number_of_counters_matter():
    assert counter_hash(1, 2) != counter_hash(2, 1)
    assert counter_hash(1) != counter_hash(1, 0)
    assert counter_hash(0) != counter_hash(0, 0)


def test_counters_broadcast():
    table = counter_hash(7, np.arange(3)[:, None], np.arange(4))
    assert table.shape == (3, 4)
    assert table.dtype == np.uint64
    for row in range(3):
        for column in range(4):
            assert table[row, column] == counter_hash(7, row, column)


def test_a_million_neighbours_do_not_collide():
    assert len(np.unique(counter_hash(np.arange(1000)[:, None], np.arange(1000)))) == 1_000_000


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_uniform_along_every_counter(axis):
    counters = [3, 5, 8]
    counters[axis] = np.arange(20_000)
    values = counter_uniform(*counters)
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3


def test_low_bits_are_as_good_as_high_bits():
    low = (counter_hash(1, np.arange(64_000)) % np.uint64(64)).astype(int)
    assert stats.chisquare(np.bincount(low, minlength=64)).pvalue > 1e-3


def test_neighbours_are_uncorrelated():
    """Correlations of 200,000 pairs stay within four standard errors of zero."""
    table = counter_uniform(0, np.arange(2)[:, None], np.arange(200_001))
    bound = 4 / np.sqrt(200_000)
    assert abs(np.corrcoef(table[0, :-1], table[0, 1:])[0, 1]) < bound
    assert abs(np.corrcoef(table)[0, 1]) < bound
    swapped = counter_uniform(0, np.arange(200_001), 1), counter_uniform(0, 1, np.arange(200_001))
    assert abs(np.corrcoef(*swapped)[0, 1]) < bound


def test_one_bit_of_a_counter_turns_half_of_the_bits():
    base = np.arange(2_000)
    for bit in (0, 5, 20):
        turned = counter_hash(4, base) ^ counter_hash(4, base ^ (1 << bit))
        share = np.unpackbits(turned.view(np.uint8)).mean()
        assert share == pytest.approx(0.5, abs=0.01)


def test_the_global_generator_is_left_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    counter_uniform(1, np.arange(10))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


DRAWING = {"counter_hash", "counter_uniform", "by_row", "by_event", "below", "_drawn"}


def drawn_purposes() -> list[str]:
    """The purpose of every call in the package that draws, one entry a call."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in DRAWING:
                names += [argument.value for argument in node.args if is_string(argument)]
    return names


def is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_no_two_purposes_share_a_number_except_those_of_masked_language_models():
    language = {"masked-token": 0, "token-fate": 1, "token-replacement": 2}
    assert language.items() <= PURPOSES.items()
    others = [number for name, number in PURPOSES.items() if name not in language]
    assert len(set(others)) == len(others)


def test_every_purpose_of_the_package_is_in_the_table_or_serves_one_call():
    used = Counter(drawn_purposes())
    assert used.keys() >= PURPOSES.keys()
    assert [name for name, count in used.items() if count > 1 and name not in PURPOSES] == []


@pytest.mark.parametrize("name", PURPOSES)
def test_a_name_of_the_table_draws_like_its_number(name):
    places = np.arange(50)
    np.testing.assert_array_equal(counter_uniform(7, name, places), counter_uniform(7, PURPOSES[name], places))


def test_a_name_outside_the_table_is_the_same_number_in_every_process():
    assert purpose_number("window-offset") == 96
    assert purpose_number("my-own-purpose") == 14_542_201_434_892_320_832
    assert purpose_number("my-own-purposes") != purpose_number("my-own-purpose") > max(PURPOSES.values())
    assert counter_uniform(0, "my-own-purpose", 1) == 0.8943897066077681


def test_numbers_of_rows_and_events_take_a_name():
    chance = RowRandom(3, 2, np.array([7, 8]))
    np.testing.assert_array_equal(chance.by_row("view"), counter_uniform(3, 70, 2, chance.example))
    drawn = chance.by_event("masked-event", np.array([2, 1]))
    np.testing.assert_array_equal(drawn, counter_uniform(3, 64, 2, np.array([7, 7, 8]), np.array([0, 1, 0])))
