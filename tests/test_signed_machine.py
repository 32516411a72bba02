"""Signed registries as a machine: publishing, rotating, and whoever rules the server, in any order.

The oracle knows the states that the author has published, and which of them each reader has seen.
It shares nothing with the code but the author's own tools.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dscache import settings, signing
from dscache.call import Call
from dscache.errors import IntegrityError
from dscache.registry.tables import Entry
from dscache.settings import Settings
from tests.signed import Author

NAMES = ("crops", "plants")
READERS = 2


class Signed(RuleBasedStateMachine):
    """An author, a place that may be tampered with, and readers with caches of their own."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.author = Author(self.folder)
        (self.folder / "config.toml").write_text(
            f'[registries]\nteam = "{self.author.public}"\n'
            f'[roots]\nteam = "{self.author.root_file}"\n'
        )
        #: What each state says of each name.
        self.states: list[dict[str, str]] = []
        self.now: dict[str, str] = {}
        #: The state that stands at the public place; None where bytes were changed.
        self.standing: int | None = 0
        #: The newest state that a reader has seen, and the newest of which it may have seen a part.
        self.seen = [-1] * READERS
        self.glimpsed = [-1] * READERS
        self.publish("crops")

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(name=st.sampled_from(NAMES))
    def publish(self, name: str) -> None:
        self.restore()
        self.now[name] = str(len(self.states))
        self.author.add(name, version=self.now[name])
        self.author.publish()
        self.remember()

    @rule(root_key=st.booleans())
    def rotate(self, root_key: bool) -> None:
        self.restore()
        signing.rotate(self.author.folder, self.author.keys, root_key=root_key)
        self.author.publish()
        self.remember()

    @rule(number=st.integers(0, 3))
    def interrupt(self, number: int) -> None:
        """A publisher is killed on the way; readers see the state before."""
        self.restore()
        self.author.add("crops", version="never")
        self.author.upload(self.author.renewal(), until=number)
        self.author.add("crops", version=self.now["crops"])
        self.keep(len(self.states) - 1)

    def remember(self) -> None:
        self.states.append(dict(self.now))
        self.standing = len(self.states) - 1
        self.keep(self.standing)

    def keep(self, state: int) -> None:
        shutil.copytree(self.author.public, self.folder / f"state-{state}", dirs_exist_ok=True)

    def put_back(self, state: int) -> None:
        shutil.rmtree(self.author.public)
        shutil.copytree(self.folder / f"state-{state}", self.author.public)
        self.standing = state

    @rule()
    def restore(self) -> None:
        """The author's truth stands again."""
        if self.states:
            self.put_back(len(self.states) - 1)

    @rule(back=st.integers(1, 4))
    def roll_back(self, back: int) -> None:
        self.put_back(max(0, len(self.states) - 1 - back))

    @precondition(lambda self: self.standing is not None)
    @rule(data=st.data(), place=st.integers(0, 10_000), cut=st.booleans())
    def tamper(self, data: st.DataObject, place: int, cut: bool) -> None:
        """One signed file is damaged, or gone."""
        files = sorted(
            path
            for part in ("metadata", "targets")
            for path in (self.author.public / part).iterdir()
        )
        path = data.draw(st.sampled_from(files))
        content = bytearray(path.read_bytes())
        content[place % len(content)] ^= 1
        path.unlink() if cut else path.write_bytes(content)
        for reader in range(READERS):
            self.glimpsed[reader] = max(self.glimpsed[reader], self.standing or 0)
        self.standing = None

    @rule(reader=st.integers(0, READERS - 1), name=st.sampled_from(NAMES))
    def look(self, reader: int, name: str) -> None:
        try:
            found = self.version(reader, name)
        except IntegrityError:
            if self.standing is not None:
                assert self.standing < max(self.seen[reader], self.glimpsed[reader])
            return
        if self.standing is None:
            states = range(max(0, self.seen[reader]), len(self.states))
            assert found in [self.states[each].get(name) for each in states]
            return
        assert self.standing >= self.seen[reader]
        assert found == self.states[self.standing].get(name)
        self.seen[reader] = self.standing

    def version(self, reader: int, name: str) -> str | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DSCACHE_CONFIG", str(self.folder / "config.toml"))
            arguments = {"cache_dir": str(self.folder / f"cache-{reader}"), "registry_max_age": 0}
            found: Settings = settings.load(**arguments)
        with Call(found, lambda event: None) as call:
            document = call.open_place(str(self.author.public)).document(f"{name}.toml")
        if document is None:
            return None
        assert isinstance(document.entry, Entry)
        return document.entry.version


TestSigned = Signed.TestCase
TestSigned.settings = hypothesis_settings(max_examples=12, stateful_step_count=20, deadline=None)
