"""Layers: caches of others in front of one's own. What they have is used, and never changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dscache import disk, settings
from dscache.cache import Cache
from dscache.errors import InvalidFile, ManualDownload, NotCached, UsageError
from dscache.results import Fetched
from tests.archives import File, tar_of
from tests.children import Died, forked, unprivileged
from tests.downloads import Desk, error_of
from tests.making import artifact, content, md5
from tests.mounts import MIB, REFLINKING, SMALLEST, mounted
from tests.origin import Drop, Site, origin
from tests.rooms import everything
from tests.stores import Fault, boot, faults_of, overwrite

ONE, TWO, BIG = content(20_000, 1), content(5_000, 2), content(3 << 20, 3)
MEMBERS = {"a.csv": b"1,2\n", "deep/b.bin": content(3000, 4)}
TAR = tar_of(*(File(name, data) for name, data in MEMBERS.items()))
FILES = {"one.bin": ONE, "deep/big.bin": BIG}


class Lab:
    """Somebody's cache, `shared`, and one's own, `mine`, which looks there first."""

    def __init__(self, home: Path, site: Site) -> None:
        self.home = home
        self.site = site
        self.shared = Desk(home / "shared")
        self.mine = Desk(home / "mine", retries=0, read_from=[str(self.shared.root)])

    def offer(self, name: str, *artifacts: dict[str, Any]) -> None:
        for desk in (self.shared, self.mine):
            desk.offer(name, *artifacts)

    def of(self, path: str, data: bytes, **keys: Any) -> dict[str, Any]:
        return artifact(path, data, self.site.url(f"/{path}"), **keys)

    def requests(self) -> int:
        return len(self.site.requests)

    def nothing_happens_to(self, desk: Desk) -> Callable[[], None]:
        before = everything(desk.root)

        def check() -> None:
            assert everything(desk.root) == before

        return check


@pytest.fixture
def lab(home: Path) -> Iterator[Lab]:
    files = {f"/{path}": data for path, data in FILES.items()} | {"/a.tar": TAR, "/two.bin": TWO}
    with origin(files) as site:
        found = Lab(home, site)
        found.offer("data", *(found.of(path, data) for path, data in FILES.items()))
        found.offer("tar", found.of("a.tar", TAR, unpack="tar"))
        found.offer("two", found.of("two.bin", TWO))
        yield found


@pytest.fixture
def filled(lab: Lab) -> Iterator[Lab]:
    """The shared cache has two datasets, used long ago; nothing in it is going to change."""
    for found in lab.shared.fetch_all("data", "tar"):
        found.unwrap()
    for record in lab.shared.root.glob("records/*/*.json"):
        os.utime(record, (1e9, 1e9))
    check = lab.nothing_happens_to(lab.shared)
    yield lab
    check()


def below(path: Path, root: Path) -> bool:
    return path.is_relative_to(root)


# --- Whole datasets -------------------------------------------------------------------------------


def test_what_a_layer_has_is_used_in_place(filled: Lab) -> None:
    sent = filled.requests()
    data, tar = filled.mine.fetch_all("data", "tar")
    assert (data.status, data.bytes_downloaded) == ("cached", 0)
    assert below(data.unwrap(), filled.shared.root)
    assert (data.unwrap() / "deep/big.bin").read_bytes() == BIG
    assert (tar.unwrap() / "deep/b.bin").read_bytes() == MEMBERS["deep/b.bin"]
    cache = filled.mine.cache
    assert cache.path("shelf/data") == cache.find("shelf/data").path == data.path
    assert cache.path("shelf/data", files="*big*") == data.path
    assert cache.fetch("shelf/data", files="one.*") == data.path
    assert cache.fetch_many(["shelf/data", "shelf/tar"]) == {
        "shelf/data": data.path,
        "shelf/tar": tar.path,
    }
    assert cache.info("shelf/data").path == data.path
    assert filled.requests() == sent
    assert filled.mine.notices == []
    assert not filled.mine.root.exists()


def test_what_no_layer_has_comes_to_ones_own(filled: Lab) -> None:
    (found,) = filled.mine.fetch_all("two")
    assert found.status == "downloaded"
    assert below(found.unwrap(), filled.mine.root)
    assert filled.mine.fetch("two").status == "cached"
    assert filled.mine.fetch("two").path == found.path
    with pytest.raises(NotCached):
        filled.mine.cache.path("shelf/two", files="other")


def test_layers_come_in_their_order_and_before_ones_own(lab: Lab) -> None:
    second = Desk(lab.home / "second")
    second.offer("data", *(lab.of(path, data) for path, data in FILES.items()))
    mine = lab.mine
    mine.cache = Cache(
        settings=mine.settings.override(read_from=[str(second.root), str(lab.shared.root)])
    )
    own = mine.fetch("data")
    assert below(own.unwrap(), mine.root)
    lab.shared.fetch("data").unwrap()
    assert below(mine.fetch("data").unwrap(), lab.shared.root)
    second.fetch("data").unwrap()
    assert below(mine.fetch("data").unwrap(), second.root)
    (second.root / "VERSION").unlink()
    assert below(mine.fetch("data").unwrap(), lab.shared.root)


def test_list_and_usage_speak_of_ones_own(filled: Lab) -> None:
    filled.mine.fetch("data")
    filled.mine.fetch("two")
    assert [each.name for each in filled.mine.cache.cached()] == ["two"]
    assert [each.name for each in filled.mine.cache.usage().datasets] == ["two"]


def test_a_layer_serves_offline(filled: Lab) -> None:
    found = filled.mine.cache.fetch("shelf/data", offline=True)
    assert below(found, filled.shared.root)


@pytest.mark.parametrize("mode", ["auto", "hardlink", "symlink", "copy"])
def test_a_layer_is_placed_into_a_folder(filled: Lab, mode: str) -> None:
    folder = filled.home / "folder"
    wanted = {"link": mode, "into": folder, "progress": filled.mine.hear}
    before = {path: path.stat().st_nlink for path in filled.shared.below("blobs")}
    (found,) = filled.mine.cache.fetch_all(["shelf/data"], **wanted)  # type: ignore[arg-type]
    assert found.path == folder
    assert (folder / "deep/big.bin").read_bytes() == BIG
    assert mode in ("auto", found.link)
    assert any(f"by {found.link}" in notice for notice in filled.mine.notices)
    if found.link == "hardlink":  # another name of the same file; else nothing has changed
        assert {path: path.stat().st_nlink for path in before} != before
        for path in FILES:
            (folder / path).unlink()


def test_a_layer_on_another_disk_is_placed_by_symbolic_links(filled: Lab) -> None:
    with mounted("tmpfs", 8 * MIB, filled.home / "disk") as other:
        (found,) = filled.mine.cache.fetch_all(["shelf/data"], into=other / "folder")
        assert found.link == "symlink"
        there = other / "folder/one.bin"
        assert below(Path(os.readlink(there)), filled.shared.root)
        assert there.read_bytes() == ONE


# --- Single files ---------------------------------------------------------------------------------


def test_bytes_that_a_layer_has_are_not_downloaded(filled: Lab) -> None:
    """Under other names, next to others that have to be: large, small, and of an archive."""
    filled.mine.offer("mix", *(filled.of(f"x/{path}", data) for path, data in FILES.items()))
    filled.mine.offer("untar", filled.of("b.tar", TAR, unpack="tar"))
    sent = filled.requests()
    mix, untar = filled.mine.fetch_all("mix", "untar")
    assert (mix.status, mix.bytes_downloaded, mix.bytes_resumed) == ("linked", 0, 0)
    assert (untar.status, untar.bytes_downloaded, untar.bytes_resumed) == ("linked", 0, 0)
    assert filled.requests() == sent
    assert below(mix.unwrap(), filled.mine.root)
    assert (mix.unwrap() / "x/deep/big.bin").read_bytes() == BIG
    assert (untar.unwrap() / "a.csv").read_bytes() == b"1,2\n"
    assert faults_of(filled.mine.root) == []
    assert filled.mine.parts == []
    theirs = {path.stat().st_ino for path in filled.shared.below("blobs")}
    assert not theirs & {path.stat().st_ino for path in filled.mine.below("blobs")}


def test_what_only_the_network_has_is_downloaded_beside_them(filled: Lab) -> None:
    filled.mine.offer("mix", filled.of("x.bin", BIG), filled.of("two.bin", TWO))
    found = filled.mine.fetch("mix")
    assert (found.status, found.bytes_downloaded) == ("downloaded", len(TWO))


def test_bytes_of_a_layer_need_neither_network_nor_url(filled: Lab) -> None:
    filled.mine.offer("mix", filled.of("x.bin", BIG))
    assert filled.mine.cache.fetch("shelf/mix", offline=True).read_bytes() == BIG
    filled.mine.offer("hand", artifact("y.bin", ONE, manual="ask for it", urls=None))
    assert filled.mine.cache.fetch("shelf/hand").read_bytes() == ONE
    filled.mine.offer("other", artifact("y.bin", TWO, manual="ask for it", urls=None))
    assert isinstance(error_of(filled.mine.fetch("other")), ManualDownload)


def test_an_entry_without_sha256_finds_them_by_what_the_layer_knows(lab: Lab) -> None:
    weak = lab.of("deep/big.bin", BIG, hash=md5(BIG), size=None)
    lab.offer("weak", weak)
    lab.shared.fetch("weak").unwrap()
    lab.mine.offer("again", weak | {"path": "x.bin"})
    found = lab.mine.fetch("again")
    assert (found.status, found.bytes_downloaded) == ("linked", 0)


def test_what_had_come_from_the_network_is_completed_from_a_layer(lab: Lab) -> None:
    lab.mine.offer("mix", lab.of("deep/big.bin", BIG))
    lab.site.fault("/deep/big.bin", Drop(after=1 << 20))
    assert lab.mine.fetch("mix").error
    (part,) = lab.mine.parts
    assert 0 < part.stat().st_size < len(BIG)
    give(lab.shared, BIG)
    found = lab.mine.fetch("mix")
    assert (found.bytes_downloaded, found.unwrap().read_bytes()) == (0, BIG)


def give(desk: Desk, data: bytes) -> None:
    """Let a cache have some bytes."""
    file = desk.shelf.folder / "given"
    file.write_bytes(data)
    desk.retrieve(str(file), None).unwrap()


@pytest.mark.parametrize("name", ["one.bin", "deep/big.bin"])
@pytest.mark.parametrize("size", ["as before", "less"])
def test_wrong_bytes_of_a_layer_are_noticed(lab: Lab, name: str, size: str) -> None:
    lab.shared.fetch("data").unwrap()
    wrong = bytes(len(FILES[name])) if size == "as before" else b"short"
    blob = next(
        path for path in lab.shared.below("blobs") if path.stat().st_size == len(FILES[name])
    )
    overwrite(blob, wrong)
    check = lab.nothing_happens_to(lab.shared)
    lab.mine.offer("mix", lab.of(name, FILES[name]))
    found = lab.mine.fetch("mix")
    assert found.unwrap().read_bytes() == FILES[name]
    assert (found.status, found.bytes_downloaded) == ("downloaded", len(FILES[name]))
    assert any(str(blob) in notice for notice in lab.mine.notices) == (size == "as before")
    assert faults_of(lab.mine.root) == []
    check()


def test_a_repair_takes_bytes_from_a_layer(lab: Lab) -> None:
    lab.mine.fetch("data").unwrap()
    lab.shared.fetch("data").unwrap()
    check = lab.nothing_happens_to(lab.shared)
    for blob in lab.mine.below("blobs"):
        overwrite(blob, bytes(blob.stat().st_size))
    sent = lab.requests()
    found = lab.mine.cache.verify(repair=True, progress=lab.mine.hear)
    assert (found.corrupt, len(found.repaired)) == ((), 2)
    assert lab.requests() == sent
    assert faults_of(lab.mine.root, FILES) == []
    check()


@pytest.mark.parametrize("at", range(1, 10))
def test_a_copy_from_a_layer_goes_on_after_a_kill(filled: Lab, at: int) -> None:
    """Killed in the middle of each of its first writes, of which one is that of the bytes."""
    filled.mine.offer("mix", filled.of("x.bin", BIG))

    def killed() -> None:
        Fault(at, "tear").arm()
        filled.mine.fetch("mix")

    with suppress(Died):
        forked(killed)
    found = filled.mine.fetch("mix")
    assert (found.bytes_downloaded, found.unwrap().read_bytes()) == (0, BIG)
    assert faults_of(filled.mine.root) == []


@pytest.mark.parametrize("kind", REFLINKING)
def test_bytes_are_shared_with_a_layer_where_the_disk_can(home: Path, kind: str) -> None:
    data = content(8 * MIB)
    with mounted(kind, SMALLEST[kind], home / "disk") as place, origin({}) as site:
        lab = Lab(place, site)
        give(lab.shared, data)
        lab.mine.offer("mix", lab.of("x.bin", data))
        os.sync()
        before = disk.free_space(str(place))
        check = lab.nothing_happens_to(lab.shared)
        found = lab.mine.fetch("mix")
        os.sync()
        assert (found.status, found.bytes_downloaded, found.bytes_resumed) == ("linked", 0, 0)
        assert found.unwrap().read_bytes() == data
        assert before - disk.free_space(str(place)) < len(data) // 2
        check()

        (blob,) = (each for each in lab.mine.below("blobs"))
        overwrite(blob, bytes(len(data)))  # what happens to one's own does not happen to theirs
        check()


@pytest.mark.parametrize("kind", REFLINKING)
def test_wrong_bytes_that_were_shared_are_noticed(home: Path, kind: str) -> None:
    with mounted(kind, SMALLEST[kind], home / "disk") as place, origin({"/x.bin": BIG}) as site:
        lab = Lab(place, site)
        give(lab.shared, BIG)
        (blob,) = lab.shared.below("blobs")
        overwrite(blob, bytes(len(BIG)))
        check = lab.nothing_happens_to(lab.shared)
        lab.mine.offer("mix", lab.of("x.bin", BIG))
        found = lab.mine.fetch("mix")
        assert (found.status, found.unwrap().read_bytes()) == ("downloaded", BIG)
        check()


# --- Layers that cannot be used -------------------------------------------------------------------


def test_a_layer_that_is_missing_or_newer_is_left_out_with_one_notice(filled: Lab) -> None:
    newer = filled.home / "newer"
    newer.mkdir()
    (newer / "VERSION").write_text("99\n")
    places = [filled.home / "missing", newer, filled.home, filled.shared.root]
    mine = filled.mine
    mine.cache = Cache(settings=mine.settings.override(read_from=[str(each) for each in places]))
    for found in mine.fetch_all("data", "tar", "two"):
        found.unwrap()
    assert len(mine.notices) == 3
    for notice, place in zip(mine.notices, places, strict=False):
        assert str(place) in notice
        assert "read_from" in notice
    assert "format 99" in mine.notices[1]
    mine.events.clear()
    mine.fetch("two")
    assert len(mine.notices) == 3


@pytest.mark.parametrize("part", ["", "records", "records/shelf", "datasets", "blobs"])
def test_a_layer_that_cannot_be_read_is_left_out(lab: Lab, part: str) -> None:
    for found in lab.shared.fetch_all("data", "tar"):
        found.unwrap()
    closed = lab.shared.root / part
    closed.chmod(0)

    def fetch() -> tuple[list[Fetched], list[str]]:
        return lab.mine.fetch_all("data", "tar", "two"), lab.mine.notices

    try:
        results, notices = unprivileged(fetch)
    finally:
        closed.chmod(0o755)
    if part == "blobs":  # views are hard links: they show what nobody finds in the store
        assert [found.status for found in results] == ["cached", "cached", "downloaded"]
    else:
        assert all(below(found.unwrap(), lab.mine.root) for found in results)
    assert len(notices) == (part in ("", "records", "records/shelf"))


def test_a_damaged_record_of_a_layer_counts_as_none(lab: Lab) -> None:
    lab.shared.fetch("data").unwrap()
    (record,) = lab.shared.root.glob("records/*/*.json")
    record.write_bytes(b"{")
    found = lab.mine.fetch("data")
    assert (found.status, found.bytes_downloaded) == ("linked", 0)
    assert below(found.unwrap(), lab.mine.root)


def test_ones_own_cache_is_no_layer(lab: Lab) -> None:
    (lab.home / "link").symlink_to(lab.mine.root)
    lab.mine.cache = Cache(settings=lab.mine.settings.override(read_from=[str(lab.home / "link")]))
    lab.mine.fetch("data").unwrap()
    lab.mine.events.clear()
    (record,) = lab.mine.root.glob("records/*/*.json")
    os.utime(record, (1e9, 1e9))
    assert lab.mine.fetch("data").status == "cached"
    assert record.stat().st_mtime > 1e9  # its use is noted
    assert lab.mine.notices == []


# --- What is not proven ---------------------------------------------------------------------------


def test_a_layer_of_another_boot_is_verified_and_not_marked(filled: Lab) -> None:
    with boot("another"):
        data, tar = filled.mine.fetch_all("data", "tar")
        assert data.status == tar.status == "cached"
        assert below(data.unwrap(), filled.shared.root)


def test_torn_bytes_of_a_layer_are_brought_to_ones_own(lab: Lab) -> None:
    path = lab.shared.fetch("data").unwrap()
    overwrite(path / "one.bin", bytes(len(ONE)))
    check = lab.nothing_happens_to(lab.shared)
    with boot("another"):
        found = lab.mine.fetch("data")
    assert below(found.unwrap(), lab.mine.root)
    assert (found.unwrap() / "one.bin").read_bytes() == ONE
    assert found.bytes_downloaded == len(ONE)
    check()


# --- The setting ----------------------------------------------------------------------------------


def test_relative_folders_are_beside_the_file_that_names_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config.toml").write_text('read_from = ["shared", "~/other", "/third"]')
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    expected = (f"{home}/shared", f"{home}/other", "/third")
    assert settings.load().read_from == expected
    assert settings.load(read_from=["~/x"]).read_from == (f"{home}/x",)
    with pytest.raises(UsageError, match="list of folders"):
        settings.load(read_from="/one")


def test_a_project_names_no_layers(home: Path) -> None:
    (home / "dscache.toml").write_text('read_from = ["/shared"]')
    with pytest.raises(InvalidFile, match="a project may not"):
        settings.load()
