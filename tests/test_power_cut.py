"""Power cuts for real: the image of a disk is copied while processes write to it, and the copy is
mounted as after a restart. What was not synced is lost or torn then, and never given out.

The copy is a reflink, so that it is of one moment. Only root on Linux can mount.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from dscache import copying
from dscache.cache import Cache
from dscache.errors import NotCached
from dscache.store import SMALL
from tests.archives import File, packed
from tests.children import forked
from tests.making import Shelf, artifact, content
from tests.mounts import MIB, SMALLEST, mounted, mounted_again
from tests.stores import boot, faults_of, let_an_hour_pass

_ROOT = Path(__file__).parents[1]
#: Kind, size and options of a disk. With those of the second, files have their length on the disk
#: before they have their bytes, and hold zeros then.
_DISKS = {
    "ext4": ("ext4", 96 * MIB, ""),
    "ext4, lengths first": ("ext4", 96 * MIB, "data=writeback,nodelalloc"),
    "xfs": ("xfs", SMALLEST["xfs"], ""),
}
_SETTINGS = 'durability = "{}"\nprune_grace = "0"\npart_max_age = "0"\nlease_ttl = "1s"\n'

#: Fetches, prunes and verifies for ever, and says what is here, and what may be gone.
WORK = """
import itertools, random, sys
from dscache.cache import Cache
chance, cache, names = random.Random(1), Cache(), sys.argv[1:]
for number in itertools.count():
    for name in chance.sample(names, 4):
        with cache.hold(name):
            print("here", name, flush=True)
    if number % 2:
        gone = chance.choice(names)
        print("gone", gone, flush=True)
        try:
            cache.prune(cache.plan_prune([gone]))
        except KeyError:
            pass
    if number % 8 == 5:
        cache.verify()
"""

Contents = Mapping[str, Mapping[str, bytes]]


@pytest.fixture
def contents(home: Path, monkeypatch: pytest.MonkeyPatch) -> Contents:
    """What the datasets of a registry hold."""
    shelf = Shelf(home / "shelf")
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
    found: dict[str, dict[str, bytes]] = {}
    for number in range(16):
        name = f"set{number}"
        files = {f"{name}/{at}.bin": content(900 * at + number, number) for at in range(3)}
        if number % 4 == 1:
            files[f"{name}/large.bin"] = content(SMALL + 1000 * number, number)
        rows = []
        if number % 4 == 2:
            data = packed("tar", *(File(path, each) for path, each in files.items()))
            rows = [artifact(f"{name}.tar", data, f"{name}.tar", unpack="tar")]
            (shelf.folder / f"{name}.tar").write_bytes(data)
        for path, data in () if rows else files.items():
            (shelf.folder / path.replace("/", "-")).write_bytes(data)
            rows.append(artifact(path, data, path.replace("/", "-")))
        shelf.add(name, rows)
        found[name] = files
    return found


class Machine:
    """A disk, in an image that can be copied in one moment, and processes that write to it."""

    def __init__(self, kind: str, depot: Path, home: Path) -> None:
        self._kind = kind
        self._depot = depot
        self._home = home
        self._count = 0

    @contextmanager
    def at_work(self, contents: Contents) -> Iterator[None]:
        """Three processes work on a cache on the disk, each with datasets of its own."""
        names = sorted(contents)
        started = []
        try:
            for number in range(3):
                with open(self._home / f"said{number}", "wb") as said:
                    command = [sys.executable, "-c", WORK, *names[number::3]]
                    environment = os.environ | {
                        "PYTHONPATH": str(_ROOT),
                        "DSCACHE_DIR": str(self._depot / "disk/cache"),
                    }
                    started.append(subprocess.Popen(command, env=environment, stdout=said))
            yield
            assert [each.poll() for each in started] == [None] * 3
        finally:
            for each in started:
                each.kill()
                each.wait()

    def go_on(self, seconds: float, chance: random.Random) -> None:
        """Let them work, while other programs have one file or another synced."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            walk = os.walk(self._depot / "disk")
            files = [Path(folder, name) for folder, _, names in walk for name in names]
            if files:
                sync(chance.choice(files))
            time.sleep(0.02)

    def said(self) -> set[str]:
        """The datasets that are here, as has been said by now."""
        here = {}
        for path in self._home.glob("said*"):
            for line in path.read_text().splitlines():
                what, _, name = line.partition(" ")
                here[name] = what == "here"
        return {name for name, is_here in here.items() if is_here}

    def cut(self) -> Path:
        """An image of the disk as a power cut would leave it now."""
        self._count += 1
        image = self._depot / f"cut{self._count}.img"
        copying.clone(str(self._depot / "disk.img"), str(image))
        return image

    @contextmanager
    def restarted(self, image: Path) -> Iterator[Path]:
        """The cache as it stands after that."""
        with mounted_again(self._kind, image, image.with_suffix("")) as disk:
            yield disk / "cache"
        image.unlink()


def sync(path: Path) -> None:
    """Bring one file to the disk, if it is still there; what goes with it, the disk decides."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.fixture(params=_DISKS)
def machine(request: pytest.FixtureRequest, home: Path) -> Iterator[Machine]:
    """A disk of that kind, in an image on a filesystem that knows reflinks."""
    kind, size, options = _DISKS[request.param]
    with (
        mounted("xfs", 1024 * MIB, home / "depot") as depot,
        mounted(kind, size, depot / "disk", options=options),
    ):
        yield Machine(kind, depot, home)


def look(root: Path, contents: Contents, certain: set[str]) -> None:
    """What must be true after a power cut."""
    cache = Cache(root)
    let_an_hour_pass(root)
    missing = set()
    for name in contents:
        try:
            check(cache.path(name), contents[name])
        except NotCached:
            missing.add(name)
    assert not missing & certain
    torn = missing & {path.name.partition("@")[0] for path in root.glob("records/shelf/*.json")}
    told = {name for each in cache.verify().corrupt for name in each.datasets}
    assert {f"shelf/{name}@1" for name in torn} <= told
    for name in contents:
        (found,) = cache.fetch_all([name])
        check(found.unwrap(), contents[name])
        assert found.status == "cached" or name not in certain
    cache.verify(repair=True)
    assert cache.verify(repair=True, full=True).corrupt == ()
    cache.prune(cache.plan_prune())
    everything = {path: data for files in contents.values() for path, data in files.items()}
    assert faults_of(root, everything) == []


def check(path: Path, wanted: Mapping[str, bytes]) -> None:
    """What was returned has the right bytes."""
    for name, data in wanted.items():
        assert (path / name).read_bytes() == data, name


def look_after_a_restart(name: str, root: Path, contents: Contents, certain: set[str]) -> None:
    """The same in another boot."""
    with boot(name):
        look(root, contents, certain)


@pytest.mark.parametrize("durability", ["lazy", "sync"])
def test_after_a_power_cut_nothing_unproven_is_given_out(
    home: Path, machine: Machine, contents: Contents, durability: str
) -> None:
    (home / "config.toml").write_text(_SETTINGS.format(durability))
    chance = random.Random(0)
    cuts: list[tuple[Path, set[str]]] = []
    with machine.at_work(contents):
        for _ in range(3):
            machine.go_on(chance.uniform(0.5, 1.5), chance)
            certain = machine.said() if durability == "sync" else set()
            cuts.append((machine.cut(), certain))
    for number, (image, certain) in enumerate(cuts):
        with machine.restarted(image) as root:
            forked(partial(look_after_a_restart, f"cut {number}", root, contents, certain))
