"""Uploading: local files into a depot, several at once, each hashed on its way.

What the depot has already, by its name and size, is left alone. A file whose bytes are not those
that its name promises is not put there.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from queue import Empty, SimpleQueue

import msgspec

from dscache import disk
from dscache.depots import Depot
from dscache.errors import IntegrityError

#: Files at once: enough that a store is busy while others are hashed.
_AT_ONCE = 8
_CHUNK = 16 << 20
_LOOK = 0.1
#: Seconds for which an interrupt waits for what a server has half of.
_PATIENCE = 2.0


class Upload(msgspec.Struct, frozen=True):
    """A file that is to be in the depot under `key`; `sha256` is what its bytes must have."""

    key: str
    path: str
    size: int
    sha256: str


class _Stopped(Exception):
    """The caller wants no more."""


def _untold(_upload: Upload, _sent: int) -> None:
    """Nobody watches."""


def upload_all(
    depot: Depot,
    uploads: Iterable[Upload],
    *,
    jobs: int = _AT_ONCE,
    tell: Callable[[Upload, int], None] = _untold,
) -> Generator[tuple[Upload, bool], None, None]:
    """Put files into a depot; yield each when it is there, and whether it had to be put.

    However this ends, no upload goes on; but after an interrupt, one that a server keeps waiting is
    left alone, and ends with its timeout.

    Args:
        tell: called, in the caller's thread, with files that are on their way, and the bytes of
            them that have gone.

    Raises:
        IntegrityError: a local file is not what it should be.
        StorageError: one cannot be read.
        TransferError: the depot cannot be reached or refuses. What was put there stays.
    """
    stop = threading.Event()
    sent: dict[Upload, int] = {}
    # Waited for in C: see `verifying.sweeping`.
    ended: SimpleQueue[Future[tuple[Upload, bool]]] = SimpleQueue()
    waiting = iter(uploads)
    executor = ThreadPoolExecutor(jobs, thread_name_prefix="dscache-upload")

    def start(count: int) -> int:
        some = list(islice(waiting, count))
        for each in some:
            executor.submit(_put, depot, each, stop, sent).add_done_callback(ended.put)
        return len(some)

    under_way = 0
    try:
        under_way = start(2 * jobs)
        while under_way:
            for each in list(sent.items()):
                tell(*each)
            with suppress(Empty):
                future = ended.get(timeout=_LOOK)
                under_way -= 1
                done = future.result()
                under_way += start(1)
                yield done
    finally:
        stop.set()
        executor.shutdown(wait=False, cancel_futures=True)
        is_error = isinstance(sys.exc_info()[1], Exception)
        with suppress(Empty):
            for _ in range(under_way):
                ended.get(timeout=None if is_error else _PATIENCE)


def _put(
    depot: Depot, upload: Upload, stop: threading.Event, sent: dict[Upload, int]
) -> tuple[Upload, bool]:
    if stop.is_set():
        raise _Stopped
    if depot.size(upload.key) == upload.size:
        return upload, False
    sent[upload] = 0
    try:
        depot.upload(upload.key, _verified(upload, stop, sent), upload.size)
    finally:
        del sent[upload]
    return upload, True


def _verified(upload: Upload, stop: threading.Event, sent: dict[Upload, int]) -> Iterator[bytes]:
    """The bytes of a file; before the last of them, that they are the right ones."""
    digest, left = hashlib.sha256(), upload.size
    unreadable = disk.storage_errors(f"{upload.path} cannot be read")
    with unreadable, open(upload.path, "rb", buffering=0) as file:
        is_whole = os.fstat(file.fileno()).st_size == upload.size
        while is_whole and (chunk := file.read(_CHUNK)):
            if stop.is_set():
                raise _Stopped
            digest.update(chunk)
            left -= len(chunk)
            if not left and digest.hexdigest() != upload.sha256:
                break
            yield chunk
            sent[upload] += len(chunk)
    if left or digest.hexdigest() != upload.sha256:
        raise IntegrityError(
            f"{upload.path} is not sha256:{upload.sha256}, and was not uploaded",
            hint="`dscache verify --full --repair` mends a cache; add a registry's file anew",
            path=upload.path,
        )
