"""The life of one download: which source to ask from which offset, and what the answer means.

Decides, but touches neither the network nor the disk itself: bytes go to a sink, requests to
whoever runs the pool. The rules (each from a failure of a system before us):

1. Bytes are appended only where the source says that they begin; else the file starts over.
2. Bytes of another validator than the first ones start the file over.
3. The length is checked before the hash, with an error of its own.
4. A source that sent wrong bytes is not asked for them again.
5. If the bytes come from more than one attempt, a wrong hash first starts the file over once.
6. No more bytes are taken than the file can have.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from dscache.digest import Sums
from dscache.events import Emit, Notice, Retrying
from dscache.model import Artifact
from dscache.quantities import show_size
from dscache.sources.exchange import Failure, Head, Request, Trouble
from dscache.sources.retry import Budget, Policy, delay
from dscache.transfer.sink import Sink, Trailed
from dscache.urls import redacted

_SAMPLE = 64 << 10
_DECODE = 1 << 20
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_GZIP = frozenset({"gzip", "x-gzip"})


class State(Enum):
    """What the pool has to do next."""

    READY = "ready"  # send `request()`
    RECEIVING = "receiving"  # hand over what arrives
    HASHING = "hashing"  # ask `verify()` until it has an answer
    DONE = "done"  # verified
    FAILED = "failed"  # every source has failed


@dataclass
class Tried:
    """One source that did not give the file."""

    url: str
    failure: Failure
    sample: bytes = b""


@dataclass(eq=False)
class Download:
    """One artifact on its way into a sink.

    `limit` is the size that a body may have where the artifact's size is not known.
    """

    key: str
    artifact: Artifact
    sink: Sink
    emit: Emit
    policy: Policy
    budget: Budget
    limit: int
    state: State = State.READY
    received: int = 0
    tried: list[Tried] = field(default_factory=list)
    wait: float = 0.0
    verified: Sums | None = None

    def __post_init__(self) -> None:
        self.kept = self.sink.size
        self._mirror = 0
        self.head: Head | None = None
        self._attempts = 0
        self._high_water = self.sink.size
        self._mixed = self.sink.size > 0
        self._restarted_for_range = False
        self._sample: bytearray | None = None
        if self.artifact.size is not None and self.sink.size == self.artifact.size > 0:
            self.state = State.HASHING

    @property
    def url(self) -> str:
        """The source that is being asked."""
        return self.artifact.urls[self._mirror]

    def request(self) -> Request:
        """What to ask for next."""
        self.state = State.RECEIVING
        self.head = None
        self._sample = None
        self._mixed = self.sink.size > 0
        validator = ""
        if isinstance(self.sink, Trailed) and self.sink.part.journal.url == redacted(self.url):
            validator = self.sink.part.journal.validator
        return Request(self.url, self.sink.size, validator)

    def begin(self, head: Head) -> None:
        """The source has answered; bytes will follow."""
        self.head = head
        if self._is_wrong_size(head):
            self._sample = bytearray()
            return
        if self.sink.size and head.start == 0:
            self._start_over("the source does not continue it")
        elif self.sink.size and self._has_changed(head):
            self._start_over("it has changed at the source")
            self.fail(Failure(Trouble.RANGE, "the file changed at the source"))
            return
        if isinstance(self.sink, Trailed):
            self.sink.part.note(url=redacted(self.url), validator=head.validator, total=head.total)

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
        if self.sink.size + count > self._most():
            self._sample = bytearray(self.sink.first_bytes(_SAMPLE))
            self.fail(Failure(Trouble.WRONG, f"the body goes on after {show_size(self._most())}"))
            return
        self.sink.write(chunks)

    def end(self) -> None:
        """The body has ended as the protocol wants it."""
        if self._sample is not None:
            self.fail(self._wrong_size())
            return
        wanted = self._wanted()
        if wanted is not None and self.sink.size < wanted:
            if self._looks_like_page():
                self.fail(self._wrong("a web page"))
            else:
                reason = f"the body ended after {self.sink.size} of {wanted} bytes"
                self.fail(Failure(Trouble.CONNECTION, reason))
            return
        self.state = State.HASHING

    def verify(self) -> None:
        """Look whether the hashes are known yet, and whether they are right."""
        sums = self.sink.sums()
        if sums is None:
            return
        wrong = sums.mismatch(self.artifact.digests)
        unproven = not self.artifact.digests and self._is_packed()
        if (
            wrong is None
            and not unproven
            and self.sink.size == (self.artifact.size or self.sink.size)
        ):
            self.verified = sums
            self.state = State.DONE
            self.budget.refill()
        elif self._is_packed():
            self._decode()
        elif self._mixed:
            self._start_over("its parts do not fit together")
            self.state = State.READY
        else:
            self.fail(self._wrong(f"wrong {wrong.algorithm}" if wrong else "wrong size"))

    def fail(self, failure: Failure) -> None:
        """The source could not give the file: decide whether to ask it again, or the next one."""
        if failure.trouble is Trouble.RANGE and not self._restarted_for_range:
            self._restarted_for_range = True
            self.sink.restart()
            self.state, self.wait = State.READY, 0.0
            return
        if self.sink.size > self._high_water:
            self._high_water, self._attempts = self.sink.size, 0
        self._attempts += 1
        wait = delay(failure, self._attempts, self.policy)
        if wait is not None and self.budget.spend():
            self.emit(Retrying(self.key, failure.reason, wait))
            self.state, self.wait = State.READY, wait
            return
        self._next_mirror(failure)

    def _next_mirror(self, failure: Failure) -> None:
        sample = bytes(self._sample or b"")
        if failure.trouble is Trouble.WRONG and self._sample is None:
            sample = self.sink.first_bytes(_SAMPLE)
            self.sink.restart()
        self.tried.append(Tried(redacted(self.url), failure, sample))
        self._sample = None
        self._attempts = 0
        self._restarted_for_range = False
        self._high_water = self.sink.size
        self._mirror += 1
        left = self._mirror < len(self.artifact.urls)
        self.state, self.wait = (State.READY if left else State.FAILED), 0.0

    def _start_over(self, why: str) -> None:
        self.emit(Notice(f"{self.artifact.path}: starting over, since {why}"))
        self.sink.restart()
        self._mixed = False
        self._high_water = 0

    def _has_changed(self, head: Head) -> bool:
        if not isinstance(self.sink, Trailed):
            return False
        journal = self.sink.part.journal
        if journal.url != redacted(
            self.url
        ):  # another mirror: its own validator means nothing here
            return head.total is not None and journal.total not in (None, head.total)
        return bool(journal.validator and head.validator != journal.validator)

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
        if size is None:
            size = self.artifact.size
            # What gzip adds to bytes that it cannot compress, generously.
            return self.limit if size is None else size + size // 1000 + _SAMPLE
        return size

    def _is_wrong_size(self, head: Head) -> bool:
        size = self.artifact.size
        return None not in (size, head.total) and size != head.total and not head.encoding

    def _wrong_size(self) -> Failure:
        head, size = self.head or Head(), self.artifact.size
        if self._looks_like_page():
            return self._wrong("a web page")
        reason = f"{head.total} bytes instead of {size}"
        short = head.total is not None and size is not None and head.total < size
        return Failure(Trouble.SHORT, reason) if short else Failure(Trouble.WRONG, reason)

    def _wrong(self, what: str) -> Failure:
        first = bytes(self._sample) if self._sample is not None else self.sink.first_bytes(80)
        kind = self.head.media_type if self.head else ""
        shown = first[:80].decode("utf-8", "replace").replace("\n", " ").strip()
        detail = f" of type {kind}" if kind else ""
        return Failure(Trouble.WRONG, f"{what}{detail}, beginning with {shown!r}")

    def _looks_like_page(self) -> bool:
        if self.artifact.path.lower().endswith((".html", ".htm", ".xhtml")):
            return False
        first = bytes(self._sample or b"") or self.sink.first_bytes(512)
        start = first.lstrip()[:14].lower()
        is_page = self.head is not None and self.head.media_type in _PAGES
        return is_page or start.startswith((b"<!doctype html", b"<html"))

    def _is_packed(self) -> bool:
        return self.head is not None and self.head.encoding in _GZIP

    def _decode(self) -> None:
        """Take the gzip off that nobody asked for; the hashes are then looked at once more."""
        most = self.limit if self.artifact.size is None else self.artifact.size
        self.head, self._mixed = None, False
        try:
            self.sink.rewrite(_unzipped(self.sink, most))
        except zlib.error as error:
            self.fail(self._wrong(f"damaged gzip ({error})"))


def _unzipped(sink: Sink, most: int) -> Iterator[bytes]:
    """The decoded bytes of a gzip body, at most one chunk more than `most` of them."""
    decoder = zlib.decompressobj(wbits=31)
    size = 0
    for chunk in sink.chunks():
        while chunk and size <= most:
            data = decoder.decompress(chunk, _DECODE)
            size += len(data)
            yield data
            chunk = decoder.unconsumed_tail
