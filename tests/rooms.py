"""Rooms to unpack in: a cache with things around it that no archive may touch."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from dscache import filesystem
from dscache.digest import fast_sum
from dscache.errors import DscacheError
from dscache.store import Blob, Store
from dscache.store.members import FILE, LINK, PROGRAM, Member
from dscache.store.trees import Tree
from dscache.unpack.reading import Archive
from dscache.unpack.rules import Limits
from dscache.unpack.unpacking import Unpacking
from tests.stores import publish

Refused = TypeVar("Refused", bound=DscacheError)

LIMITS = Limits(max_members=20_000_000, max_bytes=20 * 10**12, max_ratio=1000)
FREE = Limits(max_members=0, max_bytes=0, max_ratio=0)
KEY = "sha256-key"


class Room:
    """A cache in a folder, with a file and a folder next to it that archives are after.

    Attributes:
        store: the cache.
        victim: a file beside it.
        prey: a folder beside it, with a file.
    """

    def __init__(self, home: Path, executor: Executor) -> None:
        self.home = home
        self.victim, self.prey = home / "around/victim", home / "around/prey"
        self.prey.mkdir(parents=True)
        (self.prey / "kept").write_bytes(b"kept")
        self.victim.write_bytes(b"precious")
        self.store = Store(f"{home}/around/cache")
        self.store.prepare()
        self._executor = executor

    def unpacking(
        self, blob: Blob, recipe: str, limits: Limits = LIMITS, path: str = ""
    ) -> Unpacking:
        """An extraction that has not begun."""
        archive = Archive(f"data.{recipe}", recipe, path or blob.path, blob.size)
        return Unpacking(archive, self.store.trees, KEY, limits, self._executor)

    def unpack(self, data: bytes, recipe: str, limits: Limits = LIMITS) -> Tree:
        """What an archive becomes."""
        return self._unpack(publish(self.store, data), recipe, limits)

    def _unpack(self, blob: Blob, recipe: str, limits: Limits) -> Tree:
        unpacking = self.unpacking(blob, recipe, limits)
        unpacking.grow(blob.size)
        unpacking.complete()
        return unpacking.publish(blob)

    def refused(
        self, kind: type[Refused], data: bytes, recipe: str, limits: Limits = LIMITS
    ) -> Refused:
        """The error for an archive that is not unpacked. All is as it was, inside and outside."""
        blob = publish(self.store, data)
        with self.untouched(), pytest.raises(kind) as found:
            self._unpack(blob, recipe, limits)
        assert len(str(found.value)) < 1000
        return found.value

    def survives(self, data: bytes, recipe: str, *kinds: type[DscacheError]) -> bool:
        """True if an archive is unpacked; it may be refused, but only with one of these errors.

        Nothing is left of either way, and nothing outside of the tree changes.
        """
        return self.tried(data, recipe, *kinds) is not None

    def tried(
        self, data: bytes, recipe: str, *kinds: type[DscacheError]
    ) -> dict[str, bytes] | None:
        """As `survives`; the files by their path, or None if it is refused."""
        blob = publish(self.store, data)
        before = everything(self.home)
        found = None
        try:
            tree = self._unpack(blob, recipe, LIMITS)
        except kinds:
            pass
        else:
            assert_inside(Path(tree.path))
            found = contents(tree)
            filesystem.remove_tree(os.path.dirname(tree.path))
            os.rmdir(os.path.dirname(os.path.dirname(tree.path)))
            os.rmdir(self.store.layout.trees)
        assert everything(self.home) == before
        os.unlink(blob.path)
        return found

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Nothing changes meanwhile, inside the cache and outside."""
        before = everything(self.home)
        try:
            yield
        finally:
            assert everything(self.home) == before
            assert os.listdir(self.store.layout.parts) == []


@pytest.fixture
def room(home: Path) -> Iterator[Room]:
    """A room, empty."""
    with ThreadPoolExecutor(2) as executor:
        yield Room(home, executor)


def everything(folder: Path) -> dict[Path, tuple[int, int, int, bytes]]:
    """All that is in a folder: mode, links, time and bytes of each."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        data = b""
        if stat.S_ISREG(state.st_mode):
            data = path.read_bytes()
        elif stat.S_ISLNK(state.st_mode):
            data = os.fsencode(os.readlink(path))
        # Folders in which something came and went have another time.
        time = 0 if stat.S_ISDIR(state.st_mode) else state.st_mtime_ns
        links = 0 if stat.S_ISDIR(state.st_mode) else state.st_nlink
        found[path] = (state.st_mode, links, time, data)
    return found


def assert_inside(tree: Path) -> None:
    """No link in a tree leads out of it, and all is a plain file, folder or link."""
    root = os.path.realpath(tree)
    for path in tree.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
        if stat.S_ISLNK(mode):
            assert os.path.realpath(path).startswith(root)
        elif stat.S_ISREG(mode):
            assert stat.S_IMODE(mode) & ~0o555 == 0


def listed(room: Room, tree: Tree) -> list[Member]:
    """The members of a tree as its list has them."""
    return list(room.store.trees.members(tree.sha256, tree.recipe))


def walked(tree: Tree) -> dict[str, Member]:
    """The files and links of a tree as they stand on the disk, by path, and its empty folders."""
    found = {}
    for folder, folders, names in os.walk(tree.path):
        for name in [*folders, *names]:
            path = f"{folder}/{name}"
            inside = os.path.relpath(path, tree.path)
            if os.path.islink(path):
                found[inside] = Member(inside, LINK, target=os.readlink(path))
            elif name in names:
                with open(path, "rb") as file:
                    data = file.read()
                mode = PROGRAM if os.stat(path).st_mode & 0o100 else FILE
                found[inside] = Member(inside, mode, len(data), fast_sum(data))
    return found


def folders_of(tree: Tree) -> set[str]:
    """All folders of a tree."""
    return {
        os.path.relpath(f"{folder}/{name}", tree.path)
        for folder, folders, _ in os.walk(tree.path)
        for name in folders
        if not os.path.islink(f"{folder}/{name}")
    }


def contents(tree: Tree) -> dict[str, bytes]:
    """The bytes of the files of a tree, by path."""
    root = Path(tree.path)
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
