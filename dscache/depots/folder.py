"""A depot in a folder of this machine or of a network disk.

No filesystem compares before it renames, so whoever puts a file where there must be none, or in
place of one he knows, holds a lock. Where locks exclude nobody (`dscache doctor` tells), two who
publish at the very same moment may not hear of each other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256

from dscache import disk, filesystem
from dscache.depots import Listed, Stored
from dscache.errors import InvalidFile, StorageError
from dscache.store.locks import NoLocks, system_lock

_LOCK = ".dscache.lock"
#: Seconds until one who replaces a file is taken for stuck.
_PATIENCE = 60.0


class Folder:
    """A folder. It is made with the first file that is put there."""

    def __init__(self, path: str) -> None:
        self.url = path

    def read(self, key: str, limit: int) -> Stored | None:
        path = self._path(key)
        with disk.storage_errors(f"{path} cannot be read"):
            try:
                if os.path.getsize(path) > limit:
                    raise InvalidFile(f"{path} is longer than {limit} bytes")
                with open(path, "rb") as reader:
                    data = reader.read()
            except FileNotFoundError:
                return None
        return Stored(data, sha256(data).hexdigest())

    def size(self, key: str) -> int | None:
        path = self._path(key)
        with disk.storage_errors(f"{path} cannot be read"):
            try:
                return os.path.getsize(path)
            except FileNotFoundError:
                return None

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with self._alone(), disk.storage_errors(f"{path} cannot be written"):
            if os.path.lexists(path):
                return False
            filesystem.publish_bytes(data, path, durable=True)
            return True

    def replace(self, key: str, data: bytes, version: str) -> bool:
        if not version:
            return self.create(key, data)
        path = self._path(key)
        with self._alone(), disk.storage_errors(f"{path} cannot be written"):
            known = self.read(key, sys.maxsize)
            if known is None or known.version != version:
                return False
            filesystem.publish_bytes(data, path, durable=True)
            return True

    def upload(self, key: str, chunks: Iterable[bytes], size: int) -> None:
        target = self._path(key)
        with disk.storage_errors(f"{target} cannot be written"):
            filesystem.make_folder(os.path.dirname(target))
            with filesystem.replacing(target) as fd:
                offset = 0
                for chunk in chunks:
                    offset += filesystem.write(fd, [chunk], offset)
                filesystem.sync(fd)
            filesystem.sync_path(os.path.dirname(target))

    def list(self, prefix: str) -> Iterator[Listed]:
        for folder, folders, names in os.walk(self._path(prefix).rstrip("/")):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                with disk.storage_errors(f"{path} cannot be read"):
                    try:
                        found = os.stat(path)
                    except FileNotFoundError:
                        continue  # removed meanwhile
                key = os.path.relpath(path, self.url).replace(os.sep, "/")
                if not name.startswith(".dscache"):
                    yield Listed(key, found.st_size, found.st_mtime)

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            with disk.storage_errors(f"{path} cannot be removed"):
                filesystem.unlink(path)

    def _path(self, key: str) -> str:
        return f"{self.url}/{key}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process that says so as well replaces files of this folder meanwhile."""
        path = f"{self.url}/{_LOCK}"
        try:
            release = system_lock(path, _PATIENCE)
        except NoLocks:
            raise StorageError(
                f"{self.url}: files cannot be replaced safely, since this filesystem has no locks",
                hint="publish from a machine that has the folder on a disk of its own",
            ) from None
        if release is None:
            raise StorageError(f"waited {_PATIENCE:.0f} s for another who changes {self.url}")
        try:
            yield
        finally:
            release()
