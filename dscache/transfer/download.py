"""The life of one download: which source to ask from which offset, and what the answer means.

Decides, but touches neither the network nor the disk itself: bytes go to a sink, requests to
whoever runs the pool. The rules (each from a failure of a system before us):

1. Bytes are appended only where the source says that they begin; else the file starts over.
2. Bytes of another validator than the first ones start the file over.
3. The length is checked before the hash, with an error of its own.
4. A source that sent wrong bytes is not asked for them again.
5. If the bytes come from more than one attempt, a wrong hash first starts the file over, once.
6. No more bytes are taken than the file can have.
7. Where no hash will tell, bytes of two attempts are put together only under one validator.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from enum import Enum

from dscache.digest import Sums
from dscache.events import Emit, Notice, Retrying
from dscache.model import Artifact
from dscache.quantities import show_size
from dscache.sources.encoding import GZIP, unzipped
from dscache.sources.exchange import Failure, Head, Request, Trouble
from dscache.sources.retry import Budget, Policy, delay
from dscache.transfer.sink import Memory, Origin, Trailed
from dscache.urls import redacted

_SAMPLE = 64 << 10
_SHOWN = 80
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_PAGE_NAMES = (".html", ".htm", ".xhtml")
_PAGE_STARTS = (b"<!doctype html", b"<html")
_GZIP_NAMES = (".gz", ".tgz")
#: Bytes between two failures that show that the network works.
_MUCH = 1 << 20


class State(Enum):
    """What the pool has to do next."""

    READY = "ready"  # send `request()`, after `wait` seconds
    RECEIVING = "receiving"  # hand over what arrives
    HASHING = "hashing"  # ask `verify()` until it has an answer
    DONE = "done"  # verified
    FAILED = "failed"  # every source has failed


@dataclass
class Tried:
    """One source that did not give the file, with the first of the wrong bytes that it sent."""

    url: str
    failure: Failure
    sample: bytes = b""


@dataclass(eq=False)
class Download:
    """One artifact on its way into a sink.

    Attributes:
        limit: the size that a body may have where the artifact's size is not known.
        kept: bytes that earlier attempts had left.
        received: bytes that crossed the network.
        wait: seconds to wait before the next request.
        head: what the source has said in answer to the current request.
        verified: the hashes, once they have been found right.
    """

    key: str
    artifact: Artifact
    sink: Memory | Trailed
    emit: Emit
    policy: Policy
    budget: Budget
    limit: int
    state: State = State.READY
    wait: float = 0.0
    received: int = 0
    head: Head | None = None
    verified: Sums | None = None
    tried: list[Tried] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kept = self.sink.size
        self._mixed = self.kept > 0
        self._begin_mirror(0)
        if self.artifact.size is not None and self.sink.size == self.artifact.size > 0:
            self.state = State.HASHING

    def _begin_mirror(self, number: int) -> None:
        self._mirror = number
        self._attempts = 0  # failures in a row without progress
        self._high_water = self.sink.size  # progress is what lies beyond
        self._has_ranges = True
        self._has_started_over = False
        self._sample: bytearray | None = None  # bytes of an answer that cannot be the file

    @property
    def url(self) -> str:
        """The source that is being asked."""
        return self.artifact.urls[self._mirror]

    def request(self) -> Request:
        """What to ask for next."""
        origin = self.sink.origin
        validator = origin.validator if origin.url == redacted(self.url) else ""
        if not self._has_ranges:
            self._start_over("the source cannot continue it")
        elif not (self.artifact.digests or validator):
            self._start_over("nothing ties its parts together")
        self.state = State.RECEIVING
        self.head = self._sample = None
        self._mixed = self.sink.size > 0
        return Request(self.url, self.sink.size, validator if self._mixed else "")

    def begin(self, head: Head) -> None:
        """The source has answered; bytes will follow."""
        self.head = head
        if self._is_wrong_size(head):
            self._sample = bytearray()
            return
        if head.start == 0:
            self._start_over("the source does not continue it")
        elif self._has_changed(head):
            self.fail(Failure(Trouble.RANGE, "the file changed at the source"))
            return
        if head.encoding:  # no range of the plain bytes would fit
            self._has_ranges = False
        self.sink.note(Origin(redacted(self.url), head.validator, head.total))

    def receive(self, chunks: list[bytes]) -> None:
        """Take bytes. May end the exchange by leaving the state RECEIVING."""
        count = sum(map(len, chunks))
        if not self.url.startswith("file:"):
            self.received += count
        if self._sample is not None:
            self._sample += b"".join(chunks)
            if len(self._sample) >= _SAMPLE:
                self.end()
            return
        most = self._most()
        if self.sink.size + count <= most:
            self.sink.write(chunks)
        else:
            self.sink.write([b"".join(chunks)[: most - self.sink.size]])
            self.fail(self._wrong(f"more than {show_size(most)}"))

    def end(self) -> None:
        """The body has ended as the protocol wants it."""
        wanted = self._wanted()
        if self._sample is not None:
            self.fail(self._wrong_size())
        elif wanted is None or self.sink.size >= wanted:
            self.state = State.HASHING
        else:
            reason = f"the body ended after {self.sink.size} of {wanted} bytes"
            is_page = self._looks_like_page()
            self.fail(self._wrong(reason) if is_page else Failure(Trouble.CONNECTION, reason))

    def verify(self) -> None:
        """Look whether the hashes are known yet, and whether they are right."""
        sums = self.sink.sums()
        if sums is None:
            return
        wrong = sums.mismatch(self.artifact.digests)
        if wrong is None and self._is_plausible():
            self.verified = sums
            self.state = State.DONE
            self.budget.refill()
        elif self._mixed and not self._has_started_over:
            self._has_started_over = True
            self._start_over("its parts do not fit together")
            self._ask_again(0.0)
        elif self._is_packed():
            self._unpack()
        else:
            self.fail(self._wrong(f"wrong {wrong.algorithm}" if wrong else "wrong size"))

    def fail(self, failure: Failure) -> None:
        """The source could not give the file: decide whether to ask it again, or the next one."""
        if failure.trouble is Trouble.RANGE and self._has_ranges:
            self._has_ranges = False
            self._start_over(failure.reason)
            self._ask_again(0.0)
            return
        if (progress := self.sink.size - self._high_water) > 0:
            self._high_water, self._attempts = self.sink.size, 0
        if progress > _MUCH:
            self.budget.refill()
        self._attempts += 1
        wait = delay(failure, self._attempts, self.policy)
        if wait is not None and self.budget.spend():
            self.emit(Retrying(self.key, failure.reason, wait))
            self._ask_again(wait)
        else:
            self._next_mirror(failure)

    def _ask_again(self, wait: float) -> None:
        self.state, self.wait = State.READY, wait

    def _next_mirror(self, failure: Failure) -> None:
        is_wrong = failure.trouble is Trouble.WRONG
        sample = self._first_bytes(_SAMPLE) if is_wrong else b""
        if is_wrong and self._sample is None:
            self.sink.restart()
        self.tried.append(Tried(redacted(self.url), failure, sample))
        if self._mirror + 1 < len(self.artifact.urls):
            self._begin_mirror(self._mirror + 1)
            self._ask_again(0.0)
        else:
            self.state = State.FAILED

    def _start_over(self, why: str) -> None:
        if self.sink.size:
            self.emit(Notice(f"{self.artifact.path}: starting over, since {why}"))
            self.sink.restart()
        self._mixed = False

    def _has_changed(self, head: Head) -> bool:
        origin = self.sink.origin
        if origin.url == redacted(self.url):
            return bool(origin.validator) and head.validator != origin.validator
        # Another mirror: its own validator means nothing here.
        return None not in (head.total, origin.total) and head.total != origin.total

    def _wanted(self) -> int | None:
        """How long the body must be, if that is known."""
        if self.head and self.head.encoding:
            return None
        if self.artifact.size is not None:
            return self.artifact.size
        return self.head.total if self.head else None

    def _most(self) -> int:
        """How long the body may be."""
        size = self._wanted()
        if size is not None:
            return size
        if self.artifact.size is None:
            return self.limit
        # What gzip adds to bytes that it cannot compress, generously.
        return self.artifact.size + self.artifact.size // 1000 + _SAMPLE

    def _is_wrong_size(self, head: Head) -> bool:
        size = self.artifact.size
        return None not in (size, head.total) and size != head.total and not head.encoding

    def _is_plausible(self) -> bool:
        """False where bytes without a wrong hash are not the file all the same."""
        if self.artifact.size is not None and self.sink.size != self.artifact.size:
            return False
        is_asked_for = self.artifact.path.lower().endswith(_GZIP_NAMES)
        return bool(self.artifact.digests) or is_asked_for or not self._is_packed()

    def _wrong_size(self) -> Failure:
        head, size = self.head or Head(), self.artifact.size
        reason = f"{head.total} bytes instead of {size}"
        is_short = head.total is not None and size is not None and head.total < size
        if is_short and not self._looks_like_page():
            return Failure(Trouble.SHORT, reason)
        return self._wrong(reason)

    def _wrong(self, what: str) -> Failure:
        kind = (self.head.media_type if self.head else "") or "no type"
        page = "a web page, " if self._looks_like_page() else ""
        first = self._first_bytes(_SHOWN).decode("utf-8", "replace")
        return Failure(Trouble.WRONG, f"{what} ({page}{kind}, beginning with {first!r})")

    def _first_bytes(self, count: int) -> bytes:
        return self.sink.first_bytes(count) if self._sample is None else bytes(self._sample[:count])

    def _looks_like_page(self) -> bool:
        if self.artifact.path.lower().endswith(_PAGE_NAMES):
            return False
        is_page = self.head is not None and self.head.media_type in _PAGES
        return is_page or self._first_bytes(512).lstrip().lower().startswith(_PAGE_STARTS)

    def _is_packed(self) -> bool:
        return self.head is not None and self.head.encoding in GZIP

    def _unpack(self) -> None:
        """Take the gzip off that nobody asked for; the hashes are then looked at once more."""
        most = self.limit if self.artifact.size is None else self.artifact.size
        self.head = self.head and replace(self.head, encoding="")
        try:
            self.sink.rewrite(unzipped(self.sink.chunks(), most))
        except zlib.error as error:
            self.fail(self._wrong(f"damaged gzip ({error})"))
