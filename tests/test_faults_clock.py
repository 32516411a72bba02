"""Clocks that are wrong, or become so: waits and kept bytes do not depend on the time of day.

A forked child has the wrong clock; the servers have the right one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dscache.errors import DscacheError
from tests.children import forked
from tests.downloads import Desk
from tests.making import artifact, content
from tests.origin import Drip, Drop, Refuse, Site, http_date, origin

MIB = 1 << 20
HOUR = 3600.0
BIG = content(24 * MIB, 1)
Result = TypeVar("Result")


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/big.bin": BIG}) as found:
        found.fault("*", Drip(MIB, 0.02))
        yield found


@pytest.fixture
def desk(tmp_path: Path, site: Site) -> Desk:
    made = Desk(tmp_path, retries=4, stall_timeout=20)
    made.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    return made


def with_clock(error: Callable[[], float], work: Callable[[], Result]) -> Result:
    """Do something in a child whose clock is wrong by so many seconds at each moment."""

    def child() -> Result:
        right, right_ns = time.time, time.time_ns
        time.time = lambda: right() + error()
        time.time_ns = lambda: right_ns() + round(error() * 1e9)
        return work()

    return forked(child)


def _to_and_fro() -> float:
    """Another hour each quarter of a second: right, ahead, behind."""
    return (0.0, HOUR, -HOUR)[int(time.monotonic() * 4) % 3]


def _of(desk: Desk) -> dict[str, Any]:
    found = desk.fetch("big")
    return {"status": found.status, "path": found.path, "error": found.error}


def test_a_clock_that_jumps_while_a_file_arrives(desk: Desk, site: Site) -> None:
    """By an hour, forward and backward, with breaks and a server that asks for patience."""
    site.fault("/big.bin", Drop(6 * MIB), times=1)
    site.fault("/big.bin", Refuse(503, retry_after="1"), skip=1, times=1)
    site.fault("/big.bin", Drop(6 * MIB), skip=2, times=1)
    found = with_clock(_to_and_fro, lambda: _of(desk))
    assert found["error"] is None
    assert found["path"].read_bytes() == BIG
    assert [seen.range for seen in site.requests].count("") == 1  # it never began again
    for clock in (lambda: HOUR, lambda: -HOUR):
        assert with_clock(clock, lambda: _of(desk))["status"] == "cached"


@pytest.mark.parametrize("error", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_kept_bytes_of_a_wrong_clock_are_used(desk: Desk, site: Site, error: float) -> None:
    """Whether the clock was wrong when they came, or is wrong now."""
    clocks = [lambda: error, lambda: 0.0, lambda: error]
    kept = 0
    for clock, reached in zip(clocks[:2], (8 * MIB, 16 * MIB), strict=True):
        site.mend()
        site.fault("/big.bin", Drop(8 * MIB), times=1)
        site.fault("/big.bin", Refuse(404), skip=1)
        failed = with_clock(clock, lambda: _of(desk))
        assert isinstance(failed["error"], DscacheError)
        kept = failed["error"].facts["bytes_kept"]
        assert kept >= reached
    site.mend()
    found = with_clock(clocks[2], lambda: desk.fetch("big"))
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_resumed == kept
    assert found.bytes_downloaded <= len(BIG) - kept + 2 * MIB


@pytest.mark.parametrize("error", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_date_to_come_back_at_is_by_the_clock_of_the_server(
    desk: Desk, site: Site, error: float
) -> None:
    """Which says what time it is in the same answer: three seconds are no hour."""
    site.fault("/big.bin", Refuse(503, retry_after=http_date(3)), times=1)
    found = with_clock(lambda: error, lambda: _of(desk))
    assert found["error"] is None
    refused, second = site.requests[:2]
    assert second.began - refused.began >= 0.5


@pytest.mark.parametrize(
    "after", ["soon", "-5", "1e9", "99999999999999999999", formatdate(0, usegmt=True)]
)
def test_a_time_that_makes_no_sense_is_no_reason_to_wait(
    desk: Desk, site: Site, after: str
) -> None:
    site.fault("/big.bin", Refuse(503, retry_after=after), times=1)
    assert desk.fetch("big").unwrap().read_bytes() == BIG
