"""Datasets of very many small files: what grows with their number, and what must not."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import dscache
from tests.children import running
from tests.making import Shelf, artifact, sha256
from tests.servers import nginx
from tests.stores import files_below, steps

#: Peak memory in MiB of a process that fetches a hundred thousand files; Python, libcurl and the
#: rest of the program take nearly half of it.
_MOST_MEMORY = 100

_FETCH = """
import dscache
dscache.fetch("many")
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def make_files(folder: Path, count: int) -> dict[str, bytes]:
    """Files of 20 bytes, none like another, by their path below the folder."""
    contents = {f"{n % 100:02}/{n:06}.bin": n.to_bytes(4, "little") * 5 for n in range(count)}
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return contents


def add_entry(shelf: Shelf, name: str, base: str, contents: dict[str, bytes]) -> None:
    shelf.add(name, [artifact(path, data, base + path) for path, data in contents.items()])


def add_manifest(shelf: Shelf, name: str, base: str, contents: dict[str, bytes]) -> None:
    lines = (
        json.dumps({"path": path, "size": len(data), "hash": sha256(data)})
        for path, data in contents.items()
    )
    text = "\n".join(lines).encode()
    (shelf.folder / f"{name}.jsonl").write_bytes(text)
    keys: dict[str, Any] = {
        "hash": sha256(text),
        "size": len(text),
        "urls": [f"{name}.jsonl"],
        "base_urls": [base],
    }
    shelf.write(f"{name}.toml", {"version": "1", "manifest": keys})


@pytest.mark.parametrize("add", [add_entry, add_manifest])
def test_one_more_small_file_takes_four_steps_and_leaves_nothing_besides(
    shelf: Shelf, home: Path, add: Any
) -> None:
    contents = make_files(home / "files", 310)
    for number in range(256):  # so that making them is no step of a fetch
        (home / f"cache/blobs/sha256/{number:02x}").mkdir(parents=True)
    taken: list[Counter[str]] = []
    for start, end in ((0, 10), (10, 110), (110, 310)):  # the first one also makes the cache
        chosen = dict(list(contents.items())[start:end])
        add(shelf, f"from-{start}", f"{(home / 'files').as_uri()}/", chosen)
        with steps() as each:
            folder = dscache.fetch(f"from-{start}")
        assert {path: (folder / path).read_bytes() for path in chosen} == chosen
        taken.append(Counter(step for step, _ in each))
    assert taken[2] - taken[1] == dict.fromkeys(("create", "write", "rename", "link"), 100)
    cache = home / "cache"
    locks = [path for path in files_below(cache / "locks") if path.parent.name != "hosts"]
    assert len(locks) <= 2 * len(taken)
    assert [files_below(cache / kind) for kind in ("parts", "proofs", "aliases")] == [[], [], []]


@pytest.mark.soak
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_a_hundred_thousand_files_need_little_memory(shelf: Shelf, home: Path) -> None:
    count = 100_000
    contents = make_files(home / "files", count)
    with nginx(home / "files", home / "nginx") as server:
        add_manifest(shelf, "many", f"{server.url}/", contents)
        with running(_FETCH) as process:
            said, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert int(said) < _MOST_MEMORY << 10
    cache = home / "cache"
    assert len(files_below(cache / "blobs")) == count + 1
    # That of the fetch, and that of the manifest, each with its holder, and what the host can.
    assert len(files_below(cache / "locks")) <= 6
    assert files_below(cache / "parts") == []
