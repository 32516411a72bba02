"""The pool: one loop in the caller's thread that keeps all connections of a call busy.

Downloads are pulled from an iterator as connections become free, so that a hundred thousand of
them need no more memory than a few. Which source, which offset and what a failure means is the
download's business; this module owns time: connection limits, waits, the rate limit.
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from dscache.events import Advanced, Emit, Started
from dscache.sources.exchange import Exchange, Failure, Source, Trouble
from dscache.transfer.download import Download, State
from dscache.transfer.sink import Trailed
from dscache.urls import host

#: Longest look away from the network, in seconds; bounds how late a finished hash is noticed.
_LOOK = 0.02
_IDLE_LOOK = 0.25
_HASH_LOOK = 0.001
#: Seconds after which the bytes of a long download are brought to the disk in the background.
_SECURE_EVERY = 30.0
_TELL_EVERY = 0.1


class Pool:
    """Runs the downloads of one call.

    Args:
        source: what serves the URLs.
        jobs: connections at once, over all hosts.
        limit_rate: bytes per second for the whole call; 0 means no limit.
        executor: where hashing and syncing happen.
    """

    def __init__(
        self,
        source: Source,
        jobs: int,
        limit_rate: int,
        executor: ThreadPoolExecutor,
        emit: Emit,
    ) -> None:
        self._source = source
        self._jobs = jobs
        self._rate = _RateLimit(limit_rate)
        self._executor = executor
        self._emit = emit
        self._active: dict[Download, Exchange] = {}
        self._moving = False
        self._ready: deque[Download] = deque()
        self._later: list[tuple[float, int, Download]] = []
        self._hashing: list[Download] = []
        self._resting: dict[str, float] = {}
        self._order = itertools.count()
        self._told: dict[Download, float] = {}
        self._secured: dict[Download, float] = {}

    def run(self, downloads: Iterator[Download]) -> Iterator[Download]:
        """Yield each download when it is done or has failed, in the order in which that happens.

        However this ends, what has arrived is kept for a later attempt.
        """
        try:
            more = True
            while more or self._busy():
                more = more and self._pull(downloads)
                self._start_ready()
                self._wait()
                self._receive()
                yield from self._settle()
        finally:
            self._stop()

    def _busy(self) -> bool:
        return bool(self._active or self._ready or self._later or self._hashing)

    def _pull(self, downloads: Iterator[Download]) -> bool:
        """Take new downloads while connections are free. False when there are no more."""
        while len(self._active) + len(self._ready) + len(self._hashing) < self._jobs:
            download = next(downloads, None)
            if download is None:
                return False
            path, size = download.artifact.path, download.artifact.size
            self._emit(Started(download.key, path, size, download.kept))
            self._queue(download)
        return True

    def _queue(self, download: Download) -> None:
        if download.state is State.HASHING:
            self._hashing.append(download)
        elif download.wait:
            due = time.monotonic() + download.wait
            heapq.heappush(self._later, (due, next(self._order), download))
        else:
            self._ready.append(download)

    def _start_ready(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        for _ in range(len(self._ready)):
            if len(self._active) >= self._jobs:
                return
            download = self._ready.popleft()
            rest = self._resting.get(host(download.url), 0.0) - now
            if rest > 0:
                heapq.heappush(self._later, (now + rest, next(self._order), download))
            else:
                self._start(download)

    def _start(self, download: Download) -> None:
        self._active[download] = self._source.start(download.request())
        self._secured.setdefault(download, time.monotonic())

    def _wait(self) -> None:
        pause = self._rate.pause()
        if pause:
            time.sleep(min(pause, _IDLE_LOOK))
            return
        look = _LOOK if self._hashing else _IDLE_LOOK
        if self._later:
            look = min(look, max(0.0, self._later[0][0] - time.monotonic()))
        if not self._active:
            time.sleep(min(look, _HASH_LOOK) if self._hashing else look)
        else:
            self._source.wait(0.0 if self._moving else look)

    def _receive(self) -> None:
        self._moving = False
        for download, exchange in list(self._active.items()):
            chunks = exchange.take()
            if exchange.head and download.head is None:
                download.begin(exchange.head)
            if chunks and download.state is State.RECEIVING:
                self._moving = True
                self._rate.spend(sum(map(len, chunks)))
                download.receive(chunks)
                self._look_after(download)
            if download.state is State.RECEIVING:
                if not exchange.done:
                    continue
                self._end(download, exchange.failure)
            self._retire(download)

    def _end(self, download: Download, failure: Failure | None) -> None:
        if failure is None:
            download.end()
            return
        if failure.trouble is Trouble.BUSY and failure.retry_after:
            rest = min(failure.retry_after, download.policy.max_retry_wait)
            name = host(download.url)
            self._resting[name] = max(self._resting.get(name, 0.0), time.monotonic() + rest)
        download.fail(failure)

    def _retire(self, download: Download) -> None:
        """The exchange is over: free its connection and see to what comes next."""
        self._active.pop(download).cancel()
        if download.state in (State.DONE, State.FAILED):
            self._hashing.append(download)
        else:
            self._queue(download)

    def _settle(self) -> Iterator[Download]:
        """Hand out what is done or has failed."""
        waiting, self._hashing = self._hashing, []
        for download in waiting:
            if download.state is State.HASHING:
                download.verify()
            if download.state is State.HASHING:
                self._hashing.append(download)
            elif download.state is State.READY:
                self._queue(download)
            else:
                self._told.pop(download, None)
                self._secured.pop(download, None)
                yield download

    def _look_after(self, download: Download) -> None:
        """What a long download needs now and then: telling how far it is, securing its bytes."""
        now = time.monotonic()
        if now - self._told.get(download, 0.0) > _TELL_EVERY:
            self._told[download] = now
            self._emit(Advanced(download.key, download.sink.size))
        if isinstance(download.sink, Trailed) and now - self._secured[download] > _SECURE_EVERY:
            self._secured[download] = now
            download.sink.secure()

    def _stop(self) -> None:
        for download, exchange in list(self._active.items()):
            chunks = exchange.take()
            if chunks and download.head and download.state is State.RECEIVING:
                download.receive(chunks)
            exchange.cancel()
        left = (*self._active, *self._ready, *(each[2] for each in self._later), *self._hashing)
        for download in left:
            download.sink.keep()


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


def hashing_threads() -> ThreadPoolExecutor:
    """Threads for hashing, as many as there are cores; none is started before it is needed."""
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="dscache-hash")
