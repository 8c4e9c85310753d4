"""Contrastive learning for recommender systems built on language models."""

__version__ = "0.2.0"
