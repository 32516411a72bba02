"""The root of a cache: whose format it is, who may write, and how its files look."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import dscache
from dscache.cache import Cache
from dscache.errors import StorageError
from dscache.store import Store, key_of
from tests.children import unprivileged
from tests.making import Shelf, artifact, content, md5
from tests.stores import boot, digest_of, files_below

LITTLE, LARGE = content(3000, 1), content((1 << 20) + 1, 2)


@pytest.fixture
def shelf(shelf: Shelf) -> Shelf:
    """A dataset `data` of a small and a large file, one known by its md5 only."""
    (shelf.folder / "little").write_bytes(LITTLE)
    (shelf.folder / "large").write_bytes(LARGE)
    artifacts = [
        artifact("little.bin", LITTLE, "little", hash=md5(LITTLE)),
        artifact("deep/large.bin", LARGE, "large"),
    ]
    shelf.add("data", artifacts)
    return shelf


def test_a_new_root_is_told_by_its_files(home: Path) -> None:
    store = Store(f"{home}/cache")
    assert list(home.iterdir()) == []  # opening makes nothing
    store.prepare()
    assert (home / "cache/VERSION").read_text() == "1\n"
    assert (home / "cache/CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06")
    store.prepare()


@pytest.mark.usefixtures("shelf")
def test_a_cache_of_a_newer_version_is_refused_and_left_as_it_is(home: Path) -> None:
    cache = home / "cache"
    cache.mkdir()
    (cache / "VERSION").write_text("2\n")
    with pytest.raises(StorageError, match=r"has format 2.* knows format 1") as found:
        dscache.fetch("data")
    assert found.value.code == 6
    assert "newer dscache" in found.value.hint
    assert [path.name for path in cache.iterdir()] == ["VERSION"]


@pytest.mark.parametrize(
    "junk", [b"", b"\n", b"one", b"-1", b"1.5", b"\x00\x00", b"\xff\xfe", b"1" * 100, b"1 2"]
)
def test_a_version_that_makes_no_sense_is_never_repaired(home: Path, junk: bytes) -> None:
    (home / "VERSION").write_bytes(junk)
    with pytest.raises(StorageError, match="VERSION") as found:
        Store(str(home))
    assert found.value.code == 6
    assert (home / "VERSION").read_bytes() == junk


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("mask", "file", "blob", "folder"),
    [(0o002, 0o664, 0o444, 0o775), (0o022, 0o644, 0o444, 0o755), (0o077, 0o600, 0o400, 0o700)],
)
def test_the_umask_decides_who_may_read_and_write(
    home: Path, mask: int, file: int, blob: int, folder: int
) -> None:
    before = os.umask(mask)
    try:
        dscache.fetch("data")
    finally:
        os.umask(before)
    cache = home / "cache"
    modes = {path: path.stat().st_mode & 0o777 for path in [cache, *cache.rglob("*")]}
    final = {"blobs", "datasets"}
    for path, mode in modes.items():
        kind = path.relative_to(cache).parts[:1]
        if path.is_dir():
            assert mode == folder, path
        elif kind and kind[0] in final:
            assert mode == blob, path
        else:
            assert mode == file, path


@pytest.mark.usefixtures("shelf")
def test_a_cache_that_cannot_be_written_serves_hits(home: Path) -> None:
    path = dscache.fetch("data")
    folders = [home / "cache", *(home / "cache").rglob("*")]
    for each in folders:
        each.chmod(0o555 if each.is_dir() else 0o444)
    for record in (home / "cache/records").rglob("*.json"):
        os.utime(record, (1, 1))

    def use() -> None:
        assert dscache.fetch("data") == path
        assert dscache.path("data", files="*large*") == path
        placed = dscache.fetch("data", into=home / "mine")
        assert (placed / "deep/large.bin").read_bytes() == LARGE
        with boot("another"):
            assert dscache.fetch("data") == path
        with pytest.raises(StorageError, match="cannot be used") as found:
            Cache().retrieve(str(home / "shelf/large"), None)
        assert found.value.code == 6
        assert "DSCACHE_DIR" in found.value.hint

    try:
        unprivileged(use)
    finally:
        for each in folders:
            each.chmod(0o755 if each.is_dir() else 0o444)


def test_a_cache_that_cannot_be_read_is_an_error_of_storage(home: Path) -> None:
    Store(f"{home}/cache").prepare()
    (home / "cache").chmod(0)

    def open_it() -> None:
        with pytest.raises(StorageError, match="Permission denied") as found:
            Store(f"{home}/cache")
        assert found.value.code == 6

    unprivileged(open_it)
    (home / "cache").chmod(0o755)


def test_a_root_that_is_a_file_is_an_error_of_storage(home: Path) -> None:
    (home / "cache").touch()
    store = Store(f"{home}/cache")
    with pytest.raises(StorageError, match="cannot be used") as found:
        store.prepare()
    assert found.value.code == 6


@pytest.mark.parametrize("name", ["plain.bin", "a b/ü.bin", "ü" * 300, "../../up", ""])
def test_wrong_bytes_are_kept_under_a_plain_name(home: Path, name: str) -> None:
    store = Store(f"{home}/cache")
    store.prepare()
    path = store.set_aside(name, b"wrong")
    assert Path(path).read_bytes() == b"wrong"
    assert files_below(home / "cache/quarantine") == [Path(path)]
    assert path.isascii()


def test_keys_are_plain_names() -> None:
    assert key_of(digest_of(b"", "md5")) == "md5-d41d8cd98f00b204e9800998ecf8427e"
