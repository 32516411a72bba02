"""Parts: one writer each, taken over only from the dead, and never proof of anything."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

import msgspec
import pytest

from dscache import filesystem
from dscache.store import SMALL, Store, owner
from dscache.store.owner import Boot
from dscache.store.parts import Journal, Part, Parts
from tests.children import Died, forked, unprivileged
from tests.making import content
from tests.stores import boot, damaged, faults_of, files_below, overwrite, steps, sums_by

KEY = "sha256-" + "0" * 64
DATA = content(100_000, 1)


@pytest.fixture
def store(home: Path) -> Store:
    made = Store(f"{home}/cache")
    made.prepare()
    return made


def begin(store: Store, size: int | None = None) -> Part:
    return store.parts().begin(KEY, size)


def left(store: Store, data: bytes = DATA) -> Part:
    """A part that was let go in good order."""
    part = begin(store)
    part.write([data])
    part.keep()
    return part


def left_by_the_dead(store: Store, data: bytes = DATA) -> str:
    """The path of a part whose process was killed."""

    def die() -> None:
        part = store.parts().begin(KEY, None)
        part.write([data])
        os._exit(9)

    before = set(files_below(store.layout.parts))
    with pytest.raises(Died):
        forked(die)
    (path,) = {each for each in files_below(store.layout.parts) if each.suffix == ".part"} - before
    return str(path)


def rewritten(store: Store, path: str, **changes: object) -> None:
    """Change what the journal of a part says."""
    journal = Path(path).with_suffix(".json")
    known = msgspec.json.decode(journal.read_bytes(), type=Journal)
    journal.write_bytes(msgspec.json.encode(msgspec.structs.replace(known, **changes)))


def usable(parts: Parts) -> int:
    """How many bytes for `KEY` can be taken over."""
    return sum(orphan.usable.total for orphan in parts._all().get(KEY, ()))


def parts_of(store: Store) -> list[str]:
    return [path.suffix for path in files_below(store.layout.parts)]


def test_the_journal_is_written_before_the_part(store: Store) -> None:
    with steps() as taken:
        part = begin(store)
    made = [str(arguments[0]) for name, arguments in taken if name == "create"]
    assert made[-1] == part.path
    assert [name for name, _ in taken] == ["create", "write", "rename", "create"]
    known = msgspec.json.decode(Path(part.path).with_suffix(".json").read_bytes(), type=Journal)
    assert known.owner == owner.this_process()
    assert known.boot == owner.this_boot()
    part.keep()


def test_what_was_kept_is_moved_to_the_next(store: Store) -> None:
    earlier = left(store)
    inode = os.stat(earlier.path).st_ino
    part = begin(store, 200_000)
    assert part.size == len(DATA)
    assert os.stat(part.path).st_ino == inode
    assert part.path != earlier.path
    part.write([b"more"])
    assert Path(part.path).read_bytes() == DATA + b"more"
    assert sorted(parts_of(store)) == [".json", ".part"]
    part.discard()
    assert parts_of(store) == []


def test_the_source_of_the_bytes_is_known_to_the_next(store: Store) -> None:
    part = begin(store)
    part.note(url="https://example.org/a", validator='"tag"', total=7)
    part.write([b"bytes"])
    part.keep()
    known = begin(store).journal
    assert (known.url, known.validator, known.total) == ("https://example.org/a", '"tag"', 7)
    assert known.owner == owner.this_process()


def test_noting_the_same_again_writes_nothing(store: Store) -> None:
    part = begin(store)
    part.note(url="https://example.org/a", validator='"tag"', total=7)
    with steps() as taken:
        part.note(url="https://example.org/a", validator='"tag"', total=7)
    assert taken == []


def test_what_a_killed_process_left_is_moved(store: Store) -> None:
    path = left_by_the_dead(store)
    inode = os.stat(path).st_ino
    part = begin(store)
    assert (part.size, os.stat(part.path).st_ino) == (len(DATA), inode)
    assert not Path(path).exists()


def test_a_zombie_is_dead(store: Store) -> None:
    pid = os.fork()
    if not pid:
        part = begin(store)
        part.write([DATA])
        os._exit(9)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert begin(store).size == len(DATA)
    finally:
        os.waitpid(pid, 0)


def test_nothing_is_taken_from_a_living_process(store: Store) -> None:
    theirs = begin(store)
    theirs.write([DATA])
    assert forked(lambda: begin(store).size) == 0
    ours = begin(store)
    assert ours.size == 0
    ours.write([b"ours"])
    theirs.write([b"theirs"])
    assert Path(ours.path).read_bytes() == b"ours"
    assert Path(theirs.path).read_bytes() == DATA + b"theirs"


@pytest.mark.parametrize("unknown", ["namespace", "host"])
def test_where_it_cannot_be_told_the_bytes_are_copied(store: Store, unknown: str) -> None:
    theirs = begin(store)
    theirs.write([DATA])
    them = owner.this_process()
    assert them.boot is not None
    other = (
        msgspec.structs.replace(them, namespace="pid:[1]")
        if unknown == "namespace"
        else msgspec.structs.replace(them, boot=Boot("elsewhere", them.boot.id))
    )
    rewritten(store, theirs.path, owner=other)
    ours = begin(store)
    assert ours.size == len(DATA)
    assert not os.path.samefile(ours.path, theirs.path)
    theirs.write([b"theirs"])  # it was alive after all
    ours.write([b"ours"])
    assert Path(ours.path).read_bytes() == DATA + b"ours"
    assert Path(theirs.path).read_bytes() == DATA + b"theirs"
    assert Path(theirs.path).with_suffix(".json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_copied(store: Store) -> None:
    theirs = left(store)
    os.chown(theirs.path, 12345, 12345)
    part = begin(store)
    assert part.size == len(DATA)
    assert os.stat(part.path).st_uid == 0
    assert Path(theirs.path).exists()


def test_a_journal_that_cannot_be_read_is_left_alone(store: Store) -> None:
    os.chmod(Path(left(store).path).with_suffix(".json"), 0)
    assert unprivileged(lambda: begin(store).size) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_that_cannot_be_read_is_left_alone(store: Store) -> None:
    theirs = left(store)
    os.chmod(theirs.path, 0)
    os.chown(theirs.path, 12345, 12345)
    assert unprivileged(lambda: begin(store).size) == 0
    assert Path(theirs.path).exists()


def test_of_another_boot_only_synced_bytes_are_used(store: Store) -> None:
    part = begin(store)
    part.write([DATA])
    part.note_synced(part.sync())
    part.write([b"torn" * 1000])
    part.keep()
    with boot("another"):
        assert usable(store.parts()) == len(DATA)
        ours = begin(store)
        assert ours.size == len(DATA)
        assert Path(ours.path).read_bytes() == DATA
        assert ours.journal.boot == owner.this_boot()
        ours.write([b"more"])
        ours.keep()
    with boot("a third"):
        assert begin(store).size == len(DATA)


def test_of_another_boot_nothing_is_used_that_was_never_synced(store: Store) -> None:
    left(store)
    with boot("another"):
        assert usable(store.parts()) == 0
        assert begin(store).size == 0


@pytest.mark.parametrize("step", ["rename", "unlink", "open_for_update", "truncate"])
def test_dying_while_taking_over_does_not_make_torn_bytes_usable(store: Store, step: str) -> None:
    part = begin(store)
    part.write([DATA])
    part.note_synced(part.sync())
    part.write([b"torn" * 1000])
    part.keep()

    def die() -> None:
        real = filesystem.rename

        def rename(source: str, target: str) -> None:
            if target.endswith(".part"):
                os._exit(9)
            real(source, target)

        stop = rename if step == "rename" else lambda *_: os._exit(9)
        setattr(filesystem, step, stop)
        begin(store)

    with boot("another"):
        with pytest.raises(Died):
            forked(die)
        assert Path(begin(store).path).read_bytes() == DATA


def test_of_two_that_want_the_same_one_gets_it(store: Store) -> None:
    left(store)
    first, second = store.parts(), store.parts()
    assert usable(first) == usable(second) == len(DATA)
    sizes = first.begin(KEY, None).size, second.begin(KEY, None).size
    assert sizes == (len(DATA), 0)


def test_the_longest_is_taken_that_is_not_too_long(store: Store) -> None:
    earlier = [begin(store) for _ in range(3)]
    for part, data in zip(earlier, (DATA[:50], DATA, DATA[:70]), strict=True):
        part.write([data])
    for part in earlier:
        part.keep()
    assert begin(store, 60).size == 50
    assert begin(store, 100).size == 70
    assert begin(store, 100).size == 0
    assert begin(store).size == len(DATA)


def test_only_parts_of_that_key_are_taken(store: Store) -> None:
    left(store)
    assert store.parts().begin("sha256-" + "1" * 64, None).size == 0
    Path(store.layout.part("small", secrets.token_hex(8))).write_bytes(DATA)
    Path(store.layout.part("import", secrets.token_hex(8))).write_bytes(DATA)
    Path(store.layout.parts, "notes.txt").write_bytes(DATA)
    assert begin(store).size == len(DATA)


def test_a_torn_journal_means_beginning_anew(store: Store) -> None:
    path = left(store).path
    journal = Path(path).with_suffix(".json")
    whole = journal.read_bytes()
    for torn in damaged(whole):
        overwrite(journal, torn)
        part = begin(store)
        assert part.size == 0, torn
        part.keep()
    overwrite(journal, whole)
    assert begin(store).size == len(DATA)


def test_a_sealed_part_can_be_gone_on_with(store: Store) -> None:
    """Its process died between taking the write permission and the rename into place."""
    path = left(store).path
    filesystem.seal(path)

    def go_on() -> bytes:
        part = begin(store)
        part.write([b"more"])
        return Path(part.path).read_bytes()

    assert unprivileged(go_on) == DATA + b"more"


def test_starting_over_forgets_everything(store: Store) -> None:
    part = begin(store)
    part.note(url="https://example.org/a", validator='"tag"', total=7)
    part.write([DATA])
    part.note_synced(part.sync())
    with steps() as taken:
        part.restart()
    assert [name for name, _ in taken][-2:] == ["rename", "truncate"]  # the journal comes first
    assert (part.size, part.journal.synced, part.journal.validator) == (0, 0, "")
    part.write([b"other"])
    assert Path(part.path).read_bytes() == b"other"


def test_bytes_can_be_replaced_by_what_is_made_of_them(store: Store) -> None:
    part = begin(store)
    part.write([b"abc"])

    def doubled() -> list[bytes]:
        return [bytes([each, each]) for each in Path(part.path).read_bytes()]

    part.rewrite(doubled())
    assert (part.size, Path(part.path).read_bytes()) == (6, b"aabbcc")
    part.write([b"d"])
    assert Path(part.path).read_bytes() == b"aabbccd"
    assert sorted(parts_of(store)) == [".json", ".part"]


def test_a_replacement_that_cannot_be_made_changes_nothing(store: Store) -> None:
    part = begin(store)
    part.write([b"abc"])
    with pytest.raises(ZeroDivisionError):
        part.rewrite(bytes([1 // int(digit)]) for digit in "10")
    part.write([b"d"])
    assert Path(part.path).read_bytes() == b"abcd"
    assert sorted(parts_of(store)) == [".json", ".part"]


def test_nothing_is_kept_of_nothing(store: Store) -> None:
    begin(store).keep()
    assert parts_of(store) == []


def test_nothing_is_kept_of_what_was_published(store: Store) -> None:
    data = content(SMALL + 1, 5)
    part = begin(store)
    part.write([data])
    part.close()
    store.blobs.publish_file(part.path, part.size, sums_by(data))
    part.keep()
    assert parts_of(store) == []
    assert faults_of(store.layout.root) == []


def test_letting_go_never_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail() -> None:
        part = begin(store)
        part.write([DATA])
        for step in ("create", "rename", "unlink"):
            monkeypatch.setattr(filesystem, step, full)
        part.keep()
        begin_nothing = Part(store.layout, KEY, part.journal)
        begin_nothing.keep()

    forked(fail)
    assert begin(store).size == len(DATA)  # free, since that process has ended


def test_a_part_that_cannot_be_made_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = filesystem.create

    def full(path: str, **options: bool) -> int:
        if path.endswith(".part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return create(path, **options)

    monkeypatch.setattr(filesystem, "create", full)
    with pytest.raises(OSError, match="space"):
        begin(store)
    assert parts_of(store) == []


def test_an_orphan_that_cannot_be_taken_is_left_and_another_begun(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = left(store)
    rename = filesystem.rename

    def broken(source: str, target: str) -> None:
        if target.endswith(".part"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(filesystem, "rename", broken)
    part = begin(store)
    assert part.size == 0
    part.keep()
    monkeypatch.undo()
    assert [path.name for path in files_below(store.layout.parts)] == [
        Path(earlier.path).with_suffix(".json").name,
        Path(earlier.path).name,
    ]


def test_what_was_left_is_looked_up_once_per_call(store: Store) -> None:
    parts = Parts(store.layout)
    assert usable(parts) == 0
    left(store)
    assert usable(parts) == 0
    assert usable(store.parts()) == len(DATA)
