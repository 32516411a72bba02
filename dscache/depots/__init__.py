"""Depots: where a team keeps bytes that many machines read: a folder, or a prefix of a bucket.

Files are put there whole or not at all. What has its place by its content is uploaded; what must
not change is created; and what does change is replaced by whoever saw it last, so that of two who
change it at once one hears of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from dscache.errors import UsageError
from dscache.sources.buckets import is_bucket, open_bucket


class Stored(msgspec.Struct, frozen=True):
    """A file of a depot as it was read. `version` tells it from any other content."""

    data: bytes
    version: str


class Listed(msgspec.Struct, frozen=True):
    """A file of a depot. `modified` is in seconds since 1970, by the depot's clock."""

    key: str
    size: int
    modified: float


class Depot(Protocol):
    """A folder or a prefix of a bucket; keys are paths below it, '/' between parts.

    Every method raises TransferError where the depot cannot be reached or refuses, and StorageError
    where a local disk does.
    """

    url: str

    def read(self, key: str, limit: int) -> Stored | None:
        """A file of at most `limit` bytes, or None if there is none.

        Raises:
            InvalidFile: it is longer.
        """

    def size(self, key: str) -> int | None:
        """Bytes of a file; None if there is none."""

    def create(self, key: str, data: bytes) -> bool:
        """Put a file where there is none; False if there is one, whatever is in it."""

    def replace(self, key: str, data: bytes, version: str) -> bool:
        """Put a file in place of the one of that version; False if that is not there any more.

        With an empty version: as `create`.
        """

    def upload(self, key: str, chunks: Iterable[bytes], size: int) -> None:
        """Put `size` bytes there, in place of any other file: for keys that say what is in it.

        Whatever `chunks` raises, raises; nothing is there then.
        """

    def list(self, prefix: str) -> Iterator[Listed]:
        """Every file below a prefix, which ends in '/' or is empty."""

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files; those that are not there count as removed."""


def open_depot(url: str) -> Depot:
    """The depot at a folder's path, a `file:` URL, or `s3://`, `gs://` or `az://`.

    Raises:
        UsageError: nothing can be put there, or the package for object stores is missing.
    """
    if is_bucket(url):
        store = open_bucket(url)  # first: it says what is missing
        from dscache.depots.bucket import Bucket

        return Bucket(url, store)
    scheme, separator, _ = url.partition("://")
    if separator and scheme != "file":
        raise UsageError(
            f"nothing can be put at {url}",
            hint="a folder, or a URL with s3://, gs:// or az://, takes files",
        )
    from dscache.depots.folder import Folder
    from dscache.sources.file import path_of

    return Folder(path_of(url) if separator else os.path.abspath(os.path.expanduser(url)))
