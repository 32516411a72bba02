"""The life of a download as a machine: any sources, any failures, and an oracle with the truth.

Nothing here touches a network: the tests play the pool, and answer requests as a strategy says.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dscache.digest import Digest
from dscache.model import Artifact
from dscache.sources.exchange import Failure, Head, Request, Trouble
from dscache.sources.retry import Budget, Policy
from dscache.transfer.download import Download, State
from dscache.transfer.sink import Memory
from tests.making import content, sha256

TRUTH = content(1000)
POLICY = Policy(retries=2)
PAGE = b"<!DOCTYPE html><html>Please log in</html>"
BODIES = {
    "right": TRUTH,
    "flipped": bytes([TRUTH[0] ^ 1]) + TRUTH[1:],
    "short": TRUTH[:-1],
    "long": TRUTH + b"x",
    "page": PAGE,
    "empty": b"",
}
BUSY = Failure(Trouble.BUSY, "busy", 503)
REFUSED = Failure(Trouble.REFUSED, "refused", 404)


@dataclass(frozen=True)
class Mirror:
    """How one source behaves.

    Attributes:
        body: which of `BODIES` it has.
        ranges: "honest", "ignored" (the whole comes), "refused" (416), "wrong" (another start) or
            "deaf" (it continues under whatever validator).
        validator: "same" at every request, "new" at each, or "none".
        is_sized: it says how long the file is.
        is_zipped: it sends gzip that nobody asked for.
        troubles: what goes wrong with its first requests: a failure before the body, or the number
            of bytes after which the connection drops; None for nothing.
    """

    body: str = "right"
    ranges: str = "honest"
    validator: str = "same"
    is_sized: bool = True
    is_zipped: bool = False
    troubles: tuple[Failure | int | None, ...] = ()

    @property
    def is_honest(self) -> bool:
        return self.body == "right" and not self.troubles


MIRRORS = st.builds(
    Mirror,
    body=st.sampled_from(sorted(BODIES)),
    ranges=st.sampled_from(["honest", "ignored", "refused", "wrong", "deaf"]),
    validator=st.sampled_from(["same", "new", "none"]),
    is_sized=st.booleans(),
    is_zipped=st.booleans(),
    troubles=st.lists(
        st.one_of(st.none(), st.sampled_from([BUSY, REFUSED]), st.integers(0, 1000)), max_size=6
    ).map(tuple),
)


class World:
    """The sources of one download, and what they were asked."""

    def __init__(self, mirrors: list[Mirror]) -> None:
        self.mirrors = mirrors
        self.asked: list[Request] = []

    def answer(self, request: Request) -> tuple[Head | Failure, bytes, Failure | None]:
        """Head, bytes, and how it ends."""
        number = int(request.url.rpartition("/")[2])
        mirror = self.mirrors[number]
        times = sum(each.url == request.url for each in self.asked)
        self.asked.append(request)
        trouble = mirror.troubles[times] if times < len(mirror.troubles) else None
        if isinstance(trouble, Failure):
            return trouble, b"", None
        body = BODIES[mirror.body]
        body = gzip.compress(body) if mirror.is_zipped else body
        validator = {"same": f'"{number}"', "new": f'"{number}-{times}"', "none": ""}
        head = self._head(mirror, request, len(body), validator[mirror.validator])
        if isinstance(head, Failure):
            return head, b"", None
        rest = body[head.start :]
        if isinstance(trouble, int) and trouble < len(rest):
            return head, rest[:trouble], Failure(Trouble.CONNECTION, "dropped")
        return head, rest, None

    def _head(self, mirror: Mirror, request: Request, total: int, validator: str) -> Head | Failure:
        start = request.start
        if start and request.validator not in ("", validator) and mirror.ranges != "deaf":
            start = 0
        if start and mirror.ranges == "ignored":
            start = 0
        if start and (mirror.ranges == "refused" or start >= total):
            return Failure(Trouble.RANGE, "no such range", 416)
        if start and mirror.ranges == "wrong":
            return Failure(Trouble.RANGE, "another range")
        encoding = "gzip" if mirror.is_zipped else ""
        kind = "text/html" if mirror.body == "page" else ""
        return Head(start, total if mirror.is_sized else None, validator, kind, encoding)


def run(download: Download, world: World, piece: int) -> None:
    """Play the pool until the download has ended, looking at the rules on the way."""
    spoilt: set[str] = set()
    for _ in range(500):
        if download.state is State.READY:
            request = download.request()
            assert request.url not in spoilt
            assert request.start == download.sink.size
            _exchange(download, world, request, piece)
        elif download.state is State.HASHING:
            download.verify()
        else:
            return
        spoilt |= {each.url for each in download.tried if each.failure.trouble is Trouble.WRONG}
    raise AssertionError("the download does not end")


def _exchange(download: Download, world: World, request: Request, piece: int) -> None:
    head, body, failure = world.answer(request)
    if isinstance(head, Failure):
        download.fail(head)
        return
    download.begin(head)
    for start in range(0, len(body), piece):
        if download.state is not State.RECEIVING:
            return
        download.receive([body[start : start + piece]])
        if download.artifact.size is not None and not head.encoding:
            assert download.sink.size <= download.artifact.size
    if download.state is not State.RECEIVING:
        return
    if failure:
        download.fail(failure)
    else:
        download.finish()


def made(mirrors: list[Mirror], *, is_sized: bool, kept: bytes = b"") -> tuple[Download, World]:
    urls = tuple(f"http://host/{number}" for number in range(len(mirrors)))
    digest = Digest.parse(sha256(TRUTH))
    size = len(TRUTH) if is_sized else None
    sink = Memory(["sha256"])
    if kept:
        sink.write([kept])
    download = Download(
        key="key",
        artifact=Artifact("data.bin", digest, size, urls=urls),
        sink=sink,
        emit=lambda _: None,
        policy=POLICY,
        budget=Budget(POLICY),
        limit=5000,
    )
    return download, World(mirrors)


@settings(max_examples=400, deadline=None)
@given(
    mirrors=st.lists(MIRRORS, min_size=1, max_size=4),
    is_sized=st.booleans(),
    kept=st.sampled_from([b"", TRUTH[:500], TRUTH, b"?" * 500, b"?" * 1000]),
    piece=st.sampled_from([1, 100, 1000, 5000]),
)
@example([Mirror(troubles=(10, 0, 0))], True, b"", 100)
@example([Mirror(ranges="deaf", validator="new", troubles=(500,))], True, b"", 100)
@example([Mirror(is_zipped=True, troubles=(100, 100))], False, b"?" * 500, 1)
def test_a_download_ends_with_the_truth_or_with_every_source_tried(
    mirrors: list[Mirror], is_sized: bool, kept: bytes, piece: int
) -> None:
    download, world = made(mirrors, is_sized=is_sized, kept=kept)
    run(download, world, piece)
    if download.state is State.DONE:
        assert isinstance(download.sink, Memory)
        assert download.sink.data == TRUTH
        assert download.verified is not None
        assert download.verified["sha256"] == sha256(TRUTH).partition(":")[2]
    else:
        assert [each.url for each in download.tried] == list(download.artifact.urls)
        assert not any(mirror.is_honest for mirror in mirrors)
    # The first attempt, those after progress, and a few to find out that ranges do not work.
    assert len(world.asked) <= sum(8 + 3 * len(mirror.troubles) for mirror in mirrors)


@settings(max_examples=200, deadline=None)
@given(mirror=MIRRORS, piece=st.sampled_from([1, 100, 5000]))
def test_a_wrong_source_is_asked_for_its_bytes_once(mirror: Mirror, piece: int) -> None:
    download, world = made([mirror], is_sized=True)
    run(download, world, piece)
    if mirror.body in ("flipped", "long", "page") and not mirror.troubles:
        assert download.state is State.FAILED
        assert len(world.asked) == 1
        assert download.tried[0].failure.trouble is Trouble.WRONG
        assert download.tried[0].sample or mirror.is_zipped


@settings(max_examples=200, deadline=None)
@given(
    drop=st.integers(1, 999),
    has_validators=st.booleans(),
    honours_ranges=st.booleans(),
    changes=st.booleans(),
)
def test_without_a_hash_two_contents_are_never_mixed(
    drop: int, has_validators: bool, honours_ranges: bool, changes: bool
) -> None:
    """What comes is one content or the other, from a source that may change after a drop."""
    artifact = Artifact("data.bin", None, urls=("http://host/0",))
    sink = Memory([])
    download = Download("key", artifact, sink, lambda _: None, POLICY, Budget(POLICY), 5000)
    old, new = TRUTH, TRUTH[::-1]
    contents = iter([old, new if changes else old])

    def answer(request: Request) -> tuple[Head, bytes]:
        body = next(contents)
        validator = f'"{body[:4].hex()}"' if has_validators else ""
        is_same = request.validator == validator and honours_ranges
        start = request.start if is_same else 0
        return Head(start, len(body), validator), body[start:]

    head, body = answer(download.request())
    download.begin(head)
    download.receive([body[:drop]])
    download.fail(Failure(Trouble.CONNECTION, "dropped"))
    head, body = answer(download.request())
    download.begin(head)
    download.receive([body])
    download.finish()
    download.verify()
    assert _state(download) is State.DONE
    assert sink.data == (new if changes else old)


def _state(download: Download) -> State:
    return download.state
