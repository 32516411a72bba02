"""Where registry files lie: a folder, or a prefix on a web server.

A place answers with one file at a time. What a server sent is kept in the cache: used without
asking as long as it is fresh, revalidated by its ETag afterwards, and used with a notice where the
server cannot be reached.
"""

from __future__ import annotations

import os
import stat
import time
import urllib.parse
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from dscache import disk
from dscache.errors import InvalidFile, TransferError
from dscache.events import Emit, Notice
from dscache.registry import copies
from dscache.registry.copies import Copy
from dscache.registry.entries import Document
from dscache.registry.rules import located
from dscache.registry.tables import MAX_ENTRY, load_toml, too_long

if TYPE_CHECKING:
    from dscache.sources.small import SmallReader

HEADER = "registry.toml"
INDEX = "index.json"

_MAX_INDEX = 256 << 20
#: Bytes of a folder itself, which all filesystems of Linux let grow with the names in it: some ten
#: thousand names, in a few milliseconds.
_FEW = 256 << 10


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
            TransferError: the place cannot be read, so that nobody knows; in offline mode a server
                of which no answer is remembered.
        """

    def read(self, file: str, most: int | None = None) -> bytes | None:
        """The bytes of a file, or None; raises as `document` does.

        One of more than `most` bytes, by default what a file of its name may have, is InvalidFile.
        """

    def names(self) -> Iterable[str] | None:
        """The names of all files at the top, or None where they cannot be listed."""

    def few_names(self) -> Iterable[str] | None:
        """The same where they are so few that a look-up may list them; of more, none."""

    def anew(self) -> Place | None:
        """The same place without its memory; None where it has answered from none."""


class Folder:
    """A registry in a folder."""

    local = True

    def __init__(self, path: str) -> None:
        self.url = path
        self._root = os.path.abspath(os.path.expanduser(path))
        self.base = _folder_url(self._root)

    def document(self, file: str) -> Document | None:
        path = self.path(file)
        try:
            found = disk.parsed(path, _document)
            if found is None:
                self._look()
        except InvalidFile as error:
            raise located(error, path) from error
        except OSError as error:
            raise self._unreadable(file, error) from error
        return found

    def read(self, file: str, most: int | None = None) -> bytes | None:
        path = self.path(file)
        try:
            if most is not None and os.path.exists(path) and os.path.getsize(path) > most:
                raise too_long(most)
            found = disk.parsed(path, read_limited)
            if found is None:
                self._look()
        except InvalidFile as error:
            raise located(error, path) from error
        except OSError as error:
            raise self._unreadable(file, error) from error
        return found

    def names(self) -> Iterable[str] | None:
        try:
            return os.listdir(self._root)
        except OSError as error:
            raise self._unreadable("", error) from error

    def few_names(self) -> Iterable[str] | None:
        try:
            return self.names() if os.stat(self._root).st_size <= _FEW else ()
        except OSError as error:
            raise self._unreadable("", error) from error

    def anew(self) -> Place | None:
        return None

    def path(self, file: str) -> str:
        """Where a file of the registry lies."""
        return f"{self._root}/{file}"

    def _look(self) -> None:
        """A file is missing; but a disk that is not mounted is not an empty registry."""
        os.stat(self._root)

    def _unreadable(self, file: str, error: OSError) -> TransferError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return TransferError(f"{self.path(file)}: {reason}", file=file)


@lru_cache(maxsize=64)
def _folder_url(path: str) -> str:
    return f"{Path(path).as_uri()}/"


class Prefix:
    """A registry on a web server, seen through copies in the cache.

    Lives for one call, in which it asks for each file once at most, and a server that is down only
    once.

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
        self._answers: dict[str, Copy] = {}
        self._from_memory = False
        self._down: TransferError | None = None

    def document(self, file: str) -> Document | None:
        try:
            return self._copy(file, MAX_ENTRY).document
        except InvalidFile as error:
            raise located(error, self.base + file) from error

    def read(self, file: str, most: int | None = None) -> bytes | None:
        limit = limit_of(file) if most is None else most
        try:
            return self._copy(file, limit).data
        except InvalidFile as error:
            raise located(error, self.base + file) from error

    def names(self) -> Iterable[str] | None:
        return None

    few_names = names

    def anew(self) -> Place | None:
        if not self._from_memory:
            return None
        return Prefix(self.url, self._read, self._folder, max_age=0, offline=False, emit=self._emit)

    def _copy(self, file: str, limit: int) -> Copy:
        if file not in self._answers:
            self._answers[file] = self._find(file, limit)
        return self._answers[file]

    def _find(self, file: str, limit: int) -> Copy:
        known = copies.load(f"{self._folder}/{file}", limit)
        if known and (self._offline or known.age() < self._max_age):
            self._from_memory = not self._offline
            return known
        if self._offline:
            raise TransferError(f"{self.base}{file} was never read, and this is offline mode")
        try:
            return self._ask(file, known, limit)
        except TransferError as error:
            told = self._down is not None
            if error.facts.get("status") is None or error.facts["status"] >= 500:
                self._down = error  # the next file would only take as long to fail
            if known is None:
                raise
            if not told:
                self._emit(Notice(f"{error}; what it said earlier is used"))
            return known

    def _ask(self, file: str, known: Copy | None, limit: int) -> Copy:
        if self._down:
            raise self._down
        validator = known.validator if known else ""
        answer = self._read(self.base + urllib.parse.quote(file), validator, limit)
        if answer.unchanged:
            if known is None:
                raise TransferError(f"{self.base}{file}: the server answered 304 to no question")
            found = replace(known, checked=time.time())
        else:
            found = Copy(time.time(), answer.data, answer.validator)
        if found.data is not None:
            _refuse_other_files(file, found.data)
        self._keep(file, found)
        return found

    def _keep(self, file: str, found: Copy) -> None:
        try:
            copies.store(f"{self._folder}/{file}", found)
        except OSError as error:
            self._emit(Notice(f"{self.base}{file} cannot be remembered: {error.strerror}"))


def _refuse_other_files(file: str, data: bytes) -> None:
    """A portal's login page, or what is no registry file at all, must not be remembered for long.

    Raises:
        InvalidFile: that is it.
    """
    if file != INDEX:
        load_toml(data)
    elif not data.lstrip().startswith(b"{"):
        raise InvalidFile("not an index")


def limit_of(file: str) -> int:
    """How long a registry's file may be, in bytes, by its path."""
    return _MAX_INDEX if os.path.basename(file) == INDEX else MAX_ENTRY


def _document(path: str) -> Document:
    return Document(read_limited(path), local=True)


def read_limited(path: str) -> bytes:
    """A registry file of this machine.

    Raises:
        InvalidFile: it is longer than a file of its name may be, or no file.
        OSError: it cannot be read.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise InvalidFile("not a file")
    if found.st_size > limit_of(path):
        raise too_long(limit_of(path))
    return Path(path).read_bytes()
