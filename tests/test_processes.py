"""Many processes on one cache: one downloads, all get the right bytes, and a killed one costs only
what was on its way.

The processes are real: new interpreters, started, held back and killed from here. What crosses the
network is counted at the origin.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import dscache
from dscache.cache import Cache
from tests.children import forked, interpreter, running
from tests.making import Shelf, artifact, content, md5
from tests.origin import Drip, Late, Site, origin
from tests.stores import faults_of, files_below

MIB = 1 << 20
LITTLE = {f"little{n}.bin": content(3000 + n, n) for n in range(20)}
LARGE = {"large.bin": content(4 * MIB, 100), "larger.bin": content(6 * MIB, 101)}
WEAK = {"weak.bin": content(20_000, 102)}
HUGE = content(24 * MIB, 1)

# Prints a JSON line for each wait and for each dataset. Begins when it is told to.
FETCH = """
import json, sys
from dscache.cache import Cache
from dscache.events import Waiting
import dscache.bringing, dscache.sources.http, dscache.store.locks

{prelude}

def tell(event):
    if isinstance(event, Waiting):
        print(json.dumps({{"waits for": event.what, "holder": event.holder}}), flush=True)

print("ready", flush=True)
sys.stdin.readline()
for found in Cache().fetch_all(sys.argv[1:], progress=tell):
    error = found.error and f"{{type(found.error).__name__}}: {{found.error}}"
    told = {{"name": found.name, "path": str(found.path), "status": found.status, "error": error,
            "downloaded": found.bytes_downloaded, "resumed": found.bytes_resumed}}
    print(json.dumps(told), flush=True)
"""
NO_LOCKS = """
import filelock
from dscache.store.markers import Markers
filelock.FileLock.acquire = lambda self, *_, **__: None
Markers.acquire = lambda self, *_: lambda: None
"""

LYING_FLOCK = "int flock(int fd, int operation) { return 0; }\n"


class Fetcher:
    """A process that fetches datasets when it is let go."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._line()

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def told(self) -> dict[str, Any]:
        """The next thing it says."""
        found: dict[str, Any] = json.loads(self._line())
        return found

    def results(self) -> list[dict[str, Any]]:
        """What it says in the end; it must end well, and without errors."""
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        told: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
        results = [each for each in told if "name" in each]
        assert [each["error"] for each in results if each["error"]] == []
        return results

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        return line


@contextmanager
def fetchers(
    *wishes: tuple[str, ...], prelude: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[list[Fetcher]]:
    """One process for each tuple of names, ready to go."""
    code = FETCH.format(prelude=prelude)
    with ExitStack() as stack:
        started = [
            stack.enter_context(running(code, *names, environment=environment)) for names in wishes
        ]
        yield [Fetcher(process) for process in started]


def until(done: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


def arrived(home: Path) -> int:
    """Bytes of the largest part in the cache that would be used again after a kill."""
    sizes = [0]
    for path in (home / "cache/parts").glob("*.part"):
        with suppress(FileNotFoundError):
            # The length first: a journal without spans speaks of what stood there before that.
            length = path.stat().st_size
            spans = json.loads(path.with_suffix(".json").read_bytes())["spans"]
            sizes.append(length if spans is None else sum(end - start for start, end in spans))
    return max(sizes)


@pytest.fixture
def site() -> Iterator[Site]:
    data = LITTLE | LARGE | WEAK | {"huge.bin": HUGE}
    with origin({f"/{name}": each for name, each in data.items()}) as found:
        yield found


@pytest.fixture
def shelf(shelf: Shelf, home: Path, site: Site) -> Shelf:
    (home / "config.toml").write_text('lock_timeout = "30s"\n')

    def of(data: Mapping[str, bytes]) -> list[dict[str, Any]]:
        return [artifact(name, each, site.url(f"/{name}")) for name, each in data.items()]

    weak = [
        artifact(name, each, site.url(f"/{name}"), hash=md5(each), size=None)
        for name, each in WEAK.items()
    ]
    shelf.add("all", of(LITTLE | LARGE) + weak)
    shelf.add("some", of(dict(list(LITTLE.items())[:10]) | {"large.bin": LARGE["large.bin"]}))
    shelf.add("others", of(dict(list(LITTLE.items())[5:]) | LARGE))
    shelf.add("little", of(LITTLE))
    shelf.add("same", of(LITTLE))
    shelf.add("huge", of({"huge.bin": HUGE}))
    return shelf


@pytest.fixture
def lying(home: Path) -> dict[str, str]:
    """An environment in which every process is given every lock, those it starts included."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler, or no LD_PRELOAD")
    source, library = home / "flock.c", home / "flock.so"
    source.write_text(LYING_FLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}


def check(folder: str | Path, contents: Mapping[str, bytes]) -> None:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_below(folder)}
    assert found.keys() == contents.keys()
    assert found == dict(contents)


@pytest.mark.usefixtures("shelf")
def test_of_32_processes_one_downloads(home: Path, site: Site) -> None:
    with fetchers(*[("all",)] * 32) as processes:
        for process in processes:
            process.go()
        results = [result for process in processes for result in process.results()]
    assert {result["path"] for result in results} == {results[0]["path"]}
    check(results[0]["path"], LITTLE | LARGE | WEAK)
    for name, data in (LITTLE | LARGE | WEAK).items():
        assert site.sent(f"/{name}") == len(data)
        assert len([each for each in site.requests if each.path == f"/{name}"]) == 1
    assert sum(result["downloaded"] for result in results) == sum(
        map(len, (LITTLE | LARGE | WEAK).values())
    )
    assert faults_of(home / "cache") == []
    assert list((home / "cache/parts").iterdir()) == []
    # Small files share the lock of their fetch; only those that are large, or of unknown size,
    # have one of their own.
    assert len(list((home / "cache/locks").glob("*.lock"))) == 1 + len(LARGE) + len(WEAK)


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("count", [8, pytest.param(64, marks=pytest.mark.soak)])
def test_of_commands_that_begin_at_once_one_downloads(home: Path, site: Site, count: int) -> None:
    site.fault("*", Late(count / 16))  # none is done before the others have begun
    command = ("-m", "dscache", "fetch", "all", "huge", "--json")
    with ExitStack() as stack:
        started = [stack.enter_context(interpreter(*command)) for _ in range(count)]
        said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * count, said
    results = [result for out, _ in said for result in json.loads(out)]
    assert len({result["path"] for result in results}) == 2
    contents = LITTLE | LARGE | WEAK | {"huge.bin": HUGE}
    assert [site.sent(f"/{name}") for name in contents] == [*map(len, contents.values())]
    assert sum(result["bytes_downloaded"] for result in results) == sum(map(len, contents.values()))
    assert faults_of(home / "cache") == []


@pytest.mark.usefixtures("shelf")
def test_without_locks_work_is_done_twice_and_nothing_else(home: Path, site: Site) -> None:
    site.fault("*", Drip(64 << 10, 0.004))
    names = [("all",), ("some", "others")] * 4
    with fetchers(*names, prelude=NO_LOCKS) as processes:
        for process in processes:
            process.go()
        results = [result for process in processes for result in process.results()]
    assert site.sent("/large.bin") > len(LARGE["large.bin"])  # they did not wait for each other
    for result in results:
        if result["name"] == "all":
            check(result["path"], LITTLE | LARGE | WEAK)
    assert faults_of(home / "cache") == []
    assert Cache().fetch_all(["all", "some", "others"])[0].status == "cached"


@pytest.mark.usefixtures("shelf")
def test_where_locks_lie_one_downloads_all_the_same(
    home: Path, site: Site, lying: Mapping[str, str]
) -> None:
    with fetchers(*[("all",)] * 6, environment=lying) as processes:
        for process in processes:
            process.go()
        results = [result for process in processes for result in process.results()]
    check(results[0]["path"], LITTLE | LARGE | WEAK)
    for name, data in (LITTLE | LARGE | WEAK).items():
        assert site.sent(f"/{name}") == len(data)
    assert sum(result["status"] == "downloaded" for result in results) == 1
    assert faults_of(home / "cache") == []


@pytest.mark.usefixtures("shelf")
def test_where_locks_lie_a_killed_one_blocks_nobody(
    home: Path, site: Site, lying: Mapping[str, str]
) -> None:
    site.fault("/huge.bin", Drip(128 << 10, 0.004))
    with fetchers(("huge",), ("huge",), environment=lying) as (first, second):
        first.go()
        until(lambda: arrived(home) > 2 * MIB)
        second.go()
        assert str(first.process.pid) in second.told()["holder"]
        first.kill()
        (result,) = second.results()
    assert Path(result["path"]).read_bytes() == HUGE
    assert result["resumed"] >= MIB
    assert faults_of(home / "cache") == []


@pytest.mark.usefixtures("shelf")
def test_a_killed_download_goes_on_where_it_was(
    home: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSCACHE_JOBS", "1")  # one stream is resumed to the byte
    site.fault("/huge.bin", Drip(128 << 10, 0.002))
    kills = 6
    kept = []
    for number in range(1, kills + 1):
        goal = number * len(HUGE) // (kills + 2)
        with fetchers(("huge",)) as (process,):
            process.go()
            until(lambda goal=goal: arrived(home) >= goal)  # type: ignore[misc]
            process.kill()
        assert faults_of(home / "cache") == []
        kept.append(arrived(home))
    (found,) = Cache().fetch_all(["huge"])
    assert found.unwrap().read_bytes() == HUGE
    assert found.bytes_resumed + found.bytes_downloaded == len(HUGE)
    assert found.bytes_resumed >= kills * len(HUGE) // (kills + 2)
    ranges = [each.range for each in site.requests if each.path == "/huge.bin"]
    assert ranges == ["", *(f"bytes={count}-" for count in kept)]  # no byte twice
    assert list((home / "cache/parts").iterdir()) == []


@pytest.mark.usefixtures("shelf")
def test_of_many_files_a_killed_fetch_loses_those_on_their_way(home: Path, site: Site) -> None:
    site.fault("*", Late(30), skip=8)
    with fetchers(("little",)) as (process,):
        process.go()
        until(lambda: len(files_below(home / "cache/blobs")) == 8)
        process.kill()
    site.mend()
    here = sum(path.stat().st_size for path in files_below(home / "cache/blobs"))
    (found,) = Cache().fetch_all(["little"])
    check(found.unwrap(), LITTLE)
    assert found.bytes_downloaded == sum(map(len, LITTLE.values())) - here


@pytest.mark.usefixtures("shelf")
def test_those_who_wait_say_for_whom(site: Site) -> None:
    site.fault("*", Late(2.0), times=1)
    with fetchers(("little",), ("little",)) as (first, second):
        first.go()
        until(lambda: len(site.requests) >= 1)
        second.go()
        told = second.told()
        assert told["waits for"] == "shelf/little@1"
        assert told["holder"].startswith(
            f"process {first.process.pid} on {platform.node()}, since "
        )
        (mine,), (theirs,) = second.results(), first.results()
    assert mine["path"] == theirs["path"]
    assert (theirs["status"], mine["status"], mine["downloaded"]) == ("downloaded", "cached", 0)


@pytest.mark.usefixtures("shelf")
def test_when_the_one_who_downloads_is_killed_another_goes_on(home: Path, site: Site) -> None:
    site.fault("/huge.bin", Drip(128 << 10, 0.004))
    with fetchers(("huge",), ("huge",), ("huge",)) as (first, *others):
        first.go()
        until(lambda: arrived(home) > 2 * MIB)
        for other in others:
            other.go()
            assert str(first.process.pid) in other.told()["holder"]
        until(lambda: arrived(home) > 8 * MIB)
        first.kill()
        results = [other.results()[0] for other in others]
    assert {result["path"] for result in results} == {str(dscache.path("huge"))}
    assert Path(results[0]["path"]).read_bytes() == HUGE
    assert sum(result["resumed"] for result in results) >= 8 * MIB
    asked = [seen.range for seen in site.requests if seen.path == "/huge.bin"]
    assert asked.count("") == 1  # nobody began again
    assert faults_of(home / "cache") == []


@pytest.mark.usefixtures("shelf")
def test_overlapping_fetches_do_not_wait_for_each_other_for_ever(site: Site) -> None:
    site.fault("*", Late(0.05))
    names = ("all", "some", "others", "little")
    orders = [names, names[::-1], (*names[2:], *names[:2]), ("others", "all")] * 2
    with fetchers(*orders) as processes:
        for process in processes:
            process.go()
        for process, order in zip(processes, orders, strict=True):
            assert [result["name"] for result in process.results()] == list(order)


def test_one_who_waits_holds_nothing_that_others_wait_for(shelf: Shelf, site: Site) -> None:
    """Both wait for a third, each in another order; then each has what the other wants."""
    for number in range(6):
        name = f"/{number}.bin"
        site.files[name] = content(5000, 200 + number)
        shelf.add(f"n{number}", [artifact("a.bin", site.files[name], site.url(name))])
        site.fault(name, Late(0.4 + 0.15 * number))
    names = tuple(f"n{number}" for number in range(6))
    with fetchers(names, names, names[::-1], names, names[::-1]) as (first, *others):
        first.go()
        until(lambda: len(site.requests) == 6)
        for other in others:
            other.go()
        for each in (first, *others):
            assert len(each.results()) == 6
    assert len(site.requests) == 6


@pytest.mark.usefixtures("shelf")
def test_one_content_under_two_names_is_waited_for_once(site: Site) -> None:
    site.fault("*", Late(1.5), times=1)
    with fetchers(("little",), ("same", "little"), ("little", "same")) as (first, *others):
        first.go()
        until(lambda: len(site.requests) >= 1)
        for other in others:
            other.go()
        for each in (first, *others):
            each.results()
    assert sum(site.sent(f"/{name}") for name in LITTLE) == sum(map(len, LITTLE.values()))


@pytest.mark.usefixtures("shelf")
def test_a_fork_after_a_fetch_fetches_too() -> None:
    code = """
import os, sys
import dscache
first = dscache.fetch("little")
children = []
for number in range(3):
    pid = os.fork()
    if not pid:
        good = dscache.fetch("little") == first
        path = dscache.fetch("some")
        os._exit(0 if good and (path / "large.bin").stat().st_size == 4 << 20 else 1)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
dscache.fetch("all")
sys.exit(any(codes))
"""
    with running(code) as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_two_users_of_one_group_share_a_cache(
    home: Path, shelf: Shelf, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds what the first has brought, goes on with its parts, and links as it may."""
    dscache.fetch("all")  # imports all there is, which another user could not read
    before = len(site.requests)
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder)
        os.chown(shared, 0, 7000)
        shared.chmod(0o2775)
        monkeypatch.setenv("DSCACHE_DIR", str(shared / "cache"))
        monkeypatch.setenv("DSCACHE_REGISTRIES", str(shared / "shelf"))
        monkeypatch.setenv("DSCACHE_CONFIG", str(shared / "config.toml"))
        monkeypatch.chdir(shared)
        shutil.copytree(shelf.folder, shared / "shelf")

        def user(number: int, work: Callable[[], Any]) -> Any:
            def child() -> Any:
                os.setgroups([7000])
                os.setgid(7000)
                os.setuid(number)
                os.umask(0o002)
                return work()

            return forked(child)

        path = user(7001, lambda: dscache.fetch("some"))
        assert user(7002, lambda: dscache.fetch("some")) == path
        others = user(7002, lambda: dscache.fetch("others"))
        check(others, dict(list(LITTLE.items())[5:]) | LARGE)
        sent = [each.path for each in site.requests[before:]]
        assert len(sent) == len(set(sent)) == len(LITTLE | LARGE)

        def place() -> str:
            (found,) = Cache().fetch_all(["others"], into=shared / "mine")
            found.unwrap()
            return found.link

        assert user(7002, place) in ("reflink", "hardlink", "symlink")
        check(shared / "mine", dict(list(LITTLE.items())[5:]) | LARGE)
        assert faults_of(shared / "cache") == []
