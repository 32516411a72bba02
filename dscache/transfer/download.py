"""The life of one download: which source to ask from which offset, and what the answer means.

Decides, but touches neither the network nor the disk itself: bytes go to a sink, requests to
whoever runs the pool. One exchange at a time, the lead, fetches the first bytes that are missing
and decides what the file is worth; further connections may fetch pieces ahead of it (`divide`),
where it stops. The rules (each from a failure of a system before us):

1. Bytes are appended only where the source says that they begin; else the file starts over.
2. Bytes of another validator than the first ones start the file over.
3. The length is checked before the hash, with an error of its own.
4. A source that sent wrong bytes is not asked for them again.
5. If the bytes come from more than one attempt, a wrong hash first starts the file over, once.
6. No more bytes are taken than the file can have.
7. Where no hash will tell, bytes of two attempts are put together only under one validator.
8. A file whose pieces did not fit together is fetched undivided, from one source after the other.
9. A source of our own (`near`) is asked first and alone, and not waited for if it does not answer.
"""

from __future__ import annotations

import zlib
from enum import Enum

import msgspec
from msgspec.structs import replace

from dscache.digest import Sums
from dscache.events import Emit, Notice, Retrying, Started
from dscache.model import Artifact
from dscache.quantities import show_size
from dscache.sources.encoding import GZIP, unzipped
from dscache.sources.exchange import Failure, Head, Request, Trouble
from dscache.sources.retry import Budget, Policy, delay
from dscache.store import SMALL
from dscache.store.ranges import Ranges
from dscache.transfer import verdict
from dscache.transfer.blame import Blame
from dscache.transfer.division import Division
from dscache.transfer.pieces import Piece, Share
from dscache.transfer.remote import Near
from dscache.transfer.sink import Origin, Sink
from dscache.urls import redacted

_SAMPLE = 64 << 10
_GZIP_NAMES = (".gz", ".tgz")
#: Bytes between two failures that show that the network works.
_MUCH = 1 << 20


class State(Enum):
    """What the pool has to do next."""

    READY = "ready"  # send `request()`, after `wait` seconds
    RECEIVING = "receiving"  # hand over what arrives
    SHARED = "shared"  # nothing: pieces bring the next bytes
    HASHING = "hashing"  # ask `verify()` until it has an answer
    DONE = "done"  # verified
    FAILED = "failed"  # every source has failed


class Tried(msgspec.Struct):
    """One source that did not give the file, with the first of the wrong bytes that it sent."""

    url: str
    failure: Failure
    sample: bytes = b""


class Download(msgspec.Struct, eq=False, dict=True):
    """One artifact on its way into a sink.

    Attributes:
        limit: the size that a body may have where the artifact's size is not known.
        kept: bytes that earlier attempts had left.
        received: bytes that crossed the network.
        wait: seconds to wait before the next request.
        share: how long a request may be where several connections share the host; None for one.
        near: the first of the artifact's URLs, if that is a source of our own.
        head: what the source has said in answer to the current request.
        verified: the hashes, once they have been found right.
    """

    key: str
    artifact: Artifact
    sink: Sink
    emit: Emit
    policy: Policy
    budget: Budget
    limit: int
    state: State = State.READY
    wait: float = 0.0
    share: Share | None = None
    near: Near | None = None
    received: int = 0
    head: Head | None = None
    verified: Sums | None = None
    tried: list[Tried] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        self.kept = self.sink.count
        self.division = Division(is_possible=self.sink.is_divisible)
        self._urls = list(self.artifact.urls)  # those that may still be asked, the next one first
        self._blame = Blame()
        self._mixed = self.kept > 0  # the bytes may not fit together
        self._has_started_over = False
        self._told: int | None = None  # size that the watcher knows of, where the source says it
        self._position = 0  # of the lead
        self._until: int | None = None  # where it has asked to stop
        self._begin_source()
        if self.artifact.size is not None and self.sink.size == self.artifact.size > 0:
            self.state = State.HASHING

    def _begin_source(self) -> None:
        self._attempts = 0  # failures in a row without progress
        self._high_water = self.sink.size  # progress is what lies beyond
        self._has_ranges = True
        self._sample: bytearray | None = None  # bytes of an answer that cannot be the file

    @property
    def url(self) -> str:
        """The source that is being asked."""
        return self._urls[0]

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that may be asked now, the preferred one first."""
        return tuple(self._urls[:1] if self.is_near else self._urls)

    @property
    def is_near(self) -> bool:
        """True while a source of our own is being asked."""
        return self.near is not None and self.url == self.near.url

    @property
    def is_in_vain(self) -> bool:
        """True if the source that would be asked next is known not to answer."""
        return self.is_near and self.near is not None and self.near.is_out

    @property
    def total(self) -> int | None:
        """How long the file is, if that is known."""
        return self.sink.origin.total if self.artifact.size is None else self.artifact.size

    @property
    def is_long(self) -> bool:
        """True for a file that more than one connection may fetch."""
        total = self.total
        return self.sink.is_divisible and total is not None and total > SMALL

    @property
    def is_receiving(self) -> bool:
        """True as long as the lead takes what arrives."""
        return self.state is State.RECEIVING

    @property
    def left(self) -> int:
        """Bytes that the lead is still to fetch, as far as that is known."""
        end = self._until or self.total
        return end - self._position if end else 0

    def request(self) -> Request:
        """What the lead asks for next: as much as nobody else has or fetches."""
        origin = self.sink.origin
        validator = origin.validator if origin.url == redacted(self.url) else ""
        if not self._has_ranges:
            self._start_over("the source cannot continue it")
        elif not (self.artifact.digests or validator):
            self._start_over("nothing ties its parts together")
        self.state = State.RECEIVING
        self.head = self._sample = None
        start = self._position = self.sink.size
        self._until = self._obstacle()
        if start and self._until is None and self.total and self.share:
            self._until = min(start + self.share(self.total - start), self.total)
        validator = validator if start or self._until else ""
        return Request(self.url, start, validator, self._until, self.is_long)

    def begin(self, head: Head) -> None:
        """The source has answered; bytes will follow."""
        self.head = head
        if self._is_wrong_size(head):
            self._sample = bytearray()
            return
        if head.start != self._position:
            self.division.undivided.add(self.url)
            self._start_over("the source does not continue it")
        elif self.sink.count and self._has_changed(head):
            self.fail(Failure(Trouble.RANGE, "the file changed at the source"))
            return
        if head.encoding:  # no range of the plain bytes would fit
            self._has_ranges = False
        is_told = head.total is not None or head.start == 0
        total = head.total if is_told else self.sink.origin.total
        self.sink.note(Origin(redacted(self.url), head.validator, total))
        if self.artifact.size is None and total != self._told:
            self._told = total
            self.emit(Started(self.key, self.artifact.path, total, self.sink.count))

    def receive(self, chunks: list[bytes]) -> None:
        """Take bytes. May end the exchange by leaving the state RECEIVING."""
        count = sum(map(len, chunks))
        if not self.url.startswith("file:"):
            self.received += count
        if self._sample is not None:
            self._sample += b"".join(chunks)
            if len(self._sample) >= _SAMPLE:
                self.finish()
            return
        if self._position != self.sink.size:  # it has met the bytes of others, and goes on
            self._go_on()
            return
        stop = self._obstacle()
        most = self._most() if stop is None else stop
        room = most - self._position
        is_more = count > room
        self._credit(self.url, self._position, min(count, room))
        self._position += min(count, room)
        self.sink.write([b"".join(chunks)[:room]] if is_more else chunks)
        if is_more and stop is None:
            self.fail(self._wrong(f"more than {show_size(most)}"))
        elif self._position == stop and (is_more or stop != self._until):
            self._go_on()

    def finish(self) -> None:
        """The body has ended as the protocol wants it."""
        wanted = self._wanted()
        if self._sample is not None:
            head = self.head or Head()
            self.fail(verdict.wrong_size(self.artifact, head, self._first_bytes()))
        elif self._has_all():
            self._go_on()
        elif wanted is None:
            self.state = State.HASHING
        else:
            reason = f"the body ended after {self.sink.size} of {wanted} bytes"
            is_page = verdict.is_page(self.artifact, self.head, self._first_bytes())
            self.fail(self._wrong(reason) if is_page else Failure(Trouble.CONNECTION, reason))

    def verify(self) -> None:
        """Look whether the hashes are known yet, and whether they are right."""
        sums = self.sink.sums()
        if sums is None:
            return
        wrong = sums.mismatch(self.artifact.digests)
        if wrong is None and self._is_plausible():
            self._accept(sums)
        elif self._mixed and not self._has_started_over:
            self._has_started_over, self.division.is_possible = True, False
            self._blame.suspect(self.sink.chunks())
            self._start_over("its parts do not fit together")
            self._ask_again(0.0)
        elif self._is_packed():
            self._unpack()
        else:
            self.fail(self._wrong(f"wrong {wrong.algorithm}" if wrong else "wrong size"))

    def _accept(self, sums: Sums) -> None:
        self.verified = sums
        self.state = State.DONE
        self.budget.refill()
        known = {each.url for each in self.tried}
        for url in map(redacted, self._blame.guilty(self.sink.chunks())):
            if url not in known:
                spoilt = Failure(Trouble.WRONG, "some of the bytes that it sent were wrong")
                self.tried.append(Tried(url, spoilt))

    def fail(self, failure: Failure) -> None:
        """The source could not give the file: decide whether to ask it again, or the next one."""
        if failure.trouble is Trouble.CONNECTION and self.is_receiving and self._has_all():
            self._go_on()
            return
        if failure.trouble is Trouble.RANGE and self._has_ranges:
            self._has_ranges = False
            self.division.undivided.add(self.url)
            self._start_over(failure.reason)
            self._ask_again(0.0)
            return
        if (progress := self.sink.size - self._high_water) > 0:
            self._high_water, self._attempts = self.sink.size, 0
        if progress > _MUCH:
            self.budget.refill()
        self._attempts += 1
        self._mixed |= self.sink.count > 0
        wait = delay(failure, self._attempts, self.policy)
        if self.is_near and failure.trouble is Trouble.CONNECTION and progress <= 0:
            wait = None
        if wait is not None and self.budget.spend():
            self.emit(Retrying(self.key, failure.reason, wait))
            self._ask_again(wait)
        else:
            self._next_source(failure)

    def divide(self, url: str, share: Share) -> Piece | None:
        """The next span for a further connection, to be asked for at `url`; None if there is none.

        Bytes of several sources are put together only where a hash will tell whether they fit.
        """
        total, origin = self.total, self.sink.origin
        has_spans = url.startswith(("http:", "https:")) and url not in self.division.undivided
        if not (total and has_spans and self.division.is_possible and self._is_under_way()):
            return None
        is_source = origin.url == redacted(url)
        if not (self.artifact.digests or (is_source and origin.validator)):
            return None
        claimed = Ranges(self.sink.here.spans)
        if self.is_receiving:
            claimed.add(self._position, self._position + share(total - self._position))
        span = self.division.next_span(claimed, total, share)
        if span is None:
            return None
        piece = Piece(self, url, *span, origin.validator if is_source else "")
        self.division.add(piece)
        return piece

    def take(self, piece: Piece, chunks: list[bytes], offset: int) -> None:
        """Store what has come of a piece."""
        count = sum(map(len, chunks))
        self.received += count
        self._mixed |= not piece.validator or redacted(piece.url) != self.sink.origin.url
        self._credit(piece.url, offset, count)
        self.division.receive(piece)
        self.sink.write(chunks, offset)

    def complete(self, piece: Piece) -> None:
        """All of a piece is here."""
        self.division.complete(piece)
        self.budget.refill()
        self._look_on()

    def lose(self, piece: Piece, failure: Failure | None = None) -> None:
        """Nothing more will come of a piece; what is left of it is free for others."""
        self.division.lose(piece, failure, self.policy)
        self._look_on()

    def give_way(self, url: str) -> None:
        """Let the lead go on from `url`, which is much faster."""
        self._urls.remove(url)
        self._urls.insert(0, url)
        self._mixed |= self.sink.count > 0
        self._begin_source()
        self._ask_again(0.0)

    def _is_under_way(self) -> bool:
        """True if the bytes that are still missing can be spoken of as spans of the file."""
        if self.state is State.SHARED:
            return True
        has_ranges = self._has_ranges and self.url not in self.division.undivided
        is_plain = self._sample is None and not (self.head and self.head.encoding)
        return self.is_receiving and has_ranges and is_plain

    def _credit(self, url: str, offset: int, count: int) -> None:
        if len(self.artifact.urls) > 1:
            self._blame.note(url, offset, offset + count)

    def _look_on(self) -> None:
        if self.state is State.SHARED:
            self._go_on()

    def _obstacle(self) -> int | None:
        """Where the lead has to stop: what lies there is here, or somebody else's."""
        if not self.sink.is_divisible:
            return None
        starts = [start for start, _ in self.sink.here.spans if start > self._position]
        starts += [start for start in self.division.starts() if start >= self._position]
        return min(starts, default=None)

    def _go_on(self) -> None:
        """Where one connection has done its share, see who brings the next bytes."""
        here = self.sink.size
        if here == self.total:
            self.state = State.HASHING
        elif self.division.brings(here):
            self.state = State.SHARED
        else:
            self._ask_again(0.0)

    def _ask_again(self, wait: float) -> None:
        self.state, self.wait = State.READY, wait

    def _next_source(self, failure: Failure) -> None:
        is_wrong = failure.trouble is Trouble.WRONG
        sample = self._first_bytes(_SAMPLE) if is_wrong else b""
        if is_wrong and self._sample is None:
            self._forget_bytes()
        if self.near and self.is_near:
            self.near.fail(failure)
        if is_wrong or not self.is_near:
            self.tried.append(Tried(redacted(self.url), failure, sample))
        if len(self._urls) > 1:
            del self._urls[0]
            self._has_started_over = False
            self._begin_source()
            self._ask_again(0.0)
        else:
            self.division.drop()
            self.state = State.FAILED

    def _start_over(self, why: str) -> None:
        if self.sink.count:
            self.emit(Notice(f"{self.artifact.path}: starting over, since {why}"))
        self._forget_bytes()

    def _forget_bytes(self) -> None:
        self.division.drop()
        if self.sink.count:
            self.sink.restart()
        self._blame.forget()
        self._mixed = False
        self._position, self._until = 0, None

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
        return self.sink.origin.total if self.head else None

    def _has_all(self) -> bool:
        """True if the lead's answer has brought all that it had to bring."""
        if self.head is None or self.head.encoding or self._sample is not None:
            return False
        end = self._wanted() if self._until is None else self._until
        return end is not None and self._position >= end

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

    def _wrong(self, what: str) -> Failure:
        return verdict.wrong_bytes(self.artifact, self.head, self._first_bytes(), what)

    def _first_bytes(self, count: int = verdict.ENOUGH) -> bytes:
        return self.sink.first_bytes(count) if self._sample is None else bytes(self._sample[:count])

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
