"""Look-up: which registry answers for a name, what stops it, and how little is read for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dscache import settings
from dscache.call import Call
from dscache.errors import (
    DscacheError,
    InvalidFile,
    NotCached,
    NotFound,
    TransferError,
    UnsafeError,
    UsageError,
)
from dscache.events import Event, Notice
from dscache.model import Dataset, Reference
from dscache.registry.author import write_index
from dscache.registry.lookup import Lookup
from dscache.registry.order import bundled
from tests.making import Shelf, artifact, sha256
from tests.origin import Redirect, Refuse, Site, origin

URL = "https://data.example.org/a.csv"


class Room:
    """A user's configuration, and look-ups under it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[str] = []
        self.arguments: dict[str, Any] = {"retries": 0}
        self._user: dict[str, str] = {}

    def use(self, address: object, name: str) -> None:
        """Add a registry to the user's configuration."""
        self._user[name] = str(address)
        lines = (f'{name} = "{address}"\n' for name, address in self._user.items())
        (self.folder / "config.toml").write_text("[registries]\n" + "".join(lines))

    @contextlib.contextmanager
    def lookup(self, **arguments: Any) -> Iterator[Lookup]:
        """A new call's look-up."""

        def hear(event: Event) -> None:
            if isinstance(event, Notice):
                self.heard.append(event.message)

        with Call(settings.load(**{**self.arguments, **arguments}), hear) as call:
            yield call.lookup

    def find(self, reference: str, **arguments: Any) -> Dataset:
        """What a reference means in a new call."""
        with self.lookup(**arguments) as lookup:
            return lookup.find(Reference.parse(reference))

    def shelf(self, name: str, *datasets: str, folder: str = "") -> Shelf:
        """A registry in a folder; each dataset's file is of the registry's own content."""
        shelf = Shelf(self.folder / (folder or name), name)
        for dataset in datasets:
            shelf.add(dataset, [artifact("a.csv", f"{name}/{dataset}".encode(), URL)])
        return shelf


@pytest.fixture
def room(home: Path) -> Room:
    return Room(home)


def served(shelf: Shelf) -> contextlib.AbstractContextManager[Site]:
    """A registry on the simulated origin."""
    return origin({f"/{path.name}": path.read_bytes() for path in shelf.folder.iterdir()})


def asked(site: Site) -> list[str]:
    return [request.path for request in site.requests]


def test_order_for_a_bare_name(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room.find("iris").registry == "samples"
    room.use(room.shelf("one", "iris").folder, "one")
    assert room.find("iris").registry == "one"
    variable = room.shelf("two", "iris").folder, room.shelf("three", "iris").folder
    monkeypatch.setenv("DSCACHE_REGISTRIES", ";".join(map(str, variable)))
    assert room.find("iris").registry == "two"
    room.shelf("four", "iris")
    (room.folder / "dscache.toml").write_text('[registries]\nteam = "four"')
    assert room.find("iris").registry == "team"
    for name in ("one", "two", "three", "team", "samples"):
        assert room.find(f"{name}/iris").registry == name
    with room.lookup() as lookup:
        names = [each.name for each in lookup.registries()]
        assert names[:4] == ["team", "two", "three", "one"]
        assert names[4:] == sorted(each.name for each in bundled())
        assert lookup.also_in(room.find("iris")) == ["two", "three", "one", "samples"]


def test_the_users_name_for_a_registry_rules(room: Room) -> None:
    room.use(room.shelf("theirs", "x").folder, "mine")
    assert room.find("x").registry == "mine"
    with pytest.raises(NotFound, match="theirs"):
        room.find("theirs/x")


def test_two_registries_of_one_name(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = room.shelf("team", "x").folder, room.shelf("team", "y", folder="other").folder
    monkeypatch.setenv("DSCACHE_REGISTRIES", f"{one};{two}")
    for reference in ("x", "team/x", "team/y", "iris"):
        with pytest.raises(UsageError, match="two registries are named 'team'") as failure:
            room.find(reference)
        assert "dscache registry" in failure.value.hint
    monkeypatch.setenv("DSCACHE_REGISTRIES", f"{one};{one}")
    assert room.find("team/x").registry == "team"


def test_the_same_name_in_project_and_configuration(room: Room) -> None:
    room.use(room.shelf("one", "x").folder, "team")
    room.shelf("two", "x")
    (room.folder / "dscache.toml").write_text('[registries]\nteam = "two"')
    with pytest.raises(UsageError, match="'team'"):
        room.find("x")


def test_a_bundled_registry_is_replaced_aloud(room: Room) -> None:
    room.use(room.shelf("whatever", "x").folder, "samples")
    assert room.find("samples/x").registry == "samples"
    with pytest.raises(NotFound):
        room.find("samples/iris")
    (notice,) = set(room.heard)
    assert "takes the place of the bundled registry 'samples'" in notice


@pytest.mark.parametrize("reference", ["iris", "x", "iris@1"])
def test_a_registry_out_of_reach_stops_a_bare_name(room: Room, reference: str) -> None:
    room.use(room.folder / "unmounted", "gone")
    with pytest.raises(TransferError, match="registry gone cannot be read") as failure:
        room.find(reference)
    assert "offline" in failure.value.hint


def test_and_nothing_else(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    unmounted = str(room.folder / "unmounted")
    monkeypatch.setenv("DSCACHE_REGISTRIES", unmounted)
    assert room.find("samples/iris").registry == "samples"
    assert room.find("iris", offline=True).registry == "samples"
    assert any(unmounted in notice for notice in room.heard)
    with pytest.raises(NotCached) as failure:
        room.find("x", offline=True)
    assert unmounted in failure.value.hint
    with pytest.raises(TransferError):
        room.find("unknown/x")


def test_a_later_one_out_of_reach_does_not_matter(room: Room) -> None:
    room.use(room.shelf("one", "x").folder, "one")
    room.use(room.folder / "unmounted", "gone")
    assert room.find("x").registry == "one"


def test_a_folder_that_is_no_registry(room: Room) -> None:
    (room.folder / "empty").mkdir()
    room.use(room.folder / "empty", "empty")
    with pytest.raises(InvalidFile, match=r"registry\.toml"):
        room.find("iris")
    (room.folder / "empty" / "registry.toml").write_text('format = 2\nname = "x"')
    with pytest.raises(InvalidFile, match="format"):
        room.find("iris")


def test_versions(room: Room) -> None:
    shelf = room.shelf("team", "x")
    shelf.add("x", [artifact("a", b"10", URL)], version="1.10")
    shelf.add("x", [artifact("a", b"9", URL)], version="1.9", file="x@1.9.toml")
    room.use(shelf.folder, "team")
    assert room.find("x").version == "1.10"
    assert room.find("x@1.10").version == "1.10"
    assert room.find("team/x@1.9").version == "1.9"
    with room.lookup() as lookup:
        assert lookup.versions(lookup.find(Reference("x"))) == ["1.9", "1.10"]
    with pytest.raises(NotFound) as failure:
        room.find("x@2")
    assert failure.value.facts["versions"] == ["1.9", "1.10"]


def test_the_file_of_a_version_wins(room: Room) -> None:
    shelf = room.shelf("team", "x")
    shelf.add("x", [artifact("a", b"exact", URL)], file="x@1.toml")
    room.use(shelf.folder, "team")
    assert str(room.find("x@1").artifacts[0].hash) == sha256(b"exact")
    assert str(room.find("x").artifacts[0].hash) == sha256(b"team/x")


def test_a_file_for_another_version(room: Room) -> None:
    shelf = room.shelf("team", "x")
    shelf.add("x", [artifact("a", b"", URL)], file="x@2.toml", version="3")
    room.use(shelf.folder, "team")
    with pytest.raises(InvalidFile, match=r"x@2\.toml: version"):
        room.find("x@2")


def test_aliases(room: Room) -> None:
    shelf = room.shelf("team", "x")
    shelf.add("x", [artifact("a", b"0", URL)], version="0", file="x@0.toml")
    shelf.write("y.toml", {"see": "x"})
    room.use(shelf.folder, "team")
    for reference, version in (("y", "1"), ("y@1", "1"), ("team/y@0", "0")):
        found = room.find(reference)
        assert (found.name, found.version) == ("x", version)
    with pytest.raises(NotFound):
        room.find("y@7")


@pytest.mark.parametrize("target", ["y", "z", "nothing", "../x", "team/x"])
def test_aliases_that_lead_nowhere(room: Room, target: str) -> None:
    shelf = room.shelf("team", "x")
    shelf.write("y.toml", {"see": target})
    shelf.write("z.toml", {"see": "y"})
    room.use(shelf.folder, "team")
    for reference in ("y", "y@1"):
        with pytest.raises(InvalidFile, match=r"y\.toml: see"):
            room.find(reference)


def test_the_names_of_registries(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSCACHE_REGISTRIES", f"{room.shelf('itself').folder};{room.folder}/none")
    room.use("https://192.0.2.1/registry", "far")
    with room.lookup() as lookup:
        names = ("itself", "far", "samples", "none", "penguins")
        assert [lookup.has_registry(name) for name in names] == [True, True, True, False, False]


def test_near_names(room: Room) -> None:
    with pytest.raises(NotFound) as failure:
        room.find("penguin")
    assert "penguins" in failure.value.facts["near"]
    assert "penguins" in failure.value.hint
    with pytest.raises(NotFound) as failure:
        room.find("vision/minst@1")
    assert "mnist" in failure.value.facts["near"]


def test_an_unknown_registry(room: Room) -> None:
    with pytest.raises(NotFound) as failure:
        room.find("nowhere/x")
    assert "samples" in failure.value.hint


def test_hostile_entries(room: Room) -> None:
    shelf = room.shelf("team")
    shelf.add("escaping", [artifact("../a", b"", URL)])
    shelf.add("local", [artifact("a", b"", "file:///etc/passwd")])
    shelf.add("inside", [artifact("a", b"", "../../etc/passwd")])
    shelf.add("colliding", [artifact("a", b"", URL), artifact("A", b"", URL)])
    shelf.add("secret", [artifact("a", b"", "https://user:password@x/a")])
    shelf.add("foreign", [artifact("a.7z", b"", URL, unpack="7z")])
    shelf.add("device", [artifact("con", b"", URL)])
    shelf.add("control", [artifact("a\n", b"", URL)])
    shelf.add("weak", [artifact("a", b"", "http://x/a", hash="md5:" + "0" * 32)])
    shelf.write("leading.toml", {"see": "../../x"})
    expected: dict[str, type[DscacheError]] = dict.fromkeys(
        ["colliding", "secret", "foreign", "device", "control", "weak", "leading"], InvalidFile
    )
    expected |= dict.fromkeys(["escaping", "local", "inside"], UnsafeError)
    with served(shelf) as site:
        room.use(site.url("/"), "team")
        for name, error in expected.items():
            with pytest.raises(error, match=f"{name}.toml") as failure:
                room.find(name)
            assert failure.value.code == (7 if error is UnsafeError else 8)
            assert "password" not in f"{failure.value} {failure.value.facts}"
    assert not [path for path in room.folder.rglob("x.toml*") if "registries" not in path.parts]


def test_a_local_registry_may_name_local_files(room: Room) -> None:
    shelf = room.shelf("team")
    shelf.add("x", [artifact("a", b"", "/data/a"), artifact("b", b"", "file:///data/b")])
    room.use(shelf.folder, "team")
    assert room.find("x").artifacts[0].urls == ("file:///data/a",)


def test_unknown_keys_are_told(room: Room) -> None:
    shelf = room.shelf("team")
    shelf.add("x", [artifact("a", b"", URL, colour="red")])
    room.use(shelf.folder, "team")
    assert room.find("x")
    assert any("artifacts[0].colour" in notice for notice in room.heard)


class TestAServer:
    @pytest.fixture
    def site(self, room: Room) -> Iterator[Site]:
        shelf = room.shelf("team", "x")
        shelf.write("y.toml", {"see": "x"})
        with served(shelf) as site:
            room.use(site.url("/"), "team")
            yield site

    def test_little_is_read(self, room: Room, site: Site) -> None:
        assert room.find("x").registry == "team"
        assert asked(site) == ["/registry.toml", "/x.toml"]
        assert room.find("y@1").name == "x"
        assert asked(site)[2:] == ["/y@1.toml", "/y.toml", "/x@1.toml"]
        assert room.find("y@1").name == "x"
        assert len(asked(site)) == 5

    def test_absence_is_asked_again_before_it_is_told(self, room: Room, site: Site) -> None:
        room.arguments["registry_max_age"] = 3600
        for _ in range(2):
            with pytest.raises(NotFound):
                room.find("team/new")
        site.files["/new.toml"] = site.files["/x.toml"]
        assert room.find("new").name == "new"

    def test_a_new_version_is_found_at_once(self, room: Room, site: Site) -> None:
        assert room.find("x@1")
        site.files["/x.toml"] = site.files["/x.toml"].replace(b'"1"', b'"2"')
        assert room.find("x").version == "1"
        assert room.find("x@2").version == "2"

    def test_offline_a_known_version_is_enough(self, room: Room, site: Site) -> None:
        assert room.find("x")
        assert room.find("x@1", offline=True).version == "1"
        with pytest.raises(NotCached):
            room.find("team/x@2", offline=True)
        with pytest.raises(NotCached):
            room.find("team/z", offline=True)

    def test_offline_and_never_read(self, room: Room, site: Site) -> None:
        with pytest.raises(NotCached):
            room.find("team/x", offline=True)
        assert room.find("iris", offline=True).registry == "samples"
        assert asked(site) == []

    @pytest.mark.parametrize("status", [401, 403, 500])
    def test_a_refusal_stops_a_bare_name(self, room: Room, site: Site, status: int) -> None:
        site.fault("/iris.toml", Refuse(status))
        with pytest.raises(TransferError, match="registry team cannot be read") as failure:
            room.find("iris")
        assert failure.value.facts["status"] == status
        assert room.find("samples/iris").registry == "samples"

    def test_the_wrong_address_is_not_an_empty_registry(self, room: Room, site: Site) -> None:
        room.use(site.url("/typo"), "team")
        with pytest.raises(InvalidFile, match="is no registry"):
            room.find("iris")

    def test_the_index_is_for_lists_only(self, room: Room, site: Site) -> None:
        site.files["/index.json"] = b'{"nonsense": 3}'
        assert room.find("x")
        with room.lookup() as lookup:
            assert {registry.name for registry, _, _ in lookup.available()} >= {"samples"}
        assert any("index.json" in notice for notice in room.heard)

    @pytest.mark.parametrize("text", [b'{"datasets":{"\xff":1}}', b'{"x":' + b"[" * 100_000])
    def test_an_index_that_is_no_text_or_without_end(
        self, room: Room, site: Site, text: bytes
    ) -> None:
        site.files["/index.json"] = text
        with room.lookup() as lookup:
            assert "team" not in {registry.name for registry, _, _ in lookup.available()}
        with pytest.raises(NotFound):
            room.find("team/none")

    def test_a_registry_that_leads_to_local_files_is_left_out_of_lists(
        self, room: Room, site: Site
    ) -> None:
        site.fault("/registry.toml", Redirect("file:///etc/passwd"))
        with room.lookup() as lookup:
            assert {registry.name for registry, _, _ in lookup.available()} >= {"samples"}
        assert any("redirected to a file: URL" in notice for notice in room.heard)
        with pytest.raises(UnsafeError):
            room.find("x")

    def test_a_hostile_index(self, room: Room, site: Site) -> None:
        row = b'{"version":"1","versions":[],"size":1,"summary":"\\u001b[2J","aliases":["../x"],'
        row += b'"digest":""}'
        site.files["/index.json"] = b'{"datasets": {"x": %s, "../evil": %s}}' % (row, row)
        with room.lookup() as lookup:
            rows = {
                name: row for registry, name, row in lookup.available() if registry.name == "team"
            }
        assert rows.keys() == {"x"}
        assert rows["x"].summary == " [2J"
        assert rows["x"].aliases == ()

    def test_versions_and_near_names_come_from_the_index(self, room: Room, site: Site) -> None:
        shelf = room.shelf("team", "x", "crops")
        shelf.add("x", [artifact("a", b"", URL)], version="0", file="x@0.toml")
        write_index(str(shelf.folder))
        site.files["/index.json"] = (shelf.folder / "index.json").read_bytes()
        with room.lookup() as lookup:
            assert lookup.versions(lookup.find(Reference("x"))) == ["0", "1"]
        with pytest.raises(NotFound) as failure:
            room.find("team/crop")
        assert failure.value.facts["near"] == ["crops"]

    def test_versions_that_the_entry_lists_need_no_index(self, room: Room, site: Site) -> None:
        shelf = room.shelf("team", "x")
        shelf.add("x", [artifact("a", b"2", URL)], version="2", versions=["1", "2"])
        site.files["/x.toml"] = (shelf.folder / "x.toml").read_bytes()
        with room.lookup() as lookup:
            assert lookup.versions(lookup.find(Reference("x"))) == ["1", "2"]
        assert "/index.json" not in asked(site)

    def test_a_long_index_is_not_read_for_the_versions_of_one(self, room: Room, site: Site) -> None:
        size = 64 << 20  # beside it, what the buffers of two connections swallow is little
        site.files["/index.json"] = b'{"datasets": {}}' + b" " * size
        for _ in range(2):
            with room.lookup() as lookup:
                assert lookup.versions(lookup.find(Reference("x"))) == ["1"]
        assert sum(each.sent for each in site.requests if each.path == "/index.json") < size
        with room.lookup() as lookup:  # who wants the list gets it, and then it is here
            assert "team" not in {registry.name for registry, _, _ in lookup.available()}
            assert lookup.versions(lookup.find(Reference("x"))) == ["1"]


def test_a_large_folder_is_not_listed_for_the_versions_of_one(room: Room) -> None:
    shelf = room.shelf("team", "x")
    shelf.add("x", [artifact("a", b"1", URL)], version="1", file="x@1.toml")
    shelf.add("x", [artifact("a", b"2", URL)], version="2")
    room.use(shelf.folder, "team")
    with room.lookup() as lookup:
        assert lookup.versions(lookup.find(Reference("x"))) == ["1", "2"]
    for number in range(8_000):
        (shelf.folder / f"a-file-with-a-name-of-some-length-{number}.txt").touch()
    with room.lookup() as lookup:
        assert lookup.versions(lookup.find(Reference("x"))) == ["2"]
    shelf.add("x", [artifact("a", b"2", URL)], version="2", versions=["1", "2"])
    with room.lookup() as lookup:
        assert lookup.versions(lookup.find(Reference("x", version="1"))) == ["1", "2"]


def test_two_thousand_entries_and_one_broken(room: Room) -> None:
    shelf = room.shelf("team", *(f"set-{number}" for number in range(2000)))
    (shelf.folder / "set-7.toml").write_text("version = ")
    room.use(shelf.folder, "local")
    assert room.find("local/set-1999").name == "set-1999"
    with pytest.raises(InvalidFile, match=r"set-7\.toml"):
        room.find("local/set-7")
    with room.lookup() as lookup:
        names = [name for registry, name, _ in lookup.available() if registry.name == "local"]
    assert len(names) == 1999
    with served(shelf) as site:
        room.use(site.url("/"), "remote")
        assert room.find("remote/set-1999").name == "set-1999"
        with pytest.raises(InvalidFile):
            room.find("remote/set-7")
        assert asked(site) == ["/registry.toml", "/set-1999.toml", "/set-7.toml"]


def test_a_look_up_that_is_known_costs_little(room: Room) -> None:
    room.use(room.shelf("team", "x").folder, "team")
    time.sleep(0.06)  # younger files are read again each time: they may change within a tick
    assert room.find("x")
    times = []
    for _ in range(20):
        began = time.perf_counter()
        room.find("x")
        times.append(time.perf_counter() - began)
    assert min(times) < 0.005
