"""Language models: sentence encoders and causal decoders, with adapters, storage and embedding geometry."""

from recsys_cl.text.adapters import Adapter, adapt, merge, parameter_counts
from recsys_cl.text.decoder import LanguageModel
from recsys_cl.text.encoder import LanguageEncoder
from recsys_cl.text.geometry import Whitening, centre, effective_rank, mean_cosine, nearest_words
from recsys_cl.text.storage import choose_device, find_pretrained

__all__ = [
    "Adapter",
    "LanguageEncoder",
    "LanguageModel",
    "Whitening",
    "adapt",
    "centre",
    "choose_device",
    "effective_rank",
    "find_pretrained",
    "mean_cosine",
    "merge",
    "nearest_words",
    "parameter_counts",
]
