"""Positive pairs: another item of the user, another user of the item, what similar users have, another view.

The next item, the positive of most recommenders, comes with its history and so from the examples themselves:
:class:`recsys_cl.training.examples.NextItemExamples`. The samplers here know an event by its position in the log of a
:class:`~recsys_cl.data.Sequences`: its item is ``sequences.items[event]``, its rating ``sequences.ratings[event]``.
What they draw is a function of (seed, epoch, event), so that neither order, batch nor resumption changes it.

Over events that have a past, another user of the same item is another history with the same next item: the same-target
positive of DuoRec (Qiu et al. 2022, https://arxiv.org/abs/2110.05730; chapter 7). Where there is none, at −1, its
positive is the history itself, seen through another dropout.
"""

from recsys_cl.positives.events import OtherItemOfUser, OtherUserOfItem
from recsys_cl.positives.neighbours import LikedByNeighbours
from recsys_cl.positives.sequence_views import similar_items
from recsys_cl.positives.view_pairs import VIEWS, View, two_views, views_named

__all__ = [
    "VIEWS",
    "LikedByNeighbours",
    "OtherItemOfUser",
    "OtherUserOfItem",
    "View",
    "similar_items",
    "two_views",
    "views_named",
]
