"""Several connections for one long file, seen from the server: how many, for what, and under what.

The server gives each connection little, so that more of them pay; how many there are at which time
is nobody's promise, but what they ask for is.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.children import running
from tests.downloads import PATIENCE, Desk
from tests.making import artifact, content
from tests.origin import (
    Drip,
    IgnoreRange,
    Late,
    NoValidators,
    OtherContent,
    Site,
    Unsteady,
    entity_of,
    most_at_once,
    origin,
)
from tests.origin.server import Exchange
from tests.servers import nginx

MIB = 1 << 20
BIG, NEW = content(12 * MIB, 1), content(12 * MIB, 2)
THROTTLE = Drip(MIB // 8, 0.03)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/big.bin": BIG}) as found:
        found.fault("*", THROTTLE)
        yield found


@pytest.fixture
def desk(tmp_path: Path, site: Site) -> Desk:
    made = Desk(tmp_path, jobs=6, retries=5, stall_timeout=20)
    made.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    return made


def span_of(seen: Exchange) -> tuple[int, int]:
    """First byte, and the one behind the last, that a request asked for."""
    if not seen.range:
        return 0, len(BIG)
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.range)
    assert found
    return int(found[1]), int(found[2]) + 1 if found[2] else len(BIG)


def test_where_each_connection_is_throttled_there_are_several(desk: Desk, site: Site) -> None:
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert most_at_once(site.requests) >= 3
    assert not desk.notices
    assert not desk.retries


def test_nginx_that_limits_each_request_is_asked_several_times_at_once(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "big.bin").write_bytes(BIG)
    with nginx(tmp_path / "files", tmp_path / "nginx", limit_rate="1m") as server:
        desk = Desk(tmp_path, jobs=8, stall_timeout=20)
        desk.offer("big", artifact("big.bin", BIG, f"{server.url}/big.bin"))
        assert desk.fetch("big").unwrap().read_bytes() == BIG
        requests = server.requests(at_least=2)
    assert len(requests) >= 4
    assert all(seen.status == 206 for seen in requests if seen.range)


def test_pieces_are_bounded_ranges_that_do_not_overlap_and_leave_nothing_out(
    desk: Desk, site: Site
) -> None:
    """Only the first request is for all of the file: it ends where it meets the next ones."""
    desk.fetch("big").unwrap()
    first, *others = site.requests
    assert not first.range
    assert all(seen.range and not seen.range.endswith("-") for seen in others)
    spans = sorted(map(span_of, others))
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert spans[-1][1] == len(BIG)


def test_without_faults_hardly_a_byte_crosses_the_network_twice(desk: Desk, site: Site) -> None:
    """Only what the first connection reads, about a MiB, when it meets what others have brought."""
    assert desk.fetch("big").bytes_downloaded < len(BIG) + 2 * MIB


def test_a_connection_that_was_just_opened_is_not_taken_for_a_slow_one(tmp_path: Path) -> None:
    """Far away, an answer takes a while: nobody asks for the same bytes again meanwhile."""
    data = content(30 * MIB, 4)
    with origin({"/big.bin": data}) as site:
        site.fault("*", Drip(MIB // 8, 0.05), Late(0.1))
        desk = Desk(tmp_path, jobs=6, stall_timeout=20)
        desk.offer("big", artifact("big.bin", data, site.url("/big.bin")))
        desk.fetch("big").unwrap()
        starts = [span_of(seen)[0] for seen in site.requests]
    assert len(set(starts)) == len(starts)


def test_every_piece_is_asked_for_under_the_validator(desk: Desk, site: Site) -> None:
    desk.fetch("big").unwrap()
    validators = {seen.headers.get("if-range") for seen in site.requests if seen.range}
    assert validators == {entity_of(BIG).etag}


def test_without_a_validator_pieces_are_asked_for_where_a_hash_will_tell(
    desk: Desk, site: Site
) -> None:
    site.fault("*", NoValidators())
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert most_at_once(site.requests) > 1
    assert not any("if-range" in seen.headers for seen in site.requests)


def test_without_a_hash_pieces_are_asked_for_under_a_validator_only(desk: Desk, site: Site) -> None:
    assert desk.retrieve(site.url("/big.bin"), None).unwrap().read_bytes() == BIG
    assert most_at_once(site.requests) > 1
    site.files["/other.bin"] = NEW
    site.fault("/other.bin", NoValidators())
    assert desk.retrieve(site.url("/other.bin"), None).unwrap().read_bytes() == NEW
    assert len([seen for seen in site.requests if seen.path == "/other.bin"]) == 1


@pytest.mark.parametrize("has_hash", [True, False])
def test_a_file_that_changes_in_the_middle_starts_over_and_says_so(
    desk: Desk, site: Site, has_hash: bool
) -> None:
    """The first answer is of the old file; the connection breaks, and all others are of the new."""
    site.fault("*", Unsteady(1.0, unit=6 * MIB), times=1)
    site.fault("*", OtherContent(NEW), skip=1)
    if has_hash:
        desk.offer("big", artifact("big.bin", NEW, site.url("/big.bin")))
        found = desk.fetch("big")
    else:
        found = desk.retrieve(site.url("/big.bin"), None)
    assert found.unwrap().read_bytes() == NEW
    assert any("starting over" in notice for notice in desk.notices)


def test_a_server_that_ignores_ranges_gets_one_connection(desk: Desk, site: Site) -> None:
    """After it has been asked for pieces once, with none of the bytes that came taken."""
    site.fault("*", IgnoreRange())
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_downloaded == len(BIG)
    assert len(site.requests) <= desk.settings.jobs
    assert not desk.notices


@pytest.mark.parametrize("seed", range(3))
def test_resets_of_many_pieces_cost_only_work(desk: Desk, site: Site, seed: int) -> None:
    site.fault("*", Unsteady(0.2, seed, unit=MIB))
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert site.sent("/big.bin") < 2 * len(BIG)


def test_a_rate_limit_holds_for_all_connections_together(
    tmp_path: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path, jobs=6, limit_rate=8 * MIB, stall_timeout=20)
    desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    began = time.monotonic()
    found = desk.fetch("big")
    rate = found.bytes_downloaded / (time.monotonic() - began) / MIB
    with capsys.disabled():
        print(f" [{rate:.1f} of 8 MiB/s]", end="")  # noqa: T201 - how long it took is for readers
    assert found.unwrap().read_bytes() == BIG
    # The first request has no end: where others have begun, one read of about 1 MiB is too much.
    assert len(BIG) <= found.bytes_downloaded < len(BIG) + 2 * MIB


FETCH = "import dscache, sys; dscache.fetch(sys.argv[1])"


def test_after_a_kill_only_what_is_missing_is_fetched(tmp_path: Path) -> None:
    """And what the journal did not know yet, and what was on its way."""
    data = content(64 * MIB, 3)
    with origin({"/big.bin": data}) as site:
        site.fault("*", Drip(MIB // 4, 0.02))
        desk = Desk(tmp_path, jobs=6, stall_timeout=20)
        desk.offer("big", artifact("big.bin", data, site.url("/big.bin")))
        environment = {
            "DSCACHE_REGISTRIES": str(desk.shelf.folder),
            "DSCACHE_DIR": str(desk.root),
            "DSCACHE_CONFIG": os.devnull,
            "DSCACHE_JOBS": "6",
        }
        with running(FETCH, "shelf/big", environment=environment) as child:
            deadline = time.monotonic() + PATIENCE
            while site.sent("/big.bin") < 40 * MIB and time.monotonic() < deadline:
                time.sleep(0.005)
            child.kill()
            child.wait()
        sent, asked = site.sent("/big.bin"), most_at_once(site.requests)
        assert sent >= 40 * MIB
        assert asked > 1
        site.mend()
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == data
    assert found.bytes_resumed + found.bytes_downloaded <= len(data) + 2 * MIB
    assert found.bytes_downloaded <= len(data) - sent + (8 + 4 * asked) * MIB  # and in buffers
