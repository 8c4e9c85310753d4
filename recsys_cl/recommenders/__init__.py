"""Recommenders: baselines, content-based, two-tower, sequential and fine-tuned models, created by name.

See: chapter 3 makes recommenders by name; chapter 11 compares them all.
"""

from recsys_cl.recommenders.base import MODELS, Recommender, TrainedRecommender
from recsys_cl.recommenders.baselines import EASE, IALS, ItemKNN, Popularity, Random
from recsys_cl.recommenders.cold_sequential import ColdSequential
from recsys_cl.recommenders.content import LanguageContent, TextRidge, TfidfContent
from recsys_cl.recommenders.fine_tuned import FineTuned
from recsys_cl.recommenders.models import create, load_recommender, parse_value
from recsys_cl.recommenders.neighbourhood import MarkovChain, SessionKNN
from recsys_cl.recommenders.sequential import Sequential
from recsys_cl.recommenders.two_tower import TwoTower
from recsys_cl.recommenders.user_item import UserItem

__all__ = [
    "EASE",
    "IALS",
    "MODELS",
    "ColdSequential",
    "FineTuned",
    "ItemKNN",
    "LanguageContent",
    "MarkovChain",
    "Popularity",
    "Random",
    "Recommender",
    "Sequential",
    "SessionKNN",
    "TextRidge",
    "TfidfContent",
    "TrainedRecommender",
    "TwoTower",
    "UserItem",
    "create",
    "load_recommender",
    "parse_value",
]
