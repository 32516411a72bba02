"""Downloads that break off: what was there is used, and nothing else is put behind it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dscache.cache import Cache
from dscache.errors import TransferError
from dscache.events import Advanced, Event, Started
from tests.downloads import Desk, error_of
from tests.making import artifact, content, md5
from tests.origin import (
    BEFORE_ANSWER,
    Asked,
    Chunked,
    Clipped,
    CloseDelimited,
    Drip,
    Drop,
    Ending,
    EndlessHeaders,
    Entity,
    Fault,
    HangUp,
    IgnoreRange,
    Late,
    NoValidators,
    OtherContent,
    OtherETag,
    Refuse,
    Reply,
    Site,
    Stall,
    WrongRange,
    entity_of,
    origin,
    part,
)

SMALL, BIG = content(100_000, 1), content(5 << 20, 2)
MIB = 1 << 20


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/small.bin": SMALL, "/big.bin": BIG}) as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path, site: Site) -> Desk:
    return _stocked(tmp_path, site)


def _stocked(folder: Path, site: Site, **changes: Any) -> Desk:
    made = Desk(folder, **changes)
    made.offer("small", artifact("small.bin", SMALL, site.url("/small.bin")))
    made.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    return made


@pytest.mark.parametrize("how", [Ending.FIN, Ending.RST])
@pytest.mark.parametrize(
    ("name", "data", "after"),
    [
        *(("small", SMALL, after) for after in (0, 1, 4096, 50_000, len(SMALL) - 1)),
        *(("big", BIG, after) for after in (0, 1, MIB - 1, 3 * MIB + 17, len(BIG) - 1)),
    ],
)
def test_a_dropped_connection_goes_on(
    desk: Desk, site: Site, name: str, data: bytes, after: int, how: Ending
) -> None:
    path = f"/{name}.bin"
    site.fault(path, Drop(after, how), times=1)
    found = desk.fetch(name)
    assert found.unwrap().read_bytes() == data
    assert len(site.requests) == 2
    assert len(desk.retries) == 1
    _, second = site.requests
    if how is Ending.FIN:  # a reset may take bytes with it that the server has sent
        assert second.range == (f"bytes={after}-" if after else "")
        assert site.sent(path) == len(data)
        assert found.bytes_downloaded == len(data)
    assert second.headers.get("if-range", "") == (_etag(site, path) if second.range else "")
    assert not desk.parts
    assert not desk.notices


def _etag(site: Site, path: str) -> str:
    return entity_of(site.files[path]).etag


@pytest.mark.parametrize("fault", [Drop(BEFORE_ANSWER), Drop(BEFORE_ANSWER, Ending.RST), HangUp()])
def test_a_connection_that_ends_before_an_answer(desk: Desk, site: Site, fault: Fault) -> None:
    site.fault("*", fault, times=1)
    assert desk.fetch("small").unwrap().read_bytes() == SMALL


def test_many_drops_in_a_row_go_on_while_there_is_progress(desk: Desk, site: Site) -> None:
    """More of them than there are retries."""
    site.fault("/big.bin", Drop(MIB // 2), times=9)
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert site.sent("/big.bin") == len(BIG)
    assert len(site.requests) == 10


def test_without_progress_retries_end_and_the_part_is_kept(desk: Desk, site: Site) -> None:
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", Drop(0), skip=1)
    error = error_of(desk.fetch("big"))
    assert isinstance(error, TransferError)
    assert error.code == 4
    assert error.facts["bytes_kept"] == 2 * MIB
    assert "2.1 MB are kept" in error.hint
    assert len(site.requests) == 1 + desk.settings.retries
    assert [part.stat().st_size for part in desk.parts] == [2 * MIB]
    site.mend()
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_resumed == 2 * MIB
    assert found.bytes_downloaded == len(BIG) - 2 * MIB
    assert site.requests[-1].range == f"bytes={2 * MIB}-"
    assert not desk.parts


@pytest.mark.parametrize("fault", [IgnoreRange(), OtherETag('"new"')])
def test_a_server_that_does_not_continue_starts_over(desk: Desk, site: Site, fault: Fault) -> None:
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", fault, skip=1)
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert site.requests[1].range
    assert site.sent("/big.bin") == len(BIG) + 2 * MIB
    assert any("starting over" in notice for notice in desk.notices)


def test_a_small_file_starts_over_too(desk: Desk, site: Site) -> None:
    site.fault("/small.bin", Drop(70_000), times=1)
    site.fault("/small.bin", IgnoreRange(), skip=1)
    assert desk.fetch("small").unwrap().read_bytes() == SMALL


@pytest.mark.parametrize(
    "fault", [WrongRange(shift=-1), WrongRange(shift=1), Refuse(416)], ids=repr
)
def test_an_answer_to_another_range_starts_over(desk: Desk, site: Site, fault: Fault) -> None:
    """And the server is asked for no range again."""
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", fault, skip=1, times=1)
    site.fault("/big.bin", Drop(3 * MIB), skip=2, times=1)
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert [bool(seen.range) for seen in site.requests] == [False, True, False, False]
    assert any("starting over" in notice for notice in desk.notices)


def test_another_total_in_the_range_is_another_file(desk: Desk, site: Site) -> None:
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", WrongRange(total=len(BIG) + 1), skip=1)
    error = error_of(desk.fetch("big"))
    assert f"{len(BIG) + 1} bytes instead of {len(BIG)}" in str(error)
    site.mend()
    assert desk.fetch("big").unwrap().read_bytes() == BIG


def test_the_remote_changes_between_two_attempts(tmp_path: Path, site: Site) -> None:
    """Of the same size, under another ETag; only the hash of the new bytes is known."""
    new = content(len(BIG), 9)
    desk = Desk(tmp_path)
    desk.offer("big", artifact("big.bin", new, site.url("/big.bin")))
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", OtherContent(new), skip=1)
    assert desk.fetch("big").unwrap().read_bytes() == new
    assert site.sent("/big.bin") == 2 * MIB + len(new)
    assert len(desk.notices) == 1
    assert "big.bin: starting over" in desk.notices[0]


@dataclass(frozen=True)
class IgnoresIfRange(Fault):
    """Continues with other bytes where it was asked to, whatever If-Range says."""

    content: bytes

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        start = int(asked.headers["range"][len("bytes=") : -1])
        return reply.instead(part(entity_of(self.content), range(start, len(self.content))))


def test_a_server_that_ignores_if_range_is_caught(tmp_path: Path, site: Site) -> None:
    """The bytes are another file's from the middle on; the validator tells."""
    new = content(len(BIG), 9)
    desk = Desk(tmp_path)
    desk.offer("big", artifact("big.bin", new, site.url("/big.bin")))
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", IgnoresIfRange(new), skip=1, times=1)
    site.fault("/big.bin", OtherContent(new), skip=2)
    assert desk.fetch("big").unwrap().read_bytes() == new
    assert any("changed" in notice for notice in desk.notices)


def test_mixed_bytes_without_validators_start_over_once(tmp_path: Path, site: Site) -> None:
    new = content(len(BIG), 9)
    desk = Desk(tmp_path)
    desk.offer("big", artifact("big.bin", new, site.url("/big.bin")))
    site.fault("/big.bin", NoValidators())
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", OtherContent(new), NoValidators(), skip=1)
    assert desk.fetch("big").unwrap().read_bytes() == new
    assert any("do not fit together" in notice for notice in desk.notices)


def test_a_bad_part_of_an_earlier_attempt_starts_over(desk: Desk, site: Site) -> None:
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", Drop(0), skip=1)
    error_of(desk.fetch("big"))
    site.mend()
    (part,) = desk.parts
    part.write_bytes(bytes(2 * MIB))
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert any("starting over" in notice for notice in desk.notices)


@pytest.mark.parametrize("status", [403, 500, 503])
def test_the_page_of_an_error_never_reaches_the_part(desk: Desk, site: Site, status: int) -> None:
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", Refuse(status), skip=1)
    error_of(desk.fetch("big"))
    (part,) = desk.parts
    assert part.read_bytes() == BIG[: 2 * MIB]
    site.mend()
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert site.requests[-1].range == f"bytes={2 * MIB}-"


def test_a_server_that_gives_ranges_in_small_pieces(desk: Desk, site: Site) -> None:
    site.fault("/big.bin", Drop(MIB), times=1)
    site.fault("/big.bin", Clipped(MIB), skip=1)
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert site.sent("/big.bin") == len(BIG)


@pytest.mark.parametrize("framing", [Chunked(), CloseDelimited()])
@pytest.mark.parametrize("name", ["small", "big"])
def test_no_content_length(desk: Desk, site: Site, framing: Fault, name: str) -> None:
    site.fault("*", framing)
    site.fault("*", Drop(60_000), times=1)
    found = desk.fetch(name)
    assert found.unwrap().read_bytes() == site.files[f"/{name}.bin"]


@pytest.mark.parametrize("framing", [Chunked(), CloseDelimited()])
def test_no_content_length_and_no_size(tmp_path: Path, site: Site, framing: Fault) -> None:
    site.fault("*", framing)
    desk = Desk(tmp_path)
    desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin"), size=None))
    assert desk.fetch("big").unwrap().read_bytes() == BIG


def test_a_body_in_tiny_pieces(tmp_path: Path, site: Site) -> None:
    """More of them at once than one system call takes."""
    site.fault("/small.bin", Chunked(), Drip(20, 0.0))
    desk = Desk(tmp_path)
    desk.offer("small", artifact("small.bin", SMALL, site.url("/small.bin"), size=None))
    assert desk.fetch("small").unwrap().read_bytes() == SMALL


def test_a_stalled_connection_is_given_up(tmp_path: Path, site: Site) -> None:
    desk = _stocked(tmp_path, site, stall_timeout=1)
    site.fault("/big.bin", Stall(2 * MIB), times=1)
    site.fault("/small.bin", Stall(BEFORE_ANSWER), times=1)
    found = desk.fetch_all("big", "small")
    assert [each.unwrap().read_bytes() for each in found] == [BIG, SMALL]
    assert site.sent("/big.bin") == len(BIG)
    assert len(desk.retries) == 2


def test_a_server_that_never_ends_its_headers(desk: Desk, site: Site) -> None:
    site.fault("/small.bin", EndlessHeaders(), times=1)
    assert desk.fetch("small").unwrap().read_bytes() == SMALL


def test_a_slow_server_is_waited_for(desk: Desk, site: Site) -> None:
    site.fault("/small.bin", Drip(4096, 0.05), Late(0.3))
    assert desk.fetch("small").unwrap().read_bytes() == SMALL
    assert len(site.requests) == 1
    assert not desk.retries


def test_a_connection_that_closes_after_each_answer(tmp_path: Path, site: Site) -> None:
    site.fault("*", HangUp())
    site.files |= {f"/{number}": content(2000, number) for number in range(40)}
    desk = Desk(tmp_path, jobs=4)
    desk.offer(
        "many",
        *(artifact(f"{n}", site.files[f"/{n}"], site.url(f"/{n}")) for n in range(40)),
    )
    folder = desk.fetch("many").unwrap()
    assert all((folder / f"{n}").read_bytes() == site.files[f"/{n}"] for n in range(40))


def test_the_next_mirror_continues_what_the_first_began(tmp_path: Path, site: Site) -> None:
    site.files["/mirror.bin"] = BIG
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", Refuse(404), skip=1)
    desk = Desk(tmp_path)
    desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin"), site.url("/mirror.bin")))
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert site.sent("/mirror.bin") == len(BIG) - 2 * MIB
    assert "if-range" not in site.requests[-1].headers


# --- Interrupted calls ----------------------------------------------------------------------------


class Interrupts:
    """Hears events, and interrupts the call when some bytes are there."""

    def __init__(self, after: int) -> None:
        self._after = after

    def __call__(self, event: Event) -> None:
        if isinstance(event, Advanced) and event.done >= self._after:
            raise KeyboardInterrupt


def test_after_an_interrupt_only_the_rest_is_downloaded(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path, jobs=1)  # so that what is here is one piece
    desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    site.fault("/big.bin", Drip(MIB, 0.15))
    with pytest.raises(KeyboardInterrupt):
        desk.cache.fetch("shelf/big", progress=Interrupts(2 * MIB))
    (part,) = desk.parts
    kept = part.stat().st_size
    assert kept >= 2 * MIB
    assert part.read_bytes() == BIG[:kept]
    site.mend()
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_resumed == kept
    assert found.bytes_downloaded == len(BIG) - kept
    assert site.requests[-1].range == f"bytes={kept}-"
    assert [event.done for event in desk.told(Started)] == [kept]


def test_an_interrupt_keeps_all_of_several(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path)
    for number in range(4):
        site.files[f"/{number}"] = content(3 * MIB, number)
        desk.offer(f"d{number}", artifact("a", site.files[f"/{number}"], site.url(f"/{number}")))
    site.fault("*", Drip(MIB, 0.15))
    names = [f"shelf/d{number}" for number in range(4)]
    with pytest.raises(KeyboardInterrupt):
        desk.cache.fetch_many(names, progress=Interrupts(MIB))
    assert len(desk.parts) >= 1
    kept = sum(part.stat().st_size for part in desk.parts)
    site.mend()
    found = desk.fetch_all(*(f"d{number}" for number in range(4)))
    assert all(each.error is None for each in found)
    assert sum(each.bytes_resumed for each in found) == kept
    assert sum(each.bytes_downloaded for each in found) == 12 * MIB - kept


def test_an_error_of_the_listener_keeps_the_part(desk: Desk, site: Site) -> None:
    def fails(event: Event) -> None:
        if isinstance(event, Advanced) and event.done >= MIB:
            raise ZeroDivisionError

    site.fault("/big.bin", Drip(MIB, 0.15))
    with pytest.raises(ZeroDivisionError):
        desk.cache.fetch("shelf/big", progress=fails)
    gc.collect()
    site.mend()
    assert desk.fetch("big").bytes_resumed >= MIB


def test_a_part_with_a_weak_hash_only(tmp_path: Path, site: Site) -> None:
    """An md5 says in the end whether the halves fit together, as any hash does."""
    desk = Desk(tmp_path)
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin"), hash=md5(BIG), size=None))
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert site.sent("/big.bin") == len(BIG)


# --- Where no hash is known -----------------------------------------------------------------------


def test_no_hash_continues_under_a_validator(tmp_path: Path, site: Site) -> None:
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    found = Desk(tmp_path).retrieve(site.url("/big.bin"), None)
    assert found.unwrap().read_bytes() == BIG
    assert site.sent("/big.bin") == len(BIG)


def test_no_hash_and_no_validator_never_continues(tmp_path: Path, site: Site) -> None:
    site.fault("/big.bin", NoValidators())
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    found = Desk(tmp_path).retrieve(site.url("/big.bin"), None)
    assert found.unwrap().read_bytes() == BIG
    assert not any(seen.range for seen in site.requests)


def test_no_hash_and_another_validator_starts_over(tmp_path: Path, site: Site) -> None:
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    new = content(len(BIG), 9)
    site.fault("/big.bin", OtherContent(new), skip=1)
    found = Desk(tmp_path).retrieve(site.url("/big.bin"), None)
    assert found.unwrap().read_bytes() == new


def test_another_cache_knows_nothing_of_a_part(desk: Desk, site: Site, tmp_path: Path) -> None:
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", Drop(0), skip=1)
    error_of(desk.fetch("big"))
    site.mend()
    other = Cache(tmp_path / "other", settings=desk.settings)
    (found,) = other.fetch_all(["shelf/big"], progress=lambda _: None)
    assert found.bytes_downloaded == len(BIG)
