"""The client of The Update Framework, fed by our own way of reading: proxies, retries, credentials
and object stores work as they do for any registry.

tuf's `Updater` is for one process and writes where it likes. Here it works in a scratch folder of
its own; what it has verified is then kept in the cache by our own steps, under a lock. Even after
an error: what was verified first protects from a rollback later.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from tuf.api import exceptions
from tuf.api.metadata import Metadata, TargetFile, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from dscache import filesystem
from dscache.errors import InvalidFile, TransferError
from dscache.events import Emit, Notice
from dscache.registry import copies
from dscache.registry.copies import Copy
from dscache.signing import verdicts
from dscache.signing.roles import METADATA, SNAPSHOT, TIMESTAMP
from dscache.urls import redacted

#: Reads a URL of at most so many bytes; None if there is nothing.
Read = Callable[[str, int], bytes | None]

_MOST = 8 << 20
# What the updater compares with what comes; all else it verifies alone, whoever it comes from.
_REMEMBERED = (TIMESTAMP, SNAPSHOT)


class Client:
    """The verified view of one registry, for one call.

    Attributes:
        base: URL of the registry, ending in '/'.
    """

    def __init__(self, base: str, root: bytes, folder: str, read: Read, emit: Emit) -> None:
        """Make one; nothing is read yet.

        Args:
            root: the pinned root.
            folder: where metadata is kept.
        """
        self.base = base
        self._root = root
        self._folder = folder
        self._read = read
        self._emit = emit
        self._updater: Updater | None = None
        self._scratch = ""

    def target(self, file: str) -> TargetFile | None:
        """Length and hashes of a registry file, as signed; None if there is no such file.

        The first call asks for the present state. Others go on in that state.

        Raises:
            IntegrityError: a rule is broken.
            TransferError: the server cannot be asked.
        """
        updater, done = self._updater, False
        with self._working() as scratch:
            try:
                updater = updater or self._new(scratch)
                found = updater.get_targetinfo(file)
                self._updater, done = updater, True
            except verdicts.REFUSALS as error:
                raise verdicts.refusal(error, self.base) from error
            finally:
                if not done:
                    self._updater = None  # half a state cannot be gone on from
        return found

    def good_until(self) -> float | None:
        """When the newest timestamp that was seen ends, in seconds since 1970; None without one."""
        known = copies.load(f"{self._folder}/{TIMESTAMP}.json")
        if known is None or known.data is None:
            return None
        return Metadata[Timestamp].from_bytes(known.data).signed.expires.timestamp()

    def _new(self, scratch: str) -> Updater:
        for role in _REMEMBERED:
            known = copies.load(f"{self._folder}/{role}.json")
            if known and known.data is not None:
                Path(scratch, f"{role}.json").write_bytes(known.data)
        return Updater(
            scratch,
            f"{self.base}{METADATA}/",
            fetcher=_Fetcher(self._folder, self._read),
            bootstrap=self._root,
        )

    @contextmanager
    def _working(self) -> Iterator[str]:
        """The updater's folder, the same each time; what appears in it is kept at the end."""
        if self._scratch:
            filesystem.new_folder(self._scratch, private=True)
        else:
            self._scratch = tempfile.mkdtemp(prefix="dscache-")
        try:
            try:
                yield self._scratch
            finally:
                self._keep()
        finally:
            filesystem.remove_tree(self._scratch)

    def _keep(self) -> None:
        try:
            self._keep_all()
        except OSError as error:
            self._emit(
                Notice(
                    f"what {redacted(self.base)} has signed cannot be remembered: {error.strerror}"
                )
            )

    def _keep_all(self) -> None:
        for path in sorted(Path(self._scratch).rglob("*.json")):
            if path.is_symlink():
                continue
            data = path.read_bytes()
            target = f"{self._folder}/{path.name}"
            known = copies.load(target)
            if known is None or known.data != data:
                copies.store(target, Copy(time.time(), data))


class _Signed(msgspec.Struct):
    version: int


class _Outline(msgspec.Struct):
    """What need be known of metadata that was verified before, and will be again."""

    signed: _Signed


class _Fetcher(FetcherInterface):
    """Metadata from the cache where it has that version, else from the server."""

    def __init__(self, folder: str, read: Read) -> None:
        self._folder = folder
        self._read = read

    def download_bytes(self, url: str, max_length: int) -> bytes:
        return self._kept(url) or self._asked(url, max_length)

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, _MOST)

    def _asked(self, url: str, max_length: int) -> bytes:
        try:
            data = self._read(url, max_length)
        except InvalidFile as error:
            raise exceptions.DownloadLengthMismatchError(str(error)) from error
        except TransferError as error:
            # Some servers answer so for what is not there; tuf knows when that is fine.
            if error.facts.get("status") == 403 and url.endswith(".root.json"):
                raise exceptions.DownloadHTTPError(str(error), 403) from error
            raise
        if data is None:
            raise exceptions.DownloadHTTPError(f"{redacted(url)}: not found", 404)
        return data

    def _kept(self, url: str) -> bytes | None:
        """Metadata with a version in its name never changes, so it need not be asked for twice."""
        name = url.rpartition("/")[2]
        version, _, role = name.partition(".")
        if not version.isdecimal():
            return None
        is_root = role == "root.json"
        known = copies.load(f"{self._folder}/{name if is_root else role}")
        if known is None or known.data is None:
            return None
        return known.data if is_root or _version(known.data) == int(version) else None


def _version(data: bytes) -> int:
    return msgspec.json.decode(data, type=_Outline).signed.version
