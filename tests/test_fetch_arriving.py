"""Archives on their way: broken, wrong and changed ones, and those that cannot be unpacked."""

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

from dscache.cache import Cache
from dscache.errors import DscacheError, IntegrityError, InvalidFile, TransferError, UnsafeError
from dscache.events import Advanced, Event, Notice
from tests.archives import File, packed, recipe_of
from tests.downloads import Desk, error_of, moments
from tests.making import Shelf, artifact, content
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
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, retries=1)


def of(folder: Path) -> dict[str, bytes]:
    """The files in a folder, by their paths."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_below(folder)}


def trees(root: Path) -> list[Path]:
    return list(root.glob("trees/*/*"))


# --- On its way -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst"])
def test_members_appear_in_the_draft_while_the_rest_is_held_back(
    tmp_path: Path, site: Site, kind: str
) -> None:
    """What is told holds up the network thread, so that not one more byte is read meanwhile."""
    members = {"first.bin": LARGE["first.bin"], "last.bin": content(8 * MIB, 4)}
    data = site.files["/x"] = archive(kind, members)
    site.fault("/x", Drip(MIB, 0.1))
    desk = Desk(tmp_path, jobs=1)
    desk.offer("one", artifact("x", data, site.url("/x"), unpack="tar"))
    seen: set[str] = set()

    def look(event: Event) -> None:
        if isinstance(event, Advanced) and 6 * MIB <= event.done < len(data):
            for _ in moments():
                seen.update(path.name for path in desk.root.glob("parts/*.tree/files/*"))
                if "first.bin" in seen:
                    return
                time.sleep(0.005)

    desk.hear = look
    assert of(desk.fetch("one").unwrap()) == members
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


@pytest.mark.parametrize("kind", ["tar", "tar.zst", "zip"])
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
    data, _ = refused("leads out")
    site.files["/x"] = data
    shelf.add("evil", [artifact("x.tar", data, site.url("/x"), unpack="tar")])
    shelf.add("packed", [artifact("x.tar", data, site.url("/x"))])
    shelf.add("good", [artifact("x.tar", LARGE_TAR, site.url("/large.tar"), unpack="tar")])
    evil, kept, good = Cache().fetch_all(["evil", "packed", "good"])
    assert isinstance(evil.error, UnsafeError)
    assert kept.unwrap().read_bytes() == data
    assert of(good.unwrap()) == LARGE


@pytest.mark.parametrize("size", ["little", "large"])
def test_missing_bytes_are_no_damaged_archive(desk: Desk, site: Site, size: str) -> None:
    data = TAR if size == "little" else LARGE_TAR
    site.fault(f"/{size}.tar", Short(by=600))
    desk.offer("one", artifact("x.tar", data, site.url(f"/{size}.tar"), unpack="tar"))
    assert isinstance(error_of(desk.fetch("one")), TransferError)
    assert trees(desk.root) == []


def test_a_right_one_gives_no_cause_for_notices(desk: Desk, site: Site) -> None:
    desk.offer("one", artifact("x.tar", LARGE_TAR, site.url("/large.tar"), unpack="tar"))
    desk.fetch("one").unwrap()
    assert not desk.told(Notice)
