"""A cache that takes nothing: on a medium that is read-only, or in folders of somebody else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dscache import digest, events
from dscache.errors import StorageError
from dscache.events import Notice
from dscache.results import Fetched
from tests.archives import File, tar_of
from tests.children import unprivileged
from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.mounts import SMALLEST, mounted, read_only
from tests.rooms import everything
from tests.stores import boot, overwrite

Result = TypeVar("Result")

ONE, BIG = content(20_000, 1), content(2 << 20, 2)
FILES = {"one.bin": ONE, "deep/big.bin": BIG}
MEMBERS = {"a.csv": b"1,2\n", "deep/b.bin": content(3000, 4)}
TAR = tar_of(*(File(name, data) for name, data in MEMBERS.items()))


class Closed:
    """A filled cache, which can be closed; `act` is then somebody's who may not write to it."""

    def __init__(self, desk: Desk, closing: Any) -> None:
        self.desk = desk
        self._closing = closing

    def act(self, work: Callable[[], Result]) -> Result:
        """What comes of `work` in a process of its own; nothing in the cache may change by it."""
        before = untimed(self.desk.root)
        with self._closing():
            result = unprivileged(work)
        assert untimed(self.desk.root) == before
        return result

    def fetch(self, name: str = "data", **options: Any) -> Fetched:
        """What a fetch gives then."""
        return self.act(lambda: self.desk.cache.fetch_all([f"shelf/{name}"], **options)[0])


def untimed(root: Path) -> dict[Path, object]:
    """All that stands there but the times: who owns a record may note its use all the same."""
    found = everything(root.resolve())
    return {path: (mode, links, data) for path, (mode, links, _, data) in found.items()}


@contextmanager
def without_permissions(root: Path) -> Iterator[None]:
    """Folders and records of somebody else, as they look to everybody else."""
    modes = {path: path.lstat().st_mode for path in (root, *root.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.fixture(params=["permissions", "medium"])
def closed(request: pytest.FixtureRequest, home: Path) -> Iterator[Closed]:
    if request.param == "medium":
        with mounted("ext4", 2 * SMALLEST["ext4"], home / "disk") as disk:
            (home / "cache").symlink_to(disk)
            desk = Desk(home)
            yield Closed(fill(desk), lambda: read_only(disk))
    else:
        desk = Desk(home)
        yield Closed(fill(desk), lambda: without_permissions(desk.root))


def fill(desk: Desk) -> Desk:
    for path, data in {**FILES, "a.tar": TAR, "more.bin": b"more"}.items():
        there = desk.shelf.folder / path
        there.parent.mkdir(exist_ok=True)
        there.write_bytes(data)
    desk.offer("data", *(artifact(path, data, path) for path, data in FILES.items()))
    desk.offer("tar", artifact("a.tar", TAR, "a.tar", unpack="tar"))
    desk.offer("more", artifact("more.bin", b"more", "more.bin"))
    for found in desk.fetch_all("data", "tar"):
        found.unwrap()
    for record in desk.root.rglob("records/*/*.json"):
        os.utime(record, (1e9, 1e9))
    return desk


def test_it_serves_all_that_looks(closed: Closed, home: Path) -> None:
    cache = closed.desk.cache
    events_heard: list[events.Event] = []
    found = closed.act(lambda: cache.fetch_all(["shelf/data"], progress=events_heard.append)[0])
    assert found.status == "cached"
    assert (found.unwrap() / "deep/big.bin").read_bytes() == BIG
    assert events_heard == []
    assert closed.act(lambda: cache.path("shelf/data")) == found.path
    assert closed.act(lambda: cache.path("shelf/data", files="*big*")) == found.path
    assert (closed.act(lambda: cache.path("shelf/tar")) / "a.csv").read_bytes() == b"1,2\n"
    assert [each.name for each in closed.act(cache.cached)] == ["data", "tar"]
    assert closed.act(lambda: cache.info("shelf/data")).path == found.path
    assert closed.act(cache.usage).bytes > len(ONE) + len(BIG)
    assert closed.act(cache.verify).corrupt == ()
    assert closed.act(lambda: cache.verify(full=True)).corrupt == ()
    placed = closed.fetch(into=home / "mine", link="symlink")
    assert (placed.unwrap() / "one.bin").read_bytes() == ONE


@pytest.mark.parametrize("name", ["more", "tar", "data"])
def test_what_would_have_to_be_brought_is_one_clear_error(closed: Closed, name: str) -> None:
    if name == "tar":
        next(closed.desk.root.glob("trees/*/*/files/a.csv")).unlink()
        next(closed.desk.root.glob("datasets/*/tar/*/a.csv")).unlink()
    if name == "data":
        next(closed.desk.root.glob("datasets/*/data/*/one.bin")).unlink()
    error = error_of(closed.fetch(name))
    assert isinstance(error, StorageError)
    assert str(closed.desk.root) in str(error)
    assert "DSCACHE_DIR" in error.hint
    assert "read_from" in error.hint
    assert "permission" in str(error).lower() or "read-only" in str(error).lower()


def test_one_file_that_cannot_be_had_does_not_hide_another_that_can(closed: Closed) -> None:
    names = ["shelf/more", "shelf/data"]
    more, data = closed.act(lambda: closed.desk.cache.fetch_all(names))
    assert error_of(more).code == 6
    assert data.status == "cached"


def test_a_process_verifies_once_what_another_boot_has_written(closed: Closed) -> None:
    """It cannot be written down that it was; a record with the mark is not verified at all."""

    def fetch_twice() -> list[int]:
        read: list[str] = []
        real = digest._read

        def noting(path: str, take: Callable[[memoryview], object]) -> None:
            read.append(path)
            real(path, take)

        counts = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digest, "_read", noting)
            for _ in range(2):
                for name in ("data", "tar"):
                    assert closed.desk.fetch(name).status == "cached"
                counts.append(len(read))
        return counts

    assert closed.act(fetch_twice) == [0, 0]
    with boot("another"):
        for _ in range(2):
            first, second = closed.act(fetch_twice)
            assert 0 < first == second
        assert closed.desk.fetch("data").status == "cached"  # which marks it: its owner may
        assert closed.desk.cache.verify(["shelf/tar"]).corrupt == ()
        assert closed.act(fetch_twice) == [0, 0]


def test_what_a_power_cut_has_torn_is_not_served(closed: Closed) -> None:
    path = closed.desk.cache.path("shelf/data")
    overwrite(path / "deep/big.bin", BIG[: 1 << 20] + bytes(1 << 20))
    with boot("another"):
        assert closed.fetch().error
        assert closed.fetch().error  # and another look makes it no better


def test_a_tree_of_another_boot_is_verified_too(closed: Closed) -> None:
    path = closed.desk.cache.path("shelf/tar")
    overwrite(path / "deep/b.bin", bytes(3000))
    with boot("another"):
        assert closed.fetch("tar").error


def test_notices_are_told_where_a_remote_registry_cannot_be_kept(closed: Closed) -> None:
    """Nothing else is said at a hit, and nothing is said twice."""

    def fetch() -> list[str]:
        closed.desk.fetch("data")
        return [each.message for each in closed.desk.told(Notice)]

    assert closed.act(fetch) == []
