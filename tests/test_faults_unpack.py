"""Unpacking by many processes, by killed and interrupted ones, and onto disks that are full.

The processes are real: new interpreters, started, held back and killed from here.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import dscache
from dscache.cache import Cache
from dscache.errors import StorageError
from tests.archives import File, compressed, packed
from tests.children import Died, forked, running
from tests.downloads import Desk, error_of, moments
from tests.making import Shelf, artifact, content
from tests.mounts import mounted
from tests.origin import Drip, Site, origin
from tests.stores import KILLED, Fault, faults_of, files_below

MIB = 1 << 20
MANY = {f"f{number % 20}/{number}": content(700, number) for number in range(1500)}
TAR = packed("tar", *(File(name, data) for name, data in MANY.items()))
ZIP = packed("zip-deflated", *(File(name, data) for name, data in MANY.items()))

#: Fetches a dataset when it is told to.
FETCH = """
import json, sys
from dscache.cache import Cache
import dscache.bringing, dscache.sources.http, dscache.store.locks, dscache.unpack.unpacking

print("ready", flush=True)
sys.stdin.readline()
(found,) = Cache().fetch_all([sys.argv[1]])
print(json.dumps({"path": str(found.unwrap()), "downloaded": found.bytes_downloaded}))
"""
#: The command line, on a disk that takes its time for each write.
SLOW = """
import runpy, sys, time
from dscache import filesystem

write, seconds = filesystem.write, float(sys.argv[1])

def slowly(*arguments):
    time.sleep(seconds)
    return write(*arguments)

filesystem.write = slowly
sys.argv = ["dscache", "fetch", *sys.argv[2:]]
runpy.run_module("dscache", run_name="__main__")
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/x.tar": TAR, "/x.zip": ZIP}) as found:
        yield found


@pytest.fixture
def shelf(shelf: Shelf, site: Site) -> Shelf:
    for kind, data in (("tar", TAR), ("zip", ZIP)):
        one = artifact(f"x.{kind}", data, site.url(f"/x.{kind}"))
        shelf.add(f"{kind}-packed", [one])
        shelf.add(kind, [one | {"unpack": kind}])
    return shelf


def of(folder: str | Path) -> dict[str, bytes]:
    """The files in a folder, by their paths."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_below(folder)}


def drafts(cache: Path) -> list[Path]:
    return list(cache.glob("parts/*.tree"))


def drafted(cache: Path) -> int:
    """How many files unpacking has made so far."""
    return sum(len(names) for each in drafts(cache) for _, _, names in os.walk(each))


def written(draft: Path) -> bool:
    """True if a file of a draft has its first bytes."""
    return any(
        os.stat(f"{folder}/{name}").st_size
        for folder, _, names in os.walk(draft / "files")
        for name in names
    )


def until_drafted(cache: Path, count: int, process: subprocess.Popen[str]) -> None:
    for _ in moments():
        if drafted(cache) >= count or process.poll() is not None:
            return
        time.sleep(0.001)


# --- Processes ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("start", ["from HTTP", "from a blob"])
def test_of_8_processes_one_downloads_and_all_have_one_tree(
    site: Site, home: Path, kind: str, start: str
) -> None:
    if start == "from a blob":
        dscache.fetch(f"{kind}-packed")
    with ExitStack() as stack:
        processes = [stack.enter_context(running(FETCH, kind)) for _ in range(8)]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        said = [process.communicate("\n", timeout=60) for process in _let_go(processes)]
    results = [json.loads(out) for out, err in said if out or pytest.fail(err)]
    assert len({result["path"] for result in results}) == 1
    assert of(results[0]["path"]) == MANY
    assert site.sent(f"/x.{kind}") == len(TAR if kind == "tar" else ZIP)
    assert len(list(home.glob("cache/trees/*/*"))) == 1
    assert os.listdir(home / "cache/parts") == []
    assert faults_of(home / "cache") == []


def _let_go(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_kill_while_it_unpacks_costs_only_work(site: Site, home: Path, kind: str) -> None:
    chance = random.Random(kind)
    for number in range(5):
        with running(FETCH, kind) as process:
            _let_go([process])
            until_drafted(home / "cache", chance.randrange(1, len(MANY)), process)
            process.kill()
            process.wait()
        assert faults_of(home / "cache") == [], number
        assert len(drafts(home / "cache")) <= 1, "the next one removes what a dead one left"
    assert of(dscache.fetch(kind)) == MANY
    assert drafts(home / "cache") == []
    assert faults_of(home / "cache") == []


@pytest.mark.usefixtures("shelf")
def test_a_kill_while_it_arrives_costs_what_was_on_its_way(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSCACHE_JOBS", "1")  # one stream is resumed to the byte
    site.fault("/x.tar", Drip(256 << 10, 0.05))
    with running(FETCH, "tar") as process:
        _let_go([process])
        until_drafted(home / "cache", 3, process)  # whose it is, the list, and a member
        process.kill()
        process.wait()
    (found,) = Cache().fetch_all(["tar"])
    assert of(found.unwrap()) == MANY
    assert found.bytes_resumed + found.bytes_downloaded == len(TAR)
    assert os.listdir(home / "cache/parts") == []


# --- Signals --------------------------------------------------------------------------------------

#: Nearly all of it zeros, but not so many that they would be refused.
LONG = content(MIB // 2) + bytes(100 * MIB)


@pytest.mark.parametrize(
    ("kind", "seconds", "start"),
    [
        ("tar", 0.05, "from HTTP"),
        ("tar", 0.05, "from a blob"),
        ("zip", 0.05, "from HTTP"),
        ("one large member", 0.5, "from a blob"),
        ("a single file", 0.5, "from a blob"),
        ("a single file in an archive", 0.5, "from a blob"),
    ],
)
def test_a_signal_ends_it_soon_and_leaves_no_draft(
    shelf: Shelf, site: Site, home: Path, kind: str, seconds: float, start: str
) -> None:
    """Each would go on for a minute."""
    files = 4 if kind.endswith("in an archive") else 3  # whose it is, the list, and members
    if kind not in ("tar", "zip"):
        single = compressed("gzip", LONG)
        data, recipe = {
            "one large member": (packed("zip-deflated", File("a", LONG)), "zip"),
            "a single file": (single, "gzip"),
            "a single file in an archive": (packed("tar", File("a.gz", single)), "tar+gzip"),
        }[kind]
        site.files["/large"] = data
        one = artifact("large.gz", data, site.url("/large"))
        shelf.add(kind := "large", [one | {"unpack": recipe}])
        shelf.add("large-packed", [one])
    if start == "from a blob":
        dscache.fetch(f"{kind}-packed")
    blobs = len(files_below(home / "cache/blobs"))
    with running(SLOW, str(seconds), kind) as process:
        until_drafted(home / "cache", files, process)
        for _ in moments():
            if process.poll() is not None or any(map(written, drafts(home / "cache"))):
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert drafts(home / "cache") == []
    assert not list(home.glob("cache/trees/*/*"))
    assert len(files_below(home / "cache/blobs")) >= blobs
    assert faults_of(home / "cache") == []


# --- Disks ----------------------------------------------------------------------------------------


def on_disk(tmp_path: Path, disk: Path) -> Desk:
    """A desk whose cache is on another disk."""
    made = Desk(tmp_path)
    (tmp_path / "cache").symlink_to(disk)
    return made


@pytest.mark.parametrize("size", [None, 12 * MIB], ids=["when it is complete", "on its way"])
def test_a_disk_that_becomes_full(tmp_path: Path, site: Site, size: int | None) -> None:
    noise, zeros = content(3 * MIB), bytes(14 * MIB)
    data = site.files["/x"] = packed("tar.gz", File("noise", noise), File("zeros", zeros))
    keys = {"size": None} if size is None else {}
    with mounted("tmpfs", 28 * MIB, tmp_path / "disk") as disk:
        desk = on_disk(tmp_path, disk)
        desk.offer("one", artifact("x.tgz", data, site.url("/x"), unpack="tar", **keys))
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(12 * MIB))
        error = error_of(desk.fetch("one"))
        assert (type(error), error.code) == (StorageError, 6)
        assert "No space left on device" in str(error)
        assert os.listdir(disk / "parts") == []
        assert len(files_below(disk / "blobs")) == 1
        ballast.unlink()
        found = desk.fetch("one")
        assert of(found.unwrap()) == {"noise": noise, "zeros": zeros}
        assert found.bytes_downloaded == 0
        assert faults_of(disk) == []


def test_a_disk_without_room_for_more_files(tmp_path: Path, site: Site) -> None:
    with mounted("ext4", 8 * MIB, tmp_path / "disk") as disk:
        desk = on_disk(tmp_path, disk)
        data = packed("zip", *(File(f"{number}") for number in range(600)))
        site.files["/x"] = data
        desk.offer("one", artifact("x.zip", data, site.url("/x"), unpack="zip"))
        (disk / "ballast").mkdir()
        for number in range(os.statvfs(disk).f_favail - 300):
            (disk / f"ballast/{number}").touch()
        error = error_of(desk.fetch("one"))
        assert error.code == 6
        assert "No space left on device" in str(error)
        assert os.listdir(disk / "parts") == []
        for path in (disk / "ballast").iterdir():
            path.unlink()
        found = desk.fetch("one")
        assert len(of(found.unwrap())) == 600
        assert site.sent("/x") == len(data)


# --- Steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "fail"])
def test_a_fault_at_a_step_of_a_fetch_costs_only_work(home: Path, shelf: Shelf, how: str) -> None:
    members = {"a": b"1", "in/b": content(3000), "in/c": b""}
    tar = packed("tar", *(File(name, data) for name, data in members.items()))
    (shelf.folder / "s.tar").write_bytes(tar)
    (shelf.folder / "s.gz").write_bytes(compressed("gzip", b"2"))
    shelf.add(
        "small",
        [
            artifact("s.tar", tar, "s.tar", unpack="tar"),
            artifact("s.gz", compressed("gzip", b"2"), "s.gz", unpack="gzip"),
        ],
    )
    expected = members | {"s": b"2"}

    def work(root: Path) -> None:
        cache = Cache(root)
        assert of(cache.fetch("small")) == expected
        assert cache.fetch_all(["small"])[0].status == "cached"

    def strike(root: Path, at: int) -> str:
        def child() -> str:
            taken = Fault(at, how).arm()
            try:
                work(root)
            except StorageError as error:
                return "failed" if error.code == 6 else f"code {error.code}"
            return "done" if taken() < at else "survived"

        try:
            return forked(child)
        except Died as error:
            return "killed" if error.code == KILLED else str(error)

    work(home / "first")  # also imports everything, so that children need not
    outcomes: list[str] = []
    for at in itertools.count(1, 3):
        root = home / f"cache{at}"
        outcomes.append(strike(root, at))
        assert outcomes[-1] in ("killed", "failed", "survived", "done"), at
        assert faults_of(root, expected) == [], at
        if outcomes[-1] == "done":
            break
        forked(lambda root=root: work(root))  # type: ignore[misc]
        assert faults_of(root, expected) == [], at
    assert outcomes.count("killed" if how == "kill" else "failed") > 12
