"""Roots: lasting reasons to keep datasets: pins, and projects and folders of users.

A pin is an empty file. A project or a folder is a small file that names its path and the datasets
that it needs; it counts as long as the path exists, and for a time of grace after that, since a
disk may just not be mounted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence

import msgspec

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.malformed import MALFORMED
from dscache.store.layout import Layout

_PINS = "pins"
#: What a root may be: a project by its lock file, or a folder of which the files are links into
#: the cache. Hard links only explain where bytes are still used; they need nothing from here.
PROJECT, SYMLINKED, HARDLINKED = "project", "symlinked", "hardlinked"
_MAX_FILE = 64 << 20


class Root(msgspec.Struct, frozen=True):
    """A project or folder that needs datasets.

    Attributes:
        kind: PROJECT, SYMLINKED or HARDLINKED.
        path: what exists as long as the root counts.
        marks: the datasets by their `mark`.
        missing_since: when the path was first found gone, in seconds since 1970.
    """

    kind: str
    path: str
    marks: tuple[str, ...]
    missing_since: float | None = None
    format: int = 1

    @property
    def protects(self) -> bool:
        """True if what it names must stay."""
        return self.kind != HARDLINKED

    def __str__(self) -> str:
        if self.kind == PROJECT:
            return f"the project {os.path.dirname(self.path)}"
        return f"{self.path} ({'symbolic' if self.protects else 'hard'} links)"


class Roots:
    """The roots of one cache root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def pin(self, mark: str) -> None:
        """Keep a dataset until it is unpinned."""
        path = self._pin(mark)
        with disk.storage_errors("the pin cannot be written"):
            filesystem.make_folder(os.path.dirname(path))
            try:
                os.close(filesystem.create(path))
            except FileExistsError:
                return
            filesystem.sync_path(os.path.dirname(path))

    def unpin(self, mark: str) -> None:
        """Let a dataset go with the next prune that wants it."""
        with disk.storage_errors("the pin cannot be removed"):
            filesystem.unlink(self._pin(mark))

    def pins(self) -> set[str]:
        """The datasets that are pinned."""
        folder = f"{self._layout.roots}/{_PINS}"
        return {
            f"{registry}/{name}"
            for registry in disk.names(folder)
            for name in disk.names(f"{folder}/{registry}")
        }

    def register(self, root: Root) -> None:
        """Note that a path needs datasets, besides those that it was known to need.

        Raises:
            StorageError: the cache does not take it.
        """
        path = self.path(root)
        with disk.storage_errors(f"that {root.path} needs files of the cache cannot be noted"):
            known = _read(path) if os.path.exists(path) else None
            marks = tuple(sorted({*(known.marks if known else ()), *root.marks}))
            self.put(msgspec.structs.replace(root, marks=marks), known)

    def renew(self, root: Root) -> None:
        """Note that a path needs exactly these datasets, whatever it was known to need.

        Raises:
            StorageError: the cache does not take it.
        """
        path = self.path(root)
        with disk.storage_errors(f"that {root.path} needs files of the cache cannot be noted"):
            self.put(root, _read(path) if os.path.exists(path) else None)

    def put(self, root: Root, known: Root | None = None) -> None:
        """Write a root as it is, unless that is `known` already."""
        if root != known:
            # One that a power cut has torn would keep everything, and one that is lost nothing.
            # What only explains is not worth waiting for the disk at each file that is placed.
            try:
                data = msgspec.json.encode(root)
            except UnicodeEncodeError as error:
                raise StorageError(f"{root.path!r} is no text that can be written down") from error
            filesystem.publish_bytes(data, self.path(root), durable=root.protects)

    def all(self) -> Iterator[Root]:
        """Every project and folder, but for one of hard links that a power cut has torn.

        Raises:
            StorageError: one cannot be read, so that nobody knows what it needs.
        """
        for kind in (PROJECT, SYMLINKED, HARDLINKED):
            folder = f"{self._layout.roots}/{kind}"
            for name in disk.names(folder):
                if name.endswith(".json") and (root := self._known(kind, f"{folder}/{name}")):
                    yield root

    def _known(self, kind: str, path: str) -> Root | None:
        try:
            root = _read(path)
        except FileNotFoundError:
            return None  # dropped meanwhile
        except OSError as error:
            raise disk.storage_error("a root of the cache cannot be read", error) from error
        if root is None and kind != HARDLINKED:
            raise StorageError(
                f"{path} makes no sense; nothing is removed, since it may need it",
                hint="if it is of no use, remove that file",
                path=path,
            )
        return root

    def _pin(self, mark: str) -> str:
        return f"{self._layout.roots}/{_PINS}/{mark}"

    def path(self, root: Root) -> str:
        """Where a project or folder is noted."""
        key = hashlib.sha256(os.fsencode(root.path)).hexdigest()[:32]
        return f"{self._layout.roots}/{root.kind}/{key}.json"


def needs(kind: str, path: str, marks: Sequence[str]) -> Root:
    """The root for a path of a user, as it is told apart from others."""
    return Root(kind, os.path.realpath(path), tuple(marks))


def _read(path: str) -> Root | None:
    try:
        return msgspec.json.decode(disk.read_small(path, _MAX_FILE), type=Root)
    except MALFORMED:
        return None
