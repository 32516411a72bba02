"""Connections that break, links that go down and come back, servers that are started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Lock

import pytest

from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.meanwhile import meanwhile
from tests.origin import Drip, Late, Site, Unsteady, origin
from tests.relay import Relay, relay
from tests.servers import Server, caddy, nginx
from tests.stores import faults_of

MIB = 1 << 20
JOBS = 4
#: What the buffers of both kernels and one piece of work may hold when a connection breaks.
PER_BREAK = 2 * MIB
BIG = content(40 * MIB, 1)
MANY = {f"/{n}.bin": content(20_000 + 1000 * (n % 7), n) for n in range(200)}


# --- Random resets --------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "seed"), [(0.01, 2), (0.05, 0), (0.2, 0)])
def test_resets_in_a_large_file(tmp_path: Path, share: float, seed: int) -> None:
    """In each MiB with that probability, so that 40 MiB see about one, two and ten of them."""
    with origin({"/big.bin": BIG}) as site:
        site.fault("/big.bin", Unsteady(share, seed))
        desk = Desk(tmp_path, retries=5, stall_timeout=20)
        desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
        found = desk.fetch("big")
        assert found.unwrap().read_bytes() == BIG
        breaks = len(desk.retries)
        assert breaks >= 1 or share < 0.2
        assert site.sent("/big.bin") - len(BIG) <= breaks * PER_BREAK
        assert found.bytes_downloaded - len(BIG) <= breaks * PER_BREAK
    assert not desk.parts
    assert faults_of(desk.root) == []


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_resets_in_many_files(tmp_path: Path, share: float) -> None:
    """In that share of the requests; no byte that came is asked for again."""
    with origin(MANY) as site:
        site.fault("*", Unsteady(share, seed=1))
        desk = Desk(tmp_path, retries=5, stall_timeout=20)
        names = [path.strip("/") for path in MANY]
        desk.offer("many", *(artifact(n, MANY[f"/{n}"], site.url(f"/{n}")) for n in names))
        folder = desk.fetch("many").unwrap()
        assert all((folder / name).read_bytes() == MANY[f"/{name}"] for name in names)
        assert len(desk.retries) >= 1
        twice = sum(map(site.sent, MANY)) - sum(map(len, MANY.values()))
        assert twice <= len(desk.retries) * max(map(len, MANY.values()))
    assert faults_of(desk.root) == []


# --- Links that go down ---------------------------------------------------------------------------


@pytest.fixture
def line() -> Iterator[tuple[Site, Relay]]:
    """An origin that takes a second for the large file, behind a link that can be cut."""
    with origin({"/big.bin": BIG}) as site, relay(site.port) as link:
        site.fault("/big.bin", Drip(MIB, 0.02))
        yield site, link


def outage(link: Relay, seconds: float, *, reset: bool) -> Callable[[], None]:
    """The link goes down and comes back after a while."""

    def happens() -> None:
        link.cut(reset=reset)
        time.sleep(seconds)
        link.restore()

    return happens


@pytest.mark.parametrize("reset", [True, False], ids=["refuses", "is silent"])
@pytest.mark.parametrize("seconds", [2.0, pytest.param(10.0, marks=pytest.mark.soak)])
def test_a_link_that_goes_down_and_comes_back(
    tmp_path: Path, line: tuple[Site, Relay], reset: bool, seconds: float
) -> None:
    """Whether others say so (connections are reset, new ones too) or nobody does."""
    site, link = line
    desk = Desk(tmp_path, jobs=JOBS, retries=7)
    desk.offer("big", artifact("big.bin", BIG, link.through(site.url("/big.bin"))))
    with meanwhile(desk, 16 * MIB, outage(link, seconds, reset=reset)):
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_downloaded - len(BIG) <= JOBS * PER_BREAK
    assert desk.retries or not reset


def test_a_silence_that_is_shorter_than_the_patience_costs_nothing(
    tmp_path: Path, line: tuple[Site, Relay]
) -> None:
    site, link = line
    desk = Desk(tmp_path, jobs=JOBS, stall_timeout=20)
    desk.offer("big", artifact("big.bin", BIG, link.through(site.url("/big.bin"))))
    with meanwhile(desk, 16 * MIB, outage(link, 1.0, reset=False)):
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert not desk.retries
    assert found.bytes_downloaded <= len(BIG) + PER_BREAK


@pytest.mark.parametrize("reset", [True, False], ids=["refuses", "is silent"])
def test_a_link_that_stays_down(tmp_path: Path, line: tuple[Site, Relay], reset: bool) -> None:
    """The call ends, says what is kept, and the next one continues from there."""
    site, link = line
    desk = Desk(tmp_path, jobs=JOBS, retries=0, connect_timeout=1)
    desk.offer("big", artifact("big.bin", BIG, link.through(site.url("/big.bin"))))
    with meanwhile(desk, 16 * MIB, lambda: link.cut(reset=reset)):
        error = error_of(desk.fetch("big"))
    assert error.code == 4
    kept = error.facts["bytes_kept"]
    assert kept >= 14 * MIB
    assert "are kept and will be used" in error.hint
    link.restore()
    found = Desk(tmp_path, stall_timeout=20).fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_resumed == kept
    assert found.bytes_downloaded <= len(BIG) - kept + PER_BREAK


def test_many_files_over_a_link_that_goes_down_and_comes_back(tmp_path: Path) -> None:
    with origin(MANY) as site, relay(site.port) as link:
        site.fault("*", Late(0.02))
        desk = Desk(tmp_path, jobs=JOBS, retries=7)
        names = [path.strip("/") for path in MANY]
        through = {name: link.through(site.url(f"/{name}")) for name in names}
        desk.offer("many", *(artifact(n, MANY[f"/{n}"], through[n]) for n in names))
        desk.offer("big", artifact("big.bin", BIG, link.through(site.url("/big.bin"))))
        site.files["/big.bin"] = BIG
        site.fault("/big.bin", Drip(MIB, 0.02))
        with meanwhile(desk, 4 * MIB, outage(link, 1.0, reset=True)):
            found = desk.fetch_all("many", "big")
        folder = found[0].unwrap()
        assert all((folder / name).read_bytes() == MANY[f"/{name}"] for name in names)
        assert found[1].unwrap().read_bytes() == BIG


# --- Servers that are started again ---------------------------------------------------------------


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/big.bin").write_bytes(BIG)
    with request.param(tmp_path / "files", tmp_path / "server") as running:
        yield running


@pytest.mark.parametrize("gap", [0.0, 1.0], ids=["at once", "later"])
def test_a_server_that_is_restarted(tmp_path: Path, server: Server, gap: float) -> None:
    """On its port, with its files: what had come by then is not asked for again."""
    desk = Desk(tmp_path, jobs=JOBS, retries=7, limit_rate="48MiB")
    desk.offer("big", artifact("big.bin", BIG, f"{server.url}/big.bin"))

    def restart() -> None:
        server.stop(kill=True)
        time.sleep(gap)
        server.start()

    before = len(server.requests())
    with meanwhile(desk, 16 * MIB, restart):
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_downloaded - len(BIG) <= JOBS * PER_BREAK
    # A server that is killed does not log what it was doing: these are the requests after it.
    later = server.requests(at_least=before + 1)[before:]
    assert sum(seen.sent for seen in later) <= len(BIG) - 16 * MIB + JOBS * PER_BREAK
    assert faults_of(desk.root) == []


def test_a_server_that_is_restarted_again_and_again(tmp_path: Path, server: Server) -> None:
    """More often than there are retries: each time it brings something, and that counts."""
    desk = Desk(tmp_path, jobs=JOBS, retries=3, limit_rate="48MiB")
    desk.offer("big", artifact("big.bin", BIG, f"{server.url}/big.bin"))
    one_at_a_time = Lock()

    def restart() -> None:
        with one_at_a_time:
            server.restart()

    with ExitStack() as stack:
        for number in range(1, 6):
            stack.enter_context(meanwhile(desk, number * 6 * MIB, restart))
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_downloaded - len(BIG) <= 5 * JOBS * PER_BREAK
