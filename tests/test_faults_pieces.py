"""A large file from a server with faults: whatever it was fetched in, it is right, and no more of
it is fetched again than had to be.

The server is slow for each connection, so that a client with several of them has reason to use
them. How many it uses is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dscache.errors import IntegrityError, TransferError
from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.origin import (
    LOGIN,
    Asked,
    Drip,
    Drop,
    Ending,
    Entity,
    Fault,
    Flip,
    IgnoreRange,
    LoginPage,
    OtherContent,
    Refuse,
    Reply,
    Site,
    WrongRange,
    most_at_once,
    origin,
)

MIB = 1 << 20
#: What a client may hold in its hands for one piece of work: that much may be asked for again.
PIECE = 16 * MIB
#: What may have come already when a request is stopped, since another one has what follows.
SURPLUS = 2 * MIB
OLD, NEW = content(32 * MIB, 1), content(32 * MIB, 2)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/big.bin": OLD, "/two.bin": OLD}) as found:
        found.fault("*", Drip(MIB // 2, 0.01))
        yield found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, jobs=8, retries=5, stall_timeout=20)


def offer(desk: Desk, site: Site, *paths: str, data: bytes = OLD) -> None:
    desk.offer("big", artifact("big.bin", data, *map(site.url, paths or ("/big.bin",))))


@dataclass(frozen=True)
class From(Fault):
    """Another fault, for requests for bytes from `start` on; the others are served well."""

    start: int
    fault: Fault

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        first = asked.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
        return self.fault.on_reply(asked, entity, reply) if int(first) >= self.start else reply


def test_without_faults_every_byte_crosses_the_network_once(desk: Desk, site: Site) -> None:
    offer(desk, site)
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == OLD
    assert len(OLD) <= found.bytes_downloaded <= len(OLD) + SURPLUS
    assert site.sent("/big.bin") < len(OLD) + PIECE


def test_a_server_without_ranges_serves_one_stream(desk: Desk, site: Site) -> None:
    """It answers 200 to whatever it is asked: asking for pieces would bring the file many times."""
    site.fault("*", IgnoreRange())
    offer(desk, site)
    assert desk.fetch("big").unwrap().read_bytes() == OLD
    assert site.sent("/big.bin") < len(OLD) + PIECE


def test_a_server_without_ranges_that_breaks_off_starts_over(desk: Desk, site: Site) -> None:
    """The whole body is never put behind what is here."""
    site.fault("*", IgnoreRange())
    site.fault("/big.bin", Drop(24 * MIB), times=1)
    offer(desk, site)
    assert desk.fetch("big").unwrap().read_bytes() == OLD
    assert site.sent("/big.bin") < 24 * MIB + len(OLD) + PIECE


def test_a_file_that_is_replaced_meanwhile_is_never_mixed(desk: Desk, site: Site) -> None:
    """Old pieces, new pieces, and the right size: the next requests see the other file."""
    site.fault("/big.bin", Drop(10 * MIB, Ending.RST), times=1)
    site.fault("/big.bin", OtherContent(NEW), skip=1)
    offer(desk, site, data=NEW)
    assert desk.fetch("big").unwrap().read_bytes() == NEW
    assert not desk.quarantine
    assert site.sent("/big.bin") < len(NEW) + 2 * PIECE


def test_without_a_hash_a_file_that_is_replaced_meanwhile_is_never_mixed(
    desk: Desk, site: Site
) -> None:
    site.fault("/big.bin", Drop(10 * MIB, Ending.RST), times=1)
    site.fault("/big.bin", OtherContent(NEW), skip=1)
    assert desk.retrieve(site.url("/big.bin"), None).unwrap().read_bytes() == NEW


@pytest.mark.parametrize("status", [403, 500])
def test_the_page_of_an_error_never_reaches_the_file(
    tmp_path: Path, site: Site, status: int
) -> None:
    """Neither in the call that meets it, nor in the next one, which goes on from what is here."""
    desk = Desk(tmp_path, jobs=8, retries=1, stall_timeout=20)
    site.fault("/big.bin", Drop(24 * MIB), times=1)
    site.fault("/big.bin", From(1, Refuse(status)), skip=1)
    offer(desk, site)
    error = error_of(desk.fetch("big"))
    assert isinstance(error, TransferError)
    assert f"the server answered {status}" in str(error)
    site.mend()
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == OLD
    assert found.bytes_resumed > 0
    assert found.bytes_resumed + found.bytes_downloaded <= len(OLD) + SURPLUS


@pytest.mark.parametrize("status", [500, 503])
def test_some_requests_that_fail_cost_no_bytes(desk: Desk, site: Site, status: int) -> None:
    site.fault("/big.bin", Drop(12 * MIB), times=1)
    site.fault("/big.bin", Refuse(status), skip=1, times=2)
    offer(desk, site)
    assert desk.fetch("big").unwrap().read_bytes() == OLD
    assert len(desk.retries) >= 1
    assert site.sent("/big.bin") < len(OLD) + PIECE


def test_a_server_that_asks_for_patience_gets_it(desk: Desk, site: Site) -> None:
    """No request before the time it names, and then fewer at once than were allowed before."""
    site.fault("/big.bin", Drop(4 * MIB), times=1)
    site.fault("/big.bin", Refuse(429, retry_after="1"), skip=1, times=1)
    offer(desk, site)
    assert desk.fetch("big").unwrap().read_bytes() == OLD
    (refused,) = (seen for seen in site.requests if seen.status == 429)
    assert refused.ended is not None
    later = [seen for seen in site.requests if seen.began > refused.ended + 0.3]
    assert later
    assert all(seen.began >= refused.began + 1.0 for seen in later)
    assert most_at_once(later[:4]) <= 4
    assert site.sent("/big.bin") < len(OLD) + 2 * PIECE


def test_a_session_that_ends_in_the_middle(desk: Desk, site: Site) -> None:
    """From then on the first mirror shows its login page; the other one gives the rest."""
    site.fault("/big.bin", Drop(20 * MIB), times=1)
    site.fault("/big.bin", LoginPage(), skip=1)
    offer(desk, site, "/big.bin", "/two.bin")
    assert desk.fetch("big").unwrap().read_bytes() == OLD
    assert any(site.url("/big.bin") in notice for notice in desk.notices)
    assert any("web page" in notice for notice in desk.notices)
    assert desk.quarantine == [LOGIN]


def test_a_session_that_ends_in_the_middle_for_good(desk: Desk, site: Site) -> None:
    site.fault("/big.bin", Drop(20 * MIB), times=1)
    site.fault("/big.bin", LoginPage(), skip=1)
    offer(desk, site)
    error = error_of(desk.fetch("big"))
    assert isinstance(error, IntegrityError)
    assert "a web page, text/html, beginning with " in str(error)
    assert "<!DOCTYPE html>" in str(error)
    assert len([seen for seen in site.requests if seen.sent == len(LOGIN)]) <= desk.settings.jobs


def test_a_piece_from_another_place_is_no_piece_of_the_file(desk: Desk, site: Site) -> None:
    site.fault("/big.bin", Drop(12 * MIB), times=1)
    site.fault("/big.bin", WrongRange(shift=MIB), skip=1, times=1)
    offer(desk, site)
    assert desk.fetch("big").unwrap().read_bytes() == OLD
    assert not desk.quarantine
    assert site.sent("/big.bin") < 2 * len(OLD) + PIECE


def test_a_wrong_hash_ends_after_the_bytes_were_asked_for_once(desk: Desk, site: Site) -> None:
    offer(desk, site, data=NEW)
    error = error_of(desk.fetch("big"))
    assert isinstance(error, IntegrityError)
    assert "wrong sha256" in str(error)
    assert site.sent("/big.bin") < len(OLD) + PIECE


def test_a_wrong_hash_ends_after_each_mirror_was_asked(desk: Desk, site: Site) -> None:
    """Once for the whole file; what came of several mirrors before says nothing of either."""
    offer(desk, site, "/big.bin", "/two.bin", data=NEW)
    error = error_of(desk.fetch("big"))
    assert isinstance(error, IntegrityError)
    assert str(error).count("wrong sha256") == 2
    assert site.sent("/big.bin") + site.sent("/two.bin") < 3 * len(OLD) + PIECE


def test_one_wrong_bit_in_the_last_piece(desk: Desk, site: Site) -> None:
    """The mirror that sent it is named, and is not asked for that content again."""
    site.fault("/big.bin", Flip(-1))
    offer(desk, site, "/big.bin", "/two.bin")
    assert desk.fetch("big").unwrap().read_bytes() == OLD
    (notice,) = (notice for notice in desk.notices if "wrong sha256" in notice)
    assert site.url("/big.bin") in notice
    assert site.url("/two.bin") not in notice
    assert site.sent("/big.bin") < len(OLD) + PIECE
    assert site.sent("/two.bin") < len(OLD) + PIECE
