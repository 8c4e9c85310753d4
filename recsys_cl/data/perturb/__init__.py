"""Perturbed data: noisy event logs, fake users and altered item texts.

See: chapter 9.
"""

from recsys_cl.data.perturb.common import columns_of, replace_log, unseen_candidates
from recsys_cl.data.perturb.corruption import CORRUPTIONS, Corruption, add_random, drop_random, swap_items
from recsys_cl.data.perturb.shilling import inject
from recsys_cl.data.perturb.text_attacks import stuff_keywords, telling_words, typos

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "add_random",
    "columns_of",
    "drop_random",
    "inject",
    "replace_log",
    "stuff_keywords",
    "swap_items",
    "telling_words",
    "typos",
    "unseen_candidates",
]
