"""Encoders: item and user towers, sequence encoders, attention, generators and discriminators."""

from recsys_cl.encoders.generator import Discriminator, Generator, ItemPolicy
from recsys_cl.encoders.towers import AttentionPooling, BehaviourMLP, ItemTower, MeanPooling
from recsys_cl.text.adapters import Adapter, adapt, merge, parameter_counts
from recsys_cl.text.encoder import LanguageEncoder

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
