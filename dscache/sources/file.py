"""Local files as a source: `file:` URLs."""

from __future__ import annotations

import errno
import os
import stat
import urllib.parse

from dscache.sources.exchange import Exchange, Failure, Head, Request, Trouble

_CHUNK = 4 << 20


class Files:
    """Reads local files, one chunk at each look."""

    def start(self, request: Request) -> Exchange:
        """Open the file; that it cannot be opened is a failure of the exchange."""
        return _Reading(request)

    def wait(self, seconds: float) -> None:
        """Local files never need waiting for."""

    def close(self) -> None:
        """Nothing is held between exchanges."""


class _Reading:
    is_whole = True

    def __init__(self, request: Request) -> None:
        self.head: Head | None = None
        self.failure: Failure | None = None
        self.done = False
        self._fd = -1
        try:
            self._open(path_of(request.url), request)
        except OSError as error:
            self._fail(error)

    def take(self) -> list[bytes]:
        if self.done:
            return []
        try:
            chunk = os.read(self._fd, _CHUNK)
        except OSError as error:
            self._fail(error)
            return []
        if not chunk:
            self.cancel()
            return []
        return [chunk]

    def cancel(self) -> None:
        self.done = True
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self, path: str, request: Request) -> None:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for a writer
            raise OSError(errno.EINVAL, "not a regular file", path)
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        found = os.fstat(self._fd)
        validator = f'"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"'
        same = request.validator in ("", validator) and request.start <= found.st_size
        start = request.start if same else 0
        os.lseek(self._fd, start, os.SEEK_SET)
        self.head = Head(start, found.st_size, validator)

    def _fail(self, error: OSError) -> None:
        status = 404 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 403
        self.failure = Failure(Trouble.REFUSED, error.strerror or str(error), status)
        self.cancel()


def path_of(url: str) -> str:
    """The local path that a `file:` URL names."""
    path = urllib.parse.urlsplit(url).path
    if os.name == "nt":
        from urllib.request import url2pathname  # late: it takes 20 ms, and most URLs are others

        return url2pathname(path)
    return os.fsdecode(urllib.parse.unquote_to_bytes(path))  # the bytes of a path may be no text
