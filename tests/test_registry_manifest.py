"""Manifests: many lines, in little time and memory, each held to the rules of entries."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from dscache.digest import Digest
from dscache.errors import DscacheError, InvalidFile, UnsafeError
from dscache.model import Artifact, Manifest
from dscache.registry import manifest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SHA256 = "sha256:" + "ab" * 32
MD5 = "md5:" + "cd" * 16
BASES = ("https://data.example.org/x/",)


def text(*lines: dict[str, Any]) -> bytes:
    right = {"path": "a", "size": 1, "hash": SHA256}
    return b"".join(json.dumps({**right, **line}).encode() + b"\n" for line in lines)


def read(
    folder: Path, data: bytes, *bases: str, base: str = "", local: bool = False
) -> list[Artifact]:
    path = folder / "list"
    path.write_bytes(data)
    listed = Manifest(Artifact("list.jsonl", Digest.parse(SHA256)), bases or BASES, base)
    return list(manifest.read(str(path), listed, local=local))


def test_lines(tmp_path: Path) -> None:
    data = text({"path": "x/a b#.csv"}, {"path": "c", "urls": ["https://else.org/c", "own/c"]})
    found = read(tmp_path, data + b"\n \n", base="https://registry.example.org/")
    digest = Digest.parse(SHA256)
    assert found == [
        Artifact("x/a b#.csv", digest, 1, urls=("https://data.example.org/x/x/a%20b%23.csv",)),
        Artifact("c", digest, 1, urls=("https://else.org/c", "https://registry.example.org/own/c")),
    ]


def test_each_base_url_is_a_mirror(tmp_path: Path) -> None:
    (found,) = read(tmp_path, text({}), "https://one/", "https://two/get?file=")
    assert found.urls == ("https://one/a", "https://two/get?file=a")


def test_compressed_lists(tmp_path: Path) -> None:
    data = text({"path": "a"}, {"path": "b"})
    plain = read(tmp_path, data)
    assert read(tmp_path, gzip.compress(data)) == plain
    assert read(tmp_path, zstd.compress(data)) == plain
    assert read(tmp_path, b"") == []


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"path": "../a"}, UnsafeError),
        ({"path": "/a"}, UnsafeError),
        ({"path": "a/CON"}, InvalidFile),
        ({"path": "x\\y"}, InvalidFile),
        ({"path": "OK"}, InvalidFile),
        ({"path": "ok/below"}, InvalidFile),
        ({"hash": "sha256:12"}, InvalidFile),
        ({"size": -1}, InvalidFile),
        ({"size": 1.5}, InvalidFile),
        ({"urls": ["file:///etc/passwd"]}, UnsafeError),
        ({"urls": ["../other"]}, UnsafeError),
        ({"urls": ["https://u:p@h/a"]}, InvalidFile),
        ({"urls": ["http://data.example.org/a"], "hash": MD5}, InvalidFile),
    ],
)
def test_broken_lines_are_named(
    tmp_path: Path, line: dict[str, Any], error: type[DscacheError]
) -> None:
    with pytest.raises(error, match=r"list\.jsonl, line 2") as failure:
        read(tmp_path, text({"path": "ok"}, line))
    assert failure.value.facts["file"] == "list.jsonl, line 2"


@pytest.mark.parametrize("line", [b'{"path": "\xff"}\n', b'{"x":' + b"[" * 100_000 + b"\n"])
def test_lines_that_are_no_text_or_without_end(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(InvalidFile, match=r"list\.jsonl, line 2"):
        read(tmp_path, text({}) + line)


def test_lines_without_a_place(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(text({}))
    with pytest.raises(InvalidFile, match="line 1"):
        list(manifest.read(str(path), Manifest(Artifact("m", None)), local=False))


def test_plain_http_does_not_do_for_a_weak_hash(tmp_path: Path) -> None:
    strong, weak = text({}), text({}, {"path": "b", "hash": MD5})
    assert read(tmp_path, strong, "http://data.example.org/")
    with pytest.raises(InvalidFile, match="line 2"):
        read(tmp_path, weak, "http://data.example.org/")
    assert len(read(tmp_path, weak, "http://127.0.0.1/")) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]\n",
        b"\xff\n",
        b'{"path": "a"}\n',
        b"[" * 100_000,
        b" " * (1 << 20),
        gzip.compress(text({}), mtime=0)[:-4],
        gzip.compress(text({}), mtime=0)[:12] + b"\0" * 20,
        zstd.compress(text({}))[:-4],
        zstd.compress(text({}))[:9] + b"\xff" * 20,
    ],
)
def test_damaged_lists(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidFile):
        read(tmp_path, data)


def test_many_lines_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "list"
    with path.open("w") as file:
        for number in range(30_000):
            digest = hashlib.sha256(b"%d" % number).hexdigest()
            line = {"path": f"train/n{number % 500:08}/{number:08}.jpg", "hash": digest, "size": 1}
            file.write(json.dumps(line) + "\n")
    listed = Manifest(Artifact("list", None), BASES)
    for _ in manifest.read(str(path), listed, local=False):
        break
    tracemalloc.start()
    count = sum(1 for _ in manifest.read(str(path), listed, local=False))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 30_000
    assert most < 10 << 20  # the paths and a table of them; the artifacts would take 20 MB more
