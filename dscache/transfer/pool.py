"""The pool: one loop in the caller's thread that keeps all connections of a call busy.

Downloads are pulled from an iterator as connections become free, so that a hundred thousand of
them need no more memory than a few. Which source, which offset and what a failure means is the
download's business; this module owns time: connection limits, waits, the rate limit.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass

from dscache.events import Advanced, Emit, Started
from dscache.sources.exchange import Exchange, Failure, Source, Trouble
from dscache.transfer.download import Download, State
from dscache.transfer.hosts import Host
from dscache.urls import host

#: Longest looks away, in seconds: from connections; from those while a file is still hashed; from
#: a file that is still hashed while there are none.
_IDLE_LOOK = 0.25
_LOOK = 0.02
_HASH_LOOK = 0.002
#: Downloads that are held at once, as a multiple of the connections: while some wait for their
#: host, others go on.
_HELD = 4
#: Seconds after which the bytes of a long download are brought to the disk in the background.
_SECURE_EVERY = 30.0
_TELL_EVERY = 0.1


@dataclass(slots=True)
class _Running:
    """The exchange of a download, and when it was last looked after."""

    exchange: Exchange
    host: Host
    told: float
    secured: float


class Pool:
    """Runs the downloads of one call.

    Args:
        source: what serves the URLs.
        jobs: connections at once, over all hosts.
        limit_rate: bytes per second for the whole call; 0 means no limit.
    """

    def __init__(self, source: Source, jobs: int, limit_rate: int, emit: Emit) -> None:
        self._source = source
        self._jobs = jobs
        self._rate = _RateLimit(limit_rate)
        self._emit = emit
        self._hosts: dict[str, Host] = {}
        self._active: dict[Download, _Running] = {}
        self._ready: deque[Download] = deque()
        self._later: list[tuple[float, int, Download]] = []
        self._ended: deque[Download] = deque()
        self._order = itertools.count()
        self._is_moving = False

    def run(self, downloads: Iterator[Download]) -> Generator[Download, None, None]:
        """Yield each download when it is done or has failed, in the order in which that happens.

        However this ends, what has arrived is in the sinks; letting go of them is the caller's
        part.
        """
        more = True
        try:
            while True:
                self._start_ready()
                more = more and self._fill(downloads)
                if not self._held():
                    return
                self._wait()
                yield from self._settle()
                self._receive()
        finally:
            self._stop()

    def _held(self) -> int:
        return len(self._active) + len(self._ready) + len(self._later) + len(self._ended)

    def _fill(self, downloads: Iterator[Download]) -> bool:
        """Take new downloads as far as there is room. False when there are no more."""
        while len(self._active) < self._jobs and self._held() < self._jobs * _HELD:
            download = next(downloads, None)
            if download is None:
                return False
            path, size = download.artifact.path, download.artifact.size
            self._emit(Started(download.key, path, size, download.kept))
            self._queue(download)
            self._start_ready()
        return True

    def _queue(self, download: Download) -> None:
        if download.state is not State.READY:
            self._ended.append(download)
            self._is_moving = True
        elif download.wait:
            self._put_off(download, download.wait)
        else:
            self._ready.append(download)

    def _put_off(self, download: Download, seconds: float) -> None:
        due = time.monotonic() + seconds
        heapq.heappush(self._later, (due, next(self._order), download))

    def _start_ready(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        for _ in range(len(self._ready)):
            if len(self._active) >= self._jobs:
                return
            self._start(self._ready.popleft(), now)

    def _start(self, download: Download, now: float) -> None:
        """Send a request, if the host wants one now.

        A host that wants none for too long is not asked, except by a download for which another
        URL there is the next mirror: what holds for one URL need not hold for all.
        """
        name = host(download.url)
        at = self._hosts.get(name) or self._hosts.setdefault(name, Host(self._jobs))
        rest = at.resting_until - now
        if rest > download.policy.max_retry_wait and not download.tried:
            reason = f"{name} has asked not to be asked for now"
            download.fail(Failure(Trouble.BUSY, reason, retry_after=rest))
            self._queue(download)
        elif 0 < rest <= download.policy.max_retry_wait:
            self._put_off(download, rest)
        elif at.is_full:
            self._ready.append(download)
        else:
            exchange = self._source.start(download.request())
            self._active[download] = _Running(exchange, at, 0.0, now)
            at.active += 1

    def _wait(self) -> None:
        if pause := self._rate.pause():
            time.sleep(min(pause, _IDLE_LOOK))
            return
        if self._is_moving:
            look = 0.0
        elif self._ended:
            look = _LOOK if self._active else _HASH_LOOK
        else:
            look = _IDLE_LOOK
        if self._later:
            look = min(look, max(0.0, self._later[0][0] - time.monotonic()))
        if self._active:
            self._source.wait(look)
        else:
            time.sleep(look)

    def _settle(self) -> Iterator[Download]:
        """Hand out what is done or has failed."""
        for _ in range(len(self._ended)):
            download = self._ended.popleft()
            if download.state is State.HASHING:
                download.verify()
            if download.state is State.HASHING:
                self._ended.append(download)
            elif download.state is State.READY:
                self._queue(download)
            else:
                yield download

    def _receive(self) -> None:
        self._is_moving = False
        for download, running in list(self._active.items()):
            exchange = running.exchange
            chunks = exchange.take()
            if exchange.head and download.head is None:
                download.begin(exchange.head)
            if chunks and download.state is State.RECEIVING:
                self._is_moving = True
                self._rate.spend(sum(map(len, chunks)))
                download.receive(chunks)
                self._look_after(download, running)
            if exchange.done and download.state is State.RECEIVING:
                self._end(download, running)
            if download.state is not State.RECEIVING:
                self._retire(download)

    def _end(self, download: Download, running: _Running) -> None:
        failure = running.exchange.failure
        if failure is None:
            running.host.is_well(self._jobs)
            download.end()
            return
        download.fail(failure)
        if failure.trouble is Trouble.BUSY:
            rest = max(failure.retry_after or 0.0, download.wait)
            running.host.is_busy(time.monotonic(), rest)

    def _retire(self, download: Download) -> None:
        """The exchange is over: free its connection and see to what comes next."""
        running = self._active.pop(download)
        running.exchange.cancel()
        running.host.active -= 1
        self._queue(download)

    def _look_after(self, download: Download, running: _Running) -> None:
        """What a long download needs now and then: telling how far it is, securing its bytes."""
        now = time.monotonic()
        if now - running.told > _TELL_EVERY:
            running.told = now
            self._emit(Advanced(download.key, download.sink.size))
        if now - running.secured > _SECURE_EVERY:
            running.secured = now
            download.sink.secure()

    def _stop(self) -> None:
        for download, running in self._active.items():
            chunks = running.exchange.take()
            running.exchange.cancel()
            if chunks and download.head and download.state is State.RECEIVING:
                with suppress(OSError):  # another error has ended the call, or will be met again
                    download.receive(chunks)


class _RateLimit:
    """A budget of bytes that grows with time. Not reading is enough: TCP slows the sender down."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free = 0.0
        self._last = time.monotonic()

    def spend(self, count: int) -> None:
        self._free -= count

    def pause(self) -> float:
        """Seconds until bytes may be read again; 0 for now."""
        if not self._rate:
            return 0.0
        now = time.monotonic()
        self._free = min(self._free + (now - self._last) * self._rate, self._rate * _LOOK)
        self._last = now
        return max(0.0, -self._free / self._rate)
