"""Mirrors: the order of the registry decides, until one is known to be much faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.transfer.hosts import Host
from dscache.transfer.mirrors import SOON, Mirrors, lags
from tests.downloads import Desk
from tests.making import artifact, content
from tests.origin import BEFORE_ANSWER, Drip, Fault, Flip, Site, Stall, origin

MIB = 1 << 20
BIG = content(24 * MIB, 1)

paces = st.none() | st.integers(0, 1000)


def mirrors_of(found: Mapping[str, float | None], resting: frozenset[str] = frozenset()) -> Mirrors:
    """Mirrors with these paces; some of them rest until the time 10."""
    hosts = {url: Host(4) for url in found}
    for url, host in hosts.items():
        host.pace = found[url]
        host.resting_until = 10.0 if url in resting else 0.0
    return Mirrors(hosts)


@given(st.lists(paces, min_size=1, max_size=6), st.frozensets(st.sampled_from("012345")))
def test_the_fastest_is_one_that_does_not_rest_and_none_is_much_faster(
    found: list[float | None], resting: frozenset[str]
) -> None:
    urls = {str(number): pace for number, pace in enumerate(found)}
    best = mirrors_of(urls, resting).fastest(urls, 5.0)
    awake = [url for url in urls if url not in resting]
    if best is None:
        assert not awake
        return
    assert best in awake
    known = [pace for url in awake if (pace := urls[url]) is not None]
    pace = urls[best]
    if pace is None:  # nothing is compared with what is not known
        assert best == awake[0]
    else:
        assert pace * 1.5**2 >= max(known)


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ({"a": None, "b": None}, "a"),
        ({"a": None, "b": 900.0}, "a"),
        ({"a": 100.0, "b": 100.0}, "a"),
        ({"a": 100.0, "b": 149.0}, "a"),
        ({"a": 100.0, "b": 151.0}, "b"),
        ({"a": 100.0, "b": None, "c": 1000.0}, "c"),
        ({"a": 0.0, "b": 1.0}, "b"),
        ({"a": 0.0, "b": 0.0}, "a"),
    ],
)
def test_the_order_of_the_registry_decides_between_sources_that_are_much_the_same(
    found: dict[str, float | None], best: str
) -> None:
    assert mirrors_of(found).fastest(found, 5.0) == best


def test_unmeasured_is_the_first_of_which_nothing_is_known_and_that_is_not_being_measured() -> None:
    mirrors = mirrors_of({"a": 5.0, "b": None, "c": None, "d": None}, frozenset("b"))
    assert mirrors.unmeasured("abcd", 5.0) == "c"
    assert mirrors.unmeasured("abcd", 15.0) == "b"
    mirrors.hosts["c"].long = 1
    assert mirrors.unmeasured("abcd", 5.0) == "d"
    assert mirrors.unmeasured("a", 5.0) is None


@given(st.floats(0, 1e9), st.integers(0, 1 << 40), st.floats(0, 1e9))
def test_only_what_is_much_slower_and_not_nearly_done_gives_way(
    pace: float, left: int, best: float
) -> None:
    if lags(pace, left, best):
        assert pace * 4 < best
        assert left > pace * SOON
    elif pace * 4 < best:
        assert left <= pace * SOON


def test_what_has_all_its_bytes_does_not_give_way() -> None:
    assert not lags(0.0, 0, 1e9)
    assert lags(0.0, 1, 1e9)


# --- Through the whole engine ---------------------------------------------------------------------


@pytest.fixture
def sites() -> Iterator[list[Site]]:
    with ExitStack() as stack:
        yield [stack.enter_context(origin({"/big.bin": BIG}, rate=16 * MIB)) for _ in range(2)]


def offered(folder: Path, sites: list[Site], **changes: object) -> Desk:
    desk = Desk(folder, stall_timeout=30, **changes)
    desk.offer("big", artifact("big.bin", BIG, *(site.url("/big.bin") for site in sites)))
    return desk


def test_of_two_equally_fast_the_first_in_the_registry_gives_most(
    tmp_path: Path, sites: list[Site]
) -> None:
    """The second may be measured by one piece of what has to be fetched anyway."""
    desk = offered(tmp_path, sites)
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert sites[0].sent("/big.bin") > sites[1].sent("/big.bin")
    assert len(sites[1].requests) <= 1
    assert found.bytes_downloaded < len(BIG) + 2 * MIB


def test_where_it_is_done_soon_no_other_is_asked(tmp_path: Path) -> None:
    with origin({"/big.bin": BIG}) as first, origin({"/big.bin": BIG}) as second:
        desk = offered(tmp_path, [first, second])
        assert desk.fetch("big").unwrap().read_bytes() == BIG
        assert not second.requests


@pytest.mark.timeout(25)
@pytest.mark.parametrize("after", [BEFORE_ANSWER, 0, 10_000])
def test_a_first_mirror_that_falls_silent_is_left_without_waiting_for_it(
    tmp_path: Path, sites: list[Site], after: int
) -> None:
    """The stall timeout is longer than this test may take."""
    sites[0].fault("*", Stall(after))
    desk = offered(tmp_path, sites)
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert not desk.retries
    assert len(sites[0].requests) <= 4


def test_a_slow_first_mirror_is_left_for_a_fast_second_one(tmp_path: Path) -> None:
    """Most bytes come from the second, though it is a hundred times slower only by connection."""
    with origin({"/big.bin": BIG}) as slow, origin({"/big.bin": BIG}) as fast:
        slow.fault("*", Drip(16 << 10, 0.05))
        fast.fault("*", Drip(MIB, 0.03))
        desk = offered(tmp_path, [slow, fast])
        found = desk.fetch("big")
        assert found.unwrap().read_bytes() == BIG
        assert fast.sent("/big.bin") > 0.8 * len(BIG)
        assert not desk.notices


@pytest.mark.parametrize("fault", [Flip(23 * MIB), Flip(0)], ids=["late", "early"])
def test_a_second_mirror_with_wrong_bytes_does_not_spoil_the_first(
    tmp_path: Path, sites: list[Site], fault: Fault
) -> None:
    """What it gave is fetched anew from the first; if that was wrong, it is named."""
    sites[0].fault("*", Drip(MIB // 8, 0.05))
    sites[1].fault("*", fault)
    desk = offered(tmp_path, sites)
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    told = "\n".join(desk.notices)
    assert sites[0].url("/big.bin") not in told
    if "starting over" in told:
        assert sites[1].url("/big.bin") in told
