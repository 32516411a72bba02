"""Counters: hits, bytes downloaded and bytes saved, since the cache was made.

Each count is a line at the end of a file of its own host: counting takes one small write,
needs no lock and survives a kill. They are statistics: a line may be lost while many are summed up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from dscache import disk, filesystem
from dscache.store.layout import Layout
from dscache.store.owner import host_name

_MAX_FILE = 64 << 20
#: Files above this size, in bytes, are summed up into one line.
_LONG = 64 << 10


class Counts(msgspec.Struct, frozen=True):
    """What was counted.

    Attributes:
        hits: fetches, one for each process and dataset, that found everything here.
        downloaded: bytes that crossed the network.
        saved: bytes that did not, since they were here.
    """

    hits: int = 0
    downloaded: int = 0
    saved: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits, self.downloaded + other.downloaded, self.saved + other.saved
        )


class Counters:
    """The counters of one cache root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._own = f"{layout.counters}/{host_name()}"

    def add(self, counts: Counts) -> None:
        """Count; on a cache that cannot be written, nothing happens."""
        if counts == Counts():
            return
        line = f"{counts.hits} {counts.downloaded} {counts.saved}\n".encode()
        with suppress(OSError):
            filesystem.make_folder(self._layout.counters)
            filesystem.append(self._own, line)

    def total(self) -> Counts:
        """The sum of all that was counted."""
        names = disk.names(self._layout.counters)
        return sum((_sum(f"{self._layout.counters}/{name}") for name in names), Counts())

    def fold(self) -> None:
        """Make one line of many, where this host has counted often."""
        with suppress(OSError):
            if os.stat(self._own).st_size > _LONG:
                aside = f"{self._own}.{os.urandom(4).hex()}"
                filesystem.rename(self._own, aside)
                self.add(_sum(aside))
                filesystem.unlink(aside)


def _sum(path: str) -> Counts:
    return sum(_lines(path), Counts())


def _lines(path: str) -> Iterator[Counts]:
    try:
        lines = disk.read_small(path, _MAX_FILE).decode("ascii", "replace").split("\n")
    except OSError:
        return
    for line in lines:
        texts = line.split(" ")
        if len(texts) == len(Counts.__struct_fields__) and all(map(str.isdigit, texts)):
            yield Counts(*map(int, texts))
