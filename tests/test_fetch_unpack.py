"""Fetches that unpack, from the outside: what stands there, what was sent, what went wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import dscache
from dscache.cache import Cache
from dscache.errors import InvalidFile
from tests.archives import SINGLES, USUAL, File, compressed, packed, recipe_of
from tests.children import forked, unprivileged
from tests.making import Shelf, artifact, content, md5, sha256
from tests.origin import Site, origin
from tests.stores import boot, faults_of, files_below, overwrite

MIB = 1 << 20
LITTLE = {"a.csv": b"1,2\n", "deep/b.bin": content(3000, 1), "deep/er/empty": b""}
LARGE = {"first.bin": content(MIB, 2), **LITTLE, "deep/last.bin": content(4 * MIB, 3)}
SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
#: Kinds that are made quickly of many bytes.
QUICK = ("tar", "tar.gz", "tar.zst", "zip", "zip-deflated")


def archive(kind: str, members: dict[str, bytes]) -> bytes:
    return packed(kind, *(File(name, data) for name, data in members.items()))


TAR, LARGE_TAR = archive("tar", LITTLE), archive("tar", LARGE)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/little.tar": TAR, "/large.tar": LARGE_TAR}) as found:
        yield found


def of(folder: Path) -> dict[str, bytes]:
    """The files in a folder, by their paths."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_below(folder)}


def trees(root: Path) -> list[Path]:
    return list(root.glob("trees/*/*"))


# --- What a fetch gives ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "members", "kind"),
    [
        *(pytest.param("local", LITTLE, kind, id=f"local {kind}") for kind in USUAL),
        *(pytest.param("http", LITTLE, kind, id=kind) for kind in USUAL),
        *(pytest.param("http", LARGE, kind, id=f"large {kind}") for kind in QUICK),
    ],
)
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


@pytest.mark.parametrize(
    ("recipe", "suffix", "size"),
    [(*each, 1000) for each in zip(SINGLES, SUFFIXES, strict=True)] + [("zstd", ".zst", 3 * MIB)],
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


def test_a_durable_record_speaks_of_durable_trees_only(
    shelf: Shelf, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the tree stood there before, and was not brought to the disk."""
    (shelf.folder / "x").write_bytes(TAR)
    for name in ("one", "two"):
        shelf.add(name, [artifact(f"{name}.tar", TAR, "x", unpack="tar")])
    dscache.fetch("one")
    (summary,) = (home / "cache").glob("trees/*/*/tree.json")
    assert not json.loads(summary.read_bytes())["durable"]
    (home / "config.toml").write_text('durability = "sync"\n')
    dscache.fetch("two")
    (record,) = (home / "cache/records").rglob("two@*.json")
    assert json.loads(record.read_bytes())["durable"]
    assert json.loads(summary.read_bytes())["durable"]


def test_after_a_restart_it_is_verified_also_in_a_cache_of_others(shelf: Shelf, home: Path) -> None:
    (shelf.folder / "x").write_bytes(TAR)
    shelf.add("one", [artifact("x.tar", TAR, "x", unpack="tar")])
    path = dscache.fetch("one")
    folders = [home / "cache", *(each for each in (home / "cache").rglob("*") if each.is_dir())]

    def again() -> dict[str, bytes]:
        with boot("another"):
            return of(dscache.fetch("one"))

    for folder in folders:
        folder.chmod(0o555)
    try:
        assert unprivileged(again) == LITTLE
    finally:
        for folder in folders:
            folder.chmod(0o755)
    overwrite(path / "deep/b.bin", bytes(3000))
    assert forked(again) == LITTLE
    assert of(path) == LITTLE


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


def test_packed_and_unpacked_it_is_no_other_content(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    dscache.retrieve(site.url("/little.tar"), sha256(TAR))
    dscache.retrieve(site.url("/little.tar"), sha256(TAR), unpack="tar")
    assert not caplog.messages


def test_an_imported_archive_is_unpacked(shelf: Shelf, home: Path) -> None:
    entry = artifact("closed.tar", LARGE_TAR, manual="Ask for it.", unpack="tar")
    shelf.add("closed", [entry])
    (home / "download").write_bytes(LARGE_TAR)
    path = Cache().import_file("closed", home / "download").unwrap()
    assert of(path) == LARGE
    assert dscache.fetch("closed") == path
    assert (home / "download").read_bytes() == LARGE_TAR
