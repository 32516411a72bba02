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

from dscache.events import Advanced, Emit, Idle, Started
from dscache.sources.exchange import Failure, Head, Request, Source, Trouble
from dscache.transfer.download import Download, State
from dscache.transfer.extraction import Extraction
from dscache.transfer.hosts import Host
from dscache.transfer.mirrors import SOON, Mirrors, lags
from dscache.transfer.parcel import Parcel
from dscache.transfer.pieces import Piece
from dscache.transfer.rate import RateLimit
from dscache.transfer.running import Course, Running, Taker, download_of
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
#: Seconds between looks at which of its sources serves a file best.
_COMPARE_EVERY = 0.5
#: Slower than this, in bytes per second, and the lead may as well try another source.
_CRAWL = 64 << 10


Task = Download | Parcel | Extraction


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
        self._rate = RateLimit(limit_rate)
        self._emit = emit
        self._hosts: dict[str, Host] = {}
        self._courses: dict[Download, Course] = {}
        self._active: dict[Taker | Parcel, Running] = {}
        self._ready: deque[Download] = deque()
        self._later: list[tuple[float, int, Download]] = []
        self._shared: set[Download] = set()
        self._ended: deque[Task] = deque()
        self._order = itertools.count()
        self._is_moving = False

    def add(self, extraction: Extraction) -> None:
        """Look after an archive that is here, too; `run` yields it when it is unpacked."""
        self._ended.append(extraction)

    def run(self, tasks: Iterator[Task]) -> Generator[Task, None, None]:
        """Yield each task when it is done or has failed, in the order in which that happens.

        However this ends, what has arrived is in the sinks; letting go of them is the caller's
        part.
        """
        more = True
        try:
            while True:
                self._start_ready()
                more = more and self._fill(tasks)
                self._divide()
                if not self._held():
                    return
                self._wait()
                yield from self._settle()
                self._receive()
        finally:
            self._stop()

    def _held(self) -> int:
        return len(self._active) + len(self._ready) + len(self._later) + len(self._ended)

    def _fill(self, tasks: Iterator[Task]) -> bool:
        """Take new tasks as far as there is room. False when there are no more.

        Those that wait for their host are claimed already, so that there should not be many.
        """
        while self._has_room():
            task = next(tasks, None)
            if task is None:
                return False
            if isinstance(task, Extraction):
                self.add(task)
                continue
            path, size = task.artifact.path, task.artifact.size
            self._emit(Started(task.key, path, size, task.kept))
            if isinstance(task, Download):
                self._queue(task)
                self._start_ready()
            elif not self._send_parcel(task):
                self._queue(task.open())
        return True

    def _has_room(self) -> bool:
        if max(len(self._active), len(self._ready)) >= self._jobs:
            return False
        return self._held() < self._jobs * _HELD

    def _queue(self, download: Download) -> None:
        if download.state is State.SHARED:
            self._shared.add(download)
        elif download.state is not State.READY:
            self._courses.pop(download, None)
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
        at = self._host(download.url)
        rest = at.resting_until - now
        if download.is_in_vain:
            download.fail(Failure(Trouble.REFUSED, "it is not asked any more"))
            self._queue(download)
        elif rest > download.policy.max_retry_wait and not download.tried:
            reason = f"{host(download.url)} has asked not to be asked for now"
            download.fail(Failure(Trouble.BUSY, reason, retry_after=rest))
            self._queue(download)
        elif 0 < rest <= download.policy.max_retry_wait:
            self._put_off(download, rest)
        elif at.is_full or (download.is_long and at.is_full_for_long):
            self._ready.append(download)
        else:
            download.share = at.share if at.growth.wanted > 1 else None
            self._send(download, at, now)

    def _host(self, url: str) -> Host:
        name = host(url)
        return self._hosts.get(name) or self._hosts.setdefault(name, Host(self._jobs))

    def _course(self, download: Download, now: float) -> Course | None:
        if download not in self._courses and download.sink.is_divisible:
            mirrors = Mirrors({url: self._host(url) for url in download.artifact.urls})
            self._courses[download] = Course(mirrors, now, now)
        return self._courses.get(download)

    def _send(self, taker: Taker, at: Host, now: float) -> None:
        download = download_of(taker)
        exchange = self._source.start(taker.request())
        course, is_long = self._course(download, now), download.is_long and not exchange.is_whole
        self._active[taker] = Running(exchange, at, course, now, is_long, now)
        at.active += 1
        at.long += is_long

    def _send_parcel(self, parcel: Parcel) -> bool:
        """Ask for a small file; False if its host wants no request now."""
        url, now = parcel.artifact.urls[0], time.monotonic()
        at = self._host(url)
        if at.is_full or at.resting_until > now:
            return False
        exchange = self._source.start(Request(url))
        self._active[parcel] = Running(exchange, at, None, now, False, now)
        at.active += 1
        return True

    def _divide(self) -> None:
        """Fetch further pieces of long files as far as their hosts have connections for them."""
        now = time.monotonic()
        for download, course in self._courses.items():
            while len(self._active) < self._jobs and download.is_long:
                url = course.mirrors.fastest(download.sources, now)
                if not url or not self._send_piece(download, url, course, now):
                    break

    def _send_piece(self, download: Download, url: str, course: Course, now: float) -> bool:
        at = course.mirrors.hosts[url]
        if at.is_full_for_long:
            return False
        piece = download.divide(url, at.share)
        if piece:
            self._send(piece, at, now)
        return piece is not None

    def _wait(self) -> None:
        if not self._is_moving:
            self._emit(Idle())
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

    def _settle(self) -> Iterator[Task]:
        """Hand out what is done or has failed."""
        for _ in range(len(self._ended)):
            task = self._ended.popleft()
            if isinstance(task, Parcel):
                yield task
                continue
            if task.state is State.HASHING:
                task.verify()
            if task.state is State.HASHING:
                self._ended.append(task)
            elif task.state is State.READY and isinstance(task, Download):
                self._queue(task)
            else:
                yield task

    def _receive(self) -> None:
        self._is_moving = False
        now = time.monotonic()
        for taker, running in list(self._active.items()):
            chunks = running.exchange.take()
            if chunks:
                self._is_moving = True
                self._rate.spend(sum(map(len, chunks)))
            if isinstance(taker, Parcel):
                self._collect(taker, running, chunks, now)
            else:
                self._hand_over(taker, running, chunks, now)
        if self._courses:
            self._compare(now)

    def _collect(self, parcel: Parcel, running: Running, chunks: list[bytes], now: float) -> None:
        """Take what has come of a small file; a download sees to all that is not the file."""
        exchange = running.exchange
        if chunks:
            parcel.take(chunks)
        if not exchange.done and parcel.count <= parcel.size:
            return
        del self._active[parcel]
        if exchange.done and not exchange.failure and parcel.is_right():
            running.host.active -= 1
            running.host.is_well()
            self._ended.append(parcel)
            self._is_moving = True
        else:
            download = parcel.open()
            download.request()
            self._active[download] = running
            self._hand_over(download, running, parcel.chunks, now)

    def _hand_over(self, taker: Taker, running: Running, chunks: list[bytes], now: float) -> None:
        """Give what has come to whom it is for."""
        exchange = running.exchange
        if exchange.head and taker.head is None and taker.is_receiving:
            self._begin(taker, exchange.head, running, now)
        if chunks and taker.is_receiving:
            taker.receive(chunks)
            if running.course:
                self._look_after(taker, running, sum(map(len, chunks)), now)
        if exchange.done and taker.is_receiving:
            self._end(taker, running, now)
        if not taker.is_receiving:
            self._retire(taker, now)

    def _begin(self, taker: Taker, head: Head, running: Running, now: float) -> None:
        taker.begin(head)
        at = running.host
        if not (running.is_long or running.exchange.is_whole) and download_of(taker).is_long:
            running.is_long = True  # which nobody knew before
            at.long += 1
        if running.is_long:
            at.at_work += 1
            at.growth.answered(now - running.since)

    def _end(self, taker: Taker, running: Running, now: float) -> None:
        failure, at = running.exchange.failure, running.host
        if failure is None:
            at.is_well()
            taker.finish()
            return
        taker.fail(failure)
        if failure.trouble is Trouble.BUSY:
            wait = taker.wait if isinstance(taker, Download) else 0.0
            at.is_busy(now, max(failure.retry_after or 0.0, wait))
        elif failure.trouble is Trouble.CONNECTION:
            at.growth.shrink(now)

    def _retire(self, taker: Taker, now: float) -> None:
        """The exchange is over: free its connection and see to what comes next."""
        running, download = self._active.pop(taker), download_of(taker)
        running.exchange.cancel()
        at = running.host
        at.active -= 1
        if running.is_long:
            at.long -= 1
            at.at_work -= taker.head is not None
            at.pace = running.measure(now) if at.pace is None else at.pace
        if taker is download:
            self._queue(download)
        elif download in self._shared and download.state is not State.SHARED:
            self._shared.remove(download)
            self._queue(download)

    def _look_after(self, taker: Taker, running: Running, count: int, now: float) -> None:
        """What a long download needs: measuring, telling how far it is, securing its bytes."""
        download, course = download_of(taker), running.course
        running.count += count
        if course:
            course.count += count
        if running.is_long:
            running.host.growth.receive(count)
        if now - running.told > _TELL_EVERY:
            running.told = now
            self._emit(Advanced(download.key, download.sink.count))
        if course and now - course.secured > _SECURE_EVERY:
            course.secured = now
            download.sink.secure()

    def _compare(self, now: float) -> None:
        """Open as many connections as pay, to the fastest of the sources."""
        for at in self._hosts.values():
            if at.long:
                at.growth.look(now, at.at_work)
        if self._rate.is_set:  # what is slow then is this side
            return
        for download, course in list(self._courses.items()):
            is_due = now - course.compared >= _COMPARE_EVERY
            if is_due and download.is_long and download.division.is_possible:
                self._compare_sources(download, course, now)

    def _compare_sources(self, download: Download, course: Course, now: float) -> None:
        pace = course.count / (now - course.compared)
        course.count, course.compared = 0, now
        under_way = [
            each for each in self._under_way(course) if now - each[1].since >= _COMPARE_EVERY
        ]
        for _, running in under_way:
            running.measure(now)
        for _, running in under_way:
            running.host.pace = max(
                other.pace for _, other in under_way if other.host is running.host
            )
        url = course.mirrors.fastest(download.sources, now)
        best = course.mirrors.hosts[url].pace if url else None
        for taker, running in under_way:
            if url and best and lags(running.pace, taker.left, best):
                taker.give_way(url)
                self._retire(taker, now)
        if (download.total or 0) - download.sink.count > SOON * pace:
            self._try_another(download, course, now)

    def _under_way(self, course: Course) -> list[tuple[Taker, Running]]:
        """The exchanges of a download, without those that are only still to be ended."""
        return [
            (taker, running)
            for taker, running in self._active.items()
            if running.course is course and isinstance(taker, Taker) and taker.is_receiving
        ]

    def _try_another(self, download: Download, course: Course, now: float) -> None:
        """Have a source measured of which nothing is known, instead of the slowest if need be."""
        url = course.mirrors.unmeasured(download.sources, now)
        if url is None:
            return
        if len(self._active) < self._jobs and self._send_piece(download, url, course, now):
            return
        under_way = self._under_way(course)
        taker, running = min(under_way, key=lambda each: each[1].pace, default=(None, None))
        if taker and running and (isinstance(taker, Piece) or running.pace < _CRAWL):
            taker.give_way(url)
            self._retire(taker, now)
            self._send_piece(download, url, course, now)

    def _stop(self) -> None:
        for taker, running in self._active.items():
            chunks = running.exchange.take()
            running.exchange.cancel()
            if chunks and isinstance(taker, Taker) and taker.head and taker.is_receiving:
                with suppress(OSError):  # another error has ended the call, or will be met again
                    taker.receive(chunks)
