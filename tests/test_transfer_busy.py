"""Servers that ask for patience, and servers that cannot be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from dscache.errors import TransferError
from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.origin import Drop, Late, Refuse, Site, http_date, most_at_once, origin
from tests.servers import free_port

SMALL, BIG = content(100_000, 1), content(3 << 20, 2)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/a.bin": SMALL, "/b.bin": SMALL, "/big.bin": BIG}) as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path, site: Site) -> Desk:
    made = Desk(tmp_path)
    made.offer("one", artifact("a.bin", SMALL, site.url("/a.bin")))
    made.offer("two", artifact("a.bin", SMALL, site.url("/a.bin"), site.url("/b.bin")))
    made.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    return made


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(desk: Desk, site: Site, status: int) -> None:
    site.fault("/a.bin", Refuse(status), times=1)
    assert desk.fetch("one").unwrap().read_bytes() == SMALL
    first, second = site.requests
    assert second.began - first.began > 0.05
    assert len(desk.retries) == 1
    assert str(status) in desk.retries[0]


@pytest.mark.parametrize("name", ["one", "big"])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("when", [lambda: "1", lambda: http_date(2)], ids=["seconds", "date"])
def test_retry_after_is_the_least_wait(
    desk: Desk, site: Site, name: str, status: int, when: Callable[[], str]
) -> None:
    """A date has no fractions of a second, so two of them are more than one."""
    site.fault("*", Refuse(status, retry_after=when()), times=1)
    assert desk.fetch(name).error is None
    first, second = site.requests
    assert second.began - first.began >= 1.0


def test_a_server_that_stays_busy_is_no_tight_loop(desk: Desk, site: Site) -> None:
    site.fault("*", Refuse(503, retry_after="0"))
    error = error_of(desk.fetch("one"))
    assert isinstance(error, TransferError)
    assert error.code == 4
    times = [seen.began for seen in site.requests]
    assert len(times) == 1 + desk.settings.retries
    assert all(later - sooner > 0.05 for sooner, later in pairwise(times))


def test_a_wait_that_is_too_long_means_the_next_mirror(desk: Desk, site: Site) -> None:
    site.fault("/a.bin", Refuse(503, retry_after="3600"))
    assert desk.fetch("two").unwrap().read_bytes() == SMALL
    assert [seen.path for seen in site.requests] == ["/a.bin", "/b.bin"]


def test_a_wait_that_is_too_long_is_told(desk: Desk, site: Site) -> None:
    site.fault("*", Refuse(503, retry_after="3600"))
    error = error_of(desk.fetch("one"))
    assert error.code == 4
    assert "60 min" in error.hint
    assert len(site.requests) == 1


def test_one_long_wait_counts_for_all_files_of_the_host(tmp_path: Path, site: Site) -> None:
    """Asking again for each file would make it longer."""
    desk = Desk(tmp_path, jobs=2)
    site.fault("*", Refuse(429, retry_after="3600"))
    site.files |= {f"/{number}": content(1000, number) for number in range(50)}
    for number in range(50):
        data = site.files[f"/{number}"]
        desk.offer(f"d{number}", artifact("a", data, site.url(f"/{number}")))
    found = desk.fetch_all(*(f"d{number}" for number in range(50)))
    assert [error_of(each).code for each in found] == [4] * 50
    assert all("60 min" in error_of(each).hint for each in found)
    assert len(site.requests) <= 2


def test_all_files_of_a_host_wait_together(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path, jobs=4)
    site.fault("*", Refuse(429, retry_after="1"), times=1)
    site.files |= {f"/{number}": content(1000, number) for number in range(40)}
    desk.offer(
        "many", *(artifact(f"{n}", site.files[f"/{n}"], site.url(f"/{n}")) for n in range(40))
    )
    assert desk.fetch("many").error is None
    refused = next(seen for seen in site.requests if seen.status == 429)
    assert refused.ended is not None
    # What was on its way already is not called back.
    rest = [seen.began for seen in site.requests if seen.began > refused.ended + 0.3]
    assert rest
    assert min(rest) >= refused.began + 1.0


def test_another_host_goes_on_meanwhile(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path, jobs=2)
    with origin({f"/{number}": content(1000, number) for number in range(30)}) as busy:
        busy.fault("*", Refuse(503, retry_after="2"), times=1)
        for number in range(30):
            data = busy.files[f"/{number}"]
            desk.offer(f"d{number}", artifact("a", data, busy.url(f"/{number}")))
        desk.offer("one", artifact("a.bin", SMALL, site.url("/a.bin")))
        names = [f"d{number}" for number in range(3)]
        found = desk.fetch_all(*names, "one")
        assert [each.error for each in found] == [None] * 4
        refused = next(seen for seen in busy.requests if seen.status == 503)
        assert site.requests[0].began < refused.began + 2.0


def test_a_busy_host_gets_fewer_connections(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path, jobs=8)
    site.files |= {f"/{number}": content(1000, number) for number in range(40)}
    site.fault("*", Refuse(429, retry_after="1"), times=1)
    site.fault("*", Late(0.05))
    desk.offer(
        "many", *(artifact(f"{n}", site.files[f"/{n}"], site.url(f"/{n}")) for n in range(40))
    )
    assert desk.fetch("many").error is None
    refused = next(seen for seen in site.requests if seen.status == 429)
    after = [seen for seen in site.requests if seen.began >= refused.began + 1.0]
    assert len(after) > 20
    assert most_at_once(after[:8]) <= 5


def test_nobody_listens(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path)
    nobody = f"http://127.0.0.1:{free_port()}/a.bin"
    desk.offer("both", artifact("a.bin", SMALL, nobody, site.url("/a.bin")))
    desk.offer("only", artifact("c.bin", content(5), nobody))
    assert desk.fetch("both").unwrap().read_bytes() == SMALL
    error = error_of(desk.fetch("only"))
    assert error.code == 4
    assert nobody in str(error)


def test_a_name_that_does_not_exist(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path, retries=1)
    nobody = "http://no-such-host.invalid/a.bin"
    desk.offer("both", artifact("a.bin", SMALL, nobody, site.url("/a.bin")))
    assert desk.fetch("both").unwrap().read_bytes() == SMALL


def test_mirrors_are_asked_in_order(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path)
    paths = ["/missing/1", "/missing/2", "/b.bin", "/a.bin"]
    desk.offer("one", artifact("a.bin", SMALL, *map(site.url, paths)))
    assert desk.fetch("one").unwrap().read_bytes() == SMALL
    assert [seen.path for seen in site.requests] == paths[:3]


def test_many_failing_files_end_soon(tmp_path: Path, site: Site) -> None:
    """The retries of a call have a budget, so that a dead server does not take all night."""
    desk = Desk(tmp_path, retries=1, jobs=8)
    site.fault("*", Drop(0))
    for number in range(60):
        desk.offer(f"d{number}", artifact("a", content(9, number), site.url(f"/{number}")))
    site.files |= {f"/{number}": content(9, number) for number in range(60)}
    found = desk.fetch_all(*(f"d{number}" for number in range(60)))
    assert all(error_of(each).code == 4 for each in found)
    assert len(site.requests) == 60 + 20
