"""Asset store: named data sets and models, downloaded from one of two sources and verified by SHA-256.

``RECSYS_CL_CACHE`` moves the cache; ``RECSYS_CL_OFFLINE=1`` forbids the network.

See: chapter 01 (models), chapter 02 (data).
"""

from recsys_cl.assets.entries import ASSETS, HUB, Asset, Source
from recsys_cl.assets.store import MANIFEST, cache_folder, describe, fetch, is_offline, path, verify

__all__ = [
    "ASSETS",
    "HUB",
    "MANIFEST",
    "Asset",
    "Source",
    "cache_folder",
    "describe",
    "fetch",
    "is_offline",
    "path",
    "verify",
]
