"""A depot in a bucket of an object store: S3, Google Cloud Storage, Azure, or one that speaks S3.

Conditions are the store's own (`If-None-Match`, `If-Match`), so that no lock is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore

from dscache.depots import Listed, Stored
from dscache.errors import DscacheError, InvalidFile, TransferError
from dscache.sources.buckets import CREDENTIALS, has_left_home, reason

#: Up to this size a file goes up in one request.
_WHOLE = 8 << 20
#: Parts of larger ones, and how many of them at once. S3 takes 10,000 parts:
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_PART, _AT_ONCE, _MOST_PARTS = 16 << 20, 4, 9_000
_TOGETHER = 1000


class Bucket:
    """A prefix of a bucket."""

    def __init__(self, url: str, store: ObjectStore) -> None:
        self.url = url.rstrip("/")
        self._store = store

    def read(self, key: str, limit: int) -> Stored | None:
        with self._told(key):
            try:
                found = obstore.get(self._store, key)
                meta = found.meta
                if meta["size"] > limit:
                    raise InvalidFile(f"{self.url}/{key} is longer than {limit} bytes")
                return Stored(bytes(found.bytes()), meta["e_tag"] or "")
            except FileNotFoundError:
                return None

    def size(self, key: str) -> int | None:
        with self._told(key):
            try:
                return obstore.head(self._store, key)["size"]
            except FileNotFoundError:
                return None

    def create(self, key: str, data: bytes) -> bool:
        with self._told(key):
            try:
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def replace(self, key: str, data: bytes, version: str) -> bool:
        if not version:
            return self.create(key, data)
        with self._told(key):
            try:
                mode: obstore.UpdateVersion = {"e_tag": version}
                obstore.put(self._store, key, data, mode=mode, use_multipart=False)
            except PreconditionError:
                return False
            return True

    def upload(self, key: str, chunks: Iterable[bytes], size: int) -> None:
        with self._told(key):
            if size <= _WHOLE:
                obstore.put(self._store, key, b"".join(chunks), use_multipart=False)
                return
            part = max(_PART, size // _MOST_PARTS)
            obstore.put(self._store, key, chunks, chunk_size=part, max_concurrency=_AT_ONCE)

    def list(self, prefix: str) -> Iterator[Listed]:
        with self._told(prefix):
            for batch in obstore.list(self._store, prefix.rstrip("/") or None, chunk_size=1000):
                for each in batch:
                    yield Listed(each["path"], each["size"], each["last_modified"].timestamp())

    def remove(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        with self._told(""):
            for start in range(0, len(wanted), _TOGETHER):
                obstore.delete(self._store, wanted[start : start + _TOGETHER])

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Say what the store refused in our words, without the parts of its answer."""
        where = f"{self.url}/{key}"
        if has_left_home():
            raise TransferError(
                f"{where}: a process that was forked cannot use the store that its parent uses",
                hint="start it by 'spawn' or 'forkserver', or do this in the parent",
                url=where,
            )
        try:
            yield
        except DscacheError:
            raise
        except FileNotFoundError as error:
            raise TransferError(f"{where}: there is no such bucket", url=where) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise _denied(where) from error
        except NotSupportedError as error:
            raise TransferError(
                f"{where}: this store does not know conditional writes", url=where
            ) from error
        except BaseError as error:
            if "403 Forbidden" in reason(error):  # of a list, which has no error of its own
                raise _denied(where) from error
            raise TransferError(f"{where}: {reason(error)}", url=where) from error


def _denied(where: str) -> TransferError:
    return TransferError(f"{where}: access denied", hint=CREDENTIALS, url=where, status=403)
