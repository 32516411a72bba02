"""Records: what a finished fetch wrote down. A record is the commit point of a fetch.

It names every file with sha256, size and xxh3_128, and the boot in which the bytes were written;
`durable` says that they were synced afterwards. The time of the record's file is the last use of
the dataset, kept to the minute by the clock of the cache's own filesystem.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

import msgspec

from dscache import disk, filesystem
from dscache.malformed import MALFORMED
from dscache.model import Dataset, Reference, mark_of
from dscache.store.layout import Layout
from dscache.store.owner import Boot, is_running

_MAX_FILE = 1 << 30
#: A use is written down if the last one is older than this, in seconds.
_USE_RESOLUTION = 60
#: A hit looks at the size of every file up to this many; of more it looks at a few. A look takes a
#: good microsecond, and what only looks reveal, `verify` finds.
LOOKED_AT, _SAMPLE = 64, 16


class File(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One file of a recorded dataset."""

    path: str
    sha256: str
    size: int
    xxh3_128: str


class Unpacked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One archive of a recorded dataset, of which the members stand in the view.

    Attributes:
        path: of the artifact.
        sha256, size, xxh3_128: of the archive, which may be gone.
        recipe: how it was unpacked.
        place: the folder of the view in which the members stand, "" for its root; of a single
            compressed file its path.
        files: how many of the members are files.
        bytes: what these hold.
        complete: all members stand there, not only a selection.
        looks: path in the view and size of the first files, for a quick look.
    """

    path: str
    sha256: str
    size: int
    xxh3_128: str
    recipe: str
    place: str
    files: int
    bytes: int
    complete: bool
    looks: tuple[tuple[str, int], ...] = ()


class Record(msgspec.Struct, frozen=True):
    """A finished fetch.

    Attributes:
        files: those that stand in the view as they came.
        trees: the archives of which the members do.
        complete: every file of the dataset is here, not only a selection.
        boot: where and when the bytes were written; None counts as another boot.
        durable: the bytes were synced after they were written.
        first_use: the registry gave no strong hash; the sha256 was found at the first download.
        keeps: the sha256 of what the dataset needs though no view shows it: the list of its files,
            and what was imported of one that is not complete.
    """

    registry: str
    name: str
    version: str
    content: str
    complete: bool
    files: tuple[File, ...]
    boot: Boot | None
    durable: bool
    created: str
    summary: str = ""
    url: str = ""
    first_use: bool = False
    trees: tuple[Unpacked, ...] = ()
    keeps: tuple[str, ...] = ()
    format: int = 1

    @property
    def reference(self) -> Reference:
        """The full name: registry, name and version."""
        return Reference(self.name, self.registry, self.version)

    @property
    def mark(self) -> str:
        """What tells this content of this dataset from all others in a cache."""
        return mark_of(self.registry, self.name, self.version, self.content)

    @property
    def size(self) -> int:
        """Bytes of all files as they stand in the dataset."""
        return sum(file.size for file in self.files) + sum(each.bytes for each in self.trees)

    def looks(self) -> list[tuple[str, int]]:
        """Path and size of the files that a hit looks at: of all, or of some where there are more
        than `LOOKED_AT`.
        """
        total = len(self.files) + sum(each.files for each in self.trees)
        count = LOOKED_AT if total <= LOOKED_AT else _SAMPLE
        looks = [(file.path, file.size) for file in self.files[:count]]
        for each in self.trees:
            looks += each.looks[: count - len(looks)]
        return looks

    @property
    def proven(self) -> bool:
        """True if the bytes can be believed as they are (design: nothing torn is trusted)."""
        return self.durable or is_running(self.boot)


class Records:
    """The records of one cache root."""

    def __init__(self, layout: Layout, *, durable: bool, read_only: bool = False) -> None:
        self._layout = layout
        self._durable = durable
        self._read_only = read_only
        self._last_use: dict[str, float] = {}

    def path(self, dataset: Dataset) -> str:
        """Where the record of that content of a dataset lies, or would lie."""
        return self._layout.record(dataset.mark)

    def has(self, dataset: Dataset) -> bool:
        """True if there is a record of it, whatever it says."""
        return os.path.exists(self.path(dataset))

    def get(self, dataset: Dataset) -> Record | None:
        """The record of exactly this content, or None. One that makes no sense counts as none.

        Raises:
            StorageError: the disk, or its permissions, do not let it be read.
        """
        path = self.path(dataset)
        record, self._last_use[path] = _parsed(path)
        return record if record and record.content == dataset.content else None

    def put(self, record: Record) -> None:
        """Write a record, replacing an earlier one of the same content.

        Raises:
            StorageError: the disk does not take it.
        """
        with disk.storage_errors(f"the record of {record.name} cannot be written"):
            data = msgspec.json.encode(record)
            filesystem.publish_bytes(data, self._path(record), durable=self._durable)

    def use(self, dataset: Dataset) -> None:
        """Note that a dataset was used now, where its record may be written to."""
        if self._read_only:
            return
        path = self.path(dataset)
        used = self._last_use.get(path)
        if used is None or abs(time.time() - used) > _USE_RESOLUTION:
            with suppress(OSError):
                filesystem.touch(path)

    def last_used(self, record: Record) -> float:
        """When a dataset was last used, in seconds since 1970; 0 if its record is gone by now."""
        try:
            return os.stat(self._path(record)).st_mtime
        except FileNotFoundError:
            return 0.0

    def all(self) -> Iterator[Record]:
        """Every record that makes sense, sorted by registry and name.

        Raises:
            StorageError: one cannot be read.
        """
        for path in self._paths():
            record, _ = _parsed(path)
            if record:
                yield record

    def marks(self) -> Iterator[str]:
        """The mark of every record; none is read, so one may make no sense."""
        start = len(self._layout.records) + 1
        return (path[start : -len(".json")] for path in self._paths())

    def survey(
        self, known: Mapping[str, float] | None = None
    ) -> Iterator[tuple[str, float, Record | str]]:
        """Path, time and content of every record, for who deletes; a text says why there is none.

        Args:
            known: times by path; records that still have theirs are left out.
        """
        for path in self._paths():
            try:
                used = os.stat(path).st_mtime
                if known and known.get(path) == used:
                    continue
                record, used = _read(path)
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as error:
                yield path, 0.0, os.strerror(error.errno or 0)
                continue
            yield path, used, record or "it makes no sense"

    def load(self, mark: str) -> Record | None:
        """The record of that mark, or None. One that makes no sense counts as none.

        Raises:
            StorageError: the disk, or its permissions, do not let it be read.
        """
        return _parsed(self._layout.record(mark))[0]

    def drop(self, mark: str) -> None:
        """Remove a record; from now on its dataset is not here."""
        filesystem.unlink(self._layout.record(mark))

    def mark_durable(self, record: Record) -> None:
        """Note that what a record names was synced; this is no use of it.

        Raises:
            StorageError: the disk does not take it.
        """
        used = self.last_used(record)
        self.put(msgspec.structs.replace(record, durable=True))
        with disk.storage_errors(f"the record of {record.name} cannot be written"):
            filesystem.touch(self._path(record), used or None)

    def distrust(self, record: Record) -> Record:
        """Have all that a record names verified before it is used again.

        It tells a boot that never was, another one each time: what is known of the record in a
        process that lives long is then not known of this one, which is returned.

        Raises:
            StorageError: the disk does not take it.
        """
        never = Boot("", os.urandom(8).hex())
        doubtful = msgspec.structs.replace(record, boot=never, durable=False)
        with disk.storage_errors(f"the record of {record.name} cannot be written"):
            data = msgspec.json.encode(doubtful)
            filesystem.publish_bytes(data, self._path(record), durable=True)
        return doubtful

    def contents(self, dataset: Dataset) -> set[str]:
        """The first 8 hex digits of every content recorded for that version of the dataset."""
        folder, _, name = self.path(dataset).rpartition("/")
        start = re.escape(name[: -len(f"{dataset.content[:8]}.json")])
        found = (
            re.fullmatch(f"{start}([0-9a-f]{{8}})\\.json", each) for each in disk.names(folder)
        )
        return {match[1] for match in found if match}

    def _path(self, record: Record) -> str:
        return self._layout.record(record.mark)

    def _paths(self) -> Iterator[str]:
        for registry in disk.names(self._layout.records):
            folder = f"{self._layout.records}/{registry}"
            yield from (f"{folder}/{name}" for name in disk.names(folder) if name.endswith(".json"))


def _parsed(path: str) -> tuple[Record | None, float]:
    """The record at a path, if there is one that makes sense, and the time of its file."""
    try:
        return disk.parsed(path, _read) or (None, 0.0)
    except OSError as error:
        raise disk.storage_error("a record of the cache cannot be read", error) from error


def _read(path: str) -> tuple[Record | None, float]:
    used = os.stat(path).st_mtime  # first: what is written meanwhile has another time
    try:
        return msgspec.json.decode(disk.read_small(path, _MAX_FILE), type=Record), used
    except MALFORMED:
        return None, used
