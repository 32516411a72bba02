"""Members of archives: selections by pattern, and repairs of what was damaged in the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import dscache
from dscache.cache import Cache
from dscache.errors import NotCached, NotFound
from dscache.store import Store, Unpacked
from dscache.store.members import FILE, LINK, Member
from dscache.view import Contents
from tests.archives import File, Folder, Link, compressed, packed
from tests.children import forked
from tests.making import Shelf, artifact, content
from tests.origin import Site, origin
from tests.stores import boot, faults_of, files_below

MIB = 1 << 20
FILES = {"a.csv": b"1,2\n", "deep/b.bin": content(3000, 1), "deep/c.csv": content(2 * MIB, 2)}
TAR = packed("tar", *(File(name, data) for name, data in FILES.items()))
OTHER = packed("zip", File("a.csv", b"3\n"), File("d.txt", b"4\n"))
SINGLE = compressed("gzip", b"5\n")


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/x.tar": TAR, "/y.zip": OTHER, "/z.csv.gz": SINGLE, "/p.txt": b"p"}) as found:
        yield found


@pytest.fixture
def shelf(shelf: Shelf, site: Site) -> Shelf:
    """With a dataset `all` of all kinds of artifacts, and `one` of one archive."""
    x = artifact("x.tar", TAR, site.url("/x.tar"), unpack="tar")
    shelf.add("one", [x])
    shelf.add(
        "all",
        [
            x,
            artifact("y.zip", OTHER, site.url("/y.zip"), unpack="zip", unpack_to="y"),
            artifact("z.csv.gz", SINGLE, site.url("/z.csv.gz"), unpack="gzip", unpack_to="z"),
            artifact("p.txt", b"p", site.url("/p.txt")),
        ],
    )
    return shelf


ALL = FILES | {"y/a.csv": b"3\n", "y/d.txt": b"4\n", "z/z.csv": b"5\n", "p.txt": b"p"}


def of(folder: Path) -> dict[str, bytes]:
    """The files in a folder, by their paths; of links, what they lead to."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_below(folder)}


def only(*names: str) -> dict[str, bytes]:
    return {name: ALL[name] for name in names}


def asked(site: Site) -> set[str]:
    return {request.path for request in site.requests}


# --- Selections -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("shelf")
def test_members_are_chosen_then_others_then_all(site: Site) -> None:
    path = dscache.fetch("all", files="deep/*")
    assert of(path) == only("deep/b.bin", "deep/c.csv")
    assert dscache.path("all", files="deep/b*") == path
    for missing in (None, "*.csv", "a.csv"):
        with pytest.raises(NotCached):
            dscache.path("all", files=missing)
    assert dscache.fetch("all", files=["a.csv"]) == path
    assert of(path) == only("a.csv", "deep/b.bin", "deep/c.csv")
    assert dscache.fetch("all", files=["*.csv"]) == path
    assert of(path) == only("a.csv", "deep/b.bin", "deep/c.csv", "y/a.csv", "z/z.csv")
    with pytest.raises(NotCached):
        dscache.path("all")
    assert dscache.fetch("all") == path
    assert of(path) == ALL
    assert dscache.path("all") == dscache.path("all", files="*") == path
    assert len(site.requests) == len(asked(site)) == 4, "each artifact is downloaded once"


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["y/*"], {"/y.zip"}),
        (["y/[ad]*"], {"/y.zip"}),
        (["z/z.csv"], {"/z.csv.gz"}),
        (["p.txt"], {"/p.txt"}),
        (["a.csv"], {"/x.tar"}),
        (["y/d.txt", "p.txt"], {"/x.tar", "/y.zip", "/p.txt"}),
    ],
)
def test_what_cannot_match_is_not_downloaded(
    site: Site, patterns: list[str], expected: set[str]
) -> None:
    """An archive at the root may have a folder `y`, too; but no file where another one stands."""
    dscache.fetch("all", files=patterns)
    assert asked(site) - {"/x.tar"} == expected - {"/x.tar"}
    if patterns in (["z/z.csv"], ["p.txt"]):
        assert asked(site) == expected


@pytest.mark.usefixtures("shelf")
def test_hits_of_a_selection_open_no_connection(site: Site) -> None:
    path = dscache.fetch("all", files=["deep/*", "y/*"])
    before = len(site.requests)
    (found,) = Cache().fetch_all(["all"], files=["deep/*", "y/*"])
    assert (found.path, found.status) == (path, "cached")
    assert found.size == sum(
        map(len, only("deep/b.bin", "deep/c.csv", "y/a.csv", "y/d.txt").values())
    )
    dscache.fetch("all", files="y/d*", offline=True)
    assert len(site.requests) == before


@pytest.mark.usefixtures("shelf")
def test_the_name_of_the_archive_asks_for_the_archive(site: Site) -> None:
    path = dscache.fetch("one", files="x.tar")
    assert path.name == "x.tar"
    assert path.read_bytes() == TAR
    assert dscache.path("one", files="x.tar") == path
    with pytest.raises(NotCached):
        dscache.path("one")
    with pytest.raises(NotCached):
        dscache.path("one", files="*.csv")
    whole = dscache.fetch("one")
    assert {name: data for name, data in of(whole).items() if name != "x.tar"} == FILES
    assert site.sent("/x.tar") == len(TAR)


@pytest.mark.usefixtures("shelf")
def test_the_archive_and_a_member_at_once(site: Site) -> None:
    path = dscache.fetch("one", files=["x.tar", "a.*"])
    assert of(path) == {"x.tar": TAR, "a.csv": FILES["a.csv"]}
    assert site.sent("/x.tar") == len(TAR)


@pytest.mark.usefixtures("shelf")
def test_a_single_file_may_be_asked_for_packed(shelf: Shelf, site: Site) -> None:
    shelf.add("z", [artifact("z.csv.gz", SINGLE, site.url("/z.csv.gz"), unpack="gzip")])
    assert dscache.fetch("z", files="z.csv.gz").read_bytes() == SINGLE
    assert dscache.fetch("z", files="*.csv").read_bytes() == b"5\n"
    assert site.sent("/z.csv.gz") == len(SINGLE)


@pytest.mark.usefixtures("shelf")
def test_no_match_is_told_and_not_downloaded_again(site: Site) -> None:
    for _ in range(2):
        with pytest.raises(NotFound, match=r"nothing\.txt") as caught:
            dscache.fetch("one", files="nothing.txt")
        assert caught.value.code == 3
        assert "a.csv" in caught.value.hint
    assert site.sent("/x.tar") == len(TAR)
    assert of(dscache.fetch("one")) == FILES


@pytest.mark.usefixtures("shelf")
def test_where_no_archive_can_match_nothing_is_downloaded(shelf: Shelf, site: Site) -> None:
    shelf.add("y", [artifact("y.zip", OTHER, site.url("/y.zip"), unpack="zip", unpack_to="y")])
    with pytest.raises(NotFound):
        dscache.fetch("y", files="elsewhere/*")
    assert site.requests == []


@pytest.mark.usefixtures("shelf")
def test_a_selection_is_placed_alone(home: Path) -> None:
    dscache.fetch("all")
    dscache.fetch("all", files="y/*", into=home / "mine")
    assert of(home / "mine") == only("y/a.csv", "y/d.txt")


def test_a_selection_stays_one_after_a_restart(shelf: Shelf) -> None:
    """What was not asked for does not come into the view when the rest of it is verified."""
    path = dscache.fetch("one", files="deep/b*")

    def again() -> dict[str, bytes]:
        with boot("another"):
            return of(dscache.fetch("one", files="deep/b*"))

    assert forked(again) == only("deep/b.bin")
    assert of(path) == only("deep/b.bin")


# --- Links ----------------------------------------------------------------------------------------


@pytest.fixture
def linked(shelf: Shelf) -> Shelf:
    """A dataset `linked` of an archive full of links, below a folder."""
    data = packed(
        "tar",
        File("real/file.txt", b"f"),
        File("real/more/deep.txt", b"d"),
        File("real/unused.txt", b"u"),
        Folder("hollow"),
        Link("to-file", "real/file.txt"),
        Link("to-link", "to-file"),
        Link("to-folder", "real/more"),
        Link("sub/up", "../real/file.txt"),
        Link("folder", "real"),
        Link("through", "folder/more/deep.txt"),
        Link("dangling", "nowhere"),
        Link("round", "round/and/round"),
        Link("to-hollow", "hollow"),
    )
    (shelf.folder / "l.tar").write_bytes(data)
    shelf.add("linked", [artifact("l.tar", data, "l.tar", unpack="tar", unpack_to="in")])
    return shelf


@pytest.mark.usefixtures("linked")
@pytest.mark.parametrize(
    ("name", "brings"),
    [
        ("to-file", {"real/file.txt"}),
        ("to-link", {"to-file", "real/file.txt"}),
        ("to-folder", {"real/more/deep.txt"}),
        ("sub/up", {"real/file.txt"}),
        ("through", {"folder", "real/more/deep.txt"}),
        ("folder", {"real/file.txt", "real/more/deep.txt", "real/unused.txt"}),
        ("dangling", set()),
        ("round", set()),
        ("to-hollow", set()),
    ],
)
def test_a_link_brings_what_it_leads_to(name: str, brings: set[str]) -> None:
    path = dscache.fetch("linked", files=f"in/{name}")
    found = {each.relative_to(path / "in").as_posix() for each in files_below(path)}
    found |= {
        each.relative_to(path / "in").as_posix() for each in path.rglob("*") if each.is_symlink()
    }
    assert found == brings | {name}
    assert (path / "in" / name).is_symlink()
    assert dscache.path("linked", files=f"in/{name}") == path
    assert Cache().fetch_all(["linked"], files=f"in/{name}")[0].status == "cached"


@pytest.mark.usefixtures("linked")
def test_all_links_stand_in_the_whole(home: Path) -> None:
    path = dscache.fetch("linked", into=home / "mine") / "in"
    assert (path / "through").read_bytes() == b"d"
    assert os.readlink(path / "sub/up") == "../real/file.txt"
    assert (path / "hollow").is_dir()
    assert faults_of(home / "cache") == []


def test_a_selection_of_many_links_does_not_compare_each_with_each(home: Path) -> None:
    """With 20,000 links to as many files, that would take minutes."""
    store = Store(str(home / "cache"))
    count = 20_000
    members = [Member(f"f/{number}", FILE) for number in range(count)]
    members += [Member(f"l/{number}", LINK, target=f"../f/{number}") for number in range(count)]
    folder = Path(store.trees.path("ab" * 32, "tar")).parent
    folder.mkdir(parents=True)
    (folder / "members").write_bytes(b"".join(member.row() for member in members))
    tree = Unpacked("l.tar", "ab" * 32, 0, "", "tar", "", count, 0, complete=False)
    contents = Contents(store, (), [tree], lambda path: path.startswith("l/"))
    assert len(list(contents)) == 2 * count


# --- Repairs --------------------------------------------------------------------------------------


def tree_file(home: Path, name: str) -> Path:
    (path,) = (home / "cache").glob(f"trees/*/*/files/{name}")
    return path


def damage(path: Path, how: str) -> None:
    """Damage to a name in a folder, be it a view or a tree; in place, it is that of both."""
    if how == "deleted":
        path.unlink()
    elif how == "replaced":
        path.unlink()
        path.write_bytes(b"shorter")
    else:
        path.chmod(0o644)
        path.write_bytes(b"edited")


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("how", ["deleted", "replaced", "in place"])
def test_a_damaged_view_is_repaired_without_network(site: Site, home: Path, how: str) -> None:
    path = dscache.fetch("one")
    before = len(site.requests)
    intact = {name: (path / name).stat().st_ino for name in FILES if name != "deep/c.csv"}
    damage(path / "deep/c.csv", how)
    with pytest.raises(NotCached):
        dscache.path("one")
    assert of(dscache.fetch("one")) == FILES
    assert len(site.requests) == before
    assert {name: (path / name).stat().st_ino for name in intact} == intact
    assert (path / "deep/c.csv").samefile(tree_file(home, "deep/c.csv"))
    assert os.stat(path / "deep/c.csv").st_mode & 0o777 == 0o444
    assert faults_of(home / "cache") == []


@pytest.mark.usefixtures("shelf")
def test_without_archive_and_with_a_whole_tree_nothing_is_downloaded(
    site: Site, home: Path
) -> None:
    path = dscache.fetch("one")
    shutil.rmtree(home / "cache/blobs")
    (path / "a.csv").unlink()
    assert of(dscache.fetch("one")) == FILES
    shutil.rmtree(path)
    assert of(dscache.fetch("one")) == FILES
    assert site.sent("/x.tar") == len(TAR)
    assert files_below(home / "cache/blobs") == []


@pytest.mark.usefixtures("shelf")
def test_without_archive_and_with_a_damaged_tree_it_is_downloaded(site: Site, home: Path) -> None:
    path = dscache.fetch("one")
    inode = (path / "a.csv").stat().st_ino
    shutil.rmtree(home / "cache/blobs")
    damage(path / "deep/c.csv", "in place")
    assert of(dscache.fetch("one")) == FILES
    assert site.sent("/x.tar") == 2 * len(TAR)
    assert (path / "a.csv").stat().st_ino == inode, "what was right stays"


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("gone", ["trees", "datasets", "records", "members"])
def test_what_is_lost_of_the_cache_is_made_anew(site: Site, home: Path, gone: str) -> None:
    dscache.fetch("all", files=["*.csv", "p.txt"])
    if gone == "members":
        for path in (home / "cache").glob("trees/*/*/members"):
            path.write_bytes(path.read_bytes()[:-3])
    else:
        shutil.rmtree(home / "cache" / gone)
    before = len(site.requests)
    assert of(dscache.fetch("all", files=["*.csv", "p.txt"])).items() >= only("a.csv").items()
    assert of(dscache.fetch("all")) == ALL
    assert len(site.requests) == before
    assert faults_of(home / "cache") == []
