"""The pool: connections, waits, limits and memory, seen from the servers and the outside."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dscache import settings
from dscache.digest import Digest
from dscache.errors import StorageError
from dscache.events import Advanced, Event, Finished, Planned, Started
from dscache.model import Artifact
from dscache.sources.dispatch import Sources
from dscache.sources.retry import Policy
from dscache.store import Store
from dscache.transfer.delivery import Delivery, Limits
from dscache.transfer.wants import Delivered, Want
from dscache.unpack.rules import Limits as UnpackLimits
from tests.children import running
from tests.downloads import Desk, error_of
from tests.making import Shelf, artifact, content, sha256
from tests.origin import Drip, Drop, Late, Refuse, Site, Stall, most_at_once, origin
from tests.servers import nginx

MIB = 1 << 20
SMALL, BIG = content(100_000, 1), content(4 * MIB, 2)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/small.bin": SMALL, "/big.bin": BIG}) as found:
        yield found


def many(site: Site, count: int, size: int = 1000) -> list[dict[str, object]]:
    """Artifacts of as many files, which the site has from now on."""
    files = {f"/many/{number}": content(size, number) for number in range(count)}
    site.files |= files
    return [artifact(path[1:], data, site.url(path)) for path, data in files.items()]


# --- Connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 3])
def test_jobs_limits_connections(tmp_path: Path, site: Site, jobs: int) -> None:
    desk = Desk(tmp_path, jobs=jobs)
    desk.offer("many", *many(site, 30))
    site.fault("*", Late(0.01))
    desk.fetch("many").unwrap()
    assert most_at_once(site.requests) == jobs
    assert len({seen.connection for seen in site.requests}) == jobs


def test_jobs_limits_connections_over_all_hosts(tmp_path: Path, site: Site) -> None:
    with origin({}) as other:
        desk = Desk(tmp_path, jobs=3)
        files = many(site, 20)
        other.files |= site.files
        for each in files[::2]:
            each["urls"] = [str(url).replace(site.base, other.base) for url in each["urls"]]  # type: ignore[attr-defined]
        desk.offer("many", *files)
        for each_site in (site, other):
            each_site.fault("*", Late(0.01))
        desk.fetch("many").unwrap()
        assert most_at_once(site.requests + other.requests) <= 3


def test_connections_are_used_again(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path, jobs=4)
    desk.offer("many", *many(site, 200))
    desk.fetch("many").unwrap()
    assert len(site.requests) == 200
    assert len({seen.connection for seen in site.requests}) <= 4


def test_many_small_files(tmp_path: Path) -> None:
    files = {f"{number:04}.bin": content(1500, number) for number in range(2000)}
    (tmp_path / "files").mkdir()
    for name, data in files.items():
        (tmp_path / "files" / name).write_bytes(data)
    with nginx(tmp_path / "files", tmp_path / "nginx") as server:
        desk = Desk(tmp_path)
        desk.offer(
            "many", *(artifact(name, data, f"{server.url}/{name}") for name, data in files.items())
        )
        found = desk.fetch("many")
        folder = found.unwrap()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
        assert found.bytes_downloaded == 1500 * 2000
        assert len(server.requests(at_least=2000)) == 2000
    assert len(desk.told(Finished)) == len(desk.told(Started)) == 2000
    assert not desk.below("parts")
    assert len(desk.below("locks")) < 10


def test_files_of_all_kinds_at_once(tmp_path: Path, site: Site) -> None:
    site.files |= {"/empty": b"", "/1m": content(MIB, 5), "/1m1": content(MIB + 1, 6)}
    (tmp_path / "local.bin").write_bytes(content(3 * MIB, 7))
    desk = Desk(tmp_path, jobs=3)
    desk.offer(
        "mixed",
        artifact("big", BIG, site.url("/big.bin")),
        artifact("empty", b"", site.url("/empty")),
        artifact("edge", site.files["/1m"], site.url("/1m")),
        artifact("above", site.files["/1m1"], site.url("/1m1")),
        artifact("local", content(3 * MIB, 7), str(tmp_path / "local.bin")),
        artifact("unknown", SMALL, site.url("/small.bin"), size=None),
    )
    found = desk.fetch("mixed")
    folder = found.unwrap()
    assert (folder / "big").read_bytes() == BIG
    assert (folder / "empty").read_bytes() == b""
    assert (folder / "edge").read_bytes() == site.files["/1m"]
    assert (folder / "above").read_bytes() == site.files["/1m1"]
    assert (folder / "local").read_bytes() == content(3 * MIB, 7)
    assert (folder / "unknown").read_bytes() == SMALL
    assert found.bytes_downloaded == len(BIG) + 2 * MIB + 1 + len(SMALL)


def test_more_open_files_than_select_can_take(tmp_path: Path, site: Site) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("the system gives no 2,048 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        desk = Desk(tmp_path)
        desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
        assert desk.fetch("big").unwrap().read_bytes() == BIG
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nothing_is_left_of_a_call(tmp_path: Path, site: Site) -> None:
    """No thread, no descriptor, no connection: a fork may come next."""
    desk = Desk(tmp_path)
    desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    desk.offer("small", artifact("small.bin", SMALL, site.url("/small.bin")))
    desk.fetch("small").unwrap()
    gc.collect()
    threads, descriptors = threading.active_count(), len(os.listdir("/dev/fd"))
    desk.fetch("big").unwrap()
    gc.collect()
    assert len(os.listdir("/dev/fd")) <= descriptors + 1  # the origin's side may linger
    assert threading.active_count() <= threads + 1


# --- Waiting --------------------------------------------------------------------------------------


def test_waiting_takes_no_processor(tmp_path: Path, site: Site) -> None:
    """While a server drips, and while a host rests."""
    desk = Desk(tmp_path)
    desk.offer("slow", artifact("small.bin", SMALL, site.url("/small.bin")))
    desk.offer("rest", artifact("big.bin", BIG, site.url("/big.bin")))
    desk.cache.available()
    site.fault("/small.bin", Drip(10_000, 0.15))
    site.fault("/big.bin", Refuse(503, retry_after="1"), times=1)
    began, used = time.monotonic(), time.thread_time()
    for found in desk.fetch_all("slow", "rest"):
        found.unwrap()
    assert time.monotonic() - began > 1.0
    assert time.thread_time() - used < 0.5


def test_what_is_here_already_costs_no_wait(tmp_path: Path, site: Site) -> None:
    """A pool with nothing to do does not look away first."""
    desk = Desk(tmp_path)
    desk.offer("one", artifact("a.bin", SMALL, site.url("/small.bin")))
    desk.fetch("one").unwrap()
    best = 1.0
    for number in range(10):
        desk.offer(f"d{number}", artifact(f"b{number}", SMALL, site.url("/small.bin")))
        began = time.perf_counter()
        assert desk.fetch(f"d{number}").status == "linked"
        best = min(best, time.perf_counter() - began)
    assert best < 0.25  # the look away


@pytest.mark.parametrize(("name", "size"), [("one", 2 * MIB), ("many", 100_000)])
def test_the_rate_is_limited(tmp_path: Path, site: Site, name: str, size: int) -> None:
    rate = MIB
    desk = Desk(tmp_path, limit_rate=rate)
    files = many(site, 2 * MIB // size, size)
    total = sum(len(site.files[f"/many/{n}"]) for n in range(len(files)))
    desk.offer(name, *files)
    began = time.monotonic()
    desk.fetch(name).unwrap()
    assert time.monotonic() - began >= 0.9 * total / rate


@pytest.mark.parametrize(("stall_rate", "is_given_up"), [(100 << 10, True), (1 << 10, False)])
def test_the_stall_rate_says_what_is_a_stall(
    tmp_path: Path, site: Site, stall_rate: int, is_given_up: bool
) -> None:
    site.fault("/small.bin", Drip(2500, 0.1))
    desk = Desk(tmp_path, retries=0, stall_timeout=1, stall_rate=stall_rate)
    desk.offer("small", artifact("small.bin", SMALL, site.url("/small.bin")))
    found = desk.fetch("small")
    assert (found.error is not None) == is_given_up
    if is_given_up:
        assert "too slow" in str(error_of(found))


def test_a_low_rate_is_no_stall(tmp_path: Path, site: Site) -> None:
    """Eight connections share 6 KiB a second; each has less than what a dead one gives."""
    desk = Desk(tmp_path, limit_rate="6KiB", jobs=8)
    desk.offer("many", *many(site, 8, 3000))
    desk.fetch("many").unwrap()
    assert not desk.retries


def test_progress_is_told(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path)
    desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    site.fault("/big.bin", Drip(MIB // 2, 0.12))
    desk.fetch("big").unwrap()
    done = [event.done for event in desk.told(Advanced)]
    assert len(done) >= 2
    assert done == sorted(done)
    assert desk.told(Planned) == [Planned(1, len(BIG))]
    assert [event.size for event in desk.told(Finished)] == [len(BIG)]


# --- Deliveries -----------------------------------------------------------------------------------


class Dock:
    """Deliveries into a store, without registries."""

    def __init__(self, folder: Path, jobs: int = 4) -> None:
        self.store = Store(str(folder / "cache"))
        self.store.prepare()
        self.events: list[Event] = []
        self._limits = Limits(jobs, 0, 1 << 30, Policy(retries=1), UnpackLimits(0, 0, 0))
        self._settings = settings.load(cache_dir=self.store.layout.root, stall_timeout=20)

    def deliver(self, *artifacts: Artifact) -> Iterator[Delivered]:
        sources = Sources(self._settings, self.store.layout.parts, self.events.append)
        delivery = Delivery(self.store, sources, self._limits, self.events.append)
        try:
            yield from delivery.run(Want(0, each) for each in artifacts)
        finally:
            sources.close()

    @property
    def kept(self) -> list[int]:
        """The sizes of the parts that a next attempt can use, in another process or this one."""
        parts = self.store.parts()
        return sorted(orphan.usable.total for found in parts._all().values() for orphan in found)


def wanted(path: str, data: bytes, *urls: str) -> Artifact:
    return Artifact(path, Digest.parse(sha256(data)), len(data), urls=urls)


def test_closing_early_keeps_what_has_arrived(tmp_path: Path, site: Site) -> None:
    site.fault("/big.bin", Stall(2 * MIB))
    site.fault("/small.bin", Late(0.5))
    dock = Dock(tmp_path, jobs=2)  # one for each, so that none helps the other
    delivered = dock.deliver(
        wanted("big", BIG, site.url("/big.bin")), wanted("small", SMALL, site.url("/small.bin"))
    )
    first = next(delivered)
    assert first.want.artifact.path == "small"
    delivered.close()  # type: ignore[attr-defined]
    assert dock.kept == [2 * MIB]


def test_a_consumer_that_fails_keeps_what_has_arrived(tmp_path: Path, site: Site) -> None:
    site.fault("/big.bin", Drop(2 * MIB), times=1)
    site.fault("/big.bin", Stall(0), skip=1)
    dock = Dock(tmp_path)

    def consume() -> None:
        for _ in dock.deliver(
            wanted("big", BIG, site.url("/big.bin")),
            wanted("small", SMALL, site.url("/slow.bin"), site.url("/small.bin")),
        ):
            raise ZeroDivisionError

    site.fault("/slow.bin", Refuse(404), Late(0.5))
    with pytest.raises(ZeroDivisionError):
        consume()
    assert dock.kept == [2 * MIB]
    site.mend()
    (found,) = dock.deliver(wanted("big", BIG, site.url("/big.bin")))
    assert found.blob is not None
    assert found.resumed == 2 * MIB


def test_hundreds_that_fail_at_once(tmp_path: Path, site: Site) -> None:
    """No want is lost, and none is told twice."""
    site.fault("*", Refuse(404))
    artifacts = [wanted(f"{n}", content(10, n), site.url(f"/{n}")) for n in range(300)]
    found = list(Dock(tmp_path).deliver(*artifacts))
    assert sorted(int(each.want.artifact.path) for each in found) == list(range(300))
    assert all(each.error for each in found)


def test_a_full_disk_stops_the_call(tmp_path: Path, site: Site) -> None:
    """With what has arrived kept; here a limit of the process plays the full disk."""
    pytest.importorskip("resource")
    desk = Desk(tmp_path)
    desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    site.fault("/big.bin", Drip(MIB // 2, 0.05))
    code = """
import resource, signal, sys
from dscache.cache import Cache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
(found,) = Cache().fetch_all(["shelf/big"], progress=lambda event: None)
print(found.error.code, type(found.error).__name__)
"""
    with running(code, environment=_environment(desk)) as child:
        output, errors = child.communicate(timeout=60)
    assert output.split() == ["6", "StorageError"], errors
    site.mend()
    assert MIB <= desk.fetch("big").bytes_resumed <= 3 * MIB


def _environment(desk: Desk) -> dict[str, str]:
    return {
        "DSCACHE_REGISTRIES": str(desk.shelf.folder),
        "DSCACHE_DIR": str(desk.root),
        "DSCACHE_CONFIG": os.devnull,
    }


def test_a_part_that_is_spoilt_while_it_grows(tmp_path: Path, site: Site) -> None:
    """Another program cuts the file that is hashed: an error, and no endless wait for its hash."""
    desk = Desk(tmp_path)
    site.files["/huge.bin"] = content(24 * MIB, 3)
    desk.offer("huge", artifact("huge.bin", site.files["/huge.bin"], site.url("/huge.bin")))
    site.fault("/huge.bin", Drip(4 * MIB, 0.2))

    def spoils(event: Event) -> None:
        if isinstance(event, Advanced) and event.done > 8 * MIB:
            for part in desk.parts:
                os.truncate(part, 0)

    desk.hear = spoils
    error = error_of(desk.fetch("huge"))
    assert isinstance(error, StorageError) or error.code in (5, 6)
    desk.hear = desk.events.append
    site.mend()
    assert desk.fetch("huge").unwrap().read_bytes() == site.files["/huge.bin"]


# --- Memory ---------------------------------------------------------------------------------------

MEASURED = """
import json, re, sys
from dscache.cache import Cache
(found,) = Cache().fetch_all([sys.argv[1]], progress=lambda event: None)
peak = int(re.search("VmHWM:[^0-9]*([0-9]+) kB", open("/proc/self/status").read())[1]) // 1024
print(json.dumps({"error": str(found.error or ""), "peak": peak}))
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Peak memory in MiB; the interpreter and the libraries alone take about 40."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("peak memory is not told here")
    size = 256 * MIB
    (tmp_path / "files").mkdir()
    data = content(MIB, 4)
    with (tmp_path / "files" / "huge.bin").open("wb") as file:
        for _ in range(size // MIB):
            file.write(data)
    digest = hashlib.sha256()
    for _ in range(size // MIB):
        digest.update(data)
    with nginx(tmp_path / "files", tmp_path / "nginx") as server:
        shelf = Shelf(tmp_path / "shelf")
        entry = {"path": "huge.bin", "size": size, "hash": f"sha256:{digest.hexdigest()}"}
        shelf.add("huge", [entry | {"urls": [f"{server.url}/huge.bin"]}])
        environment = {
            "DSCACHE_REGISTRIES": str(shelf.folder),
            "DSCACHE_DIR": str(tmp_path / "cache"),
        }
        with running(MEASURED, "huge", environment=environment) as child:
            output, errors = child.communicate(timeout=60)
    told = json.loads(output or "{}")
    assert told.get("error") == "", errors
    assert told["peak"] < 100
