"""Several mirrors, some bad: what the good ones gave is kept, and the bad ones are named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.meanwhile import meanwhile
from tests.origin import (
    Drip,
    Fault,
    Flip,
    IgnoreRange,
    NoValidators,
    OtherContent,
    Refuse,
    Site,
    origin,
)
from tests.relay import Relay, relay

MIB = 1 << 20
BIG, OTHER = content(32 * MIB, 1), content(24 * MIB, 2)
#: When the first mirror goes away, and what may be on its way or in the making then.
GONE_AT, ON_ITS_WAY = 16 * MIB, 8 * MIB


@pytest.fixture
def sites() -> Iterator[list[Site]]:
    """Three origins with the same file, in the order in which the registry names them."""
    with ExitStack() as stack:
        yield [stack.enter_context(origin({"/big.bin": BIG})) for _ in range(3)]


@pytest.fixture
def link(sites: list[Site]) -> Iterator[Relay]:
    """The way to the first of them, which can be cut."""
    sites[0].fault("*", Drip(MIB // 2, 0.01))
    with relay(sites[0].port) as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, retries=1, stall_timeout=20)


def offer(desk: Desk, *urls: str) -> None:
    desk.offer("big", artifact("big.bin", BIG, *urls))


def offer_through(desk: Desk, link: Relay, sites: list[Site]) -> None:
    first, *others = (site.url("/big.bin") for site in sites)
    offer(desk, link.through(first), *others)


def test_the_second_mirror_continues_what_the_first_began(
    desk: Desk, sites: list[Site], link: Relay
) -> None:
    """The first one is gone for good: nothing of what it gave is asked for again."""
    offer_through(desk, link, sites)
    with meanwhile(desk, GONE_AT, lambda: link.cut(reset=True)):
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert sites[1].sent("/big.bin") <= len(BIG) - GONE_AT + ON_ITS_WAY
    assert found.bytes_downloaded <= len(BIG) + ON_ITS_WAY
    assert not sites[2].requests


def test_the_next_call_continues_at_another_mirror(
    desk: Desk, sites: list[Site], link: Relay
) -> None:
    """As it does within one call; the registry may have got the mirror only since then."""
    offer(desk, link.through(sites[0].url("/big.bin")))
    with meanwhile(desk, GONE_AT, lambda: link.cut(reset=True)):
        kept = error_of(desk.fetch("big")).facts["bytes_kept"]
    offer(desk, sites[1].url("/big.bin"))
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_resumed == kept >= GONE_AT - ON_ITS_WAY
    assert sites[1].sent("/big.bin") <= len(BIG) - kept + ON_ITS_WAY


@pytest.mark.parametrize(
    "fault", [OtherContent(OTHER), OtherContent(BIG + OTHER)], ids=["shorter", "longer"]
)
def test_a_mirror_with_another_size_is_not_mixed_in(
    desk: Desk, sites: list[Site], link: Relay, fault: Fault
) -> None:
    """Its answer says so before a byte is taken; the third one continues."""
    sites[1].fault("*", fault)
    offer_through(desk, link, sites)
    with meanwhile(desk, GONE_AT, lambda: link.cut(reset=True)):
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert sites[2].sent("/big.bin") <= len(BIG) - GONE_AT + ON_ITS_WAY
    assert sites[1].sent("/big.bin") <= 2 * ON_ITS_WAY


def test_a_mirror_without_ranges_starts_over_in_one_stream(
    desk: Desk, sites: list[Site], link: Relay
) -> None:
    sites[1].fault("*", IgnoreRange())
    offer_through(desk, link, sites)
    with meanwhile(desk, GONE_AT, lambda: link.cut(reset=True)):
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert sites[1].sent("/big.bin") <= len(BIG) + ON_ITS_WAY


@pytest.mark.parametrize("validators", [True, False], ids=["validators", "no validators"])
def test_a_mirror_with_wrong_bytes_is_named_and_left(
    desk: Desk, sites: list[Site], link: Relay, validators: bool
) -> None:
    """It continues what another one began, and spoils it; the others are not blamed.

    Named it can be only where it gave the whole file; where it did not, parts may not fit, and
    where others were faster, its wrong bytes never came.
    """
    sites[1].fault("*", Flip(28 * MIB), *([] if validators else [NoValidators()]))
    offer_through(desk, link, sites)
    with meanwhile(desk, GONE_AT, lambda: link.cut(reset=True)):
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    for notice in desk.notices:
        assert sites[1].url("/big.bin") in notice or "do not fit together" in notice
    assert sites[1].sent("/big.bin") <= 2 * len(BIG) - GONE_AT + ON_ITS_WAY
    assert sites[2].sent("/big.bin") <= len(BIG) + ON_ITS_WAY
    asked = len(sites[1].requests)
    assert desk.fetch("big").status == "cached"
    assert len(sites[1].requests) == asked


def test_all_mirrors_fail_each_in_its_own_way(desk: Desk, sites: list[Site], link: Relay) -> None:
    """The error has a line for each, and the next call goes on with the first that is well."""
    sites[1].fault("*", Refuse(404))
    sites[2].fault("*", OtherContent(OTHER))
    offer_through(desk, link, sites)
    with meanwhile(desk, GONE_AT, lambda: link.cut(reset=True)):
        error = error_of(desk.fetch("big"))
    assert error.code == 4
    lines = str(error).splitlines()[1:]
    assert [line.split(": ")[0].strip() for line in lines] == [
        link.through(sites[0].url("/big.bin")),
        sites[1].url("/big.bin"),
        sites[2].url("/big.bin"),
    ]
    assert "404" in lines[1]
    assert f"{len(OTHER)} bytes instead of {len(BIG)}" in lines[2]
    assert error.facts["bytes_kept"] >= GONE_AT - ON_ITS_WAY
    sites[2].mend()
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_resumed >= GONE_AT - ON_ITS_WAY


@pytest.mark.timeout(30)
@pytest.mark.parametrize("order", [1, -1], ids=["slow first", "slow second"])
def test_most_bytes_come_from_the_fast_mirror(tmp_path: Path, order: int) -> None:
    """One gives 64 MiB/s, the other a hundredth of it: the order in the registry is no fate."""
    files = {"/big.bin": BIG}
    with origin(files, rate=0.64 * MIB) as slow, origin(files, rate=64 * MIB) as fast:
        desk = Desk(tmp_path, stall_timeout=20)
        offer(desk, *(site.url("/big.bin") for site in (slow, fast)[::order]))
        assert desk.fetch("big").unwrap().read_bytes() == BIG
        assert slow.sent("/big.bin") < len(BIG) // 4
        assert fast.sent("/big.bin") >= len(BIG) * 3 // 4
