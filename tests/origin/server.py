"""The server: a thread for each connection puts replies on the wire and counts what it sent.

`Site` is what a test holds. This module decides nothing about answers: it carries them out.
"""

from __future__ import annotations

import copy
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import quote, unquote

from tests.origin.answers import (
    BEFORE_ANSWER,
    Asked,
    Ending,
    Entity,
    Framing,
    Reply,
    answer,
    entity_of,
    head,
    pieces,
)
from tests.origin.faults import Fault

_STEP = 1 << 16
_NOTED_LATE = 0.005


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


class _Uplink:
    """The line of a site, which all of its connections share; a rate of 0 is no limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def take(self, count: int) -> float:
        """Seconds to wait before `count` bytes may go."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + count / self._rate
        return begin - now


class Site:
    """What a test holds: the files, the faults and the log of a running origin.

    `files` may be changed at any time: the next request sees the new bytes under a new ETag.
    """

    def __init__(self, files: Mapping[str, bytes], rate: float) -> None:
        self.files = dict(files)
        self.uplink = _Uplink(rate)
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
def origin(
    files: Mapping[str, bytes],
    *,
    tls: tuple[Path, Path] | None = None,
    rate: float = 0.0,
    address: str = "127.0.0.1",
) -> Iterator[Site]:
    """An origin on a free port; `tls` (certificate and key) makes it https.

    `rate` is what all of its connections have together, in bytes per second; 0 is no limit.
    `address` is one of this machine.
    """
    site = Site(files, rate)
    listener = _Listener(site, tls, address)
    site.base = f"{'https' if tls else 'http'}://{address}:{listener.server_address[1]}"
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

    def __init__(self, site: Site, tls: tuple[Path, Path] | None, address: str) -> None:
        super().__init__((address, 0), _Connection)
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
            self._pause(self.server.site.uplink.take(len(step)))
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
    """How many of the requests were under way at one time, for certain.

    A client has the last byte, and may go on, a little before the server notes that it was sent.
    """
    now = time.monotonic()
    ends = (max(each.began, (each.ended or now) - _NOTED_LATE) for each in seen)
    changes = sorted([*((each.began, 1) for each in seen), *((end, -1) for end in ends)])
    most = count = 0
    for _, change in changes:
        count += change
        most = max(most, count)
    return most
