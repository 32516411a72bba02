"""Plays of a download in pieces: mirrors without a network, and a pool that does as it is told.

    play = Play(World([Mirror(), Mirror(body="last bit")]))
    play.run([3, 141, 59])
    assert play.state is State.DONE

A schedule chooses what happens next of all that may; where it ends, everything under way comes to
its end. What must hold at any time is looked at after each step.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from msgspec.structs import replace

from dscache.digest import Digest, Sums
from dscache.events import Event
from dscache.model import Artifact
from dscache.sources.exchange import Failure, Head, Request, Trouble
from dscache.sources.retry import Budget, Policy
from dscache.store.ranges import Ranges
from dscache.transfer.download import Download, State
from dscache.transfer.pieces import Piece
from dscache.transfer.sink import Origin
from tests.making import content, sha256

TRUTH, OTHER = content(60), content(60, 1)
POLICY = Policy(retries=2)
BODIES = {
    "right": TRUTH,
    "first bit": bytes([TRUTH[0] ^ 1]) + TRUTH[1:],
    "last bit": TRUTH[:-1] + bytes([TRUTH[-1] ^ 1]),
    "short": TRUTH[:-5],
    "long": TRUTH + b"x",
}


class Sparse:
    """A divisible sink in memory that no byte may be given twice."""

    is_divisible = True

    def __init__(self, kept: bytes = b"") -> None:
        self.data = bytearray(kept)
        self.here = Ranges([(0, len(kept))])
        self.origin = Origin()
        self.is_let_go = False

    @property
    def size(self) -> int:
        return self.here.prefix

    @property
    def count(self) -> int:
        return self.here.total

    @property
    def allocated(self) -> int:
        return 0

    def note(self, origin: Origin) -> None:
        self.origin = origin

    def write(self, chunks: list[bytes], offset: int | None = None) -> None:
        data = b"".join(chunks)
        start = self.size if offset is None else offset
        end = start + len(data)
        assert not (data and self.is_let_go), "written after its end"
        assert not any(first < end and start < last for first, last in self.here.spans if data)
        self.data.extend(bytes(max(0, end - len(self.data))))
        self.data[start:end] = data
        self.here.add(start, end)

    def restart(self) -> None:
        self.data.clear()
        self.here = Ranges()
        self.origin = replace(self.origin, validator="")

    def sums(self) -> Sums | None:
        sums = Sums(["sha256"])
        sums.update(bytes(self.data[: self.size]))
        return sums

    def first_bytes(self, count: int) -> bytes:
        return bytes(self.data[:count])

    def chunks(self) -> Iterator[bytes]:
        yield bytes(self.data)

    def rewrite(self, chunks: Iterator[bytes]) -> None:
        self.data = bytearray(b"".join(chunks))
        self.here = Ranges([(0, len(self.data))])

    def secure(self) -> None:
        raise AssertionError("that is the pool's business")

    def keep(self) -> None:
        raise AssertionError("that is the caller's business")


@dataclass(frozen=True)
class Mirror:
    """How one source behaves.

    Attributes:
        body: which of `BODIES` it has.
        ranges: "honest", "ignored" (the whole comes), "refused" (416), "elsewhere" (another start),
            "deaf" (whatever the validator), "endless" (to the file's end) or "clipped" (a part).
        validator: "same" at every request, "new" at each, or "none".
        total: it says how long the file is "always", "never" or only at "first".
        is_zipped: it sends gzip that nobody asked for, and then no ranges.
        troubles: what goes wrong with its first requests: a failure before the body, or the number
            of bytes after which the connection drops; None for nothing.
    """

    body: str = "right"
    ranges: str = "honest"
    validator: str = "same"
    total: str = "always"
    is_zipped: bool = False
    troubles: tuple[Failure | int | None, ...] = ()

    @property
    def is_honest(self) -> bool:
        return self == Mirror(validator=self.validator)


@dataclass
class Answer:
    """What comes of one request: a head or a failure, the body, and how that ends."""

    head: Head | None
    body: bytes
    failure: Failure | None


@dataclass
class World:
    """The mirrors of one download, and what they were asked.

    `changes_at` is the number of the request from which on the first of them has other content.
    """

    mirrors: list[Mirror]
    changes_at: int | None = None
    asked: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        number = int(request.url.rpartition("/")[2])
        mirror = self.mirrors[number]
        times = sum(each.url == request.url for each in self.asked)
        has_changed = self.changes_at is not None and len(self.asked) >= self.changes_at
        self.asked.append(request)
        trouble = mirror.troubles[times] if times < len(mirror.troubles) else None
        if isinstance(trouble, Failure):
            return Answer(None, b"", trouble)
        body = OTHER if has_changed else BODIES[mirror.body]
        names = {"same": f'"{number} {has_changed}"', "new": f'"{number} {times}"', "none": ""}
        head, body = self._reply(mirror, request, body, names[mirror.validator], times)
        if isinstance(head, Failure):
            return Answer(None, b"", head)
        if isinstance(trouble, int) and trouble < len(body):
            return Answer(head, body[:trouble], Failure(Trouble.CONNECTION, "dropped"))
        return Answer(head, body, None)

    def _reply(
        self, mirror: Mirror, request: Request, body: bytes, validator: str, times: int
    ) -> tuple[Head | Failure, bytes]:
        total = len(body) if mirror.total == "always" or not times else None
        head = Head(0, None if mirror.total == "never" else total, validator)
        if mirror.is_zipped:
            packed = gzip.compress(body)
            return replace(head, total=head.total and len(packed), encoding="gzip"), packed
        is_same = mirror.ranges == "deaf" or request.validator in ("", validator)
        is_part = request.start or request.end is not None
        if not is_part or not is_same or mirror.ranges == "ignored":
            return head, body
        if mirror.ranges == "refused" or request.start >= len(body):
            return Failure(Trouble.RANGE, "no such range", 416), b""
        if mirror.ranges == "elsewhere":
            return Failure(Trouble.RANGE, "another range", 206), b""
        end = None if mirror.ranges == "endless" else request.end
        part = body[request.start : end]
        part = part[:7] if mirror.ranges == "clipped" else part
        return replace(head, start=request.start), part


class Play:
    """A download, the exchanges that it has under way, and what may happen to them next."""

    def __init__(
        self, world: World, *, is_sized: bool = True, has_hash: bool = True, kept: bytes = b""
    ) -> None:
        self.world = world
        self.sink = Sparse(kept)
        self.events: list[Event] = []
        self.active: dict[Download | Piece, Answer] = {}
        self.divided = self.gave_way = 0
        self.download = Download(
            key="key",
            artifact=Artifact(
                "data.bin",
                Digest.parse(sha256(TRUTH)) if has_hash else None,
                len(TRUTH) if is_sized else None,
                urls=tuple(f"http://host/{number}" for number in range(len(world.mirrors))),
            ),
            sink=self.sink,
            emit=self.events.append,
            policy=POLICY,
            budget=Budget(POLICY),
            limit=5000,
        )

    @property
    def state(self) -> State:
        return self.download.state

    def run(self, schedule: list[int]) -> None:
        """Do as the schedule says, and then what brings the download to its end."""
        left = iter(schedule)
        for _ in range(3000):
            if self.state in (State.DONE, State.FAILED):
                return
            number = next(left, None)
            steps = self.next_steps() if number is None else self.possible_steps(number)
            assert steps, "nothing can happen any more"
            steps[(number or 0) % len(steps)]()
            self.retire()
            self.check()
        raise AssertionError("the download does not end")

    def next_steps(self) -> list[Callable[[], object]]:
        """What goes on without a decision of the pool."""
        steps: list[Callable[[], object]] = []
        for taker, answer in self.active.items():
            if answer.head and taker.head is None:
                steps.append(partial(taker.begin, answer.head))
            elif answer.body:
                steps.append(partial(self.receive, taker, 9))
            else:
                steps.append(partial(self.end, taker))
        if self.state is State.READY:
            steps.append(self.ask)
        if self.state is State.HASHING:
            steps.append(self.download.verify)
        return steps

    def possible_steps(self, number: int) -> list[Callable[[], object]]:
        """The same, and what the pool may decide; `number` says how much of it."""
        size, urls = 7 + number // 7 % 13, self.download.sources
        self.download.share = (lambda _: size) if number % 2 else None
        steps = self.next_steps()
        steps += [partial(self.divide, url, size) for url in urls]
        for taker, answer in self.active.items():
            if taker.head and answer.body:
                steps.append(partial(self.receive, taker, size))
            if taker.left > 0 and self.gave_way < 5:
                steps.append(partial(self.give_way, taker, urls[number // 91 % len(urls)]))
        return steps

    def ask(self) -> None:
        request = self.download.request()
        assert request.start == self.sink.size
        self.send(self.download, request)

    def divide(self, url: str, size: int) -> Piece | None:
        piece = self.download.divide(url, lambda _: size)
        if piece:
            self.divided += 1
            self.send(piece, piece.request())
        return piece

    def send(self, taker: Download | Piece, request: Request) -> None:
        """Send a request: for bytes of the file that are neither here nor on their way."""
        size = self.download.total
        end = size if request.end is None else request.end
        if end is not None and size is not None:
            others = [each for each in self.download.division.pieces if each is not taker]
            claimed = [(each.position, each.end) for each in others]
            start, last = list(Ranges([*self.sink.here.spans, *claimed]).gaps(end))[-1]
            assert start <= request.start < last == end <= size
        spoilt = [each.url for each in self.download.tried if each.failure.trouble is Trouble.WRONG]
        assert request.url not in spoilt
        self.active[taker] = self.world.answer(request)

    def receive(self, taker: Download | Piece, count: int) -> None:
        answer = self.active[taker]
        came, answer.body = answer.body[:count], answer.body[count:]
        taker.receive([came[:2], came[2:]])

    def end(self, taker: Download | Piece) -> None:
        failure = self.active[taker].failure
        taker.fail(failure) if failure else taker.finish()

    def give_way(self, taker: Download | Piece, url: str) -> None:
        self.gave_way += 1
        taker.give_way(url)

    def retire(self) -> None:
        """Forget exchanges that nobody wants any more."""
        for taker in [each for each in self.active if not each.is_receiving]:
            del self.active[taker]

    def check(self) -> None:
        """What must hold at any time."""
        download = self.download
        assert set(download.division.pieces) == {
            each for each in self.active if each is not download
        }
        claimed = [(each.position, each.end) for each in download.division.pieces if each.left]
        spans = sorted([*self.sink.here.spans, *claimed])
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
        if self.state is State.SHARED:
            here = self.sink.size
            assert any(each.position == here or not each.left for each in download.division.pieces)
        if self.state in (State.DONE, State.FAILED):
            self.sink.is_let_go = True  # whoever goes on from here may not write any more
            assert not any(each.left for each in download.division.pieces)
