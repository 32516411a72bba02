"""Readers of signed registries: what they believe, and every attack that they refuse.

Attacks are made on real published folders, served by nginx, as whoever rules a server makes them.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from dscache import Cache, settings, signing
from dscache.call import Call
from dscache.errors import DscacheError, IntegrityError, InvalidFile, TransferError, UsageError
from dscache.events import Event, Notice
from dscache.registry.tables import Entry
from dscache.signing import pins, roles, roots, signers
from tests.children import Died, forked, interpreter
from tests.servers import Server, nginx
from tests.signed import TIMESTAMP, Author
from tests.stores import Fault


@pytest.fixture
def author(home: Path) -> Author:
    found = Author(home / "one")
    found.add("crops")
    found.publish()
    return found


@pytest.fixture
def server(author: Author, tmp_path: Path) -> Iterator[Server]:
    with nginx(author.public, tmp_path / "nginx") as found:
        yield found


@pytest.fixture
def added(author: Author, server: Server) -> Server:
    """The registry is in use, its root pinned."""
    Cache().add_registry("team", server.url, root=author.root_file)
    return server


@pytest.fixture
def heard() -> list[str]:
    return []


class Reader:
    """Somebody who looks entries up, each time as a new call does."""

    def __init__(self, url: str, heard: list[str]) -> None:
        self.url = url
        self._heard = heard

    def version(self, name: str = "crops", **arguments: object) -> str | None:
        """The version that an entry says now; None if there is no such entry."""
        arguments = {"registry_max_age": 0, "retries": 0} | arguments
        with Call(settings.load(**arguments), self._hear) as call:
            found = call.open_place(self.url).document(f"{name}.toml")
        if found is None:
            return None
        assert isinstance(found.entry, Entry)
        return found.entry.version

    def _hear(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._heard.append(event.message)


@pytest.fixture
def reader(added: Server, heard: list[str]) -> Reader:
    return Reader(added.url, heard)


@contextmanager
def refused(rule: str) -> Iterator[None]:
    """What happens inside breaks a rule of signed registries."""
    with pytest.raises(IntegrityError) as caught:
        yield
    assert caught.value.code == 5
    assert caught.value.facts["rule"] == rule, caught.value.message
    assert caught.value.hint


def renewed(author: Author, name: str, version: str) -> None:
    """The author publishes a version."""
    author.add(name, version.encode(), version)
    author.publish()


class TestAdding:
    def test_trust_on_first_use(self, author: Author, server: Server) -> None:
        found = Cache().add_registry("team", server.url)
        assert (found.root, found.first_use) == (author.root, True)
        assert pins.pinned(settings.load(), f"{server.url}/") == author.root_file.read_bytes()

    def test_a_root_that_is_given(self, author: Author, server: Server) -> None:
        found = Cache().add_registry("team", server.url, root=author.root_file)
        assert (found.root, found.first_use) == (author.root, False)

    def test_a_root_of_somebody_else(self, author: Author, server: Server, home: Path) -> None:
        other = Author(home / "two")
        with refused("signature"):
            Cache().add_registry("team", server.url, root=other.root_file)
        assert settings.load().registries == {}
        assert settings.load().roots == {}

    def test_what_is_no_root(self, author: Author, server: Server, home: Path) -> None:
        author.publish()
        (home / "page").write_text("<html>")
        for path in (home / "page", home / "nothing", home, author.public / TIMESTAMP):
            with pytest.raises(InvalidFile):
                Cache().add_registry("team", server.url, root=path)

    def test_one_that_is_not_signed(self, home: Path, tmp_path: Path) -> None:
        author = Author(home / "two", sign=False)
        for file, data in author.files().items():
            author.put(file, data)
        with nginx(author.public, tmp_path / "plain") as server:
            found = Cache().add_registry("team", server.url)
            assert (found.root, found.first_use) == ("", False)
            with refused("missing"):
                Cache().add_registry("team", server.url, root=_root(home / "three"))

    def test_again_keeps_the_root(self, author: Author, added: Server, home: Path) -> None:
        assert not Cache().add_registry("team", added.url).first_use
        assert not Cache().add_registry("other", f"{added.url}/").first_use
        replace_by_another(author, home)
        for name in ("team", "third"):
            with pytest.raises(IntegrityError):
                Cache().add_registry(name, added.url)
        assert pins.pinned(settings.load(), added.url) == author.root_file.read_bytes()

    def test_listed_as_signed_and_removed(self, added: Server, home: Path) -> None:
        found = {each.name: each.signed for each in Cache().registries()}
        assert found.pop("team")
        assert not any(found.values())
        Cache().remove_registry("team")
        assert not any(each.signed for each in Cache().registries())
        assert list((home / "roots").iterdir()) == []
        assert "roots" not in (home / "config.toml").read_text()

    def test_the_authors_own_folder_is_read_as_it_is(self, author: Author) -> None:
        assert not Cache().add_registry("mine", author.folder).root

    def test_by_the_command_line(self, author: Author, server: Server) -> None:
        def dscache(*words: str) -> dict[str, object]:
            command = [sys.executable, "-m", "dscache", "registry", *words, "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found: dict[str, object] = json.loads(done.stdout)
            return found

        found = dscache("add", "team", server.url)
        assert (found["signed"], found["root"]) == (True, author.root)
        made = dscache("init", "mine", "--sign", "--keys", "safe")
        assert str(made["root"]).startswith("sha256:")
        assert dscache("rotate", "mine", "--keys", "safe")["version"] == 2
        assert len(list(Path("safe").iterdir())) == 3
        Path("old").mkdir()
        dscache("init", "old/team")
        assert dscache("init", "old/team", "--sign")["name"] == "team"


def _root(folder: Path) -> Path:
    return Author(folder).root_file


def replace_by_another(author: Author, home: Path) -> Author:
    """Somebody else publishes in the place of the author, all signed, with other keys."""
    other = Author(home / "thief")
    for version in ("8", "9"):
        renewed(other, "crops", version)
    shutil.rmtree(author.public)
    shutil.copytree(other.public, author.public)
    return other


class TestReading:
    def test_what_is_signed(self, author: Author, reader: Reader) -> None:
        assert reader.version() == "1"
        renewed(author, "crops", "2")
        assert reader.version() == "2"

    def test_a_fresh_copy_needs_neither_network_nor_tuf(
        self, reader: Reader, added: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert reader.version() == "1"
        added.stop()
        monkeypatch.setitem(sys.modules, "tuf", None)
        assert reader.version(registry_max_age=3600) == "1"
        assert reader.version(offline=True) == "1"

    def test_what_nobody_signed_is_not_there(
        self, author: Author, reader: Reader, added: Server
    ) -> None:
        author.add("planted")
        author.put("planted.toml", author.files()["planted.toml"])
        assert reader.version("planted") is None
        assert not any("planted" in seen.path for seen in added.requests())

    def test_what_is_unchanged_is_not_sent_again(self, reader: Reader, added: Server) -> None:
        assert reader.version() == "1"
        before = len(added.requests())
        assert reader.version() == "1"
        asked = [seen.path for seen in added.requests(at_least=before + 2)[before:]]
        assert asked == ["/metadata/2.root.json", "/metadata/timestamp.json"]

    def test_a_call_asks_for_the_state_once(
        self, author: Author, reader: Reader, added: Server
    ) -> None:
        author.add("plants")
        author.publish()
        before = len(added.requests())
        with Call(settings.load(registry_max_age=0), print) as call:
            place = call.open_place(added.url)
            for name in ("crops", "plants", "nothing"):
                place.document(f"{name}.toml")
        asked = [seen.path for seen in added.requests(at_least=before + 5)[before:]]
        assert asked.count("/metadata/timestamp.json") == 1

    def test_a_look_up_reads_one_bin(self, author: Author, reader: Reader, added: Server) -> None:
        files = {f"data-{number}.toml": b"version = '1'" for number in range(500)}
        renewal = signing.renewal(author.folder, author.keys, author.read, files)
        author.upload(renewal)
        assert reader.version() == "1"
        asked = [seen.path for seen in added.requests() if "bin6" in seen.path]
        assert 1 <= len(asked) <= 2  # the entry's, and that of registry.toml

    def test_all_that_a_user_does(self, author: Author, added: Server) -> None:
        (author.shelf.folder / "index.json").write_text(
            '{"format": 1, "serial": 1, "datasets": {"crops": {"version": "1", "versions": ["1"], '
            '"size": 1, "summary": "s", "aliases": [], "digest": "sha256:1"}}}'
        )
        author.publish()
        cache = Cache()
        assert cache.info("team/crops").dataset.version == "1"
        assert any(each.name == "crops" for each in cache.available())
        assert {each.name: each.datasets for each in cache.registries()}["team"] == 1

    def test_a_folder(self, author: Author, heard: list[str]) -> None:
        Cache().add_registry("disk", str(author.public))
        reader = Reader(str(author.public), heard)
        assert reader.version() == "1"
        flip(author, TIMESTAMP)
        with refused("signature"):
            reader.version()

    def test_another_place_of_the_settings_is_verified_too(
        self, author: Author, reader: Reader, added: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DSCACHE_REGISTRIES", f"{added.url}/")
        assert Reader(f"{added.url}/", []).version() == "1"
        flip(author, TIMESTAMP)
        with pytest.raises(IntegrityError):
            Cache(settings=settings.load(registry_max_age=0)).info("crops")

    def test_copies_of_the_time_before_are_not_believed(
        self, author: Author, server: Server, heard: list[str]
    ) -> None:
        """A registry that was read unsigned is read anew once its root is pinned."""
        author.put("crops.toml", author.files()["crops.toml"].replace(b'"1"', b'"6"'))
        reader = Reader(server.url, heard)
        assert reader.version() == "6"
        Cache().add_registry("team", server.url)
        assert reader.version(registry_max_age=3600) == "1"

    def test_a_cache_that_cannot_be_written_stops_no_look_up(
        self, reader: Reader, heard: list[str], home: Path
    ) -> None:
        shutil.rmtree(home / "cache" / "registries")
        (home / "cache" / "registries").write_text("in the way")
        assert reader.version() == "1"
        assert any("cannot be remembered" in notice for notice in heard)

    def test_nothing_is_left_in_the_temporary_folder(
        self, author: Author, reader: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "t").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
        assert reader.version() == "1"
        flip(author, TIMESTAMP)
        with pytest.raises(IntegrityError):
            reader.version()
        assert os.listdir(tmp_path / "t") == []


def flip(author: Author, file: str) -> None:
    """One digit of a signature, or one byte of an entry, is another."""
    data = bytearray(author.public.joinpath(file).read_bytes())
    place = data.find(b'"sig"') + 20 if b'"sig"' in data else len(data) // 2
    data[place] ^= 1
    author.put(file, bytes(data))


def newest(author: Author, role: str) -> str:
    """The file of the present metadata of a role."""
    versions = author.snapshot() | {
        "snapshot": author.signed("timestamp")["meta"]["snapshot.json"]["version"]
    }
    return f"metadata/{versions[role]}.{role}.json"


def target(author: Author, file: str) -> str:
    """The file with the signed content of a registry file."""
    return f"targets/{signing.listed(author.folder, author.read)[file]}.{file}"


def test_the_doctor_verifies_it(author: Author, added: Server) -> None:
    def found() -> dict[str, str]:
        return {each.name: each.status for each in Cache().diagnose().checks}

    assert found()["registry:team:signed"] == "ok"
    shutil.rmtree(author.public / "metadata")
    assert found()["registry:team"] == "fail"


class TestAttacks:
    """Each begins with a reader who has seen version 1, and version 2 published."""

    @pytest.fixture
    def reader(self, author: Author, reader: Reader) -> Reader:
        assert reader.version() == "1"
        self.old = {
            path.relative_to(author.public).as_posix(): path.read_bytes()
            for path in author.public.rglob("*")
            if path.is_file()
        }
        renewed(author, "crops", "2")
        return reader

    def test_rollback(self, author: Author, reader: Reader) -> None:
        assert reader.version() == "2"
        for file, data in self.old.items():
            author.put(file, data)
        with refused("rollback"):
            reader.version()

    def test_rollback_of_the_snapshot(self, author: Author, reader: Reader) -> None:
        """A key that was stolen may sign a timestamp that names an old snapshot."""
        assert reader.version() == "2"
        timestamp = json.loads((author.public / TIMESTAMP).read_bytes())["signed"]
        timestamp["version"] += 1
        timestamp["meta"]["snapshot.json"]["version"] = 1
        author.put(TIMESTAMP, signed_by(author, timestamp))
        with refused("rollback"):
            reader.version()

    def test_rollback_of_a_list(self, author: Author, reader: Reader) -> None:
        """Nor is a newer snapshot believed that names an old list."""
        assert reader.version() == "2"
        snapshot = json.loads((author.public / newest(author, "snapshot")).read_bytes())["signed"]
        version = snapshot["version"] = snapshot["version"] + 1
        snapshot["meta"]["targets.json"]["version"] = 1
        author.put(f"metadata/{version}.snapshot.json", signed_by(author, snapshot))
        timestamp = json.loads((author.public / TIMESTAMP).read_bytes())["signed"]
        timestamp["version"] += 1
        timestamp["meta"]["snapshot.json"]["version"] = version
        author.put(TIMESTAMP, signed_by(author, timestamp))
        with refused("rollback"):
            reader.version()

    def test_freeze(self, author: Author, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
        for role in (roles.TIMESTAMP, roles.SNAPSHOT, roles.TARGETS):
            with monkeypatch.context() as patch:
                patch.setitem(roles.LIFETIMES, role, timedelta(seconds=-5))
                renewed(author, "crops", f"3-{role}")
            with refused("freeze"):
                reader.version()
            renewed(author, "crops", f"4-{role}")
            assert reader.version() == f"4-{role}"

    @pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
    def test_a_changed_signature(self, author: Author, reader: Reader, role: str) -> None:
        flip(author, TIMESTAMP if role == "timestamp" else newest(author, role))
        with refused("signature"):
            reader.version()

    def test_a_changed_entry(self, author: Author, reader: Reader) -> None:
        flip(author, target(author, "crops.toml"))
        with refused("tampering"):
            reader.version()

    def test_an_endless_entry(self, author: Author, reader: Reader) -> None:
        file = target(author, "crops.toml")
        author.put(file, (author.read(file) or b"") + b"\n" * 100_000)
        with refused("tampering"):
            reader.version()

    def test_endless_metadata(self, author: Author, reader: Reader) -> None:
        author.put(TIMESTAMP, (author.read(TIMESTAMP) or b"") + b" " * (1 << 20))
        with refused("tampering"):
            reader.version()

    def test_an_entry_that_is_gone(self, author: Author, reader: Reader) -> None:
        (author.public / target(author, "crops.toml")).unlink()
        with refused("missing"):
            reader.version()

    def test_an_entry_in_the_place_of_another(self, author: Author, reader: Reader) -> None:
        author.add("plants", version="7")
        author.publish()
        author.put(target(author, "crops.toml"), author.read(target(author, "plants.toml")) or b"")
        with refused("tampering"):
            reader.version()

    def test_mix_and_match(self, author: Author, reader: Reader) -> None:
        author.put(newest(author, "targets"), self.old["metadata/1.targets.json"])
        with refused("rollback"):
            reader.version()

    def test_signatures_that_are_gone(self, author: Author, reader: Reader) -> None:
        """A signed registry never falls back to an unsigned one."""
        shutil.rmtree(author.public / "metadata")
        with refused("missing"):
            reader.version()
        with refused("missing"):
            Cache(settings=settings.load(registry_max_age=0)).fetch("team/crops")

    def test_wrong_keys(self, author: Author, reader: Reader, home: Path) -> None:
        replace_by_another(author, home)
        with refused("signature"):
            reader.version()

    def test_a_root_of_somebody_else(self, author: Author, reader: Reader, home: Path) -> None:
        other = replace_by_another(author, home)
        signing.rotate(other.folder, other.keys)
        author.put("metadata/2.root.json", (other.root_file.parent / "2.root.json").read_bytes())
        with refused("signature"):
            reader.version()

    @pytest.mark.parametrize("data", [b"", b"<html>sign in</html>", b"{}", b"\xff" * 100])
    def test_what_is_no_metadata(self, author: Author, reader: Reader, data: bytes) -> None:
        author.put(TIMESTAMP, data)
        with pytest.raises(IntegrityError):
            reader.version()

    def test_afterwards_the_truth_is_believed_again(self, author: Author, reader: Reader) -> None:
        """What was refused is not remembered."""
        files = [TIMESTAMP, newest(author, "snapshot"), newest(author, "targets")]
        for file in (*files, target(author, "crops.toml")):
            good = author.read(file) or b""
            flip(author, file)
            with pytest.raises(IntegrityError):
                reader.version()
            author.put(file, good)
        assert reader.version() == "2"

    def test_nothing_is_left_of_a_pinned_root_that_is_gone(
        self, author: Author, reader: Reader, home: Path
    ) -> None:
        (home / "roots" / "team.json").unlink()
        with pytest.raises(IntegrityError, match="pinned"):
            reader.version()
        with pytest.raises(IntegrityError, match="pinned"):
            Cache().info("penguins")
        assert Cache().info("samples/penguins")

    def test_a_root_without_an_address_is_no_root(self, reader: Reader, home: Path) -> None:
        text = (home / "config.toml").read_text()
        (home / "config.toml").write_text(text.replace('team = "http', 'other = "http'))
        with pytest.raises(InvalidFile, match=r"roots\.team"):
            reader.version()

    def test_a_project_may_not_pin(self, home: Path) -> None:
        (home / "dscache.toml").write_text('[roots]\nteam = "x"\n')
        with pytest.raises(InvalidFile, match="roots"):
            settings.load()


def signed_by(author: Author, signed: dict[str, object]) -> bytes:
    """Metadata as whoever has the key that publishes makes it."""
    return signer_of(author)(signed)


class TestRotation:
    def test_readers_follow(self, author: Author, reader: Reader) -> None:
        for number, root_key in enumerate((False, True, True, False), 2):
            signing.rotate(author.folder, author.keys, root_key=root_key)
            renewed(author, "crops", str(number))
            assert reader.version() == str(number)

    def test_a_reader_of_the_first_root_comes_late(self, author: Author, server: Server) -> None:
        first = author.root_file.read_bytes()
        for root_key in (True, False, True):
            signing.rotate(author.folder, author.keys, root_key=root_key)
            author.publish()
        Cache().add_registry("team", server.url)
        assert pins.pinned(settings.load(), server.url) == first
        assert Reader(server.url, []).version() == "1"

    def test_a_key_that_was_replaced_signs_nothing_more(
        self, author: Author, reader: Reader
    ) -> None:
        old = signer_of(author)
        signing.rotate(author.folder, author.keys)
        renewed(author, "crops", "2")
        assert reader.version() == "2"
        timestamp = json.loads((author.public / TIMESTAMP).read_bytes())["signed"]
        timestamp["version"] += 1
        author.put(TIMESTAMP, old(timestamp))
        with refused("signature"):
            reader.version()

    def test_versions_that_a_thief_has_made_huge_are_overcome(
        self, author: Author, reader: Reader
    ) -> None:
        timestamp = json.loads((author.public / TIMESTAMP).read_bytes())["signed"]
        good = author.read(TIMESTAMP) or b""
        timestamp["version"] = 10**9
        author.put(TIMESTAMP, signed_by(author, timestamp))
        assert reader.version() == "1"
        author.put(TIMESTAMP, good)
        with refused("rollback"):
            reader.version()
        signing.rotate(author.folder, author.keys)
        renewed(author, "crops", "2")
        assert reader.version() == "2"


def signer_of(author: Author) -> Callable[[dict[str, object]], bytes]:
    """Signs by the key that publishes now, also later."""
    signer = signers.of_role(author.keys, roots.newest(author.folder).signed, roles.TIMESTAMP)

    def sign(signed: dict[str, object]) -> bytes:
        made = Metadata.from_dict({"signed": signed, "signatures": []})
        made.sign(signer)
        return made.to_bytes()

    return sign


class TestServerDown:
    def test_copies_serve_with_a_notice(
        self, reader: Reader, added: Server, heard: list[str]
    ) -> None:
        assert reader.version() == "1"
        assert heard == []
        added.stop()
        assert reader.version() == "1"
        assert len(heard) == 1
        with pytest.raises(TransferError):
            reader.version("never-read")
        with pytest.raises(TransferError):
            reader.version("never-read", offline=True)

    def test_until_the_timestamp_has_expired(
        self, author: Author, reader: Reader, added: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert reader.version() == "1"
        added.stop()
        later = roles.LIFETIMES[roles.TIMESTAMP].total_seconds() + 60
        now = time.time
        with monkeypatch.context() as patch:
            patch.setattr("dscache.signing.reading.time.time", lambda: now() + later)
            with refused("freeze"):
                reader.version()
            assert reader.version(offline=True) == "1"
        added.start()
        assert reader.version() == "1"

    def test_without_metadata_a_copy_is_not_believed(
        self, reader: Reader, added: Server, home: Path
    ) -> None:
        assert reader.version() == "1"
        for folder in (home / "cache" / "registries").glob("*-metadata"):
            shutil.rmtree(folder)
        added.stop()
        with refused("freeze"):
            reader.version()


_LOOK = """
import sys
from dscache import Cache, settings
for _ in range(int(sys.argv[1])):
    found = Cache(settings=settings.load(registry_max_age=0)).info("team/crops")
    print(found.dataset.version, flush=True)
"""


def test_eight_processes_at_once(author: Author, added: Server) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(interpreter("-c", _LOOK, "4")) for _ in range(8)]
        for version in ("2", "3"):
            assert children[0].stdout
            children[0].stdout.readline()
            renewed(author, "crops", version)
        for child in children:
            output, errors = child.communicate()
            assert child.returncode == 0, errors
            versions = [int(line) for line in output.split()]
            assert versions == sorted(versions)


@pytest.mark.parametrize("how", ["kill", "tear"])
def test_a_kill_at_any_step_leaves_a_state_to_go_on_from(
    author: Author,
    reader: Reader,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    assert reader.version() == "1"
    renewed(author, "crops", "2")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # what is killed removes nothing
    before = home / "before"
    shutil.copytree(home / "cache", before)

    def dies(at: int) -> bool:
        """True if a look-up dies at that step; what it leaves is gone on from."""
        shutil.rmtree(home / "cache")
        shutil.copytree(before, home / "cache")

        def look() -> str | None:
            Fault(at, how).arm()
            return reader.version()

        try:
            assert forked(look) == "2"
        except Died:
            assert reader.version() == "2"
            return True
        return False

    steps = next(at for at in itertools.count(1) if not dies(at))
    assert steps > 5


def test_without_the_extra_nothing_unsigned_is_read(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tuf", None)
    with pytest.raises(UsageError) as caught:
        reader.version()
    assert caught.value.hint == "pip install 'dscache[signed]'"
    with pytest.raises(DscacheError):
        Cache(settings=settings.load(registry_max_age=0)).fetch("team/crops")
