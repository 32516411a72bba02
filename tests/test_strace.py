"""Faults in real runs of the command line, put into system calls by strace: nothing wrong is seen.

A first run tells which calls have to do with the cache. Then one of them fails, or the process is
killed at it. Afterwards the cache is looked at from outside, and the same command is run again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from dscache.cli import cli
from dscache.store import SMALL
from tests.archives import File, packed
from tests.children import forked
from tests.making import Shelf, artifact, content
from tests.stores import faults_of, files_below, let_an_hour_pass

CONTENTS = {
    "one.bin": content(3000, 1),
    "deep/two.bin": content(700, 2),
    "large.bin": content(SMALL + 70_000, 3),
    "members/a.bin": content(900, 4),
    "members/b.bin": content(800, 5),
}
BY_HAND = {"hand.bin": content(1200, 6)}
#: One call by its names on all machines.
FAMILIES = {
    "open": ("open", "openat"),
    "write": ("write", "pwrite64", "pwritev"),
    "read": ("read", "pread64"),
    "sync": ("fsync", "syncfs"),
    "rename": ("rename", "renameat", "renameat2"),
    "link": ("link", "linkat"),
    "unlink": ("unlink", "unlinkat"),
    "lock": ("flock",),
}
FETCH, PRUNE, IMPORT = ("fetch", "data"), ("prune", "--all"), ("import", "hands", "hand.bin")
#: What the command may say of a fault: done all the same, or why not. 1 would be a bug.
TOLD = {0, 3, 4, 5, 6}
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")


@dataclass(frozen=True)
class Call:
    """A system call: the n-th of its name in the first thread."""

    name: str
    number: int


@dataclass(frozen=True)
class World:
    """The folders of one test, and how commands are run in it."""

    home: Path

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    def begin(self, *words: str) -> None:
        """A cache as it stands before that command."""
        shutil.rmtree(self.cache, ignore_errors=True)
        if words == PRUNE:  # with its hard links and times
            subprocess.run(["cp", "-a", self.home / "full", self.cache], check=True)

    def calls(self, words: Sequence[str]) -> dict[str, list[Call]]:
        """The calls of a run that name something in the cache, by families."""
        self.begin(*words)
        log = self.home / "log"
        known = {name: family for family, names in FAMILIES.items() for name in names}
        trace = ",".join(f"?{name}" for name in known)  # `?`: not every machine has all of them
        _traced(words, "-y", "-e", f"trace={trace}", "-o", str(log))
        found: dict[str, list[Call]] = {family: [] for family in FAMILIES}
        counts, first = dict.fromkeys(known, 0), ""
        for line in log.read_text("utf-8", "replace").splitlines():
            match = _LINE.match(line)
            if match is None or match[1] != (first := first or match[1]):
                continue
            name, rest = match[2], match[3]
            counts[name] += 1
            if f"{self.cache}/" in rest and (known[name] != "open" or "O_CREAT" in rest):
                found[known[name]].append(Call(name, counts[name]))
        return found

    def strike(
        self, words: Sequence[str], call: Call, how: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in which something happens at that call."""
        self.begin(*words)
        what, log = f"inject={call.name}:{how}:when={call.number}", self.home / "log"
        done = _traced(words, "-y", "-e", f"trace={call.name}", "-e", what, "-o", str(log))
        struck = [line for line in log.read_text("utf-8", "replace").splitlines() if "INJ" in line]
        assert how.startswith("signal") or (struck and str(self.cache) in struck[0]), struck
        return done

    def again(self, words: Sequence[str]) -> None:
        """The same command does all of it now."""

        def run() -> tuple[int, str]:
            done = CliRunner().invoke(cli, list(words))
            return done.exit_code, done.output

        code, said = forked(run)
        assert code == 0, said

    def look(self, words: Sequence[str]) -> None:
        """What must be true after the command was run without faults."""
        assert faults_of(self.cache, CONTENTS | BY_HAND) == []
        if words == PRUNE:
            let_an_hour_pass(self.cache)
            self.again(["prune"])
            left = {path.relative_to(self.cache).parts[0] for path in files_below(self.cache)}
            assert left <= {"VERSION", "CACHEDIR.TAG", "locks", "counters"}
            return
        (view,) = self.cache.glob("datasets/shelf/*/[!.]*")
        wanted = CONTENTS if words == FETCH else BY_HAND
        assert {
            path.relative_to(view).as_posix(): path.read_bytes() for path in files_below(view)
        } == wanted


def _traced(words: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    command = ["strace", "-f", "-qq", *options]
    return subprocess.run(
        [*command, sys.executable, "-m", "dscache", *words],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    if shutil.which("strace") is None:
        pytest.skip("there is no program strace")
    tried = subprocess.run(["strace", "-qq", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"strace: {tried.stderr.strip()}")
    shelf = Shelf(home / "shelf")
    members = {path: data for path, data in CONTENTS.items() if path.startswith("members/")}
    tar = packed("tar", *(File(path, data) for path, data in members.items()))
    rows = [artifact("pack.tar", tar, "pack.tar", unpack="tar")]
    (shelf.folder / "pack.tar").write_bytes(tar)
    for path, data in CONTENTS.items():
        if path not in members:
            name = path.replace("/", "-")
            (shelf.folder / name).write_bytes(data)
            rows.append(artifact(path, data, name))
    shelf.add("data", rows)
    hand = artifact("hand.bin", BY_HAND["hand.bin"], manual="Ask for it.", urls=None)
    shelf.add("hands", [hand])
    (home / "hand.bin").write_bytes(BY_HAND["hand.bin"])
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
    (home / "config.toml").write_text('prune_grace = "0"\npart_max_age = "0"\n')
    made = World(home)
    made.again(FETCH)
    (home / "cache").rename(home / "full")
    return made


def spread(found: Sequence[Call], count: int) -> list[Call]:
    """So many of the calls, from the first to the last."""
    if len(found) <= count:
        return list(found)
    return [found[at * (len(found) - 1) // (count - 1)] for at in range(count)]


def strike_all(world: World, words: Sequence[str], found: Sequence[Call], how: str) -> list[int]:
    """Have it happen at each of the calls; the exit codes that came of it."""
    codes = []
    for call in found:
        done = world.strike(words, call, how)
        codes.append(done.returncode)
        case = f"{' '.join(words)}: {call} {how}: {done.returncode}\n{done.stderr}"
        assert "Traceback" not in done.stderr, case
        if how == "signal=KILL":
            assert done.returncode in (-9, 137), case
        else:
            assert done.returncode in TOLD, case
            assert done.returncode == 0 or "error: " in done.stderr, case
        assert faults_of(world.cache, CONTENTS | BY_HAND) == [], case
        world.again(words)
        world.look(words)
    return codes


@pytest.mark.parametrize("words", [FETCH, PRUNE, IMPORT], ids=lambda words: words[0])
def test_a_kill_at_any_call_costs_only_work(world: World, words: tuple[str, ...]) -> None:
    found = world.calls(words)
    killed = 0
    for family in ("open", "rename", "link", "unlink"):
        killed += len(strike_all(world, words, spread(found[family], 2), "signal=KILL"))
    assert killed > 4


@pytest.mark.parametrize(
    ("words", "errors"),
    [
        (FETCH, "open ENOSPC, write ENOSPC, read EIO, rename EXDEV, rename EACCES, link EIO"),
        (IMPORT, "write ENOSPC, read EIO, rename EXDEV, unlink EIO"),
        (PRUNE, "open ENOSPC, write ENOSPC, read EIO, rename EACCES, unlink EIO"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_an_error_is_told_and_costs_only_work(
    world: World, words: tuple[str, ...], errors: str
) -> None:
    found = world.calls(words)
    for each in errors.split(", "):
        family, error = each.split()
        assert strike_all(world, words, spread(found[family], 2), f"error={error}"), each


@pytest.mark.parametrize("words", [FETCH, IMPORT], ids=lambda words: words[0])
def test_what_cannot_be_synced_is_not_said_to_be_there(
    world: World, words: tuple[str, ...]
) -> None:
    with open(world.home / "config.toml", "a") as file:
        file.write('durability = "sync"\n')
    found = world.calls(words)["sync"]
    assert set(strike_all(world, words, spread(found, 3), "error=EIO")) == {6}


def test_where_locks_cannot_be_had_markers_serve(world: World) -> None:
    """A network disk without a lock server."""
    for words in (FETCH, PRUNE, IMPORT):
        world.begin(*words)
        what = "inject=flock:error=ENOLCK"
        done = _traced(words, "-e", "trace=flock", "-e", what, "-o", str(world.home / "log"))
        assert done.returncode == 0, done.stderr
        world.look(words)
