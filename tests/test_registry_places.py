"""Places: one contract for folders and web servers; then what is special about a server's copies.

The contract runs on a folder, on the simulated origin and on nginx.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from dscache import settings
from dscache.call import Call
from dscache.errors import InvalidFile, TransferError
from dscache.events import Event, Notice
from dscache.registry import copies
from dscache.registry.copies import Copy
from dscache.registry.places import Place
from dscache.registry.tables import MAX_ENTRY, Entry
from tests.making import Shelf, artifact
from tests.origin import LoginPage, Redirect, Refuse, Site, origin
from tests.servers import Server, nginx


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A registry of one entry, one alias and some broken files."""
    shelf = Shelf(tmp_path / "shelf")
    shelf.add("crops", [artifact("a.csv", b"a", "https://x/a.csv")])
    shelf.add("crops", [artifact("a.csv", b"a", "a.csv")], file="crops@0.9+b.toml", version="0.9+b")
    shelf.write("plants.toml", {"see": "crops"})
    (shelf.folder / "broken.toml").write_text("version = ")
    (shelf.folder / "page.toml").write_text("<html></html>")
    with (shelf.folder / "huge.toml").open("wb") as file:
        file.truncate(MAX_ENTRY + 1)
    return shelf


@pytest.fixture
def heard() -> list[str]:
    """The notices so far."""
    return []


@pytest.fixture
def call(heard: list[str]) -> Iterator[Call]:
    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            heard.append(event.message)

    with Call(settings.load(retries=0), hear) as call:
        yield call


def files_of(shelf: Shelf) -> dict[str, bytes]:
    """What an origin serves of a registry."""
    return {f"/r/{path.name}": path.read_bytes() for path in shelf.folder.iterdir()}


@pytest.fixture(params=["folder", "origin", "nginx"])
def place(
    request: pytest.FixtureRequest, shelf: Shelf, tmp_path: Path, call: Call
) -> Iterator[Place]:
    """The same registry in all places where one can be."""
    if request.param == "folder":
        yield call.open_place(str(shelf.folder))
    elif request.param == "origin":
        with origin(files_of(shelf)) as site:
            yield call.open_place(site.url("/r"))
    else:
        with nginx(shelf.folder.parent, tmp_path / "nginx") as server:
            yield call.open_place(f"{server.url}/shelf/")


class TestContract:
    def test_an_entry(self, place: Place) -> None:
        document = place.document("crops.toml")
        assert document
        assert isinstance(document.entry, Entry)
        assert document.entry.version == "1"
        assert document.problems == ()

    def test_the_file_of_a_version(self, place: Place) -> None:
        document = place.document("crops@0.9+b.toml")
        assert document
        found = document.dataset("crops", "shelf", place.base)
        assert found.artifacts[0].urls == (f"{place.base}a.csv",)
        assert place.base.endswith("/")

    def test_what_is_not_there(self, place: Place) -> None:
        assert place.document("nothing.toml") is None
        assert place.document("crops@2.toml") is None
        assert place.read("index.json") is None

    def test_the_bytes_of_a_file(self, place: Place, shelf: Shelf) -> None:
        assert place.read("registry.toml") == (shelf.folder / "registry.toml").read_bytes()

    @pytest.mark.parametrize("file", ["broken.toml", "page.toml", "huge.toml"])
    def test_what_is_no_entry(self, place: Place, file: str) -> None:
        for _ in range(2):
            with pytest.raises(InvalidFile, match=file.replace(".", r"\.")):
                place.document(file)

    def test_names(self, place: Place) -> None:
        names = place.names()
        assert (names is None) == (not place.local)
        assert names is None or "crops.toml" in names


def test_a_folder_that_is_gone_is_not_empty(call: Call, tmp_path: Path) -> None:
    place = call.open_place(str(tmp_path / "unmounted"))
    with pytest.raises(TransferError):
        place.document("crops.toml")
    with pytest.raises(TransferError):
        place.names()


def test_what_is_no_file(call: Call, shelf: Shelf) -> None:
    (shelf.folder / "folder.toml").mkdir()
    os.mkfifo(shelf.folder / "pipe.toml")
    for file in ("folder.toml", "pipe.toml"):
        with pytest.raises(InvalidFile, match=file.replace(".", r"\.")):
            call.open_place(str(shelf.folder)).document(file)


def test_a_change_in_a_folder_is_seen_at_once(call: Call, shelf: Shelf) -> None:
    place = call.open_place(str(shelf.folder))
    assert place.document("new.toml") is None
    shelf.add("new", [artifact("a", b"", "https://x/a")])
    assert place.document("new.toml")


@pytest.fixture
def site(shelf: Shelf) -> Iterator[Site]:
    with origin(files_of(shelf)) as site:
        yield site


class Opened(Protocol):
    """Opens a place as a new call sees it, under settings of its own."""

    def __call__(self, address: str, **arguments: object) -> Place: ...


@pytest.fixture
def opened(heard: list[str]) -> Iterator[Opened]:
    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            heard.append(event.message)

    with ExitStack() as calls:

        def open_place(address: str, **arguments: object) -> Place:
            call = Call(settings.load(retries=0, **arguments), hear)
            return calls.enter_context(call).open_place(address)

        yield open_place


def asked(site: Site) -> list[str]:
    return [request.path for request in site.requests]


def test_a_fresh_copy_is_used_without_asking(site: Site, opened: Opened) -> None:
    for _ in range(3):
        place = opened(site.url("/r/"))
        assert place.document("crops.toml")
        assert place.document("nothing.toml") is None
    assert asked(site) == ["/r/crops.toml", "/r/nothing.toml"]
    again = place.anew()
    assert again
    assert again.document("nothing.toml") is None
    assert asked(site)[2:] == ["/r/nothing.toml"]


def test_a_call_asks_once(site: Site, opened: Opened) -> None:
    place = opened(site.url("/r"), registry_max_age=0)
    for _ in range(3):
        assert place.document("crops.toml")
    assert asked(site) == ["/r/crops.toml"]
    assert place.anew() is None


def test_an_old_copy_is_asked_about(site: Site, shelf: Shelf, opened: Opened) -> None:
    def version() -> str:
        document = opened(site.url("/r"), registry_max_age=0).document("crops.toml")
        assert document
        assert isinstance(document.entry, Entry)
        return document.entry.version

    assert version() == "1"
    shelf.add("crops", [artifact("a.csv", b"b", "https://x/a.csv")], version="2")
    site.files["/r/crops.toml"] = (shelf.folder / "crops.toml").read_bytes()
    assert version() == "2"
    assert site.requests[1].headers["if-none-match"]
    del site.files["/r/crops.toml"]
    assert opened(site.url("/r"), registry_max_age=0).document("crops.toml") is None


def test_nothing_is_sent_twice(shelf: Shelf, tmp_path: Path, opened: Opened) -> None:
    with nginx(shelf.folder, tmp_path / "nginx") as server:
        for _ in range(3):
            assert opened(server.url, registry_max_age=0).document("crops.toml")
        assert [seen.status for seen in server.requests(at_least=3)] == [200, 304, 304]
        assert opened(server.url).document("crops.toml")
        assert len(server.requests()) == 3


def test_with_the_server_down_the_copy_serves(
    shelf: Shelf, tmp_path: Path, opened: Opened, heard: list[str]
) -> None:
    def look(server: Server, **arguments: object) -> Place:
        place = opened(server.url, **arguments)
        assert place.document("crops.toml")
        assert place.document("nothing.toml") is None
        return place

    with nginx(shelf.folder, tmp_path / "nginx") as server:
        look(server)
        server.stop()
        look(server)
        look(server, offline=True)
        assert heard == []
        place = look(server, registry_max_age=0)
        (notice,) = heard
        assert server.url in notice
        with pytest.raises(TransferError):
            place.document("plants.toml")
        with pytest.raises(TransferError):
            opened(server.url, offline=True).document("plants.toml")


def test_a_server_that_is_down_is_asked_once_in_a_call(
    site: Site, opened: Opened, heard: list[str]
) -> None:
    place = opened(site.url("/r"))
    assert place.document("crops.toml")
    assert place.document("plants.toml")
    site.fault("*", Refuse(503))
    place = opened(site.url("/r"), registry_max_age=0)
    assert place.document("crops.toml")
    assert place.document("plants.toml")
    assert len(asked(site)) == 3
    assert len(heard) == 1


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_a_refusal_is_not_an_absence(site: Site, opened: Opened, status: int) -> None:
    site.fault("/r/crops.toml", Refuse(status))
    with pytest.raises(TransferError, match=str(status)):
        opened(site.url("/r")).document("crops.toml")
    site.mend()
    assert opened(site.url("/r")).document("crops.toml")


@pytest.mark.parametrize("status", [404, 410])
def test_an_absence(site: Site, opened: Opened, status: int) -> None:
    site.fault("/r/crops.toml", Refuse(status))
    assert opened(site.url("/r")).document("crops.toml") is None


def test_a_login_page_is_not_remembered(site: Site, opened: Opened) -> None:
    for file in ("crops.toml", "registry.toml", "index.json"):
        site.files["/r/index.json"] = b'{"datasets": {}}'
        site.fault(f"/r/{file}", LoginPage())
        with pytest.raises(InvalidFile):
            opened(site.url("/r")).read(file)
        site.mend()
        assert opened(site.url("/r")).read(file)


def test_a_redirect_within_the_web(site: Site, opened: Opened) -> None:
    site.fault("/r/moved.toml", Redirect("/r/crops.toml"))
    assert opened(site.url("/r")).document("moved.toml")


def test_two_registries_have_copies_of_their_own(site: Site, opened: Opened) -> None:
    site.files["/s/crops.toml"] = site.files["/r/plants.toml"]
    one = opened(site.url("/r")).read("crops.toml")
    assert one != opened(site.url("/s")).read("crops.toml")
    assert one == opened(site.url("/r")).read("crops.toml")


def test_a_torn_copy_counts_as_never_read(site: Site, opened: Opened, home: Path) -> None:
    assert opened(site.url("/r")).document("crops.toml")
    (copy,) = (home / "cache" / "registries").rglob("crops.toml")
    whole = copy.read_bytes()
    for torn in (b"", whole[:10], whole[:-1], bytes(len(whole)), whole.replace(b"1", b"2")):
        copy.write_bytes(torn)
        assert opened(site.url("/r")).read("crops.toml") == site.files["/r/crops.toml"]
        assert copy.read_bytes().startswith(b"{")
    assert len(asked(site)) == 6


def test_a_copy_of_the_future_is_asked_about(site: Site, opened: Opened, home: Path) -> None:
    assert opened(site.url("/r")).document("crops.toml")
    (file,) = (home / "cache" / "registries").rglob("crops.toml")
    copies.store(str(file), Copy(time.time() + 10**6, site.files["/r/crops.toml"]))
    assert opened(site.url("/r")).document("crops.toml")
    assert len(asked(site)) == 2


def test_a_cache_that_cannot_be_written_stops_no_look_up(
    site: Site, opened: Opened, heard: list[str], home: Path
) -> None:
    (home / "cache").mkdir()
    (home / "cache" / "registries").write_text("in the way")
    assert opened(site.url("/r")).document("crops.toml")
    assert any("cannot be remembered" in notice for notice in heard)


def test_copies_are_read_as_they_are_stored(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "x.toml")
    assert copies.load(path) is None
    for copy in (Copy(5.5), Copy(6.5, b"", ""), Copy(7.5, b"a\nb\n", '"e"')):
        copies.store(path, copy)
        assert copies.load(path) == copy
        os.utime(path, ns=(1, 1))
