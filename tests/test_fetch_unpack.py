"""Fetches that unpack, from the outside: what stands there, what was sent, what went wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dscache
from dscache.cache import Cache
from dscache.errors import DscacheError, IntegrityError, InvalidFile, TransferError, UnsafeError
from dscache.events import Advanced, Event, Notice
from tests.archives import SINGLES, USUAL, File, Link, compressed, packed, recipe_of
from tests.downloads import Desk, error_of, moments
from tests.making import Shelf, artifact, content, md5, sha256
from tests.origin import Drip, Drop, Gzipped, OtherContent, Short, Site, origin
from tests.stores import faults_of, files_below

MIB = 1 << 20
LITTLE = {"a.csv": b"1,2\n", "deep/b.bin": content(3000, 1), "deep/er/empty": b""}
LARGE = {"first.bin": content(MIB, 2), **LITTLE, "deep/last.bin": content(4 * MIB, 3)}


def archive(kind: str, members: dict[str, bytes]) -> bytes:
    return packed(kind, *(File(name, data) for name, data in members.items()))


TAR, LARGE_TAR = archive("tar", LITTLE), archive("tar", LARGE)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/little.tar": TAR, "/large.tar": LARGE_TAR}) as found:
        yield found


@pytest.fixture
def shelf(home: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    made = Shelf(home / "shelf")
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(made.folder))
    return made


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, retries=1)


def of(folder: Path) -> dict[str, bytes]:
    """The files in a folder, by their paths."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_below(folder)}


def trees(root: Path) -> list[Path]:
    return list(root.glob("trees/*/*"))


# --- What a fetch gives ---------------------------------------------------------------------------


@pytest.mark.parametrize("members", [LITTLE, LARGE], ids=["little", "large"])
@pytest.mark.parametrize("where", ["local", "http"])
@pytest.mark.parametrize("kind", USUAL)
def test_an_archive_gives_the_folder_of_its_members(
    shelf: Shelf, site: Site, home: Path, kind: str, where: str, members: dict[str, bytes]
) -> None:
    data = archive(kind, members)
    site.files["/x"] = data
    (shelf.folder / "x").write_bytes(data)
    url = "x" if where == "local" else site.url("/x")
    shelf.add("one", [artifact("some.file", data, url, unpack=recipe_of(kind))])
    (found,) = Cache().fetch_all(["one"])
    path = found.unwrap()
    assert of(path) == members
    assert path == dscache.path("one") == dscache.fetch("one")
    assert (found.status, found.size) == ("downloaded", sum(map(len, members.values())))
    assert found.bytes_downloaded == (0 if where == "local" else len(data))
    assert faults_of(home / "cache") == []
    assert list((home / "cache/parts").iterdir()) == []


@pytest.mark.parametrize("name", ["by its name", "by its bytes"])
@pytest.mark.parametrize("kind", USUAL)
def test_auto_finds_out(shelf: Shelf, kind: str, name: str) -> None:
    data = archive(kind, LITTLE)
    path = f"data.{kind.partition('-')[0]}" if name == "by its name" else "data"
    (shelf.folder / "x").write_bytes(data)
    shelf.add("one", [artifact(path, data, "x", unpack="auto")])
    assert of(dscache.fetch("one")) == LITTLE


@pytest.mark.parametrize("size", [1000, 3 * MIB])
@pytest.mark.parametrize(
    ("recipe", "suffix"), zip(SINGLES, [".gz", ".bz2", ".xz", ".zst"], strict=True)
)
def test_a_single_file_gives_its_path(
    shelf: Shelf, site: Site, recipe: str, suffix: str, size: int
) -> None:
    plain = content(size)
    data = site.files["/x"] = compressed(recipe, plain)
    for name, unpack in (("said", recipe), ("told", "auto")):
        shelf.add(name, [artifact(f"in/a.csv{suffix}", data, site.url("/x"), unpack=unpack)])
        path = dscache.fetch(name)
        assert path.parts[-2:] == ("in", "a.csv")
        assert path.read_bytes() == plain
        assert path == dscache.path(name)
        assert os.stat(path).st_mode & 0o777 == 0o444
    assert site.sent("/x") == len(data)


def test_unpack_to_is_where_the_members_stand(shelf: Shelf) -> None:
    single = compressed("gzip", b"x")
    (shelf.folder / "x.tar").write_bytes(TAR)
    (shelf.folder / "x.gz").write_bytes(single)
    shelf.add(
        "one",
        [
            artifact("x.tar", TAR, "x.tar", unpack="tar", unpack_to="in/here"),
            artifact("x.gz", single, "x.gz", unpack="gzip", unpack_to="there"),
        ],
    )
    expected = {f"in/here/{name}": data for name, data in LITTLE.items()} | {"there/x": b"x"}
    assert of(dscache.fetch("one")) == expected


def test_archives_and_plain_files_together(shelf: Shelf, site: Site) -> None:
    site.files |= {"/b.zip": archive("zip", LITTLE), "/c.bin": content(2 * MIB, 5)}
    shelf.add(
        "all",
        [
            artifact("a.tar", LARGE_TAR, site.url("/large.tar"), unpack="tar"),
            artifact(
                "b.zip", site.files["/b.zip"], site.url("/b.zip"), unpack="zip", unpack_to="b"
            ),
            artifact("c.bin", site.files["/c.bin"], site.url("/c.bin")),
            artifact("kept.tar", TAR, site.url("/little.tar")),
        ],
    )
    zipped = {f"b/{name}": data for name, data in LITTLE.items()}
    expected = LARGE | zipped | {"c.bin": site.files["/c.bin"], "kept.tar": TAR}
    assert of(dscache.fetch("all")) == expected
    assert dscache.path("all").is_dir()


def test_an_empty_archive_is_an_empty_folder(shelf: Shelf) -> None:
    data = archive("tar", {})
    (shelf.folder / "x").write_bytes(data)
    shelf.add("one", [artifact("x.tar", data, "x", unpack="tar")])
    path = dscache.fetch("one")
    assert list(path.iterdir()) == []
    assert Cache().fetch_all(["one"])[0].status == "cached"


def test_it_is_placed_into_a_folder_without_the_archive(shelf: Shelf, home: Path) -> None:
    (shelf.folder / "x").write_bytes(TAR)
    shelf.add("one", [artifact("x.tar", TAR, "x", unpack="tar")])
    dscache.fetch("one", into=home / "mine")
    assert of(home / "mine") == LITTLE


def test_a_member_where_another_file_stands_is_refused(shelf: Shelf) -> None:
    (shelf.folder / "x").write_bytes(TAR)
    (shelf.folder / "y").write_bytes(b"other")
    shelf.add("one", [artifact("x.tar", TAR, "x", unpack="tar"), artifact("a.csv", b"other", "y")])
    with pytest.raises(InvalidFile, match=r"a\.csv"):
        dscache.fetch("one")


# --- One tree for all -----------------------------------------------------------------------------


def test_one_archive_in_two_datasets_is_one_tree(shelf: Shelf, site: Site, home: Path) -> None:
    for name, place in (("one", ""), ("two", "elsewhere")):
        entry = artifact(f"{name}.tar", LARGE_TAR, site.url("/large.tar"), unpack="tar")
        shelf.add(name, [entry | ({"unpack_to": place} if place else {})])
    one = dscache.fetch("one")
    (found,) = Cache().fetch_all(["two"])
    two = found.unwrap() / "elsewhere"
    assert (found.status, found.bytes_downloaded) == ("linked", 0)
    for name in LARGE:
        assert (one / name).samefile(two / name)
    assert len(trees(home / "cache")) == 1
    assert site.sent("/large.tar") == len(LARGE_TAR)


@pytest.mark.parametrize("size", ["little", "large"])
@pytest.mark.parametrize("names", [("packed", "one", "two"), ("one", "packed", "two")])
def test_packed_and_unpacked_in_one_call(
    shelf: Shelf, site: Site, home: Path, names: tuple[str, ...], size: str
) -> None:
    data, members = (TAR, LITTLE) if size == "little" else (LARGE_TAR, LARGE)
    for name in names:
        keys = {} if name == "packed" else {"unpack": "tar"}
        shelf.add(name, [artifact(f"{name}.tar", data, site.url(f"/{size}.tar"), **keys)])
    found = dscache.fetch_many(names)
    assert found["packed"].read_bytes() == data
    assert of(found["one"]) == of(found["two"]) == members
    assert len(trees(home / "cache")) == 1
    assert site.sent(f"/{size}.tar") == len(data)


def test_one_archive_by_two_recipes(shelf: Shelf, site: Site) -> None:
    """As a single file and as what it holds: two trees of one blob."""
    data = site.files["/x"] = compressed("gzip", LARGE_TAR)
    shelf.add("single", [artifact("a.tar.gz", data, site.url("/x"), unpack="gzip")])
    shelf.add("members", [artifact("a.tar.gz", data, site.url("/x"), unpack="tar")])
    found = dscache.fetch_many(["single", "members"])
    assert found["single"].name == "a.tar"
    assert found["single"].read_bytes() == LARGE_TAR
    assert of(found["members"]) == LARGE
    assert site.sent("/x") == len(data)


# --- By URL, by weak hashes, by hand --------------------------------------------------------------


@pytest.mark.parametrize("known", ["sha256", "md5", "none"])
def test_retrieve_unpacks(site: Site, known: str) -> None:
    hashes = {"sha256": sha256(LARGE_TAR), "md5": md5(LARGE_TAR), "none": None}
    url = site.url("/large.tar")
    path = dscache.retrieve(url, hashes[known], unpack="tar")
    assert of(path) == LARGE
    assert dscache.retrieve(url, hashes[known], unpack="tar") == path
    assert site.sent("/large.tar") == len(LARGE_TAR)
    assert dscache.retrieve(url, sha256(LARGE_TAR)).read_bytes() == LARGE_TAR


def test_retrieve_of_a_single_file_gives_its_path(site: Site) -> None:
    data = site.files["/a.csv.gz"] = compressed("gzip", b"1,2\n")
    path = dscache.retrieve(site.url("/a.csv.gz"), sha256(data), unpack="auto")
    assert (path.name, path.read_bytes()) == ("a.csv", b"1,2\n")


def test_an_imported_archive_is_unpacked(shelf: Shelf, home: Path) -> None:
    entry = artifact("closed.tar", LARGE_TAR, manual="Ask for it.", unpack="tar")
    shelf.add("closed", [entry])
    (home / "download").write_bytes(LARGE_TAR)
    path = Cache().import_file("closed", home / "download").unwrap()
    assert of(path) == LARGE
    assert dscache.fetch("closed") == path
    assert (home / "download").read_bytes() == LARGE_TAR


# --- On its way -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst"])
def test_members_appear_in_the_draft_while_the_rest_is_held_back(
    desk: Desk, site: Site, kind: str
) -> None:
    """What is told holds up the network thread, so that not one more byte is read meanwhile."""
    data = site.files["/x"] = archive(kind, LARGE)
    site.fault("/x", Drip(MIB, 0.15))
    desk.offer("one", artifact("x", data, site.url("/x"), unpack="tar"))
    seen: set[str] = set()

    def look(event: Event) -> None:
        if isinstance(event, Advanced) and 2 * MIB <= event.done < len(data):
            for _ in moments():
                seen.update(path.name for path in desk.root.glob("parts/*.tree/files/*"))
                if "first.bin" in seen:
                    return
                time.sleep(0.005)

    desk.hear = look
    assert of(desk.fetch("one").unwrap()) == LARGE
    assert "first.bin" in seen


def test_nothing_of_a_wrong_archive_stays(desk: Desk, site: Site) -> None:
    mark = b"this is not what was asked for. " * (MIB // 32)
    wrong = {name: mark if name == "first.bin" else data for name, data in LARGE.items()}
    wrong_tar = site.files["/wrong.tar"] = archive("tar", {"wrong.txt": b"x", **wrong})[
        : len(LARGE_TAR)
    ].ljust(len(LARGE_TAR), b"\0")
    assert len(wrong_tar) == len(LARGE_TAR)
    urls = (site.url("/wrong.tar"), site.url("/large.tar"))
    desk.offer("one", artifact("x.tar", LARGE_TAR, *urls, unpack="tar"))
    assert of(desk.fetch("one").unwrap()) == LARGE
    kept = set(desk.below("quarantine"))
    for path in set(desk.below()) - kept:
        assert path.name != "wrong.txt"
        assert mark[:64] not in path.read_bytes()
    assert faults_of(desk.root) == []
    assert os.listdir(desk.root / "parts") == []


@pytest.mark.parametrize("kind", ["tar", "tar.xz", "zip"])
def test_a_broken_download_goes_on_and_is_unpacked_right(desk: Desk, site: Site, kind: str) -> None:
    data = site.files["/x"] = archive(kind, LARGE)
    site.fault("/x", Drop(after=3 * MIB), times=4)
    site.fault("/x", Drop(after=0), skip=1, times=3)
    desk.offer("one", artifact("x", data, site.url("/x"), unpack=recipe_of(kind)))
    assert error_of(desk.fetch("one")).code == 4
    assert trees(desk.root) == []
    assert [path.suffix for path in (desk.root / "parts").iterdir() if path.is_dir()] == []
    site.mend()
    found = desk.fetch("one")
    assert of(found.unwrap()) == LARGE
    assert found.bytes_resumed >= 3 * MIB - MIB
    assert faults_of(desk.root) == []


def test_an_archive_that_changed_between_two_attempts(desk: Desk, site: Site) -> None:
    old = archive("tar", {"old.bin": content(5 * MIB, 9)})
    site.fault("/large.tar", OtherContent(old), Drop(after=3 * MIB), times=1)
    site.fault("/large.tar", Drop(after=0), skip=1, times=3)
    desk.offer("one", artifact("x.tar", LARGE_TAR, site.url("/large.tar"), unpack="tar", size=None))
    assert error_of(desk.fetch("one")).code == 4
    site.mend()
    assert of(desk.fetch("one").unwrap()) == LARGE
    assert os.listdir(desk.root / "parts") == []


@pytest.mark.parametrize("size", [True, False], ids=["size known", "size unknown"])
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_gzip_that_nobody_asked_for_is_taken_off(
    desk: Desk, site: Site, kind: str, size: bool
) -> None:
    data = site.files["/x"] = archive(kind, LARGE)
    site.fault("/x", Gzipped())
    entry = artifact("x", data, site.url("/x"), unpack=recipe_of(kind))
    desk.offer("one", entry if size else entry | {"size": len(data)})
    assert of(desk.fetch("one").unwrap()) == LARGE
    assert os.listdir(desk.root / "parts") == []


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_without_a_size_it_is_unpacked_when_it_is_complete(
    desk: Desk, site: Site, kind: str
) -> None:
    data = site.files["/x"] = archive(kind, LARGE)
    desk.offer("one", artifact("x", data, site.url("/x"), unpack=recipe_of(kind), size=None))
    assert of(desk.fetch("one").unwrap()) == LARGE
    assert site.sent("/x") == len(data)


# --- What is wrong with an archive ----------------------------------------------------------------


def refused(kind: str) -> tuple[bytes, str]:
    """An archive that nobody can unpack, and its recipe."""
    evil = packed("tar", File("good.bin", LARGE["first.bin"]), File("../evil", b"x"))
    return {
        "leads out": (evil, "tar"),
        "leads out, little": (packed("zip", File("good", b"y"), File("../evil", b"x")), "zip"),
        "damaged": (archive("tar.gz", LARGE)[:-1000], "tar"),
        "damaged, little": (archive("tar.xz", LITTLE)[:-100], "tar"),
        "7z": (b"7z\xbc\xaf\x27\x1c" + content(2 * MIB), "auto"),
        "rar, little": (b"Rar!\x1a\x07\x00" + content(2000), "auto"),
        "nothing": (content(2 * MIB), "auto"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("leads out", UnsafeError),
        ("leads out, little", UnsafeError),
        ("damaged", IntegrityError),
        ("damaged, little", IntegrityError),
        ("7z", InvalidFile),
        ("rar, little", InvalidFile),
        ("nothing", InvalidFile),
    ],
)
@pytest.mark.parametrize("size", ["size known", "size unknown"])
def test_what_cannot_be_unpacked_is_downloaded_once(
    desk: Desk, site: Site, kind: str, error: type[DscacheError], size: str
) -> None:
    data, recipe = refused(kind)
    site.files["/x"] = data
    entry = artifact("x.dat", data, site.url("/x"), unpack=recipe)
    desk.offer("one", entry if size == "size known" else {**entry, "size": len(data)})
    for _ in range(2):
        assert type(error_of(desk.fetch("one"))) is error
        assert trees(desk.root) == []
        assert os.listdir(desk.root / "parts") == []
    assert site.sent("/x") == len(data)
    (whole,) = desk.cache.fetch_all(["shelf/one"], files="x.dat")
    assert whole.unwrap().read_bytes() == data
    assert site.sent("/x") == len(data)
    assert faults_of(desk.root) == []


def test_a_refused_member_is_told_in_the_document(shelf: Shelf, home: Path) -> None:
    data, _ = refused("leads out")
    (shelf.folder / "x").write_bytes(data)
    shelf.add("one", [artifact("x.tar", data, "x", unpack="tar")])
    command = [sys.executable, "-m", "dscache", "fetch", "one", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert (error["code"], error["type"], error["member"]) == (7, "UnsafeError", "../evil")
    assert len(files_below(home / "cache/blobs")) == 1


def test_one_that_cannot_be_unpacked_does_not_stop_the_others(shelf: Shelf, site: Site) -> None:
    data = site.files["/x"], _ = refused("leads out")
    shelf.add("evil", [artifact("x.tar", data[0], site.url("/x"), unpack="tar")])
    shelf.add("packed", [artifact("x.tar", data[0], site.url("/x"))])
    shelf.add("good", [artifact("x.tar", LARGE_TAR, site.url("/large.tar"), unpack="tar")])
    evil, kept, good = Cache().fetch_all(["evil", "packed", "good"])
    assert isinstance(evil.error, UnsafeError)
    assert kept.unwrap().read_bytes() == data[0]
    assert of(good.unwrap()) == LARGE


@pytest.mark.parametrize("size", ["little", "large"])
def test_missing_bytes_are_no_damaged_archive(desk: Desk, site: Site, size: str) -> None:
    data = TAR if size == "little" else LARGE_TAR
    site.fault(f"/{size}.tar", Short(by=600))
    desk.offer("one", artifact("x.tar", data, site.url(f"/{size}.tar"), unpack="tar"))
    assert isinstance(error_of(desk.fetch("one")), TransferError)
    assert trees(desk.root) == []


def test_it_is_told_that_an_archive_is_unpacked(desk: Desk, site: Site) -> None:
    desk.offer("one", artifact("x.tar", LARGE_TAR, site.url("/large.tar"), unpack="tar"))
    desk.fetch("one").unwrap()
    assert not desk.told(Notice)
