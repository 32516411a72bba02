"""The store as a machine: any order of downloads, crashes, restarts and damage, against an oracle.

The oracle holds what must be true in plain values: which bytes are in which part, which blobs are
whole, which damage can be seen. It knows nothing of how the store finds out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from dscache.store import SMALL, Store, key_of
from dscache.store.owner import this_process
from dscache.store.parts import Journal, Part
from tests.children import forked
from tests.making import content
from tests.stores import boot, digest_of, overwrite, sha256_of, sums_by

DATA = {
    "little": content(3000, 1),
    "empty": b"",
    "large": content(SMALL + 5000, 2),
    "larger": content(SMALL + 9000, 3),
}
names = st.sampled_from(sorted(DATA))
hashes = st.sampled_from(["sha256", "md5", "sha256 md5"])
larges = st.sampled_from(["large", "larger"])


@dataclass(eq=False)
class Live:
    """A part that is being written, and the bytes that must be in it."""

    name: str
    part: Part
    written: int
    synced: int = 0


@dataclass(eq=False)
class Left:
    """Bytes that some attempt left: how many, and how many of them are synced."""

    name: str
    path: str
    written: int
    synced: int
    boot: int


@dataclass
class Known:
    """A blob on disk: its health, and what a look without hashing would say."""

    whole: bool = True
    looks_whole: bool = True
    proof: int | None = None
    durable: bool = False


class StoreMachine(RuleBasedStateMachine):
    parts = Bundle("parts")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.store = Store(f"{self.folder}/cache")
        self.store.prepare()
        self.boots = ExitStack()
        self.boot = 0
        self.calm = 0
        self.dead = forked(this_process)
        self.left: list[Left] = []
        self.live: list[Live] = []
        self.known: dict[str, Known] = {}
        self.aliases: set[str] = set()

    def teardown(self) -> None:
        for live in self.live:
            live.part.close()
        self.boots.close()
        shutil.rmtree(self.folder)

    # --- parts ---

    @rule(target=parts, name=larges)
    def begin(self, name: str) -> Live:
        part = self.store.parts().begin(key_of(digest_of(DATA[name])), len(DATA[name]))
        best = max((self._usable(left) for left in self.left if left.name == name), default=0)
        assert part.size == best
        taken = [left for left in self.left if not os.path.exists(left.path)]
        assert [(left.name, self._usable(left)) for left in taken] == [(name, best)] * bool(best)
        for left in taken:
            self.left.remove(left)
        live = Live(name, part, best, min(best, taken[0].synced) if taken else 0)
        self.live.append(live)
        return live

    def _usable(self, left: Left) -> int:
        return left.written if left.boot == self.boot else left.synced

    @rule(live=parts, count=st.integers(1, 400_000))
    def write(self, live: Live, count: int) -> None:
        if live in self.live:
            data = DATA[live.name][live.written : live.written + count]
            live.part.write([data[:1], data[1:]])
            live.written += len(data)

    @rule(live=parts)
    def secure(self, live: Live) -> None:
        if live in self.live:
            live.part.note_synced(live.part.sync())
            live.synced = live.written

    @rule(live=parts)
    def restart(self, live: Live) -> None:
        if live in self.live:
            live.part.restart()
            live.written = live.synced = 0

    @rule(live=consumes(parts))
    def keep(self, live: Live) -> None:
        if live in self.live:
            live.part.keep()
            self._leave(live)

    @rule(live=consumes(parts))
    def kill(self, live: Live) -> None:
        """Its process ends without a word."""
        if live in self.live:
            live.part.close()
            path = Path(live.part.path).with_suffix(".json")
            journal = msgspec.json.decode(path.read_bytes(), type=Journal)
            path.write_bytes(msgspec.json.encode(msgspec.structs.replace(journal, owner=self.dead)))
            self._leave(live)

    @precondition(lambda self: self.calm > 8)
    @rule()
    def power_cut(self) -> None:
        """Everything dies; what was not synced may be torn, though the files still look right."""
        self.calm = 0
        for live in list(self.live):
            live.part.close()
            self._leave(live)
        self.boot += 1
        self.boots.enter_context(boot(f"boot {self.boot}"))

    def _leave(self, live: Live) -> None:
        self.live.remove(live)
        if live.written:
            self.left.append(Left(live.name, live.part.path, live.written, live.synced, self.boot))

    # --- blobs ---

    @rule(live=consumes(parts), md5=st.booleans())
    def publish_part(self, live: Live, md5: bool) -> None:
        if live in self.live:
            self.live.remove(live)
            live.part.write([DATA[live.name][live.written :]])
            live.part.close()
            self._publish(live.name, live.part, md5)
            live.part.forget()

    @rule(name=names, md5=st.booleans())
    def publish(self, name: str, md5: bool) -> None:
        if len(DATA[name]) <= SMALL:
            self._publish(name, None, md5)
        else:
            self.publish_part(self.begin(name), md5)

    def _publish(self, name: str, part: Part | None, md5: bool) -> None:
        data = DATA[name]
        known_as = [digest_of(data, "md5")] if md5 else []
        if part:
            blob = self.store.blobs.publish_file(
                part.path, part.size, sums_by(data, "md5"), known_as
            )
            self.known[name] = Known(proof=self.boot)
        else:
            blob = self.store.blobs.publish_bytes(data, sums_by(data, "md5"), known_as)
            self.known[name] = Known()
        self.aliases |= {name} if md5 else set()
        assert Path(blob.path).read_bytes() == data

    @precondition(lambda self: self.known)
    @rule(data=st.data(), by=hashes)
    def find_again(self, data: st.DataObject, by: str) -> None:
        self.find(self._any(data), by)

    @rule(name=names, by=hashes)
    def find(self, name: str, by: str) -> None:
        data, known = DATA[name], self.known.get(name)
        found = self.store.blobs.find([digest_of(data, each) for each in by.split()])
        if known is None or (by == "md5" and name not in self.aliases):
            assert found is None
            return
        trusted = known.durable or known.proof == self.boot
        hashed = len(data) <= SMALL or not trusted or not known.looks_whole
        if "md5" in by and name not in self.aliases:
            hashed = True
        assert (found is not None) == (known.whole or not hashed)
        if found:
            assert (found.sha256, found.size) == (digest_of(data).hex, len(data))
            self.aliases |= {name} if "md5" in by else set()
            if not (trusted and known.looks_whole):
                self._proven_by_hashing(name)

    def _proven_by_hashing(self, name: str) -> None:
        known = self.known[name]
        known.durable, known.looks_whole = len(DATA[name]) > SMALL, True

    @precondition(lambda self: self.known)
    @rule(data=st.data(), seen=st.booleans())
    def corrupt(self, data: st.DataObject, seen: bool) -> None:
        """Bytes change on the disk; not seen means that not even the time of the file does."""
        name = self._any(data)
        if DATA[name]:
            overwrite(self._path(name), bytes(len(DATA[name])))
            self.known[name].whole = False
            if seen:
                os.utime(self._path(name))
                self.known[name].looks_whole = False

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def lose_proof(self, data: st.DataObject) -> None:
        name = self._any(data)
        Path(self.store.layout.proof(digest_of(DATA[name]).hex)).unlink(missing_ok=True)
        self.known[name].proof, self.known[name].durable = None, False

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        name = self._any(data)
        os.utime(self._path(name))
        self.known[name].looks_whole = False

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = self._any(data)
        os.unlink(self._path(name))
        del self.known[name]

    def _any(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.known)))

    def _path(self, name: str) -> Path:
        return Path(self.store.layout.blob(digest_of(DATA[name]).hex))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def sync(self, data: st.DataObject) -> None:
        name = self._any(data)
        if self.known[name].whole:
            found = self.store.blobs.find([digest_of(DATA[name])])
            assert found
            self.store.blobs.sync(found)
            self._proven_by_hashing(name)

    # --- always ---

    @invariant()
    def parts_hold_what_was_written(self) -> None:
        self.calm += 1
        for live in self.live:
            assert live.part.size == live.written
            assert Path(live.part.path).read_bytes() == DATA[live.name][: live.written]
        inodes = [os.stat(live.part.path).st_ino for live in self.live]
        assert len(set(inodes)) == len(inodes)

    @invariant()
    def whole_blobs_are_whole(self) -> None:
        for name, known in self.known.items():
            path = self._path(name)
            assert path.stat().st_mode & 0o222 == 0
            assert (sha256_of(path) == digest_of(DATA[name]).hex) is known.whole


StoreMachine.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStore = StoreMachine.TestCase
