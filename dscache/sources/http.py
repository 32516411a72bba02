"""HTTP and HTTPS through libcurl: many requests at once in the caller's thread.

The only module that knows pycurl. It owns what a request looks like (one builder for all), and who
gets credentials; `answers` says what comes back means and which redirects may be followed. It does
not decide about retries or mirrors.
"""

from __future__ import annotations

import os
import time

import pycurl

from dscache.errors import UnsafeError
from dscache.sources import answers
from dscache.sources.exchange import Exchange, Failure, Head, Request, Trouble
from dscache.sources.options import Options, default_ca_bundle
from dscache.urls import is_loopback, site

_USER_AGENT = "dscache (+https://pypi.org/project/dscache/)"
#: libcurl reads ten of these at a time. What that makes stays below a MiB, so that the allocator
#: keeps the memory instead of giving it back and getting new pages for every look (measured: larger
#: ones doubled the system time of a download).
_BUFFER = 96 << 10
#: HTTP/2 where it is offered puts small answers side by side on one connection. A long one goes
#: faster without its windows, and its neighbours too.
_VERSION = pycurl.CURL_HTTP_VERSION_2TLS
_VERSION_ALONE = pycurl.CURL_HTTP_VERSION_1_1
#: AES with 128 bits first, as browsers have it: as good here, and less work on both sides.
_TLS13_CIPHERS = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_SUPPRESS_CONNECT_HEADERS = 265  # curl/curl.h; pycurl has no name for it
#: What libcurl says nothing about (curl/curl.h).
_NAMELESS = {100: "the headers of the answer are too long"}
#: Options with their values.
_Setup = tuple[tuple[int, object], ...]
_CERTIFICATE = frozenset({pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE})
_UNUSABLE = frozenset(
    {pycurl.E_URL_MALFORMAT, pycurl.E_UNSUPPORTED_PROTOCOL, pycurl.E_SSL_CERTPROBLEM}
)


class Http:
    """Requests under way on shared connections. Made for a call, closed at its end.

    Args:
        connections: how many there may be at once, idle ones included.
    """

    def __init__(self, options: Options, connections: int) -> None:
        self._options = options
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, connections)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._idle: list[pycurl.Curl] = []
        self._setups: dict[pycurl.Curl, _Setup] = {}  # of each handle's last request
        self._plain: dict[str, _Setup] = {}  # of plain requests, by site
        self._active: dict[pycurl.Curl, _Transfer] = {}
        self._ca_bundle = options.ca_bundle or default_ca_bundle()
        self._has_netrc = _has_netrc()

    def start(self, request: Request) -> Exchange:
        """Send a request.

        Raises:
            InvalidFile: the credentials for its host cannot be had.
        """
        transfer = _Transfer(self, request)
        self.send(transfer)
        return transfer

    def wait(self, seconds: float) -> None:
        """Let requests go on until something has happened, at most that long."""
        if self._active and seconds > 0:
            timeout = self._multi.timeout()
            if timeout >= 0:
                seconds = min(seconds, timeout / 1000)
            if self._multi.select(seconds) < 0:
                time.sleep(min(seconds, 0.005))  # no socket yet, while a name is looked up
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

    def send(self, transfer: _Transfer) -> None:
        """Ask for the URL at which a transfer has arrived."""
        try:
            setup = self._setup(transfer)
        except UnsafeError as error:
            transfer.finish(Failure(Trouble.UNSAFE, str(error)))
            return
        easy = self._idle.pop() if self._idle else self._new_handle()
        if self._setups.get(easy) != setup:
            self._setups[easy] = setup
            for option, value in setup:
                easy.setopt(option, value)
        easy.setopt(pycurl.URL, transfer.url)
        easy.setopt(pycurl.WRITEFUNCTION, transfer.body.append)
        easy.setopt(pycurl.HEADERFUNCTION, transfer.lines.append)
        transfer.easy = easy
        self._active[easy] = transfer
        self._multi.add_handle(easy)

    def release(self, transfer: _Transfer) -> None:
        """Take the handle back; a connection in the middle of something is closed."""
        easy, transfer.easy = transfer.easy, None
        if easy is not None:
            del self._active[easy]
            self._multi.remove_handle(easy)
            self._idle.append(easy)

    def _setup(self, transfer: _Transfer) -> _Setup:
        """The options for a transfer; those of plain requests are the same for a whole site."""
        url, request = transfer.url, transfer.request
        if url != request.url or not request.is_plain:
            return self._made_setup(url, request)
        place = site(url)
        found = self._plain.get(place)
        if found is None:
            found = self._plain[place] = self._made_setup(url, request)
        return found

    def _made_setup(self, url: str, request: Request) -> _Setup:
        # Never empty: pycurl takes an empty list to mean "as before", with another host's secrets.
        headers = {"User-Agent": _USER_AGENT}
        if not request.is_signed:
            headers |= self._options.headers_for(url, request.url)
        is_part = request.start or request.end is not None
        if is_part:
            last = "" if request.end is None else request.end - 1
            headers["Range"] = f"bytes={request.start}-{last}"
        if request.validator:
            headers["If-Range" if is_part else "If-None-Match"] = request.validator
        has_netrc = self._has_netrc and not request.is_signed and _may_have_password(url)
        return (
            (pycurl.HTTPHEADER, [f"{name}: {each}" for name, each in headers.items()]),
            (pycurl.NETRC, pycurl.NETRC_OPTIONAL if has_netrc else pycurl.NETRC_IGNORED),
            (pycurl.HTTP_VERSION, _VERSION_ALONE if request.is_long else _VERSION),
            (pycurl.NOBODY, int(request.is_probe)),
        )

    def _finish(self, easy: pycurl.Curl, failure: Failure | None) -> None:
        transfer = self._active[easy]
        if failure and easy.getinfo(pycurl.HTTP_CONNECTCODE) == 407:
            failure = answers.proxy_refusal()
        self.release(transfer)
        if failure is None and easy.getinfo(pycurl.RESPONSE_CODE) == 200:
            transfer.done = True
            return
        transfer.read_head()
        if transfer.location:
            transfer.redirect()
        else:
            transfer.finish(failure)

    def _new_handle(self) -> pycurl.Curl:
        easy = pycurl.Curl()
        options = self._options
        easy.setopt(pycurl.NOSIGNAL, 1)
        easy.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        easy.setopt(pycurl.FOLLOWLOCATION, 0)
        easy.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        is_folder = os.path.isdir(self._ca_bundle)
        easy.setopt(pycurl.CAPATH if is_folder else pycurl.CAINFO, self._ca_bundle)
        if "OpenSSL" in pycurl.version:  # the other libraries go by their own lists
            easy.setopt(pycurl.TLS13_CIPHERS, _TLS13_CIPHERS)
        easy.setopt(pycurl.BUFFERSIZE, _BUFFER)
        if options.limit_rate:
            # So that what is read at once is a small part of what a second allows.
            easy.setopt(pycurl.BUFFERSIZE, max(1024, min(_BUFFER, options.limit_rate // 64)))
            easy.setopt(pycurl.MAX_RECV_SPEED_LARGE, options.limit_rate)
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, round(options.connect_timeout * 1000)))
        easy.setopt(pycurl.LOW_SPEED_LIMIT, options.stall_rate)
        easy.setopt(pycurl.LOW_SPEED_TIME, max(1, round(options.stall_timeout)))
        return easy


class _Transfer:
    """One request and what it has led to, redirects included."""

    is_whole = False

    def __init__(self, http: Http, request: Request) -> None:
        self.request = request
        self.failure: Failure | None = None
        self.done = False
        self.easy: pycurl.Curl | None = None
        self._head: Head | None = None
        self._http = http
        self._hops = 0
        self._reset(answers.quoted(request.url))

    def _reset(self, url: str) -> None:
        self.url = url
        self.location = ""
        self.body: list[bytes] = []
        self.lines: list[bytes] = []

    @property
    def head(self) -> Head | None:
        """What the server has said; read late, since of a small file that is right nobody asks."""
        if self.done:
            self.read_head()
        return self._head

    def take(self) -> list[bytes]:
        if not self.body:
            return []
        if not self.done or self.failure:
            self.read_head()
            if self._head is None:
                self._leave_page()
                return []
        chunks = self.body.copy()
        self.body.clear()
        return chunks

    def cancel(self) -> None:
        self.done = True
        self._http.release(self)

    def read_head(self) -> None:
        """Make sense of status and headers, once they are all here."""
        if self._head or self.failure or self.location:
            return
        read = answers.read_head(self.lines)
        if read is None:
            return
        status, headers = read
        self.location = answers.redirect_target(self.url, status, headers)
        if self.location:
            return
        answer = answers.interpret(self.request, status, headers)
        if isinstance(answer, Head):
            self._head = answer
        else:
            self.failure = answer

    def redirect(self) -> None:
        """Go where the answer leads, if that is allowed."""
        self._hops += 1
        if failure := answers.redirect_failure(self.url, self.location, self._hops):
            self.finish(failure)
            return
        self._reset(self.location)
        self._http.send(self)

    def finish(self, failure: Failure | None) -> None:
        """The request has ended; `failure` is libcurl's word on it."""
        self.done = True
        if self.failure is None:
            self.failure = failure
        if self.failure is None and self.head is None:
            self.failure = Failure(Trouble.CONNECTION, "the server's answer had no headers")

    def _leave_page(self) -> None:
        """The page of an error or a redirect is nobody's file: do not wait for its end."""
        self.body.clear()
        if self.done:
            return
        if self.failure:
            self.cancel()
        elif self.location:
            self._http.release(self)
            self.redirect()


def _has_netrc() -> bool:
    """True if the user has a netrc file, which libcurl would look for before each request."""
    if os.name == "nt":  # where it may be in other places, too
        return True
    names = (".netrc", "_netrc")
    return any(os.path.exists(os.path.expanduser(f"~/{name}")) for name in names)


def _may_have_password(url: str) -> bool:
    """Passwords of the user's netrc file go only where configured ones may: see `Credentials`."""
    return url.startswith("https:") or is_loopback(url)


def _curl_failure(code: int, message: str) -> Failure:
    trouble = Trouble.UNUSABLE if code in _UNUSABLE else Trouble.CONNECTION
    reason = message or _NAMELESS.get(code, f"libcurl error {code}")
    if code in _CERTIFICATE:
        trouble = Trouble.CERTIFICATE
        reason += " (`ca_bundle` in the configuration names the authorities to trust)"
    return Failure(trouble, reason)
