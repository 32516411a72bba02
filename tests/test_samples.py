"""Samples of tar shards, as WebDataset groups them; `test_torch_shards` asks the real one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dscache.errors import InvalidFile
from dscache.integrations.samples import Sample, samples
from tests.archives import TARS, Entry, File, Folder, Link, Special, Twin, packed

CATS = (File("a/cat.jpg", b"miau"), File("a/cat.cls", b"3"), File("a/dog.jpg", b"wuff"))


def read(tmp_path: Path, *entries: Entry, kind: str = "tar") -> list[Sample]:
    path = tmp_path / "shard"
    path.write_bytes(packed(kind, *entries))
    return list(samples(path, "the shard"))


def keys(found: list[Sample]) -> list[tuple[str, ...]]:
    return [(each["__key__"], *(name for name in each if name[:2] != "__")) for each in found]


@pytest.mark.parametrize("kind", [kind for kind in TARS if kind != "tar.zst"])
def test_files_with_one_key_are_one_sample(tmp_path: Path, kind: str) -> None:
    assert read(tmp_path, *CATS, kind=kind) == [
        {"__key__": "a/cat", "__url__": "the shard", "jpg": b"miau", "cls": b"3"},
        {"__key__": "a/dog", "__url__": "the shard", "jpg": b"wuff"},
    ]


def test_the_key_ends_at_the_first_dot_of_the_name(tmp_path: Path) -> None:
    found = read(tmp_path, File("v1.0/x.seg.PNG"), File("v1.0/x.png"), File("./y.tar.gz"))
    assert keys(found) == [("v1.0/x", "seg.png", "png"), ("./y", "tar.gz")]


def test_a_key_that_comes_again_is_another_sample(tmp_path: Path) -> None:
    found = read(tmp_path, File("a.x"), File("b.x"), File("a.y"))
    assert keys(found) == [("a", "x"), ("b", "x"), ("a", "y")]


def test_what_is_no_part_of_a_sample_does_not_divide_it(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        Folder("a"),
        File("a/1.x"),
        File("a/README"),
        File("__meta__"),
        File("__sums__/a.x"),
        File(".hidden"),
        Link("a/1.z", "1.x"),
        Twin("a/1.w", "a/1.x"),
        Special("a/1.v", stat.S_IFIFO),
        File("a/1.y"),
    )
    assert keys(found) == [("a/1", "x", "y")]


def test_an_empty_shard(tmp_path: Path) -> None:
    assert read(tmp_path) == []


def test_two_files_of_one_key_and_suffix(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="the shard has two files 'jpg' of the sample 'a'"):
        read(tmp_path, File("a.jpg"), File("a.JPG"))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_damage_is_told_with_the_name_of_the_shard(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "shard"
    data = packed(kind, *(File(f"{n}.x", bytes([n]) * 5000) for n in range(50)))
    for broken in (data[: len(data) // 2], b"<html>", data[:100] + bytes(len(data))):
        path.write_bytes(broken)
        with pytest.raises(InvalidFile, match="the shard cannot be read as a tar archive"):
            list(samples(path, "the shard"))


def test_a_shard_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(samples(tmp_path / "gone", "the shard"))
