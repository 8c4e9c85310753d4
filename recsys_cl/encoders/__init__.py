"""From texts, ids and histories to vectors."""

from recsys_cl.encoders.language import LanguageEncoder
from recsys_cl.encoders.towers import AttentionPooling, BehaviourMLP, ItemTower, MeanPooling

__all__ = ["AttentionPooling", "BehaviourMLP", "ItemTower", "LanguageEncoder", "MeanPooling"]
