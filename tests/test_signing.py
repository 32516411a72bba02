"""Signing: keys, roots, what a publishing renews, growth, rotation, what is never signed over."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import keyring
import keyring.backend
import pytest
from keyring.errors import KeyringLocked

from dscache import settings, signing
from dscache.errors import IntegrityError, StorageError, UsageError
from dscache.signing import pins, roles
from dscache.signing.keys import KeyFolder, Keyring
from dscache.signing.roles import bits_for, is_crowded
from tests.signed import TIMESTAMP, Author, Conflict


@pytest.fixture
def author(home: Path) -> Author:
    found = Author(home / "one")
    found.add("crops")
    return found


def many(count: int, start: int = 0) -> dict[str, bytes]:
    """Registry files, as a publisher hands them over."""
    return {f"data-{number}.toml": b"%d" % number for number in range(start, start + count)}


class TestKeys:
    def test_nobody_else_may_read_them(self, author: Author) -> None:
        folder = Path(author.keys.where)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        found = sorted(folder.iterdir())
        assert [path.name.partition("-")[0] for path in found] == ["online", "root"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
        assert all(b"PRIVATE KEY" in path.read_bytes() for path in found)

    def test_they_are_never_in_the_registry(self, home: Path) -> None:
        (home / "link").symlink_to(home / "reg")
        for keys in (home / "reg", home / "reg" / "keys", home / "link" / "keys"):
            with pytest.raises(UsageError, match="published with it"):
                signing.init(str(home / "reg"), KeyFolder(str(keys)))
        assert not list(home.rglob("*.pem"))

    def test_the_registry_holds_nothing_private(self, author: Author) -> None:
        author.publish()
        for path in (
            p for folder in (author.folder, author.public) for p in Path(folder).rglob("*")
        ):
            assert path.is_dir() or b"PRIVATE" not in path.read_bytes()

    def test_without_the_key_nothing_is_signed(self, author: Author) -> None:
        (key,) = Path(author.keys.where).glob("online-*.pem")
        key.rename(key.with_suffix(".away"))
        with pytest.raises(UsageError, match=key.stem):
            author.renewal()

    def test_a_key_that_is_none_or_another(self, author: Author) -> None:
        online, root = sorted(Path(author.keys.where).iterdir())
        good = online.read_bytes()
        for bad in (b"", b"no key", root.read_bytes(), good[:60]):
            online.write_bytes(bad)
            with pytest.raises((StorageError, UsageError)):
                author.renewal()

    def test_publishing_needs_no_root_key(self, author: Author) -> None:
        (key,) = Path(author.keys.where).glob("root-*.pem")
        key.unlink()
        author.publish()
        with pytest.raises(UsageError, match=key.stem):
            signing.rotate(author.folder, author.keys)

    def test_where_they_are_by_default(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert signing.keys_of(settings.load(), "team").where == str(home / "keys" / "team")
        monkeypatch.setenv("DSCACHE_KEYS", str(home / "safe"))
        assert signing.keys_of(settings.load(), "team").where == str(home / "safe")
        assert signing.keys_of(settings.load(), "team", "here").where == str(home / "here")
        assert isinstance(signing.keys_of(settings.load(), "team", "keyring:"), Keyring)
        with pytest.raises(UsageError):
            signing.keys_of(settings.load(), "team", "keyring:other")


class Memory(keyring.backend.KeyringBackend):
    """A keyring in this process."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        self._look()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._look()
        self.held[service, username] = password

    def _look(self) -> None:
        if self.locked:
            raise KeyringLocked("no")


@pytest.fixture
def memory() -> Iterator[Memory]:
    before = keyring.get_keyring()
    keyring.set_keyring(found := Memory())
    yield found
    keyring.set_keyring(before)


def test_keys_in_the_systems_keyring(home: Path, memory: Memory) -> None:
    author = Author(home / "one", keys=Keyring())
    author.publish()
    signing.rotate(author.folder, author.keys)
    author.publish()
    assert len(memory.held) == 3
    assert not list(home.rglob("*.pem"))
    memory.locked = True
    with pytest.raises(StorageError, match="keyring"):
        author.renewal()


class TestRoots:
    def test_the_first(self, author: Author) -> None:
        root = json.loads(author.root_file.read_bytes())["signed"]
        assert root["consistent_snapshot"] is True
        assert author.root == pins.fingerprint(author.root_file.read_bytes())
        online = {tuple(root["roles"][role]["keyids"]) for role in roles.ONLINE}
        assert len(online) == 1
        assert tuple(root["roles"]["root"]["keyids"]) not in online

    def test_only_once(self, author: Author) -> None:
        before = author.root_file.read_bytes()
        with pytest.raises(StorageError, match="signed already"):
            signing.init(author.folder, author.keys)
        assert author.root_file.read_bytes() == before
        assert len(list(Path(author.keys.where).iterdir())) == 2

    def test_one_who_is_not_signed(self, home: Path) -> None:
        author = Author(home / "one", sign=False)
        assert not signing.is_signed(author.folder)
        for act in (author.renewal, lambda: signing.rotate(author.folder, author.keys)):
            with pytest.raises(UsageError, match="not signed"):
                act()

    def test_an_expired_one_signs_nothing(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(roles.LIFETIMES, roles.ROOT, timedelta(seconds=-5))
        author = Author(home / "one")
        with pytest.raises(IntegrityError, match="expired") as caught:
            author.renewal()
        assert "rotate" in caught.value.hint

    def test_one_that_ends_soon_is_told(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        author = Author(home / "one")
        assert author.renewal().notices == ()
        monkeypatch.setitem(roles.LIFETIMES, roles.ROOT, timedelta(days=10_000))
        assert "rotate" in author.renewal().notices[0]


class TestRenewal:
    def test_the_order_in_which_files_are_uploaded(self, author: Author) -> None:
        files = [file for file, _ in author.renewal().files]
        kinds = [file.rpartition(".json")[0].rpartition(".")[2] for file in files[2:]]
        assert all(file.startswith("targets/") for file in files[:2])
        assert kinds == ["targets", "snapshot", "root", "metadata/timestamp"]

    def test_nothing_but_what_changed_is_signed(self, author: Author) -> None:
        author.publish()
        assert [file for file, _ in author.renewal().files] == [TIMESTAMP]
        author.add("plants")
        files = [file for file, _ in author.renewal().files]
        assert len(files) == 4
        assert files[0].endswith(".plants.toml")

    def test_what_is_signed_can_be_asked(self, author: Author) -> None:
        assert signing.listed(author.folder, author.read) == {}
        author.publish()
        found = signing.listed(author.folder, author.read)
        assert found.keys() == author.files().keys()
        assert signing.signed_as(author.folder, author.read, "never.toml") == ""
        for file, sha256 in found.items():
            assert signing.signed_as(author.folder, author.read, file) == sha256
            assert author.read(f"targets/{sha256}.{file}") == author.read(file)

    def test_versions_only_grow(self, author: Author) -> None:
        seen = []
        for data in (b"1", b"2", b"3"):
            author.add("crops", data)
            author.publish()
            seen.append((author.signed("timestamp")["version"], author.snapshot()["targets"]))
        assert seen == [(1, 1), (2, 2), (3, 3)]

    def test_what_ends_soon_is_renewed(
        self, author: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for role in (roles.SNAPSHOT, roles.TARGETS):
            author.publish()
            with monkeypatch.context() as patch:
                patch.setitem(roles.LIFETIMES, role, timedelta(days=100_000))
                files = [file for file, _ in author.renewal().files]
            assert any(f".{role}.json" in file for file in files)

    def test_indexes_of_the_past_are_obsolete(self, author: Author) -> None:
        for number in range(5):
            author.put("ignored", b"")
            (author.shelf.folder / "index.json").write_text(json.dumps({"serial": number}))
            author.publish()
            if number == 2:
                author.add("plants")
                author.publish(["plants.toml", "registry.toml", "crops.toml", "index.json"])
        assert len(list((author.public / "targets").glob("*.index.json"))) <= 2
        assert author.files()["index.json"] in [
            path.read_bytes() for path in (author.public / "targets").glob("*.index.json")
        ]


class TestPublishers:
    def test_one_who_was_interrupted_is_in_nobodys_way(self, author: Author) -> None:
        author.publish()
        for data in (b"2", b"3"):
            author.add("crops", data)
            whole = author.renewal()
            for until in range(len(whole.files)):
                author.upload(author.renewal(), until=until)
        author.publish()
        assert signing.listed(author.folder, author.read).keys() == author.files().keys()

    def test_a_first_one_who_was_interrupted(self, author: Author) -> None:
        for until in range(len(author.renewal().files)):
            author.upload(author.renewal(), until=until)
        author.publish()

    def test_the_slower_of_two_finds_out(self, author: Author) -> None:
        author.publish()
        author.add("crops", b"2")
        slow = author.renewal()
        author.add("plants")
        author.publish()
        with pytest.raises(Conflict):
            author.upload(slow)
        author.publish()
        assert signing.listed(author.folder, author.read).keys() == author.files().keys()


class TestBins:
    def test_their_number(self) -> None:
        sizes = (0, 1, 256, 257, 4096, 4097, 65_536, 65_537, 10**6, 10**12)
        found = [bits_for(each) for each in sizes]
        assert found == [0, 0, 0, 6, 6, 8, 8, 10, 10, 14]
        assert is_crowded(257, 0)
        assert not is_crowded(256, 0)
        assert not is_crowded(10**9, 14)

    def test_a_look_up_reads_one_and_a_change_signs_one(self, author: Author) -> None:
        author.upload(signing.renewal(author.folder, author.keys, author.read, many(1000)))
        assert len(author.snapshot()) == 65
        changed = {"data-7.toml": b"other"}
        files = signing.renewal(author.folder, author.keys, author.read, changed).files
        assert sum("bin6-" in file for file, _ in files) == 1
        assert not any(".targets." in file for file, _ in files)

    def test_growth(self, author: Author) -> None:
        """Every file stays signed, and no name is ever taken from a snapshot."""
        files = many(200)
        roles_before: set[str] = set()
        for count in (200, 300, 9000, 9001):
            new = {file: data for file, data in many(count).items() if file not in files} or files
            author.upload(signing.renewal(author.folder, author.keys, author.read, new))
            files |= new
            assert signing.listed(author.folder, author.read).keys() == files.keys()
            assert roles_before <= author.snapshot().keys()
            roles_before = set(author.snapshot())
        assert {role.partition("-")[0] for role in roles_before} == {"targets", "bin6", "bin8"}


class TestRotation:
    @pytest.mark.parametrize("files", [3, 400])
    def test_of_the_key_that_publishes(self, author: Author, files: int) -> None:
        author.upload(signing.renewal(author.folder, author.keys, author.read, many(files)))
        before = signing.listed(author.folder, author.read)
        old = author.signed("root", 1)["roles"]["timestamp"]["keyids"]
        assert signing.rotate(author.folder, author.keys) == 2
        author.upload(signing.renewal(author.folder, author.keys, author.read, {}))
        assert signing.listed(author.folder, author.read) == before
        for path in (author.public / "metadata").iterdir():
            version, _, role = path.name.partition(".")
            current = {f"{name}.json": number for name, number in author.snapshot().items()}
            if path.name == "timestamp.json" or version == str(current.get(role)):
                signers = [each["keyid"] for each in json.loads(path.read_bytes())["signatures"]]
                assert signers
                assert not set(signers) & set(old)

    def test_of_the_root(self, author: Author) -> None:
        author.publish()
        signing.rotate(author.folder, author.keys, root_key=True)
        files = [file for file, _ in author.renewal().files]
        assert files == ["metadata/2.root.json", TIMESTAMP]
        author.publish()
        root = json.loads((author.public / "metadata/2.root.json").read_bytes())
        assert len(root["signatures"]) == 2
        signing.rotate(author.folder, author.keys)
        author.publish()
        assert author.signed("root", 3)["version"] == 3

    def test_many_before_a_publishing(self, author: Author) -> None:
        author.publish()
        for root_key in (True, False, True):
            signing.rotate(author.folder, author.keys, root_key=root_key)
        author.publish()
        assert author.signed("root", 4)
        assert signing.listed(author.folder, author.read)

    def test_one_that_was_interrupted_goes_on(self, author: Author) -> None:
        author.publish()
        signing.rotate(author.folder, author.keys)
        for until in range(len(author.renewal().files)):
            author.upload(author.renewal(), until=until)
        author.publish()
        assert [file for file, _ in author.renewal().files] == [TIMESTAMP]


class TestNeverSignedOver:
    """A destination that is not what the author has signed."""

    @pytest.mark.parametrize(
        "file", [TIMESTAMP, "metadata/1.snapshot.json", "metadata/1.targets.json"]
    )
    def test_changed_metadata(self, author: Author, file: str) -> None:
        author.publish()
        found = json.loads((author.public / file).read_bytes())
        found["signed"]["expires"] = "2099-01-01T00:00:00Z"
        author.put(file, json.dumps(found).encode())
        with pytest.raises(IntegrityError, match="signature"):
            author.renewal()

    @pytest.mark.parametrize("file", ["metadata/1.snapshot.json", "metadata/1.root.json"])
    def test_metadata_that_is_gone(self, author: Author, file: str) -> None:
        author.publish()
        (author.public / file).unlink()
        with pytest.raises(IntegrityError, match="missing"):
            author.renewal()

    def test_metadata_of_somebody_else(self, author: Author, home: Path) -> None:
        author.publish()
        other = Author(home / "two")
        other.publish()
        for path in (other.public / "metadata").iterdir():
            author.put(f"metadata/{path.name}", path.read_bytes())
        with pytest.raises(IntegrityError, match="author's"):
            author.renewal()

    def test_an_older_snapshot_under_a_newer_name(self, author: Author) -> None:
        author.publish()
        author.add("crops", b"2")
        author.publish()
        for role in ("snapshot", "targets"):
            old, new = (author.public / f"metadata/{number}.{role}.json" for number in (1, 2))
            kept = new.read_bytes()
            new.write_bytes(old.read_bytes())
            with pytest.raises(IntegrityError, match="mix and match"):
                author.renewal()
            new.write_bytes(kept)

    def test_an_older_timestamp_than_the_publisher_knows(self, author: Author) -> None:
        author.publish()
        old = author.read(TIMESTAMP)
        assert old
        author.add("crops", b"2")
        author.publish()
        last = author.read(TIMESTAMP)
        author.put(TIMESTAMP, old)
        with pytest.raises(IntegrityError, match="rollback"):
            signing.renewal(author.folder, author.keys, author.read, {}, last)

    def test_a_root_that_the_author_does_not_have(self, author: Author) -> None:
        author.publish()
        signing.rotate(author.folder, author.keys)
        author.publish()
        (author.shelf.folder / "metadata/2.root.json").unlink()
        with pytest.raises(IntegrityError, match="newer root"):
            author.renewal()

    def test_something_that_is_no_metadata(self, author: Author) -> None:
        author.publish()
        for data in (b"", b"<html>", b"{}", b'{"signed": {"_type": "root"}}', os.urandom(100)):
            author.put(TIMESTAMP, data)
            with pytest.raises(IntegrityError):
                author.renewal()


def test_without_the_extra_the_message_says_what_to_install(
    author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tuf", None)
    for act in (author.renewal, lambda: signing.rotate(author.folder, author.keys)):
        with pytest.raises(UsageError) as caught:
            act()
        assert caught.value.hint == "pip install 'dscache[signed]'"
