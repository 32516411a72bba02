"""What Pooch can download and libcurl here may not: ftp, sftp and doi, whole files only.

Also stands in for HTTP where pycurl cannot be imported. Pooch's downloaders write a file; it is
written to a temporary one beside the parts and handed on from there. What they raise is translated
here, and only here.
"""

from __future__ import annotations

import errno
import ftplib
import os
import secrets
import threading
import urllib.parse
from functools import partial
from pathlib import Path
from typing import Any

from dscache import filesystem
from dscache.errors import InvalidFile, UnsafeError
from dscache.sources import answers
from dscache.sources.exchange import Exchange, Failure, Head, Request, Trouble
from dscache.sources.file import Files
from dscache.sources.options import Options, default_ca_bundle
from dscache.urls import host

_CHUNK = 1 << 20
_PORTS = {"ftp": 21, "sftp": 22}
_REFUSED = (ftplib.error_perm, FileNotFoundError, PermissionError, ValueError)
_BROKEN = (OSError, EOFError, ftplib.Error)
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class PoochDownloads:
    """Runs each download in a thread of its own, since Pooch's downloaders block."""

    def __init__(self, options: Options, folder: str) -> None:
        self._options = options
        self._folder = folder
        self._news = threading.Event()

    def start(self, request: Request) -> Exchange:
        """Begin to download; offsets are not honoured, and spans refused."""
        if request.end is not None:
            return _Refusal()
        filesystem.make_folder(self._folder)
        file = os.path.join(self._folder, f"pooch.{secrets.token_hex(8)}.tmp")
        return _Download(request, file, self._options, self._news)

    def wait(self, seconds: float) -> None:
        """Wait until a download has ended; what it brought is handed out without waiting."""
        if self._news.wait(seconds):
            self._news.clear()

    def close(self) -> None:
        """Downloads that still run end with their process, and nobody reads their files."""


class _Refusal:
    """The answer to those who want a span."""

    is_whole = True
    done = True
    head: Head | None = None
    failure: Failure | None = Failure(Trouble.REFUSED, "only whole files can be fetched")

    def take(self) -> list[bytes]:
        return []

    def cancel(self) -> None:
        """Nothing is under way."""


class _Download:
    is_whole = True

    def __init__(
        self, request: Request, file: str, options: Options, news: threading.Event
    ) -> None:
        self.head: Head | None = None
        self.failure: Failure | None = None
        self.done = False
        self._url = request.url
        self._is_probe = request.is_probe
        self._file = file
        self._options = options
        self._news = news
        self._body: Exchange | None = None
        self._arrived = threading.Event()
        self._trouble: Exception | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="dscache-pooch", daemon=True).start()

    def take(self) -> list[bytes]:
        if self.done or not self._arrived.is_set():
            return []
        if self._body is None:
            self._body = self._open()
        if self._body is None:
            return []
        chunks = self._body.take()
        if self._body.done:
            self.failure = self._body.failure
            self.cancel()
        else:
            self._news.set()  # there is more at once
        return chunks

    def cancel(self) -> None:
        with self._lock:
            self.done = True
        if self._body:
            self._body.cancel()
        if self._arrived.is_set():
            filesystem.unlink(self._file)

    def _open(self) -> Exchange | None:
        trouble = self._trouble
        if trouble:
            self.cancel()
            if isinstance(trouble, InvalidFile) or getattr(trouble, "errno", None) in _DISK:
                raise trouble  # of this machine, not of the source
            self.failure = _failure(trouble, self._url)
            return None
        if self._is_probe:
            self.head = Head()
            self.cancel()
            return None
        body = Files().start(Request(Path(self._file).as_uri()))
        self.head = Head(0, body.head.total) if body.head else None
        return body

    def _run(self) -> None:
        try:
            if self._is_probe:
                _probe(self._url, self._options)
            else:
                _download(self._url, self._file, self._options)
        except Exception as error:  # noqa: BLE001 - whatever a protocol's library raises
            self._trouble = error
        with self._lock:
            self._arrived.set()
            if self.done:  # cancelled: nobody else will remove the file
                filesystem.unlink(self._file)
        self._news.set()


def _download(url: str, file: str, options: Options) -> None:
    """Call Pooch's downloader for the protocol with the URL as that downloader wants it."""
    import pooch

    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https"):
        pooch.HTTPDownloader(chunk_size=_CHUNK, **_for_requests(url, options))(url, file, None)
    elif parts.scheme == "doi":
        # Where a DOI leads is the repository's business; the file's hash is ours.
        verify = options.ca_bundle or default_ca_bundle()
        pooch.DOIDownloader(chunk_size=_CHUNK, verify=verify)(url, file, None)
    elif parts.scheme in _PORTS:
        bare, login = _address(parts, options)
        if parts.scheme == "ftp":
            pooch.FTPDownloader(chunk_size=_CHUNK, **login)(bare, file, None)
        else:
            pooch.SFTPDownloader(**login)(bare, file, None)
    else:
        raise ValueError(f"unknown protocol {parts.scheme!r}")


def _probe(url: str, options: Options) -> None:
    """Raise what says why there is no such file, if there is none.

    Pooch itself would ask without headers and credentials. An answer to HEAD need not hold for GET.
    """
    import pooch
    import requests

    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https"):
        with requests.get(url, stream=True, **_for_requests(url, options)) as answer:
            answer.raise_for_status()
    elif parts.scheme == "ftp":
        bare, login = _address(parts, options)
        if not pooch.FTPDownloader(**login)(bare, None, None, check_only=True):
            raise FileNotFoundError("the server lists no such file")
    else:
        raise NotImplementedError(f"{parts.scheme}: files can be fetched, but not looked for")


def _address(parts: urllib.parse.SplitResult, options: Options) -> tuple[str, dict[str, Any]]:
    """The URL without what Pooch takes as arguments, and these."""
    login = {
        "port": parts.port or _PORTS[parts.scheme],
        "username": urllib.parse.unquote(parts.username or "anonymous"),
        "password": urllib.parse.unquote(parts.password or ""),
        "timeout": options.stall_timeout,
    }
    return f"{parts.scheme}://{parts.hostname}{urllib.parse.unquote(parts.path)}", login


def _for_requests(url: str, options: Options) -> dict[str, Any]:
    """The same rules that libcurl gets, as arguments of `requests.get`."""
    headers = {"Accept-Encoding": "identity", **options.headers_for(url, url)}
    return {
        "headers": headers,
        "timeout": (options.connect_timeout, options.stall_timeout),
        "verify": options.ca_bundle or default_ca_bundle(),
        "hooks": {"response": partial(_check_redirect, options)},
    }


def _check_redirect(options: Options, response: Any, **_: Any) -> None:
    """Called by requests with each answer, before it follows a redirect."""
    target = answers.redirect_target(response.url, response.status_code, _headers(response))
    failure = answers.redirect_failure(response.url, target, 0) if target else None
    if failure:
        raise UnsafeError(failure.reason)
    if target and host(target) != host(response.url):
        for name in options.headers:  # requests itself takes away Authorization only
            response.request.headers.pop(name, None)


def _failure(error: Exception, url: str) -> Failure:
    """What an error of Pooch, or of the library that it uses for a protocol, means."""
    response = getattr(error, "response", None)
    if response is not None:  # a status that requests takes for an error
        answer = answers.interpret(Request(""), response.status_code, _headers(response))
        if isinstance(answer, Failure):
            return answer
    reason = _without_secrets(str(error), url) or type(error).__name__
    if isinstance(error, UnsafeError):
        return Failure(Trouble.UNSAFE, reason)
    if isinstance(error, ftplib.error_temp):
        return Failure(Trouble.BUSY, reason)
    if isinstance(error, _REFUSED):
        return Failure(Trouble.REFUSED, reason)
    return Failure(Trouble.CONNECTION if isinstance(error, _BROKEN) else Trouble.UNUSABLE, reason)


def _without_secrets(text: str, url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    for secret in filter(None, (parts.query, parts.password)):
        text = text.replace(secret, "…")
    return text


def _headers(response: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
