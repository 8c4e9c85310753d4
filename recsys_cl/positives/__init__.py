"""Positive pairs: another item of the user, another user of the item, an item of similar users, another view.

The next item, the positive of most recommenders, comes with its history from the training examples:
:class:`recsys_cl.training.examples.NextItemExamples`. The samplers here identify an event by its position in the log of
a :class:`~recsys_cl.data.Sequences`: its item is ``sequences.items[event]``, its rating ``sequences.ratings[event]``.
Draws are a function of (seed, epoch, event), so neither order, batch nor a resumed run changes them.

For events with a past, another user of the same item is another history with the same next item: the same-target
positive of DuoRec (Qiu et al. 2022, https://arxiv.org/abs/2110.05730; chapter 7). Where there is none, marked by −1,
DuoRec's positive is the history itself under another dropout.
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
