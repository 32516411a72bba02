"""Parcels: whatever the sources do, what comes of one is what comes of a download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dscache.digest import Digest
from dscache.events import Event, Finished, Idle, Started
from dscache.model import Artifact
from dscache.sources.exchange import Exchange, Failure, Head, Request
from dscache.sources.retry import Budget, Policy
from dscache.transfer.download import Download, State
from dscache.transfer.parcel import Parcel
from dscache.transfer.pool import Pool, Task
from dscache.transfer.sink import Memory
from tests.downloads import Desk, error_of
from tests.making import artifact, content, sha256
from tests.origin import Chunked, Fault, Flip, Gzipped, Long, Redirect, Refuse, Short, Site, origin
from tests.test_transfer_machine import MIRRORS, TRUTH, Mirror, World

ONCE = Policy(retries=0)


class Wire:
    """A source that answers for the mirrors of a world, so many bytes at a look."""

    def __init__(self, world: World, piece: int) -> None:
        self._world = world
        self._piece = piece

    def start(self, request: Request) -> Exchange:
        return Answer(*self._world.answer(request), self._piece)

    def wait(self, seconds: float) -> None:
        """The bytes are there."""

    def close(self) -> None:
        """There is nothing to close."""


class Answer:
    is_whole = False

    def __init__(
        self, head: Head | Failure, body: bytes, failure: Failure | None, piece: int
    ) -> None:
        self.head = head if isinstance(head, Head) else None
        self.failure = head if isinstance(head, Failure) else None
        self.done = self.failure is not None
        self._left, self._end, self._piece = body, failure, piece

    def take(self) -> list[bytes]:
        chunk, self._left = self._left[: self._piece], self._left[self._piece :]
        if not (self._left or self.done):
            self.done, self.failure = True, self._end
        return [chunk] if chunk else []

    def cancel(self) -> None:
        self.done = True


def outcome(mirrors: list[Mirror], piece: int, *, as_parcel: bool) -> tuple[object, ...]:
    """What comes of the truth from these mirrors: the bytes, or who failed; who was asked what;
    and what was told.
    """
    world, events = World(mirrors), list[Event]()
    urls = tuple(f"http://host/{number}" for number in range(len(mirrors)))
    wanted = Artifact("data.bin", Digest.parse(sha256(TRUTH)), len(TRUTH), urls=urls)

    def opened(_: object) -> Download:
        sink = Memory(["sha256"])
        return Download("key", wanted, sink, events.append, ONCE, Budget(ONCE), 5000)

    task: Task = Parcel("key", wanted, opened) if as_parcel else opened(None)
    (ended,) = Pool(Wire(world, piece), 4, 0, events.append).run(iter([task]))
    told = [each for each in events if not isinstance(each, Idle)]
    if isinstance(ended, Parcel):
        return True, ended.data, ended.sums["sha256"], [], world.asked, told
    assert isinstance(ended, Download)
    assert isinstance(ended.sink, Memory)
    found = ended.verified and ended.verified["sha256"]
    tried = [(each.url, each.failure, each.sample) for each in ended.tried]
    return ended.state is State.DONE, ended.sink.data, found, tried, world.asked, told


@settings(max_examples=300, deadline=None)
@given(
    mirrors=st.lists(MIRRORS, min_size=1, max_size=3),
    piece=st.sampled_from([1, 100, 1000, 5000]),
)
@example([Mirror(body="long", is_sized=False)], 1)
@example([Mirror(is_zipped=True)], 100)
@example([Mirror(troubles=(500,)), Mirror()], 100)
def test_what_comes_of_a_parcel_is_what_comes_of_a_download(
    mirrors: list[Mirror], piece: int
) -> None:
    as_parcel = outcome(mirrors, piece, as_parcel=True)
    assert as_parcel == outcome(mirrors, piece, as_parcel=False)


def test_a_file_that_comes_whole_needs_no_download() -> None:
    (is_here, data, *_, asked, told) = outcome([Mirror()], 100, as_parcel=True)
    assert (is_here, data) == (True, TRUTH)
    assert asked == [Request("http://host/0")]
    assert told == [Started("key", "data.bin", len(TRUTH))]


SMALL = content(30_000)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/a.bin": SMALL, "/b.bin": SMALL}) as found:
        yield found


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Refuse(404), "the server answered 404"),
        (Flip(100), "wrong sha256"),
        (Short(10), "29990 bytes instead of 30000"),
        (Long(4), "30004 bytes instead of 30000"),
    ],
)
def test_each_source_is_asked_once_where_it_has_another_file(
    tmp_path: Path, site: Site, fault: Fault, reason: str
) -> None:
    site.fault("*", fault)
    desk = Desk(tmp_path)
    desk.offer("small", artifact("small.bin", SMALL, site.url("/a.bin"), site.url("/b.bin")))
    error = error_of(desk.fetch("small"))
    assert str(error).count(reason) == 2
    assert [seen.path for seen in site.requests] == ["/a.bin", "/b.bin"]
    assert len(desk.told(Started)) == 1


@pytest.mark.parametrize("fault", [Chunked(), Gzipped(), Redirect("/b.bin")])
def test_what_is_right_in_the_end_is_asked_for_once(
    tmp_path: Path, site: Site, fault: Fault
) -> None:
    site.fault("/a.bin", fault)
    desk = Desk(tmp_path)
    desk.offer("small", artifact("small.bin", SMALL, site.url("/a.bin")))
    assert desk.fetch("small").unwrap().read_bytes() == SMALL
    assert [seen.path for seen in site.requests].count("/a.bin") == 1
    assert [event.size for event in desk.told(Finished)] == [len(SMALL)]
