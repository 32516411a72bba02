"""Freeing: what the disk really gets back, which is nothing for a file that has other names."""

from __future__ import annotations

import os
from collections.abc import Iterator

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
    total = 0
    twins: dict[int, list[int]] = {}
    for found in _files(folder):
        if found.st_nlink == 1:
            total += disk.taken(found)
        else:
            row = twins.setdefault(found.st_ino, [0, found.st_nlink, disk.taken(found)])
            row[0] += 1
    return total + sum(size for count, nlink, size in twins.values() if nlink <= count * names)


def _files(folder: str) -> Iterator[os.stat_result]:
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(f"{parent}/{name}")
            except FileNotFoundError:
                continue
