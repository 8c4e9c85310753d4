"""Same-target positives: another history with the same next item, for which the events' own sampler serves."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_cl.data import Sequences
from recsys_cl.positives import OtherUserOfItem

check = settings(deadline=None, max_examples=60, derandomize=True)
HISTORIES = st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=2, max_size=6)


@given(HISTORIES.filter(lambda histories: any(len(history) > 1 for history in histories)))
@check
def test_histories_are_paired_by_their_next_item(histories):
    train = Sequences.from_lists(histories)
    with_past = replace(train, start=np.minimum(train.start + 1, train.stop))
    row, event = with_past.flat()
    drawn = OtherUserOfItem(with_past, n_items=5).sample(0, event)
    owner = np.full(len(train.items), -1)
    owner[event] = row
    found = drawn >= 0
    assert (owner[drawn[found]] >= 0).all()  # it has a past of its own
    assert (owner[drawn[found]] != row[found]).all()
    assert (train.items[drawn[found]] == train.items[event[found]]).all()
    users = [set(row[train.items[event] == item]) for item in range(5)]
    assert found.tolist() == [len(users[item]) > 1 for item in train.items[event]]
