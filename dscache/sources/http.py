"""HTTP and HTTPS through libcurl: many requests at once in the caller's thread.

The only module that knows pycurl. It owns what a request looks like (one builder for all), what a
status line and headers mean, which redirects may be followed, and who gets credentials. It does
not decide about retries or mirrors.
"""

from __future__ import annotations

import email.utils
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pycurl

from dscache.sources.exchange import Exchange, Failure, Head, Request, Trouble

_USER_AGENT = "dscache (+https://pypi.org/project/dscache/)"
_BUFFER = 512 << 10
_MAX_REDIRECTS = 20  # as browsers and curl's documentation have it
#: Slower than this for the stall timeout, in bytes per second, and the connection is given up.
_STALL_RATE = 1024
_SUPPRESS_CONNECT_HEADERS = 265  # curl/curl.h; pycurl has no name for it
_BUSY = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNUSABLE = frozenset(
    {
        pycurl.E_URL_MALFORMAT,
        pycurl.E_UNSUPPORTED_PROTOCOL,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_CERTPROBLEM,
    }
)


@dataclass(frozen=True)
class Options:
    """How to connect. Times in seconds; `credentials` gives the Authorization value for a URL."""

    connect_timeout: float = 10
    stall_timeout: float = 30
    ca_bundle: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    credentials: Callable[[str], str] = lambda _url: ""


class Http:
    """Requests under way on shared connections. Made for a call, closed at its end."""

    def __init__(self, options: Options, connections: int) -> None:
        self._options = options
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._idle: list[pycurl.Curl] = []
        self._active: dict[pycurl.Curl, _Transfer] = {}
        self._ca_bundle = options.ca_bundle or _default_ca_bundle()

    def start(self, request: Request) -> Exchange:
        """Send a request."""
        transfer = _Transfer(self, request)
        self._send(transfer)
        return transfer

    def wait(self, seconds: float) -> None:
        """Let requests go on until something has happened, at most that long."""
        if self._active and self._multi.select(seconds) < 0:
            time.sleep(min(seconds, 0.005))  # nothing to wait on yet, while a name is looked up
        self._multi.perform()
        while True:
            left, done, failed = self._multi.info_read()
            for easy in done:
                self._finish(easy, None)
            for easy, code, message in failed:
                self._finish(easy, _curl_failure(code, message))
            if not left:
                return

    def close(self) -> None:
        """Close all connections."""
        for transfer in list(self._active.values()):
            transfer.cancel()
        for easy in self._idle:
            easy.close()
        self._multi.close()

    def _send(self, transfer: _Transfer) -> None:
        easy = self._idle.pop() if self._idle else self._new_handle()
        headers = dict(self._options.headers)
        if authorization := self._options.credentials(transfer.url):
            headers["Authorization"] = authorization
        if transfer.request.start:
            headers["Range"] = f"bytes={transfer.request.start}-"
            if transfer.request.validator:
                headers["If-Range"] = transfer.request.validator
        elif transfer.request.validator:
            headers["If-None-Match"] = transfer.request.validator
        easy.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()])
        easy.setopt(pycurl.URL, transfer.url)
        easy.setopt(pycurl.WRITEFUNCTION, transfer.body.append)
        easy.setopt(pycurl.HEADERFUNCTION, transfer.lines.append)
        transfer.easy = easy
        self._active[easy] = transfer
        self._multi.add_handle(easy)

    def _new_handle(self) -> pycurl.Curl:
        easy = pycurl.Curl()
        options = self._options
        easy.setopt(pycurl.NOSIGNAL, 1)
        easy.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        easy.setopt(pycurl.FOLLOWLOCATION, 0)
        easy.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        easy.setopt(pycurl.CAINFO, self._ca_bundle)
        easy.setopt(pycurl.USERAGENT, _USER_AGENT)
        easy.setopt(pycurl.BUFFERSIZE, _BUFFER)
        easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        easy.setopt(pycurl.NETRC, pycurl.NETRC_OPTIONAL)
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, int(options.connect_timeout * 1000))
        easy.setopt(pycurl.LOW_SPEED_LIMIT, _STALL_RATE)
        easy.setopt(pycurl.LOW_SPEED_TIME, max(1, round(options.stall_timeout)))
        return easy

    def _finish(self, easy: pycurl.Curl, failure: Failure | None) -> None:
        transfer = self._active[easy]
        self._release(transfer)
        transfer.read_head()
        if transfer.location:
            self._redirect(transfer, transfer.location)
        else:
            transfer.finish(failure)

    def _redirect(self, transfer: _Transfer, location: str) -> None:
        target = urllib.parse.urljoin(transfer.url, location)
        transfer.hops += 1
        if failure := _redirect_failure(transfer.url, target, transfer.hops):
            transfer.finish(failure)
            return
        transfer.reset(target)
        self._send(transfer)

    def _release(self, transfer: _Transfer) -> None:
        easy, transfer.easy = transfer.easy, None
        if easy is not None:
            del self._active[easy]
            self._multi.remove_handle(easy)
            self._idle.append(easy)


class _Transfer:
    """One request and what it has led to, redirects included."""

    def __init__(self, http: Http, request: Request) -> None:
        self.request = request
        self.head: Head | None = None
        self.failure: Failure | None = None
        self.done = False
        self.hops = 0
        self.easy: pycurl.Curl | None = None
        self._http = http
        self.reset(request.url)

    def reset(self, url: str) -> None:
        """Begin again with another URL."""
        self.url = url
        self.location = ""
        self.body: list[bytes] = []
        self.lines: list[bytes] = []

    def take(self) -> list[bytes]:
        if not self.body:
            return []
        self.read_head()
        if self.failure and not self.done:
            self.cancel()
        if self.head is None:
            if self.location or self.failure:
                self.body.clear()  # the page of an error or a redirect is nobody's file
            return []
        chunks = self.body.copy()
        self.body.clear()
        return chunks

    def cancel(self) -> None:
        self.done = True
        self._http._release(self)

    def read_head(self) -> None:
        """Make sense of status and headers, once they are all here."""
        if self.head or self.failure or self.location or not self.lines:
            return
        if self.lines[-1] not in (b"\r\n", b"\n"):
            return
        status, headers = _parse(self.lines)
        if status < 200:
            return
        if status in _REDIRECTS and "location" in headers:
            self.location = headers["location"]
            return
        answer = interpret(self.request, status, headers)
        if isinstance(answer, Head):
            self.head = answer
        else:
            self.failure = answer

    def finish(self, failure: Failure | None) -> None:
        """The request has ended; `failure` is libcurl's word on it."""
        self.done = True
        if self.failure is None:
            self.failure = failure
        if self.failure is None and self.head is None:
            self.failure = Failure(Trouble.CONNECTION, "the server's answer had no headers")


def interpret(request: Request, status: int, headers: Mapping[str, str]) -> Head | Failure:
    """What an answer means for the one who asked for `request`; header names in lower case.

    206 counts only if its Content-Range begins where the request did (RFC 9110, 14.4 and 15.3.7).
    """
    validator = _validator(headers)
    head = Head(
        validator=validator,
        media_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
        encoding=headers.get("content-encoding", "").strip().lower().replace("identity", ""),
    )
    if status == 200:
        length = headers.get("content-length", "")
        return replace(head, total=int(length) if length.isdigit() else None)
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("content-range", ""))
        if not found or int(found[1]) != request.start:
            return Failure(Trouble.RANGE, "the server sent another range than asked for", status)
        total = None if found[3] == "*" else int(found[3])
        return replace(head, start=request.start, total=total)
    if status == 416:
        return Failure(Trouble.RANGE, "the server has no such range", status)
    reason = f"the server answered {status}"
    if status in _BUSY or status >= 500:
        after = _retry_after(headers.get("retry-after", ""))
        return Failure(Trouble.BUSY, reason, status, after)
    return Failure(Trouble.REFUSED, reason, status)


def _validator(headers: Mapping[str, str]) -> str:
    etag = headers.get("etag", "")
    if etag.startswith('"'):
        return etag
    return headers.get("last-modified", "")


def _retry_after(text: str) -> float | None:
    """Seconds from a Retry-After of either form (RFC 9110, 10.2.3); None if absent or odd."""
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _parse(lines: list[bytes]) -> tuple[int, dict[str, str]]:
    """Status and headers of the last answer in `lines`; earlier ones are interim or a proxy's."""
    status = 0
    headers: dict[str, str] = {}
    for raw in lines:
        line = raw.decode("latin-1").rstrip("\r\n")
        if line.startswith("HTTP/"):
            code = line.split(" ", 2)[1:2]
            status = int(code[0]) if code and code[0].isdigit() else 0
            headers = {}
        else:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
    return status, headers


def _redirect_failure(url: str, target: str, hops: int) -> Failure | None:
    if hops > _MAX_REDIRECTS:
        return Failure(Trouble.UNUSABLE, f"redirected more than {_MAX_REDIRECTS} times")
    scheme = urllib.parse.urlsplit(target).scheme
    if scheme not in ("http", "https"):
        return Failure(Trouble.UNSAFE, f"redirected to a {scheme}: URL")
    if scheme == "http" and url.startswith("https:"):
        return Failure(Trouble.UNSAFE, "redirected from https to http")
    return None


def _curl_failure(code: int, message: str) -> Failure:
    trouble = Trouble.UNUSABLE if code in _UNUSABLE else Trouble.CONNECTION
    return Failure(trouble, message or pycurl.Curl().errstr() or f"libcurl error {code}")


def _default_ca_bundle() -> str:
    import certifi

    return certifi.where()
