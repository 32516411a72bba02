"""A relay that throttles, as a process of its own: every connection for itself, or all together.

Unlike nginx's `limit_rate`, which is per request and lets a second's worth through at once, it
holds each TCP connection to its rate from the first byte, as a server or a path far away does. It
throttles what the server sends; requests pass. One thread per direction: they are a few dozen at
most, and asleep most of the time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_PIECE = 128 << 10
_BURST = 0.02
"""Seconds' worth that may leave at once after a pause, so that waking late costs no throughput."""


@contextmanager
def shaped(target: int, *, each: float = 0.0, total: float = 0.0) -> Iterator[int]:
    """The port of a shaper before the port `target`; rates in bytes a second, one of the two."""
    command = [sys.executable, "-m", "tests.bench.shaper", str(target), str(each), str(total)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


class Bucket:
    """Hands out the right to send, at a rate."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = time.monotonic()
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Wait until `count` bytes may be sent; whoever asks first is served first."""
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now - _BURST) + count / self._rate
            wait = self._free - now
        if wait > 0:
            time.sleep(wait)


def main() -> None:
    """Serve until killed."""
    target, each, total = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    shared = Bucket(total) if total else None
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", target))
            bucket = shared or Bucket(each)
            _carry(client, server, lambda _count: None)
            _carry(server, client, bucket.take)


def _carry(source: socket.socket, sink: socket.socket, wait: Callable[[int], None]) -> None:
    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_pass, args=(source, sink, wait), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, wait: Callable[[int], None]) -> None:
    room = memoryview(bytearray(_PIECE))
    with suppress(OSError):
        while count := source.recv_into(room):
            wait(count)
            sink.sendall(room[:count])
    # Whoever sends no more is told on: a download that was given up must not go on in here.
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
    os._exit(0)
