"""Freeing: what the disk really gets back, which is nothing for a file that has other names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

from dscache import disk
from dscache.pruning.inventory import Inventory


def freed(inventory: Inventory, number: int) -> int:
    """Bytes for a blob or tree when it goes, with all views in which it stands."""
    path, names = inventory.path(number), 1 + inventory.links[number]
    return tree_bytes(path, names) if inventory.is_tree(number) else blob_bytes(path, names)


def blob_bytes(path: str, names: int = 1) -> int:
    """Bytes for a file of which so many names go."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return 0
    return disk.taken(found) if found.st_nlink <= names else 0


def tree_bytes(folder: str, names: int = 1) -> int:
    """Bytes for a folder, of which so many copies made of links go. Twins in it count once."""
    freed = Freed(names)
    freed.add(folder)
    return freed.bytes


def size_of(path: str) -> int:
    """Bytes that a file, or the files of a folder, hold; of what is gone by now, none."""
    return sum(found.st_size for found in _files(path))


class Freed:
    """Bytes for files and folders that all go, of each so many copies made of links.

    A file with several names frees its bytes when all of them go.
    """

    def __init__(self, names: int = 1) -> None:
        self._names = names
        self._single = 0
        self._twins: dict[int, list[int]] = {}

    def add(self, path: str) -> None:
        """One more that goes."""
        for found in _files(path):
            if found.st_nlink == 1:
                self._single += disk.taken(found)
            else:
                new = [0, found.st_nlink, disk.taken(found)]
                self._twins.setdefault(found.st_ino, new)[0] += 1

    @property
    def bytes(self) -> int:
        """What the disk gets back for all of them."""
        rows = self._twins.values()
        return self._single + sum(taken for n, nlink, taken in rows if nlink <= n * self._names)


def _files(path: str) -> Iterator[os.stat_result]:
    """A file, or all files of a folder."""
    paths: Iterable[str] = (path,)
    if os.path.isdir(path) and not os.path.islink(path):
        paths = (f"{parent}/{name}" for parent, _, names in os.walk(path) for name in names)
    for each in paths:
        with suppress(FileNotFoundError):
            yield os.lstat(each)
