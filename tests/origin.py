"""A simulated origin: an HTTP/1.1 server with the faults a downloader meets, and a log of requests.

This module owns three things, in this order:

1. answers, as pure values: `Asked` and `Entity` make a `Reply`, which says all that goes out;
2. faults, each a frozen value that spoils the entity or the reply: `Drop(after=1000)`, ...;
3. the server: a thread for each connection puts replies on the wire and counts what it sent.

It knows nothing of dscache: a test meets it only over a socket.

    with origin({"/a.bin": data}) as site:
        site.fault("/a.bin", Drop(after=1000), times=1)
        ...                                     # the code under test fetches site.url("/a.bin")
        assert site.sent("/a.bin") == 1000 + len(data)

A request passes through the faults of its path in the order in which they were added. So they
compose: `site.fault("/a.bin", Chunked(), Drop(after=10, how=Ending.RST))` resets a chunked body.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from itertools import chain, repeat
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import quote, unquote

BEFORE_ANSWER = -1
"""A place to drop or to stall: the request has been read, and not even a status line was sent."""

HTML = b"<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Sorry</h1></body></html>\n"
LOGIN = b"<!DOCTYPE html><html><body><form action='/login'>Please log in.</form></body></html>\n"

_PIECE = 1 << 20
_STEP = 1 << 16
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


# --- Answers: values, no I/O ----------------------------------------------------------------------


class Ending(Enum):
    """How an answer ends before its end."""

    FIN = "closed in order"
    RST = "reset"
    STALL = "left open, and silent for ever"


class Framing(Enum):
    """How the receiver learns where the body ends."""

    LENGTH = "Content-Length"
    CHUNKED = "Transfer-Encoding: chunked"
    CLOSE = "end of the connection"


@dataclass(frozen=True)
class Asked:
    """One request; `number` counts those of its path from 1, header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    number: int


@dataclass(frozen=True)
class Entity:
    """What stands at a path: its bytes and its validators (an empty one is not sent)."""

    content: bytes
    etag: str
    modified: str
    found: bool = True


@dataclass(frozen=True)
class Wire:
    """How a reply travels; `stop_at` counts bytes of the body."""

    delay: float = 0.0
    piece: int = _PIECE
    pause: float = 0.0
    stop_at: int | None = None
    ending: Ending = Ending.FIN
    endless_headers: bool = False
    endless_body: bool = False
    hang_up: bool = False


@dataclass(frozen=True)
class Reply:
    """An answer: what it says, and how it travels."""

    status: int
    headers: Mapping[str, str]
    body: memoryview
    framing: Framing = Framing.LENGTH
    wire: Wire = field(default_factory=Wire)

    def having(self, headers: Mapping[str, str]) -> Reply:
        """The same reply with these headers set; an empty value takes a header away."""
        return replace(self, headers={**self.headers, **headers})

    def travelling(self, **changes: Any) -> Reply:
        """The same reply, sent in another way: `changes` are fields of `Wire`."""
        return replace(self, wire=replace(self.wire, **changes))

    def instead(self, other: Reply) -> Reply:
        """Another reply that travels as this one would: so a refusal can be slow, or dropped."""
        return replace(other, framing=self.framing, wire=self.wire)


def entity_of(content: bytes) -> Entity:
    """The entity of some bytes; ETag and date follow from the bytes, and change with them."""
    digest = hashlib.sha256(content).hexdigest()
    modified = formatdate(1_600_000_000 + int(digest[:6], 16), usegmt=True)
    return Entity(content, f'"{digest[:32]}"', modified)


def answer(asked: Asked, entity: Entity) -> Reply:
    """What a faultless server says."""
    if not entity.found:
        return page(404)
    span = asked_range(asked, entity)
    if span is None:
        return whole(entity)
    if not span:
        return page(416).having({"Content-Range": f"bytes */{len(entity.content)}"})
    return part(entity, span)


def asked_range(asked: Asked, entity: Entity) -> range | None:
    """The bytes asked for: None for all of them, an empty range where there are none to give.

    RFC 9110: only GET has ranges (14.2), a range that makes no sense is ignored (14.1.1), and
    If-Range takes a date or a strong ETag that is exactly ours (13.1.5). Several ranges at once are
    ignored, as any server may do.
    """
    match = _RANGE.fullmatch(asked.headers.get("range", ""))
    if asked.method != "GET" or match is None or not _still_same(asked, entity):
        return None
    first, last = match.groups()
    size = len(entity.content)
    if not first and not last:
        return None
    if first and last and int(last) < int(first):
        return None
    if not first:
        return range(max(0, size - int(last)), size)
    return range(int(first), min(int(last) + 1, size) if last else size)


def _still_same(asked: Asked, entity: Entity) -> bool:
    condition = asked.headers.get("if-range")
    if condition is None:
        return True
    return condition in (entity.etag, entity.modified) and not condition.startswith("W/")


def whole(entity: Entity) -> Reply:
    """The entity as 200."""
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": entity.etag,
        "Last-Modified": entity.modified,
    }
    return Reply(200, headers, memoryview(entity.content))


def part(entity: Entity, span: range) -> Reply:
    """A range of the entity as 206."""
    reply = whole(entity).having(
        {"Content-Range": f"bytes {span.start}-{span.stop - 1}/{len(entity.content)}"}
    )
    return replace(reply, status=206, body=reply.body[span.start : span.stop])


def page(status: int, html: bytes = HTML) -> Reply:
    """A web page, where the client hoped for data."""
    return Reply(status, {"Content-Type": "text/html; charset=utf-8"}, memoryview(html))


def http_date(seconds_from_now: float) -> str:
    """A date as Retry-After may have it; whole seconds, as HTTP knows no finer ones."""
    return formatdate(time.time() + seconds_from_now, usegmt=True)


# --- Faults: values that spoil an entity or a reply -----------------------------------------------


class Fault:
    """Something that goes wrong. A fault overrides the stage at which it strikes."""

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        """What the server takes to stand at the path, before it looks at ranges and conditions."""
        return entity

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        """What it says, and how that travels."""
        return reply


@dataclass(frozen=True)
class Drop(Fault):
    """The connection ends after `after` bytes of the body, or BEFORE_ANSWER.

    A body that is shorter ends well. A reset waits until the client's kernel has those bytes.
    """

    after: int = 0
    how: Ending = Ending.FIN

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(stop_at=self.after, ending=self.how)


@dataclass(frozen=True)
class Stall(Fault):
    """Silence for ever after `after` bytes of the body, or BEFORE_ANSWER; the connection stays."""

    after: int = 0

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(stop_at=self.after, ending=Ending.STALL)


@dataclass(frozen=True)
class Drip(Fault):
    """A slow body: `size` bytes, then a pause of `every` seconds, and so on."""

    size: int
    every: float

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(piece=self.size, pause=self.every)


@dataclass(frozen=True)
class Late(Fault):
    """A faultless answer that begins only after some seconds."""

    seconds: float

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(delay=self.seconds)


@dataclass(frozen=True)
class HangUp(Fault):
    """A faultless answer; then the connection is closed, which no header had said."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(hang_up=True)


@dataclass(frozen=True)
class Chunked(Fault):
    """No Content-Length: the body comes in chunks."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return replace(reply, framing=Framing.CHUNKED)


@dataclass(frozen=True)
class CloseDelimited(Fault):
    """No Content-Length: the body ends where the connection does, so a cut looks like an end."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return replace(reply, framing=Framing.CLOSE)


@dataclass(frozen=True)
class Endless(Fault):
    """The body, then zeros without end; no Content-Length."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return replace(reply, framing=Framing.CLOSE).travelling(endless_body=True)


@dataclass(frozen=True)
class EndlessHeaders(Fault):
    """One header after the other, and never a body."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(endless_headers=True)


@dataclass(frozen=True)
class IgnoreRange(Fault):
    """200 and the whole body, whatever range was asked for."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        if reply.status not in (206, 416):
            return reply
        return reply.instead(whole(entity).having({"Accept-Ranges": ""}))


@dataclass(frozen=True)
class WrongRange(Fault):
    """206 whose Content-Range is not what was asked: moved by `shift`, or of another `total`."""

    shift: int = 0
    total: int | None = None

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        if reply.status != 206:
            return reply
        first, last, total = _content_range(reply)
        told = total if self.total is None else self.total
        moved = f"{first + self.shift}-{last + self.shift}"
        return reply.having({"Content-Range": f"bytes {moved}/{told}"})


@dataclass(frozen=True)
class Clipped(Fault):
    """206 with the first `most` bytes of the range only, and saying so, as a server may."""

    most: int

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        if reply.status != 206:
            return reply
        first, last, _ = _content_range(reply)
        return reply.instead(part(entity, range(first, min(last + 1, first + self.most))))


def _content_range(reply: Reply) -> tuple[int, int, int]:
    first, last, total = re.findall(r"\d+", reply.headers["Content-Range"])
    return int(first), int(last), int(total)


@dataclass(frozen=True)
class Gzipped(Fault):
    """200 and the whole body, gzipped unasked, under the ETag of the plain bytes."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        packed = memoryview(gzip.compress(entity.content, compresslevel=1))
        zipped = whole(entity).having({"Content-Encoding": "gzip"})
        return reply.instead(replace(zipped, body=packed))


@dataclass(frozen=True)
class OtherContent(Fault):
    """The remote changed: other bytes, with an ETag and a date of their own."""

    content: bytes

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return entity_of(self.content)


@dataclass(frozen=True)
class OtherETag(Fault):
    """The same bytes under another ETag; without one given, under a new one at every request."""

    etag: str = ""

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return replace(entity, etag=self.etag or f'"request-{asked.number}"')


@dataclass(frozen=True)
class NoValidators(Fault):
    """Neither ETag nor Last-Modified, so that nothing ties two attempts together."""

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return replace(entity, etag="", modified="")


@dataclass(frozen=True)
class Flip(Fault):
    """Wrong bytes of the right size: one bit at offset `at` is turned; the ETag stays."""

    at: int = 0

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        wrong = bytearray(entity.content)
        wrong[self.at] ^= 1
        return replace(entity, content=bytes(wrong))


@dataclass(frozen=True)
class Short(Fault):
    """The content lacks its last `by` bytes, and every header agrees; the ETag stays."""

    by: int = 1

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return replace(entity, content=entity.content[: -self.by])


@dataclass(frozen=True)
class Long(Fault):
    """The content has `by` bytes too many, and every header agrees; the ETag stays."""

    by: int = 1

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return replace(entity, content=entity.content + bytes(self.by))


@dataclass(frozen=True)
class Refuse(Fault):
    """Another status, and a page of HTML; `retry_after` is seconds or an `http_date`."""

    status: int
    retry_after: str = ""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.instead(page(self.status).having({"Retry-After": self.retry_after}))


@dataclass(frozen=True)
class LoginPage(Fault):
    """200, and a page that asks to log in."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.instead(page(200, LOGIN))


@dataclass(frozen=True)
class Redirect(Fault):
    """On to another URL or path, of any scheme; to its own path it is a loop."""

    to: str
    status: int = 302

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.instead(page(self.status).having({"Location": self.to}))


@dataclass(frozen=True)
class RequireAuth(Fault):
    """401 to each request whose Authorization header is not exactly this."""

    authorization: str

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        if asked.headers.get("authorization") == self.authorization:
            return reply
        return reply.instead(page(401).having({"WWW-Authenticate": 'Basic realm="origin"'}))


# --- The server -----------------------------------------------------------------------------------


@dataclass
class Exchange:
    """One request as it was seen, and how far its answer came.

    `sent` counts the bytes of the body that the kernel took; the client may have received fewer.
    While a client does not read, it may be 64 KiB too high.
    `status` is 0 before the answer, `began` and `ended` are `time.monotonic()`, and `connection`
    is the number of the connection, from 1.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    connection: int
    began: float
    status: int = 0
    sent: int = 0
    ended: float | None = None

    @property
    def range(self) -> str:
        """The Range header, or nothing."""
        return self.headers.get("range", "")


@dataclass
class _Rule:
    """Faults of one path, and how often they still strike."""

    path: str
    faults: tuple[Fault, ...]
    method: str
    skip: int
    left: int | None

    def strike(self, asked: Asked) -> tuple[Fault, ...]:
        if self.path not in ("*", asked.path) or self.method not in ("", asked.method):
            return ()
        if self.skip or self.left == 0:
            self.skip = max(0, self.skip - 1)
            return ()
        if self.left is not None:
            self.left -= 1
        return self.faults


class Site:
    """What a test holds: the files, the faults and the log of a running origin.

    `files` may be changed at any time: the next request sees the new bytes under a new ETag.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.base = ""
        self.closing = threading.Event()
        self._rules: list[_Rule] = []
        self._log: list[Exchange] = []
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        # Hashing 64 MiB again for each range would make the origin the bottleneck.
        self._entity_of = lru_cache(maxsize=64)(entity_of)

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self.base.rpartition(":")[2])

    @property
    def requests(self) -> list[Exchange]:
        """All requests so far in the order of their arrival, as copies that no longer change."""
        with self._lock:
            return [copy.copy(exchange) for exchange in self._log]

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        """The URL of a path; with `host="localhost"` it is the same server as another host."""
        return self.base.replace("127.0.0.1", host) + quote(path)

    def sent(self, path: str) -> int:
        """Bytes of bodies sent for a path, over all requests."""
        return sum(exchange.sent for exchange in self.requests if exchange.path == path)

    def fault(
        self, path: str, *faults: Fault, times: int | None = None, skip: int = 0, method: str = ""
    ) -> None:
        """Let faults strike the requests of a path, with or without a file; `"*"` is every path.

        The first `skip` requests are spared, then `times` of them are struck, or all. With a
        `method` only its requests are struck and counted.
        """
        with self._lock:
            self._rules.append(_Rule(path, faults, method, skip, times))

    def mend(self) -> None:
        """Take all faults away."""
        with self._lock:
            self._rules.clear()

    def open_exchange(self, exchange: Exchange) -> Asked:
        """Log a request before it is answered, so that a stalled one is seen as well."""
        with self._lock:
            self._log.append(exchange)
            self._asked[exchange.path] += 1
            number = self._asked[exchange.path]
        return Asked(exchange.method, exchange.path, exchange.headers, number)

    def reply_to(self, asked: Asked) -> Reply:
        """The answer as the faults of its path leave it."""
        with self._lock:
            faults = [fault for rule in self._rules for fault in rule.strike(asked)]
        entity = self._entity(asked.path)
        for fault in faults:
            entity = fault.on_entity(asked, entity)
        reply = answer(asked, entity)
        for fault in faults:
            reply = fault.on_reply(asked, entity, reply)
        return reply

    def _entity(self, path: str) -> Entity:
        content = self.files.get(path)
        return Entity(b"", "", "", found=False) if content is None else self._entity_of(content)


@contextmanager
def origin(files: Mapping[str, bytes], *, tls: tuple[Path, Path] | None = None) -> Iterator[Site]:
    """An origin on a free port of 127.0.0.1; `tls` (certificate and key) makes it https."""
    site = Site(files)
    listener = _Listener(site, tls)
    site.base = f"{'https' if tls else 'http'}://127.0.0.1:{listener.server_address[1]}"
    accepting = threading.Thread(target=listener.serve_forever, args=(0.02,), name="origin")
    accepting.start()
    try:
        yield site
    finally:
        listener.shutdown()
        listener.abandon()
        listener.server_close()
        accepting.join()


class _Listener(ThreadingMixIn, TCPServer):
    """The listening socket, and the open connections with their numbers."""

    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, site: Site, tls: tuple[Path, Path] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.site = site
        self.numbers: dict[socket.socket, int] = {}
        self._accepted = 0
        self._context = None if tls is None else _tls_context(*tls)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self.socket.accept()
        if self._context is not None:
            # The handshake waits for the client, so it belongs to the connection's own thread.
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self._accepted += 1
        self.numbers[connection] = self._accepted
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        # The inherited one sends a FIN first, and no reset can follow that.
        self.numbers.pop(request, None)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that go away are everyday life; anything else is a mistake of the origin: show it.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def abandon(self) -> None:
        """Wake up all handlers, wherever they wait, so that they end."""
        self.site.closing.set()
        for connection in tuple(self.numbers):
            try:
                # Not SSLSocket's own method: it takes the TLS state away under a running read.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                continue


def _tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class _Connection(BaseHTTPRequestHandler):
    """One connection: reads requests, and puts replies on the wire as they say."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        self._number = self.server.numbers[self.request]
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def log_message(self, *_: Any) -> None:
        """Nothing: `Site.requests` is the log."""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        exchange = self._exchange()
        asked = self.server.site.open_exchange(exchange)
        try:
            reply = self.server.site.reply_to(asked)
            self._pause(reply.wire.delay)
            self._deliver(reply, exchange)
        finally:
            exchange.ended = time.monotonic()

    def _exchange(self) -> Exchange:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Exchange(self.command, unquote(path), query, headers, self._number, time.monotonic())

    def _deliver(self, reply: Reply, exchange: Exchange) -> None:
        wire = reply.wire
        if wire.stop_at != BEFORE_ANSWER:
            exchange.status = reply.status
            self._write_head(reply)
            if self.command == "GET":
                self._write_body(reply, exchange)
        if wire.stop_at is not None and exchange.sent >= wire.stop_at:
            self._end(wire.ending)
        elif reply.framing is Framing.CLOSE or wire.hang_up:
            self.close_connection = True

    def _write_head(self, reply: Reply) -> None:
        if not reply.wire.endless_headers:
            self._write(head(reply))
            return
        self._write(head(reply).removesuffix(b"\r\n"))
        while True:
            self._write(b"X-And-Another: %s\r\n" % (b"x" * 1000))

    def _write_body(self, reply: Reply, exchange: Exchange) -> None:
        chunked = reply.framing is Framing.CHUNKED
        for number, piece in enumerate(pieces(reply)):
            self._pause(reply.wire.pause if number else 0.0)
            if chunked:
                self._write(b"%x\r\n" % len(piece))
            self._send(piece, exchange)
            if chunked:
                self._write(b"\r\n")
        if chunked and (reply.wire.stop_at is None or exchange.sent < reply.wire.stop_at):
            self._write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        self.connection.sendall(data)

    def _send(self, data: memoryview, exchange: Exchange) -> None:
        """Send all, and keep count: `sendall` would not say how far it came.

        Bytes count from before they go, and what the kernel did not take is given back: so a test
        whose client has a byte finds it counted.
        """
        while data:
            step, taken = data[:_STEP], 0
            exchange.sent += len(step)
            try:
                taken = self.connection.send(step)
            finally:
                exchange.sent -= len(step) - taken
            data = data[taken:]

    def _pause(self, seconds: float) -> None:
        if seconds and self.server.site.closing.wait(seconds):
            raise ConnectionAbortedError("the origin is closing")

    def _end(self, ending: Ending) -> None:
        self.close_connection = True
        if ending is Ending.STALL:
            self.server.site.closing.wait()
        elif ending is Ending.RST:
            self._drain()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _drain(self) -> None:
        """Wait until the client's kernel has all: a reset throws away what is on its way."""
        deadline = time.monotonic() + 5.0
        while _unsent(self.connection) and time.monotonic() < deadline:
            self._pause(0.001)


def head(reply: Reply) -> bytes:
    """The status line and the headers, up to the empty line."""
    phrase = HTTPStatus(reply.status).phrase
    headers = {"Date": http_date(0), **reply.headers, **_framing_headers(reply)}
    lines = [f"{name}: {value}\r\n" for name, value in headers.items() if value]
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{''.join(lines)}\r\n".encode("latin-1")


def _framing_headers(reply: Reply) -> dict[str, str]:
    match reply.framing:
        case Framing.LENGTH:
            return {"Content-Length": str(len(reply.body))}
        case Framing.CHUNKED:
            return {"Transfer-Encoding": "chunked"}
        case Framing.CLOSE:
            return {"Connection": "close"}


def pieces(reply: Reply) -> Iterator[memoryview]:
    """The body as it goes out, piece by piece, up to the place where it stops."""
    left = reply.wire.stop_at
    for piece in _stream(reply):
        if left is None:
            yield piece
            continue
        if left <= 0:
            return
        yield piece[:left]
        left -= len(piece)


def _stream(reply: Reply) -> Iterable[memoryview]:
    size = reply.wire.piece
    body = (reply.body[start : start + size] for start in range(0, len(reply.body), size))
    return chain(body, repeat(memoryview(bytes(size)))) if reply.wire.endless_body else body


if sys.platform == "linux":
    import fcntl
    import termios

    def _unsent(connection: socket.socket) -> int:
        """Bytes that the other side's kernel has not acknowledged."""
        answer = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

else:

    def _unsent(connection: socket.socket) -> int:
        """Nothing is known here; on loopback, a moment is enough."""
        time.sleep(0.05)
        return 0


def most_at_once(seen: Sequence[Exchange]) -> int:
    """How many of the requests were under way at one time."""
    changes = sorted(
        change for each in seen for change in ((each.began, 1), (each.ended or each.began, -1))
    )
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
