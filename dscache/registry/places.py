"""Where registry files lie: a folder, or a prefix on a web server.

A place answers with the bytes of one file at a time. What a server sent is kept in the cache with
its ETag: used without asking as long as it is fresh, revalidated afterwards, and used with a notice
where the server cannot be reached.
"""

from __future__ import annotations

import os
import time
import urllib.parse
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import msgspec

from dscache import filesystem
from dscache.errors import InvalidFile, TransferError
from dscache.events import Emit, Notice
from dscache.registry.entries import MAX_ENTRY, Document, located
from dscache.sources.small import Answer, SmallReader

_MAX_INDEX = 256 << 20


class Place(Protocol):
    """Where the files of one registry are.

    Attributes:
        url: what the user wrote.
        base: URL below which the files are, ending in '/'.
        local: True for a folder of this machine.
    """

    url: str
    base: str
    local: bool

    def document(self, file: str) -> Document | None:
        """An entry, or None if there is no such file.

        Raises:
            InvalidFile: it is not an entry; the error names the file.
            TransferError: the place cannot be read, so that nobody knows.
        """

    def read(self, file: str) -> bytes | None:
        """The bytes of a file, or None; raises as `document` does."""

    def names(self) -> Iterable[str] | None:
        """The names of all files at the top, or None where they cannot be listed."""


class Folder:
    """A registry in a folder."""

    local = True

    def __init__(self, path: str) -> None:
        self.url = path
        self._root = os.path.abspath(os.path.expanduser(path))
        self.base = _folder_url(self._root)

    def document(self, file: str) -> Document | None:
        path = f"{self._root}/{file}"
        try:
            return filesystem.parsed(path, _local_document)
        except InvalidFile as error:
            raise located(error, path) from error
        except OSError as error:
            raise self._unreadable(file, error) from error

    def read(self, file: str) -> bytes | None:
        try:
            return filesystem.parsed(f"{self._root}/{file}", _read_bytes)
        except OSError as error:
            raise self._unreadable(file, error) from error

    def names(self) -> Iterable[str] | None:
        try:
            return sorted(os.listdir(self._root))
        except OSError as error:
            raise self._unreadable("", error) from error

    def path(self, file: str) -> str:
        """Where a file of the registry lies."""
        return f"{self._root}/{file}"

    def _unreadable(self, file: str, error: OSError) -> TransferError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return TransferError(f"{self._root}/{file}: {reason}", file=file)


@lru_cache(maxsize=64)
def _folder_url(path: str) -> str:
    return f"{Path(path).as_uri()}/"


class _Copy(msgspec.Struct, frozen=True):
    """What is known of a file that a server has, or has not."""

    checked: float
    validator: str = ""
    missing: bool = False


class Prefix:
    """A registry on a web server, seen through copies in the cache.

    Args:
        read: asks the server for a URL, given the validator of the copy.
        folder: where the copies are.
        max_age: seconds for which a copy is used without asking.
        offline: True to use copies of any age, and never ask.
    """

    local = False

    def __init__(
        self,
        url: str,
        read: SmallReader,
        folder: str,
        *,
        max_age: float,
        offline: bool,
        emit: Emit,
    ) -> None:
        self.url = url
        self.base = url if url.endswith("/") else f"{url}/"
        self._read = read
        self._folder = folder
        self._max_age = max_age
        self._offline = offline
        self._emit = emit
        self.used_copy_of_nothing = False

    def refreshed(self) -> Prefix:
        """The same place, asking the server for everything."""
        return Prefix(
            self.url, self._read, self._folder, max_age=0, offline=self._offline, emit=self._emit
        )

    def document(self, file: str) -> Document | None:
        if not self._bring(file):
            return None
        try:
            return filesystem.parsed(self._path(file), _remote_document)
        except InvalidFile as error:
            raise located(error, self.base + file) from error

    def read(self, file: str) -> bytes | None:
        return filesystem.parsed(self._path(file), _read_bytes) if self._bring(file) else None

    def names(self) -> Iterable[str] | None:
        return None

    def _bring(self, file: str) -> bool:
        """Make sure that the copy is as fresh as it has to be; False if there is no such file."""
        copy = filesystem.parsed(self._path(f"{file}.copy"), _read_copy)
        if copy and (self._offline or abs(time.time() - copy.checked) < self._max_age):
            self.used_copy_of_nothing |= copy.missing
            return not copy.missing
        if self._offline:
            raise TransferError(f"{self.base}{file} was never read, and this is offline mode")
        try:
            answer = self._read(self.base + urllib.parse.quote(file), self._known(file, copy))
        except TransferError as error:
            if copy is None:
                raise
            self._emit(Notice(f"{error}; the copy of an earlier time is used"))
            return not copy.missing
        return self._keep(file, copy, answer)

    def _known(self, file: str, copy: _Copy | None) -> str:
        usable = copy and not copy.missing and os.path.exists(self._path(file))
        return copy.validator if copy and usable else ""

    def _keep(self, file: str, copy: _Copy | None, answer: Answer) -> bool:
        validator = copy.validator if answer.unchanged and copy else answer.validator
        missing = answer.data is None and not answer.unchanged
        if answer.data is not None:
            self._write(file, answer.data)
        self._write(f"{file}.copy", msgspec.json.encode(_Copy(time.time(), validator, missing)))
        return not missing

    def _write(self, file: str, data: bytes) -> None:
        with filesystem.storage_errors(f"the copy of {self.base}{file} cannot be stored"):
            filesystem.publish_bytes(data, self._path(file))

    def _path(self, file: str) -> str:
        return f"{self._folder}/{file}"


def _local_document(path: str) -> Document:
    return Document(_limited(path, MAX_ENTRY), local=True)


def _remote_document(path: str) -> Document:
    return Document(_limited(path, MAX_ENTRY), local=False)


def _read_bytes(path: str) -> bytes:
    return _limited(path, _MAX_INDEX)


def _limited(path: str, limit: int) -> bytes:
    if os.path.getsize(path) > limit:
        raise InvalidFile(f"longer than {limit} bytes")
    return Path(path).read_bytes()


def _read_copy(path: str) -> _Copy | None:
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=_Copy)
    except msgspec.MsgspecError:
        return None
