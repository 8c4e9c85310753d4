"""What surrounds events."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys_cl.data import Sequences
from recsys_cl.encoders.context import Context, event_features, feature_names, gap_numbers
from recsys_cl.errors import InputError


def log() -> Sequences:
    plain = Sequences.from_lists([[0, 1, 2], [1]])
    return replace(
        plain,
        times=np.array([0.0, 0.0, 7200.0, 86_399.0]),
        ratings=np.array([1.0, 3.5, 5.0, 4.0], dtype=np.float32),
        event_types=np.array([0, 1, 0, 1]),
    )


def test_features_are_read_off_the_log() -> None:
    rows, positions = log().flat()
    table = event_features(log(), rows, positions, ["gap", "hour", "rating", "event_type", "user"])
    assert table[:, 0].tolist() == [0, 0, 13, 0]  # two hours are 2^12.8 s; first events have no gap
    assert table[:, 1].tolist() == [0, 0, 2, 23]
    assert table[:, 2].tolist() == [2, 7, 10, 8]
    assert table[:, 3].tolist() == [0, 1, 0, 1]
    assert table.shape == (4, 4)  # the user's attributes are no column


def test_a_gap_never_reads_the_user_before() -> None:
    data = log()
    later = replace(data, start=np.array([1, 3]), stop=np.array([3, 4]))  # histories cut on the left
    rows, positions = later.flat()
    assert event_features(later, rows, positions, ["gap"])[:, 0].tolist() == [0, 13, 0]


def test_gaps_that_run_backwards_or_for_centuries_stay_in_the_table() -> None:
    assert gap_numbers(np.array([-5.0, 1e12])).tolist() == [0, 31]


def test_context_begins_as_nothing_and_adds_up() -> None:
    context = Context(["hour", "user"], n_event_types=0, n_attributes=2, dim=3)
    features, lengths = torch.tensor([[1], [2], [1]]), torch.tensor([2, 1])
    attributes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert not context(features, attributes, lengths).any()
    with torch.no_grad():
        context.tables[0].weight[1] = 1.0
        context.attributes.weight[:, 1] = 2.0
    out = context(features, attributes, lengths)
    assert out[:, 0].tolist() == [1.0, 0.0, 3.0]


def test_unknown_features_are_named() -> None:
    with pytest.raises(InputError, match="no context feature 'weather'; valid names are gap, hour"):
        feature_names("gap+weather")


def test_what_the_data_has_not_is_refused() -> None:
    with pytest.raises(InputError, match="0 event types"):
        Context(["event_type"], n_event_types=0, n_attributes=0, dim=2)
