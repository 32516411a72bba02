"""A cache of a group: two users go on with each other's work, and neither needs the other's help.

What one user makes with a umask of 002 the other may read and replace, though never change in
place. Where a umask of 022 keeps others out they are told so, and nothing is lost.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dscache.errors import StorageError
from dscache.results import Fetched
from dscache.store import Store
from dscache.store.parts import Part
from tests.archives import File, tar_of
from tests.children import Died
from tests.downloads import error_of
from tests.making import artifact, content
from tests.origin import Drop, Site, origin
from tests.people import ANNE, BERT, GROUP, People, gathered, hard_links_are_protected
from tests.stores import boot, faults_of, overwrite

ONE, TWO, BIG = content(20_000, 1), content(5_000, 2), content(3 << 20, 3)
MEMBERS = {"a.csv": b"1,2\n", "deep/b.bin": content(3000, 4), "deep/er/c.bin": content(2 << 20, 5)}
TAR = tar_of(*(File(name, data) for name, data in MEMBERS.items()))
FILES = {"one.bin": ONE, "deep/big.bin": BIG}
WHOLE = {"one.bin": ONE, "deep/two.bin": TWO, "deep/big.bin": BIG}

protected = pytest.mark.skipif(
    not hard_links_are_protected(), reason="fs.protected_hardlinks is not 1 on this machine"
)


@pytest.fixture
def people() -> Iterator[People]:
    with gathered() as found:
        yield found


@pytest.fixture
def site(people: People) -> Iterator[Site]:
    """The origin of the dataset `data`, of three files, and of `tar`, an archive that unpacks."""
    files = {f"/{path}": data for path, data in WHOLE.items()} | {"/a.tar": TAR}
    with origin(files) as found:
        url = found.url
        artifacts = [artifact(path, data, url(f"/{path}")) for path, data in WHOLE.items()]
        people.desk.offer("data", *artifacts)
        people.desk.offer("tar", artifact("a.tar", TAR, url("/a.tar"), unpack="tar"))
        people.rehearse("shelf/data", "shelf/tar")
        yield found


def fetch(people: People, name: str = "data", **options: object) -> Fetched:
    (found,) = people.desk.cache.fetch_all([f"shelf/{name}"], **options)  # type: ignore[arg-type]
    return found


def read(path: Path | None) -> dict[str, bytes]:
    """The files below a folder, by their paths in it."""
    assert path is not None
    files = (each for each in path.rglob("*") if each.is_file())
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in files}


def assert_shared(cache: Path) -> None:
    """All folders and files are the group's to read, to replace and, but for bytes, to write."""
    for path in cache.rglob("*"):
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        assert found.st_gid == GROUP, path
        if path.is_symlink():
            continue
        if path.is_dir():
            assert mode == 0o2775, (path, oct(mode))
        else:
            is_bytes = {"blobs", "datasets", "files"} & set(path.relative_to(cache).parts)
            assert mode == (0o444 if is_bytes else 0o664), (path, oct(mode))


def test_all_that_is_made_belongs_to_the_group(people: People, site: Site) -> None:
    site.fault("/deep/big.bin", Drop(after=2 << 20), times=1)
    assert people.anne(lambda: fetch(people)).error
    people.anne(lambda: fetch(people).unwrap())
    people.anne(lambda: fetch(people, "tar").unwrap())
    assert people.owners("**/*") == {ANNE}
    assert_shared(people.desk.root)


def test_what_one_has_fetched_the_other_finds_and_notes_its_use(people: People, site: Site) -> None:
    path = people.anne(lambda: fetch(people).unwrap())
    (record,) = people.desk.root.glob("records/*/*.json")
    os.utime(record, (1e9, 1e9))
    before = len(site.requests)
    found = people.bert(lambda: fetch(people))
    assert (found.unwrap(), found.status) == (path, "cached")
    assert len(site.requests) == before
    assert record.stat().st_uid == ANNE
    assert time.time() - record.stat().st_mtime < 60


def test_an_interrupted_download_goes_on(people: People, site: Site) -> None:
    site.fault("/deep/big.bin", Drop(after=2 << 20), times=1)
    assert people.anne(lambda: fetch(people)).error
    sent = site.sent("/deep/big.bin")
    found = people.bert(lambda: fetch(people))
    assert read(found.path) == WHOLE
    assert found.bytes_resumed > 1 << 20
    assert site.sent("/deep/big.bin") - sent < 2 << 20
    assert people.owners("blobs/*/*/*") == {ANNE, BERT}


def test_a_killed_download_goes_on(people: People, site: Site) -> None:
    write = Part.write

    def write_and_die(part: Part, *arguments: Any) -> None:
        write(part, *arguments)
        if part.size > 1 << 20:
            os._exit(9)

    def killed() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Part, "write", write_and_die)
            people.desk.fetch("data")

    with pytest.raises(Died):
        people.anne(killed)
    found = people.bert(lambda: fetch(people))
    assert read(found.path) == WHOLE
    assert found.bytes_resumed > 1 << 20


def test_a_selection_of_one_grows_by_the_other(people: People, site: Site) -> None:
    people.anne(lambda: fetch(people, files="one.*").unwrap())
    found = people.bert(lambda: fetch(people))
    assert read(found.path) == WHOLE
    assert people.owners("records/*/*.json") == {BERT}
    assert people.anne(lambda: fetch(people)).status == "cached"
    assert faults_of(people.desk.root, WHOLE) == []
    assert_shared(people.desk.root)


def test_a_view_is_mended_by_the_other(people: People, site: Site) -> None:
    path = people.anne(lambda: fetch(people).unwrap())
    (path / "one.bin").unlink()
    (path / "deep/two.bin").unlink()
    before = len(site.requests)
    assert read(people.bert(lambda: fetch(people)).path) == WHOLE
    assert len(site.requests) == before
    assert faults_of(people.desk.root, WHOLE) == []


def test_a_damaged_blob_is_replaced_by_the_other(people: People, site: Site) -> None:
    path = people.anne(lambda: fetch(people).unwrap())
    blob = next(each for each in people.desk.below("blobs") if each.stat().st_size == len(BIG))
    with boot("another"):
        overwrite(blob, bytes(len(BIG)))
        assert people.bert(lambda: fetch(people).unwrap()) == path
    assert blob.stat().st_uid == BERT
    assert read(path) == WHOLE
    assert faults_of(people.desk.root, WHOLE) == []


def test_what_another_boot_has_written_is_proven_by_the_other(people: People, site: Site) -> None:
    people.anne(lambda: fetch(people).unwrap())
    people.anne(lambda: fetch(people, "tar").unwrap())
    with boot("another"):
        assert people.bert(lambda: fetch(people)).status == "cached"
        assert people.bert(lambda: fetch(people, "tar")).status == "cached"
    store = Store(str(people.desk.root))
    assert all(record.durable for record in store.records.all())
    assert people.owners("records/*/*.json") == {BERT}
    assert_shared(people.desk.root)


def test_a_tree_is_used_by_the_other_under_another_name(people: People, site: Site) -> None:
    people.anne(lambda: fetch(people, "tar").unwrap())
    people.desk.offer("more", artifact("b.tar", TAR, unpack="tar", urls=[site.url("/gone")]))
    found = people.bert(lambda: fetch(people, "more"))
    assert (read(found.path), found.status) == (MEMBERS, "linked")
    assert faults_of(people.desk.root, MEMBERS) == []


def test_a_tree_is_mended_by_the_other(people: People, site: Site) -> None:
    path = people.anne(lambda: fetch(people, "tar").unwrap())
    (tree,) = people.desk.root.glob("trees/*/*")
    (tree / "files/a.csv").unlink()
    (tree / "files/deep/er/c.bin").unlink()
    (path / "a.csv").unlink()
    before = len(site.requests)
    assert read(people.bert(lambda: fetch(people, "tar")).path) == MEMBERS
    assert len(site.requests) == before
    assert faults_of(people.desk.root, MEMBERS) == []
    assert (tree / "files/a.csv").stat().st_uid == BERT


def test_archives_of_one_are_dropped_by_the_other(people: People, site: Site) -> None:
    people.anne(lambda: fetch(people, "tar").unwrap())
    people.desk.offer("more", artifact("b.tar", TAR, unpack="tar", urls=[site.url("/gone")]))
    people.bert(lambda: fetch(people, "more", keep_archives=False).unwrap())
    assert people.desk.below("blobs") == []
    assert people.anne(lambda: fetch(people, "tar")).status == "cached"


def test_files_of_one_are_imported_by_the_other(people: People, site: Site) -> None:
    people.anne(lambda: fetch(people, files="deep/*").unwrap())
    hands = people.folder / "hands"
    hands.mkdir()
    (hands / "one.bin").write_bytes(ONE)
    (hands / "one.bin").chmod(0o444)  # of root: it cannot be linked
    found = people.bert(lambda: people.desk.cache.import_file("shelf/data", hands / "one.bin"))
    assert read(found.path) == WHOLE
    assert (hands / "one.bin").stat().st_nlink == 1
    assert people.anne(lambda: fetch(people)).status == "cached"
    assert_shared(people.desk.root)


@pytest.mark.parametrize("first", ["anne", "bert"])
def test_a_lock_of_one_is_waited_for_by_the_other(people: People, site: Site, first: str) -> None:
    def hold() -> None:
        store = Store(str(people.desk.root))
        store.prepare()
        assert store.locks.attempt("key")
        os._exit(3)  # the system lets go of it

    def wait() -> list[str]:
        store = Store(str(people.desk.root), lock_timeout=20)
        heard: list[str] = []
        lock = store.locks.wait("key", heard.append)
        lock.release()
        return heard

    second = "bert" if first == "anne" else "anne"
    with pytest.raises(Died):
        getattr(people, first)(hold)
    assert getattr(people, second)(wait) == []

    held = Store(str(people.desk.root)).locks.attempt("key")
    assert held is not None

    def give_up() -> str:
        store = Store(str(people.desk.root), lock_timeout=0.2)
        with pytest.raises(StorageError, match="waited") as caught:
            store.locks.wait("key", lambda holder: None)
        return str(caught.value)

    assert str(os.getpid()) in getattr(people, second)(give_up)
    held.release()


@protected
def test_read_only_files_of_the_other_are_linked_symbolically(people: People, site: Site) -> None:
    people.anne(lambda: fetch(people).unwrap())
    people.desk.offer("again", *(artifact(path, data, "gone") for path, data in WHOLE.items()))
    found = people.bert(lambda: fetch(people, "again"))
    assert found.status == "linked"
    for path, data in WHOLE.items():
        there = found.unwrap() / path
        assert there.is_symlink()
        assert not os.readlink(there).startswith("/")
        assert there.read_bytes() == data
    placed = people.bert(lambda: fetch(people, "again", into=people.folder / "mine"))
    assert placed.link in ("reflink", "symlink")
    assert read(people.folder / "mine") == WHOLE
    with pytest.raises(StorageError, match="cannot be had"):
        people.bert(
            lambda: fetch(people, "again", into=people.folder / "hard", link="hardlink").unwrap()
        )


def test_drafts_of_the_dead_are_removed_by_the_other(people: People, site: Site) -> None:
    def die() -> None:
        store = Store(str(people.desk.root))
        store.prepare()
        draft = store.trees.begin(key_of_tar())
        draft.add_file("deep/a.bin", b"x")
        os._exit(9)

    with pytest.raises(Died):
        people.anne(die)
    assert list(people.desk.root.glob("parts/*.tree"))
    people.bert(lambda: fetch(people, "tar").unwrap())
    assert list(people.desk.root.glob("parts/*.tree")) == []


def key_of_tar() -> str:
    return f"sha256-{artifact('a.tar', TAR)['hash'].partition(':')[2]}"


def test_damage_is_repaired_by_the_other(people: People, site: Site) -> None:
    path = people.anne(lambda: fetch(people).unwrap())
    people.anne(lambda: fetch(people, "tar").unwrap())
    for data in (ONE, BIG):
        damaged = (each for each in people.desk.below("blobs") if each.stat().st_size == len(data))
        overwrite(next(damaged), bytes(len(data)))
    overwrite(next(people.desk.root.glob("trees/*/*/files/a.csv")), b"????")
    found = people.bert(lambda: people.desk.cache.verify(repair=True))
    assert (found.corrupt, len(found.repaired) > 2) == ((), True)
    assert read(path) == WHOLE
    assert people.anne(lambda: fetch(people)).status == "cached"
    assert people.anne(people.desk.cache.verify).corrupt == ()
    assert faults_of(people.desk.root, WHOLE | MEMBERS) == []


def test_what_one_uses_the_other_does_not_prune(people: People, site: Site) -> None:
    done = people.folder / "done"

    def use() -> None:
        fetch(people).unwrap()
        (people.folder / "using").touch()
        while not done.exists():
            time.sleep(0.01)

    def prune() -> tuple[list[str], list[str]]:
        cache = people.desk.cache
        found = cache.prune(cache.plan_prune(all=True))
        return [each.name for each in found.removed], [each.name for each in found.kept]

    with ThreadPoolExecutor(1) as executor:
        using = executor.submit(people.anne, use)
        try:
            while not (people.folder / "using").exists() and not using.done():
                time.sleep(0.01)
            removed, kept = people.bert(prune)
        finally:
            done.touch()
        using.result()
    assert removed == []
    assert kept != []
    assert people.bert(lambda: fetch(people)).status == "cached"
    assert people.bert(prune)[0] != []
    assert people.desk.below("blobs") == people.desk.below("datasets") == []
    assert faults_of(people.desk.root) == []


# --- One of them keeps the group out: a umask of 022 ----------------------------------------------


CLOSED = 0o022


def test_a_closed_cache_serves_hits_and_says_why_it_takes_no_more(
    people: People, site: Site
) -> None:
    path = people.anne(lambda: fetch(people, files="one.*").unwrap(), CLOSED)
    found = people.bert(lambda: fetch(people, files="one.*"))
    assert (found.unwrap(), found.status) == (path, "cached")
    error = error_of(people.bert(lambda: fetch(people)))
    assert isinstance(error, StorageError)
    assert str(people.desk.root) in str(error)
    assert "umask 002" in error.hint
    assert "read_from" in error.hint
    assert people.anne(lambda: fetch(people, files="one.*"), CLOSED).status == "cached"
    assert faults_of(people.desk.root) == []


def test_what_is_closed_is_named_with_its_owner(people: People, site: Site) -> None:
    """The folders of the root are open, as those that an administrator has made; others are not."""
    people.anne(lambda: fetch(people, files="one.*").unwrap(), CLOSED)
    people.desk.root.chmod(0o2775)
    for name in ("parts", "locks", "blobs", "leases", "records", "datasets"):
        if (folder := people.desk.root / name).exists():
            folder.chmod(0o2775)
    error = error_of(people.bert(lambda: fetch(people)))
    assert isinstance(error, StorageError)
    assert f"user {ANNE}" in error.hint
    assert "umask 002" in error.hint
    found = people.anne(lambda: fetch(people), CLOSED)
    assert read(found.path) == WHOLE
    assert faults_of(people.desk.root, WHOLE) == []


def test_a_closed_draft_of_the_dead_is_left_where_it_is(people: People, site: Site) -> None:
    def die() -> None:
        draft = Store(str(people.desk.root)).trees.begin(key_of_tar())
        draft.add_file("deep/a.bin", b"x")
        os._exit(9)

    people.anne(lambda: Store(str(people.desk.root)).prepare())
    with pytest.raises(Died):
        people.anne(die, CLOSED)
    assert read(people.bert(lambda: fetch(people, "tar")).path) == MEMBERS
    (left,) = people.desk.root.glob("parts/*.tree")
    assert (left / "files/deep/a.bin").exists()


def test_a_closed_tree_is_used_and_its_damage_is_said(people: People, site: Site) -> None:
    people.anne(lambda: Store(str(people.desk.root)).prepare())
    people.anne(lambda: fetch(people, files="one.*").unwrap())
    path = people.anne(lambda: fetch(people, "tar").unwrap(), CLOSED)
    assert people.bert(lambda: fetch(people, "tar")).status == "cached"
    (tree,) = people.desk.root.glob("trees/*/*")
    (tree / "files/a.csv").unlink()
    (path / "a.csv").unlink()
    error = error_of(people.bert(lambda: fetch(people, "tar")))
    assert isinstance(error, StorageError)
    assert f"user {ANNE}" in error.hint
    assert (tree / "files/deep/b.bin").read_bytes() == MEMBERS["deep/b.bin"]
    assert read(people.anne(lambda: fetch(people, "tar"), CLOSED).path) == MEMBERS
    assert people.bert(lambda: fetch(people, "tar")).status == "cached"


def test_closed_archives_are_kept_and_nothing_fails(people: People, site: Site) -> None:
    people.anne(lambda: Store(str(people.desk.root)).prepare())
    people.anne(lambda: fetch(people, files="one.*").unwrap())
    people.anne(lambda: fetch(people, "tar", files="a.csv").unwrap(), CLOSED)
    for folder in ("datasets", "records"):
        for path in [people.desk.root / folder, *(people.desk.root / folder).rglob("*")]:
            if path.is_dir():
                path.chmod(0o2775)

    found = people.bert(lambda: fetch(people, "tar", keep_archives=False))
    assert read(found.path) == MEMBERS
    assert len(TAR) in [path.stat().st_size for path in people.desk.below("blobs")]


def test_last_use_is_not_noted_where_the_record_is_closed(people: People, site: Site) -> None:
    people.anne(lambda: fetch(people).unwrap(), CLOSED)
    (record,) = people.desk.root.glob("records/*/*.json")
    os.utime(record, (1e9, 1e9))
    assert people.bert(lambda: fetch(people)).status == "cached"
    assert record.stat().st_mtime == 1e9


# --- Nobody changes what is another's -------------------------------------------------------------


def test_nothing_of_the_other_is_changed_in_place(people: People, site: Site) -> None:
    """All that Anne owns keeps owner, mode and bytes, whatever Bert does, or is replaced whole."""
    people.anne(lambda: fetch(people, files="one.*").unwrap())
    people.anne(lambda: fetch(people, "tar").unwrap())
    root = people.desk.root
    before = {
        (found := path.lstat()).st_ino: (path, stat.S_IMODE(found.st_mode))
        for path in root.rglob("*")
    }
    people.bert(lambda: fetch(people).unwrap())
    with boot("another"):
        people.bert(lambda: fetch(people, "tar").unwrap())
    for path in root.rglob("*"):
        found = path.lstat()
        if found.st_ino in before and found.st_uid == ANNE:
            assert stat.S_IMODE(found.st_mode) == before[found.st_ino][1], path


def test_a_default_acl_does_without_a_umask(people: People, site: Site) -> None:
    """As `setfacl -d -m g::rwx` sets it: the umask does not count below the folder."""
    people.desk.root.mkdir()
    os.chown(people.desk.root, 0, GROUP)
    people.desk.root.chmod(0o2775)
    rights = ((0x01, 7), (0x04, 7), (0x20, 5))  # linux/posix_acl.h: the owner, the group, others
    entries = b"".join(
        tag.to_bytes(2, "little") + right.to_bytes(2, "little") + b"\xff\xff\xff\xff"
        for tag, right in rights
    )
    acl = (2).to_bytes(4, "little") + entries
    try:
        os.setxattr(people.desk.root, "system.posix_acl_default", acl)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")
    people.anne(lambda: fetch(people, files="one.*").unwrap(), CLOSED)
    people.bert(lambda: fetch(people).unwrap(), 0o077)
    assert people.anne(lambda: fetch(people), CLOSED).status == "cached"
    assert_shared(people.desk.root)
