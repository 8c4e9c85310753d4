"""From texts, ids and histories to vectors."""

from recsys_cl.encoders.adapters import Adapter, adapt, merge, parameter_counts
from recsys_cl.encoders.generator import Discriminator, Generator, ItemPolicy
from recsys_cl.encoders.language import LanguageEncoder
from recsys_cl.encoders.towers import AttentionPooling, BehaviourMLP, ItemTower, MeanPooling

__all__ = [
    "Adapter",
    "AttentionPooling",
    "BehaviourMLP",
    "Discriminator",
    "Generator",
    "ItemPolicy",
    "ItemTower",
    "LanguageEncoder",
    "MeanPooling",
    "adapt",
    "merge",
    "parameter_counts",
]
