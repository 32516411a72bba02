"""What is measured and written in Python, each run as a process of its own: `… NAME ARGUMENTS`.

Imports stand in the functions, so that a process pays for its own only.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

_CHUNK = 32 << 10  # torchvision's
_BLOCK = 1 << 20


def dscache_file(url: str, sha256: str, folder: str) -> None:
    """One file with dscache: verified, stored, recorded."""
    from dscache import Cache

    Cache(folder).retrieve(url, sha256)


def dscache_datasets(names: str, folder: str) -> None:
    """Datasets of the configured registry, names joined by commas."""
    from dscache import Cache

    Cache(folder).fetch_many(names.split(","))


def dscache_limited(url: str, sha256: str, rate: str, folder: str) -> None:
    """One file at a limited rate; prints the seconds of the call alone."""
    from dscache import Cache, settings

    cache = Cache(folder, settings=settings.load().override(limit_rate=int(rate)))
    began = time.perf_counter()
    cache.retrieve(url, sha256)
    print(time.perf_counter() - began)


def dscache_project(name: str, folder: str) -> None:
    """A dataset of the configured registry fetched, and hard links to its files in a project."""
    from dscache import Cache

    Cache(f"{folder}/cache").fetch(name, into=f"{folder}/project", link="hardlink")


def dscache_linked(name: str, cache: str, folder: str) -> None:
    """Hard links to the files of a dataset in another cache; prints the call's own seconds."""
    from dscache import Cache

    found = Cache(cache)
    began = time.perf_counter()
    found.fetch(name, into=folder, link="hardlink")
    print(time.perf_counter() - began)


def dscache_warm(name: str, folder: str) -> None:
    """Print microseconds of a warm fetch: the best of twenty blocks of fifty, and their median."""
    from dscache import Cache

    cache = Cache(folder)
    cache.fetch(name)
    time.sleep(0.1)  # what was written this very moment is read again, to be safe
    cache.fetch(name)
    blocks = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(50):
            cache.fetch(name)
        blocks.append((time.perf_counter() - began) / 50 * 1e6)
    print(min(blocks), statistics.median(blocks))


def pooch_file(url: str, sha256: str, folder: str) -> None:
    """One file with plain Pooch."""
    import pooch

    pooch.retrieve(url, f"sha256:{sha256}", path=folder)


def pooch_loop(base: str, hashes: str, folder: str) -> None:
    """Many files with plain Pooch, one after the other."""
    import pooch

    pooch.get_logger().setLevel("ERROR")
    registry = json.loads(Path(hashes).read_text())
    target = pooch.create(folder, base, registry=registry)
    for name in registry:
        target.fetch(name)


def drop_in_loop(base: str, hashes: str, folder: str) -> None:
    """Many files with the drop-in for Pooch, one after the other, into a cache of its own."""
    target = _drop_in(base, json.loads(Path(hashes).read_text()), folder)
    for name in target.registry:
        target.fetch(name)


def drop_in_many(base: str, hashes: str, folder: str) -> None:
    """The same, at once."""
    _drop_in(base, json.loads(Path(hashes).read_text()), folder).fetch_many()


def drop_in_warm(base: str, name: str, sha256: str, folder: str) -> None:
    """Print milliseconds of a fetch of what is there: the drop-in's, and Pooch's of the same."""
    import pooch

    target = _drop_in(base, {name: sha256}, folder)
    target.fetch(name)
    plain = pooch.create(target.path, base, registry=target.registry)
    for manager, runs in ((target, 50), (plain, 3)):
        seconds = []
        for _ in range(runs):
            began = time.perf_counter()
            manager.fetch(name)
            seconds.append(time.perf_counter() - began)
        print(statistics.median(seconds) * 1e3, end=" ")
    print()


def _drop_in(base: str, registry: dict[str, str], folder: str) -> Any:
    os.environ["DSCACHE_DIR"] = f"{folder}/cache"
    from dscache.integrations import pooch

    pooch.get_logger().setLevel("ERROR")
    return pooch.create(f"{folder}/files", base, registry=registry)


def pooch_unpacked(processor: str, path: str, sha256: str, folder: str) -> None:
    """An archive that Pooch has, checked and then unpacked by one of its processors."""
    import pooch

    where, _, name = path.rpartition("/")
    unpack = getattr(pooch, processor)(extract_dir=folder)
    pooch.retrieve("http://unused.invalid/", f"sha256:{sha256}", name, where, unpack)


def curl_then_hashlib(url: str, sha256: str, folder: str) -> None:
    """One file with curl, then a pass of hashlib over it."""
    target = _target(folder, "file")
    subprocess.run(["curl", "-sS", "-f", "-o", target, url], check=True)
    _verify(target, sha256)


def urllib_file(url: str, sha256: str, folder: str) -> None:
    """One file as torchvision brings it: one stream in chunks of 32 KiB, then a pass over it."""
    target = _target(folder, "file")
    _stream(url, target)
    _verify(target, sha256)


def urllib_loop(base: str, hashes: str, folder: str) -> None:
    """Many files in that way."""
    for name, sha256 in json.loads(Path(hashes).read_text()).items():
        target = _target(folder, name)
        _stream(base + name, target)
        _verify(target, sha256)


def hub_file(url: str, sha256: str, folder: str) -> None:
    """One file with huggingface_hub's http_get, then a pass over it."""
    _hub_get(url, _target(folder, "file"))
    _verify(_target(folder, "file"), sha256)


def hub_loop(base: str, hashes: str, folder: str) -> None:
    """Many files in that way."""
    for name, sha256 in json.loads(Path(hashes).read_text()).items():
        _hub_get(base + name, _target(folder, name))
        _verify(_target(folder, name), sha256)


def requests_pool(base: str, hashes: str, workers: str, folder: str) -> None:
    """Many files with requests: a pool of processes, each with a session of its own."""
    from multiprocessing import get_context

    items = json.loads(Path(hashes).read_text()).items()
    jobs = [(base + name, _target(folder, name), sha256) for name, sha256 in items]
    with get_context("fork").Pool(int(workers)) as pool:
        for _ in pool.imap_unordered(_request, jobs, chunksize=50):
            pass


@cache
def _session() -> Any:
    """One for each process, so that connections are kept."""
    return import_module("requests").Session()


def _request(job: tuple[str, str, str]) -> None:
    url, target, sha256 = job
    answer = _session().get(url)
    answer.raise_for_status()
    if hashlib.sha256(answer.content).hexdigest() != sha256:
        raise ValueError(f"wrong bytes in {target}")  # an exit would leave the pool waiting
    Path(target).write_bytes(answer.content)


def dscache_kept(*words: str) -> None:
    """Local files taken into a cache: path and sha256 of each, and at last the folder."""
    from dscache import Cache

    *pairs, folder = words
    for path, sha256 in zip(pairs[::2], pairs[1::2], strict=True):
        Cache(folder).retrieve(path, sha256)


def dscache_verified(how: str, folder: str) -> None:
    """Print the seconds in which all that a cache holds is verified."""
    from dscache import Cache

    began = time.perf_counter()
    found = Cache(folder).verify(full=how == "full")
    print(time.perf_counter() - began)
    if found.corrupt:
        sys.exit(f"{len(found.corrupt)} files are damaged")


def read_fsspec(name: str, file: str, _folder: str) -> None:
    """Print the seconds in which a file of a dataset is opened by fsspec and read."""
    import fsspec

    with fsspec.open("dscache://penguins/penguins.csv") as opened:
        opened.read()  # what is imported and asked for once
    began = time.perf_counter()
    with fsspec.open(f"dscache://{name}/{file}") as opened:
        while opened.read(_BLOCK):
            pass
    print(time.perf_counter() - began)


def read_plain(name: str, folder: str) -> None:
    """Print the seconds in which the same file is opened and read without."""
    from dscache import Cache

    path = Cache(folder).path(name)
    began = time.perf_counter()
    with open(path, "rb") as opened:
        while opened.read(_BLOCK):
            pass
    print(time.perf_counter() - began)


def open_fsspec(count: str, folder: str) -> None:
    """Print microseconds of an open by fsspec of one of many small files: by name, and by path."""
    import fsspec

    shelf = Path(folder, "shelf")
    (shelf / "files").mkdir(parents=True)
    (shelf / "registry.toml").write_text('format = 1\nname = "shelf"\n')
    entry = ['version = "1"']
    for number in range(int(count)):
        data = b"%d" % number
        (shelf / f"files/{number}").write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        entry.append(
            f'[[artifacts]]\npath = "{number}"\nhash = "{sha256}"\nurls = ["files/{number}"]'
        )
    (shelf / "many.toml").write_text("\n".join(entry))
    os.environ["DSCACHE_REGISTRIES"] = str(shelf)
    from dscache import fetch

    path = fetch("many")
    through, plain = fsspec.filesystem("dscache"), fsspec.filesystem("file")
    for files, where in ((through, "many"), (plain, str(path))):
        blocks = []
        for _ in range(11):
            began = time.perf_counter()
            for number in range(int(count)):
                files.open(f"{where}/{number}").close()
            blocks.append((time.perf_counter() - began) / int(count) * 1e6)
        print(statistics.median(blocks), end=" ")


def hash_blobs(folder: str) -> None:
    """Print the seconds of a pass of hashlib over the blobs of a cache."""
    paths = [path for path in Path(folder, "blobs").rglob("*") if path.is_file()]
    began = time.perf_counter()
    for path in paths:
        hash_file(str(path))
    print(time.perf_counter() - began)


def hash_file(path: str) -> None:
    """A pass of hashlib over a file."""
    with open(path, "rb") as file:
        hashlib.file_digest(file, "sha256")


def _hub_get(url: str, target: str) -> None:
    with open(target, "wb") as out:
        import_module("huggingface_hub.file_download").http_get(url, out)


def _stream(url: str, target: str) -> None:
    from urllib.request import urlopen

    with urlopen(url) as answer, open(target, "wb") as out:
        while chunk := answer.read(_CHUNK):
            out.write(chunk)


def _verify(path: str, sha256: str) -> None:
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            sys.exit(f"wrong bytes in {path}")


def _target(folder: str, name: str) -> str:
    os.makedirs(folder, exist_ok=True)
    return f"{folder}/{name}"


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
