"""The store: owner of the cache root.

Blobs, parts, records and locks each have their module; this one opens a root and holds them
together. It knows nothing of registries, networks or the names people use outside records.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.events import Emit, to_log
from dscache.store.blobs import SMALL, Blob, Blobs
from dscache.store.layout import CACHEDIR_TAG, FORMAT, Layout, key_of
from dscache.store.leases import Leases
from dscache.store.owner import this_boot
from dscache.store.records import File, Record, Records, Unpacked

if TYPE_CHECKING:
    from dscache.store.counters import Counters
    from dscache.store.locks import Locks
    from dscache.store.parts import Parts
    from dscache.store.removals import Removals
    from dscache.store.roots import Roots
    from dscache.store.trees import Trees

__all__ = ["SMALL", "Blob", "File", "Layout", "Record", "Store", "Unpacked", "key_of"]


class Store:
    """One cache root.

    With `durability="sync"`, and wherever the running boot cannot be named, bytes are synced before
    they are published. With `read_only` nothing is written, not even notes of what was verified,
    whatever the disk would let be done: it is a cache of others.

    Raises:
        StorageError: the root was written by a newer version of dscache.
    """

    def __init__(
        self,
        root: str,
        *,
        durability: str = "lazy",
        lock_timeout: float = 3600,
        read_only: bool = False,
        emit: Emit = to_log,
    ) -> None:
        self.layout = Layout(root)
        self.durable = durability == "sync" or this_boot() is None
        self.read_only = read_only
        self.blobs = Blobs(self.layout, durable=self.durable, read_only=read_only)
        self.records = Records(self.layout, durable=self.durable, read_only=read_only)
        self.leases = Leases(self.layout)
        self._lock_timeout = lock_timeout
        self._emit = emit
        self._check_version()

    @cached_property
    def locks(self) -> Locks:
        """The locks of this root; made on first use, since a hit needs none."""
        from dscache.store.locks import Locks

        return Locks(self.layout, self._lock_timeout, self._emit)

    @cached_property
    def trees(self) -> Trees:
        """The unpacked archives of this root; made on first use, as above."""
        from dscache.store.trees import Trees

        return Trees(self.layout, durable=self.durable, read_only=self.read_only)

    @cached_property
    def removals(self) -> Removals:
        """What prunes are about to remove from this root."""
        from dscache.store.removals import Removals

        return Removals(self.layout, self._lock_timeout, self.clock)

    @cached_property
    def counters(self) -> Counters:
        """What was counted of this root."""
        from dscache.store.counters import Counters

        return Counters(self.layout)

    @cached_property
    def roots(self) -> Roots:
        """The lasting reasons to keep something of this root."""
        from dscache.store.roots import Roots

        return Roots(self.layout)

    def parts(self) -> Parts:
        """The parts, with what earlier attempts left looked up anew."""
        from dscache.store.parts import Parts

        return Parts(self.layout)

    def prepare(self) -> None:
        """Make sure that the root can be written to.

        Raises:
            StorageError: it cannot, and why.
        """
        root, parts = self.layout.root, self.layout.parts
        try:
            filesystem.make_folder(parts)
            if not os.path.exists(self.layout.version):
                filesystem.make_folder(self.layout.removals)  # a full disk has no room for it
                filesystem.publish_bytes(CACHEDIR_TAG.encode(), self.layout.tag)
                # Synced, since a torn VERSION would shut everybody out.
                version = f"{FORMAT}\n".encode()
                filesystem.publish_bytes(version, self.layout.version, durable=True)
            if not os.access(parts, os.W_OK):
                raise _refusal(parts)
        except OSError as error:
            what = f"the cache folder {root} cannot be used"
            refused = disk.storage_error(what, error, root=root)
            if os.path.exists(self.layout.version):
                refused.hint += f'; `read_from = ["{root}"]` in the configuration of another cache '
                refused.hint += "uses what this one has"
            raise refused from error

    def clock(self) -> float:
        """Now by the clock of the cache's filesystem, which times its files, in seconds since 1970.

        By this machine's clock where nothing can be written there.
        """
        try:
            with filesystem.unnamed(self.layout.root) as fd:
                return os.fstat(fd).st_mtime
        except OSError:
            return time.time()

    @property
    def is_writable(self) -> bool:
        """False for a cache of others or on a read-only medium: it serves hits and nothing else."""
        return os.access(self.layout.root, os.W_OK)

    def sync(self, files: Iterable[File]) -> None:
        """Bring the blobs of these files to the disk."""
        for file in files:
            self.blobs.sync(
                Blob(file.sha256, file.size, file.xxh3_128, self.layout.blob(file.sha256))
            )

    def set_aside(self, name: str, data: bytes) -> str:
        """Keep wrong bytes for a look, under a name like `name`; return where they are."""
        path = self.layout.aside(os.urandom(4).hex(), _plain(name))
        filesystem.publish_bytes(data, path)
        return path

    def move_aside(self, path: str, name: str) -> str:
        """Move a damaged file into quarantine, to a name like `name`; return where it is.

        Raises:
            OSError: it cannot be moved.
        """
        filesystem.make_folder(self.layout.quarantine)
        aside = self.layout.aside(os.urandom(4).hex(), _plain(name))
        filesystem.rename(path, aside)
        filesystem.touch(aside)  # how long it is kept, counts from now
        return aside

    def _check_version(self) -> None:
        with disk.storage_errors(f"the cache folder {self.layout.root} cannot be read"):
            version = disk.parsed(self.layout.version, _read_version)
        if version is not None and version > FORMAT:
            raise StorageError(
                f"the cache {self.layout.root} has format {version}; "
                f"this version of dscache knows format {FORMAT}",
                hint="use a newer dscache, or set DSCACHE_DIR to another folder",
                root=self.layout.root,
            )


def _refusal(folder: str) -> OSError:
    """What the system would say to a file in a folder that cannot be written to."""
    is_medium = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    number = errno.EROFS if is_medium else errno.EACCES
    return OSError(number, os.strerror(number), folder)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-80:]


def _read_version(path: str) -> int:
    text = disk.read_small(path, 64).decode("ascii", "replace").strip()
    if not text.isdigit():
        raise StorageError(
            f"{path} should hold one integer, not {text!r}",
            hint="if nothing else is wrong with the cache, write 1 into it",
            path=path,
        )
    return int(text)
