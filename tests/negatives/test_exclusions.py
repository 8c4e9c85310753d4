"""What must not count as a negative: known positives are found, however many users a batch has."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recsys_cl.data import Sequences, leave_one_out, synthetic
from recsys_cl.negatives import KnownPositives

check = settings(deadline=None, max_examples=60, derandomize=True)
N_ITEMS = 6
HISTORIES = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=5), min_size=1, max_size=5).filter(any)


@given(HISTORIES, st.data())
@check
def test_the_mask_is_what_a_loop_finds(histories, data):
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), min_size=1, max_size=6))
    items = data.draw(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=6))
    mask = KnownPositives(Sequences.from_lists(histories), N_ITEMS).mask(torch.tensor(users), torch.tensor(items))
    assert mask.tolist() == [[item in histories[user] for item in items] for user in users]


def test_where_nobody_likes_anything_nothing_is_known():
    known = KnownPositives(Sequences.from_lists([[], []]), N_ITEMS)
    assert known.mask(torch.tensor([0, 1]), torch.tensor([2, 3, 4])).tolist() == [[False] * 3] * 2


def test_users_are_rows_and_not_neighbours_in_the_log():
    """Item 0 of user 1 has the key that item 6 of user 0 would have."""
    known = KnownPositives(Sequences.from_lists([[5], [0]]), N_ITEMS)
    assert known.mask(torch.tensor([0, 1]), torch.tensor([0, 5])).tolist() == [[False, True], [True, False]]


def test_duplicates_of_a_rows_positive_are_masked_in_its_batch():
    split = leave_one_out(synthetic(100, 80, 1_500))
    known = KnownPositives(split.train, split.n_items)
    users = torch.arange(20).repeat_interleave(2)
    items = torch.from_numpy(split.train.recent(2)[:20].ravel())
    mask = known.mask(users, items)
    assert mask.diagonal().all()
    assert mask[users[:, None] == users].all()
    held_out = torch.from_numpy(split.test.target.items[split.test.target.start][:20])
    assert not known.mask(torch.arange(20), held_out).diagonal().any()


def test_each_row_may_have_columns_of_its_own():
    known = KnownPositives(Sequences.from_lists([[0, 2], [1]]), N_ITEMS)
    users, items = torch.tensor([1, 0]), torch.tensor([[0, 1, 2], [5, 2, 0]])
    assert known.mask(users, items).tolist() == [[False, True, False], [False, True, True]]


def test_it_follows_the_model_and_is_not_saved_with_it():
    model = nn.Module()
    model.known = KnownPositives(Sequences.from_lists([[0, 2], [1]]), N_ITEMS)
    assert model.to("meta").known.keys.is_meta
    assert not model.state_dict()
    assert not list(model.parameters())
