"""A TCP relay that puts a distance between a client and a server on this machine, and can be cut.

It owns a listening port, the connections it carries and one thread with an event loop. It knows
bytes and times only, nothing of HTTP, and it limits no throughput: what comes in leaves half a
round trip later, however much it is.

    with relay(site.port, round_trip=0.05) as link:
        ...                                     # fetch link.through(site.url("/a.bin"))
        link.cut()                              # and a while later
        link.restore()

A new connection costs one round trip more, as on a real path: the client's handshake with the relay
takes no time, so its first bytes wait for it here.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

_PIECE = 1 << 18
_WINDOW = 64 << 20
"""Bytes under way per direction and connection: over 1 GiB/s at a round trip of 100 ms; beyond it
a reader that stops makes the writer stop, as in TCP."""


@contextmanager
def relay(target: int, *, round_trip: float = 0.0) -> Iterator[Relay]:
    """A relay to the port `target` of this machine; `round_trip` in seconds."""
    link = Relay(target, round_trip)
    link.start()
    try:
        yield link
    finally:
        link.stop()


class Relay:
    """A running relay: its port, the switch of its link, and how many connections it got."""

    def __init__(self, target: int, round_trip: float) -> None:
        self._target = target
        self._round_trip = round_trip
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._up = asyncio.Event()
        self._refusing = False
        self._journeys: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="relay")
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0

    def through(self, url: str) -> str:
        """The same URL by way of this relay."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.hostname}:{self.port}"))

    def cut(self, *, reset: bool = False) -> None:
        """Take the link down: nothing passes, and nobody is told, as when a cable is pulled.

        With `reset` its connections are reset, and new ones too, as when the server has gone.
        """
        self._wait_for(self._take_down(reset))

    def restore(self) -> None:
        """Take the link up again; what waited in an open connection goes on."""
        self._wait_for(self._take_up())

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()
        self.restore()

    def stop(self) -> None:
        """Reset what is open, and free the port."""
        self._wait_for(self._take_down(reset=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._listener.close()
        self._loop.close()

    def _run(self) -> None:
        accepting = self._loop.create_task(self._accept())
        self._loop.run_forever()
        accepting.cancel()
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(accepting)

    def _wait_for(self, change: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(change, self._loop).result()

    async def _take_down(self, reset: bool) -> None:
        self._up.clear()
        self._refusing = reset
        if reset:
            for journey in self._journeys:
                journey.cancel()
            await asyncio.gather(*self._journeys, return_exceptions=True)

    async def _take_up(self) -> None:
        self._refusing = False
        self._up.set()

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            self.accepted += 1
            if self._refusing:
                _reset(client)
                continue
            journey = self._loop.create_task(self._carry(client))
            self._journeys.add(journey)
            journey.add_done_callback(self._journeys.discard)

    async def _carry(self, client: socket.socket) -> None:
        """Carry one connection to its end; any but the orderly end is a reset for both sides."""
        opened = self._loop.time() + self._round_trip
        server = socket.socket()
        server.setblocking(False)
        orderly = False
        try:
            await self._loop.sock_connect(server, ("127.0.0.1", self._target))
            async with asyncio.TaskGroup() as ways:
                for source, sink in ((client, server), (server, client)):
                    line = _Line()
                    ways.create_task(self._fill(line, source, opened))
                    ways.create_task(self._drain(line, sink))
            orderly = True
        except* OSError:
            pass
        finally:
            for end in (client, server):
                end.close() if orderly else _reset(end)

    async def _fill(self, line: _Line, source: socket.socket, opened: float) -> None:
        data: bytes | None = None
        while data != b"":
            try:
                data = await self._loop.sock_recv(source, _PIECE)
            except OSError:
                # A reset takes its time as well, and does not overtake what was sent before it.
                data = None
            due = max(self._loop.time(), opened) + self._round_trip / 2
            await line.put(due, data)
            if data is None:
                return

    async def _drain(self, line: _Line, sink: socket.socket) -> None:
        while True:
            due, data = await line.take()
            await asyncio.sleep(due - self._loop.time())
            await self._up.wait()
            if data is None:
                raise ConnectionResetError("the other side reset the connection")
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(sink, data)
            line.arrived(len(data))


class _Line:
    """The bytes under way in one direction, each piece with the time when it is due.

    An empty piece is the end of the stream, None a reset.
    """

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()
        self._under_way = 0
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, due: float, data: bytes | None) -> None:
        """Send a piece off; waits while too much is under way."""
        await self._room.wait()
        self._under_way += len(data or b"")
        if self._under_way >= _WINDOW:
            self._room.clear()
        self._pieces.put_nowait((due, data))

    async def take(self) -> tuple[float, bytes | None]:
        """The piece that is due next."""
        return await self._pieces.get()

    def arrived(self, count: int) -> None:
        """Make room for as much again."""
        self._under_way -= count
        if self._under_way < _WINDOW:
            self._room.set()


def _reset(connection: socket.socket) -> None:
    """Close with a reset: no lingering, nothing said in order."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
