"""What Pooch can download and libcurl here may not: ftp, sftp and doi, whole files only.

Also stands in for HTTP where pycurl cannot be imported. Pooch's downloaders write a file; it is
written to a temporary one beside the parts and handed on from there.
"""

from __future__ import annotations

import contextlib
import ftplib
import os
import secrets
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from dscache.sources.exchange import Exchange, Failure, Head, Request, Trouble
from dscache.sources.file import Files


class PoochDownloads:
    """Runs each download in a thread of its own, since Pooch's downloaders block."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def start(self, request: Request) -> Exchange:
        """Begin to download; offsets are not honoured."""
        return _Download(request.url, self._folder)

    def wait(self, seconds: float) -> None:
        """Progress happens in the threads."""
        time.sleep(min(seconds, 0.02))

    def close(self) -> None:
        """Downloads that still run end with their process; nobody reads their files."""


class _Download:
    def __init__(self, url: str, folder: str) -> None:
        self.head: Head | None = None
        self.failure: Failure | None = None
        self.done = False
        self._url = url
        self._file = os.path.join(folder, f"pooch.{secrets.token_hex(8)}.tmp")
        self._body: Exchange | None = None
        self._arrived = threading.Event()
        self._trouble: Exception | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def take(self) -> list[bytes]:
        if self.done or not self._arrived.is_set():
            return []
        if self._body is None:
            self._open()
        if self._body is None:
            return []
        chunks = self._body.take()
        if self._body.done:
            self.failure = self._body.failure
            self.cancel()
        return chunks

    def cancel(self) -> None:
        self.done = True
        if self._body:
            self._body.cancel()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file)

    def _open(self) -> None:
        if self._trouble:
            self.failure = Failure(Trouble.CONNECTION, f"{self._trouble}")
            self.cancel()
            return
        self._body = Files().start(Request(Path(self._file).as_uri()))
        self.head = Head(0, os.path.getsize(self._file))

    def _run(self) -> None:
        try:
            downloader, url = _downloader(self._url)
            downloader(url, self._file, None)
        except _known_errors(self._url) as error:
            self._trouble = error
        finally:
            self._arrived.set()


def _downloader(url: str) -> tuple[Any, str]:
    """Pooch's downloader for the protocol, and the URL as that downloader wants it."""
    import pooch

    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "ftp" and parts.port:  # it takes the port apart from the URL
        bare = parts._replace(netloc=parts.hostname or "").geturl()
        return pooch.FTPDownloader(port=parts.port), bare
    return pooch.choose_downloader(url), url


def _known_errors(url: str) -> tuple[type[Exception], ...]:
    """What the protocol's library raises when the network or the server fails."""
    known: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, ftplib.Error)
    if url.startswith("sftp:"):
        try:
            import paramiko  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            return known
        return (*known, paramiko.SSHException)
    return known
