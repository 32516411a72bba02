"""Trees: published whole, believed only with reason, mended where they are wrong."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.store import Blob, Store
from dscache.store.drafts import Draft
from dscache.store.trees import Tree
from tests.children import Died, forked, unprivileged
from tests.making import content
from tests.stores import (
    KILLED,
    Fault,
    boot,
    damaged,
    faults_of,
    files_below,
    overwrite,
    rows,
    steps,
    walked,
)

FILES = {
    "a.txt": b"one line\n",
    "empty": b"",
    "deep/b.bin": content(20_000, 1),
    "deep/er/run.sh": b"#!/bin/sh\n",
}
PROGRAM = "deep/er/run.sh"
LINK, TARGET = "deep/link", "../a.txt"
BLOB = Blob("ab" * 32, 12345, "cd" * 16, "/nowhere")
KEY = "sha256-key"


@pytest.fixture
def store(home: Path) -> Store:
    return opened(home)


def opened(home: Path, **options: Any) -> Store:
    store = Store(str(home / "cache"), **options)
    store.prepare()
    return store


def fill(draft: Draft) -> None:
    draft.add_folder("hollow")
    for path, data in FILES.items():
        draft.add_file(path, data, program=path == PROGRAM)
    draft.add_link(LINK, TARGET)


def publish(store: Store) -> Tree:
    draft = store.trees.begin(KEY)
    fill(draft)
    return store.trees.publish(draft, BLOB, "tar")


def find(store: Store) -> Tree | None:
    return store.trees.find(BLOB.sha256, "tar")


def is_right(folder: str | Path) -> bool:
    found = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
    link = found.pop(LINK)
    data = {name: path.read_bytes() for name, path in found.items()}
    return os.readlink(link) == TARGET and data == FILES


def inodes(folder: str | Path) -> dict[str, int]:
    return {str(path): path.lstat().st_ino for path in files_below(folder)}


# --- Publishing -----------------------------------------------------------------------------------


def test_a_tree_appears_with_one_rename(store: Store) -> None:
    with steps() as taken:
        tree = publish(store)
    folder = os.path.dirname(tree.path)
    inside = [
        number for number, (_, arguments) in enumerate(taken) if folder in map(str, arguments)
    ]
    (move,) = inside
    assert taken[move][0] == "rename"
    assert [name for name, _ in taken[move + 1 :]] == ["unlink"]  # of who was filling it
    assert is_right(tree.path)
    assert sorted(os.listdir(folder)) == ["files", "members", "tree.json"]
    assert os.listdir(store.layout.parts) == []


def test_a_tree_says_what_it_holds(store: Store) -> None:
    tree = publish(store)
    assert (tree.sha256, tree.size, tree.xxh3_128) == (BLOB.sha256, BLOB.size, BLOB.xxh3_128)
    assert (tree.files, tree.bytes) == (len(FILES), sum(map(len, FILES.values())))
    assert find(store) == tree
    assert list(store.trees.all()) == [tree]
    assert store.trees.path(tree.sha256, "tar") == tree.path


def test_the_list_agrees_with_what_stands_there(store: Store) -> None:
    tree = publish(store)
    listed = Path(tree.path).with_name("members").read_bytes()
    assert sorted(rows(listed)) == sorted(walked(Path(tree.path)))
    names = [member.path for member in store.trees.members(tree.sha256, "tar")]
    assert sorted(names) == sorted([*FILES, LINK, "hollow"])
    assert (Path(tree.path) / "hollow").is_dir()
    assert faults_of(store.layout.root) == []


def test_files_are_read_only(store: Store) -> None:
    tree = publish(store)
    for path in FILES:
        mode = os.stat(f"{tree.path}/{path}").st_mode & 0o777
        assert mode == (0o555 if path == PROGRAM else 0o444)


def test_with_durability_sync_all_is_on_the_disk_before_it_appears(home: Path) -> None:
    store = opened(home, durability="sync")
    with steps() as taken:
        tree = publish(store)
    folder = os.path.dirname(tree.path)
    moves = [number for number, (name, given) in enumerate(taken) if folder in map(str, given)]
    assert taken[moves[0] - 2][0] == "sync_all" or taken[moves[0] - 1][0] == "sync_all"
    assert ("sync_path", (os.path.dirname(folder),)) in taken[moves[0] :]
    with boot("another"), steps() as later:
        assert find(store) == tree
    assert later == []


# --- Believing ------------------------------------------------------------------------------------


def test_a_tree_of_this_boot_is_believed_as_it_is(store: Store) -> None:
    tree = publish(store)
    overwrite(f"{tree.path}/deep/b.bin", content(20_000, 2))  # as no power cut can have done
    with steps() as taken:
        assert find(store) == tree
    assert taken == []


def test_a_tree_of_another_boot_is_verified_once_and_then_durable(store: Store) -> None:
    tree = publish(store)
    summary = Path(tree.path).with_name("tree.json")
    with boot("another"), steps() as taken:
        assert find(store) == tree
    assert [name for name, _ in taken].index("sync_all") < [name for name, _ in taken].index(
        "rename"
    )
    assert json.loads(summary.read_bytes())["durable"]
    with boot("a third"), steps() as taken:
        assert find(store) == tree
    assert taken == []


def test_in_a_cache_of_others_it_is_verified_each_time(store: Store) -> None:
    tree = publish(store)
    folder = Path(tree.path).parent
    folder.chmod(0o555)

    def look() -> bool:
        with boot("another"):
            return find(store) == tree

    try:
        assert unprivileged(look)
        overwrite(f"{tree.path}/deep/b.bin", bytes(20_000))
        assert not unprivileged(look)
    finally:
        folder.chmod(0o755)


def test_a_full_disk_does_not_keep_a_right_tree_from_being_used(store: Store) -> None:
    tree = publish(store)

    def look() -> bool:
        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        filesystem.publish_bytes = full
        with boot("another"):
            return find(store) == tree

    assert forked(look)


def cut(path: Path) -> None:
    overwrite(path, path.read_bytes()[:-1])


def zero(path: Path) -> None:
    data = path.read_bytes()
    overwrite(path, data[:4096] + bytes(4096) + data[8192:])


def replace_by_file(path: Path) -> None:
    path.rmdir()
    path.touch()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def lead_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


#: What may have become of a tree: the path of what, and how it was damaged. Zero pages and other
#: targets have the right size: only after a power cut is there a reason to look for them.
SEEN_AT_ONCE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a file is shorter": ("files/deep/b.bin", cut),
    "a file is missing": ("files/a.txt", Path.unlink),
    "an empty file is missing": ("files/empty", Path.unlink),
    "a link is missing": ("files/deep/link", Path.unlink),
    "a folder is missing": ("files/hollow", Path.rmdir),
    "the list is shorter": ("members", cut),
    "the list is empty": ("members", lambda path: overwrite(path, b"")),
    "the list is missing": ("members", Path.unlink),
    "the summary is missing": ("tree.json", Path.unlink),
}
SEEN_AFTER_A_BOOT: dict[str, tuple[str, Callable[[Path], object]]] = {
    **SEEN_AT_ONCE,
    "a file has a page of zeros": ("files/deep/b.bin", zero),
    "a file is a folder": ("files/empty", replace_by_folder),
    "a folder is a file": ("files/hollow", replace_by_file),
    "a file is a link": ("files/a.txt", lead_elsewhere),
    "a link leads elsewhere": ("files/deep/link", lead_elsewhere),
}


@pytest.mark.parametrize("how", SEEN_AT_ONCE)
def test_what_is_not_whole_is_not_believed(store: Store, how: str) -> None:
    tree = publish(store)
    name, damage = SEEN_AT_ONCE[how]
    damage(Path(tree.path).parent / name)
    assert find(store) is None


@pytest.mark.parametrize("how", SEEN_AFTER_A_BOOT)
def test_what_is_torn_is_mended_and_nothing_else(store: Store, how: str) -> None:
    tree = publish(store)
    before = inodes(tree.path)
    name, damage = SEEN_AFTER_A_BOOT[how]
    path = Path(tree.path).parent / name
    damage(path)
    with boot("another"):
        assert find(store) is None
        assert publish(store) == tree
        assert find(store) == tree
    assert is_right(tree.path)
    after = inodes(tree.path)
    assert after.keys() == before.keys()
    changed = {path for path in before if after[path] != before[path]}
    assert changed <= {str(path)}
    assert faults_of(store.layout.root) == []
    assert os.listdir(store.layout.parts) == []


def test_a_torn_summary_is_none(store: Store) -> None:
    tree = publish(store)
    path = Path(tree.path).with_name("tree.json")
    for wrong in damaged(path.read_bytes()):
        overwrite(path, wrong)
        assert find(store) is None
        assert list(store.trees.all()) == []


def test_a_list_that_is_damaged_is_an_error_of_the_disk(store: Store) -> None:
    tree = publish(store)
    overwrite(os.path.dirname(tree.path) + "/members", b"nonsense\0a\0")
    with pytest.raises(OSError, match="members"):
        list(store.trees.members(tree.sha256, "tar"))


def test_while_it_is_mended_the_old_summary_vouches_for_nothing(home: Path) -> None:
    """The summary says that it is durable, but what takes the place of the wrong is not yet."""
    store = opened(home, durability="sync")
    tree = publish(store)
    folder = os.path.dirname(tree.path)
    overwrite(f"{tree.path}/a.txt", b"x")
    with steps() as taken:
        publish(store)
    names = [(name, arguments[-1] if arguments else "") for name, arguments in taken]
    gone = names.index(("unlink", f"{folder}/tree.json"))
    mended = names.index(("rename", f"{tree.path}/a.txt"))
    told = names.index(("rename", f"{folder}/tree.json"))
    assert gone < names.index(("sync_path", folder)) < mended
    assert mended < names.index(("sync_all", folder)) < told


def test_two_that_publish_the_same_leave_one(store: Store) -> None:
    first, second = store.trees.begin(KEY), store.trees.begin(KEY)
    fill(first)
    fill(second)
    tree = store.trees.publish(first, BLOB, "tar")
    before = inodes(tree.path)
    assert store.trees.publish(second, BLOB, "tar") == tree
    assert inodes(tree.path) == before
    assert os.listdir(store.layout.parts) == []


# --- Drafts of others -----------------------------------------------------------------------------


def test_what_dead_processes_left_is_removed_and_that_of_live_ones_stays(store: Store) -> None:
    def leave(key: str = KEY) -> str:
        draft = store.trees.begin(key)
        fill(draft)
        return draft.folder

    dead, dead_of_another = forked(leave), forked(lambda: leave("sha256-other"))
    live = leave()
    assert os.path.exists(dead) is False, "the live one's beginning has removed it"
    store.trees.begin(KEY)
    assert os.path.isdir(live)
    assert os.path.isdir(dead_of_another), "its own key's next attempt removes that"


@pytest.mark.parametrize("step", ["publish_bytes", "new_folder", "create"])
def test_a_draft_that_cannot_be_begun_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(filesystem, step)

    def full(path: Any, *rest: Any, **keys: Any) -> Any:
        if step == "create" and not path.endswith("members"):
            return real(path, *rest, **keys)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(filesystem, step, full)
    with pytest.raises(StorageError):
        store.trees.begin(KEY)
    assert os.listdir(store.layout.parts) == []


# --- Crashes --------------------------------------------------------------------------------------


def work(store: Store) -> None:
    """As an extraction does: what fails is thrown away."""
    draft = store.trees.begin(KEY)
    try:
        with disk.storage_errors("it cannot be unpacked"):
            fill(draft)
        store.trees.publish(draft, BLOB, "tar")
    except BaseException:
        draft.discard()
        raise


def strike(store: Store, fault: Fault) -> str:
    """What came of a fault: "done" where it was never reached."""

    def child() -> str:
        taken = fault.arm()
        try:
            work(store)
        except StorageError:
            return "failed"
        except OSError:  # of what was to be thrown away
            return "failed twice"
        return "done" if taken() < fault.at else "survived"

    try:
        return forked(child)
    except Died as error:
        return "killed" if error.code == KILLED else str(error)


def left(store: Store) -> int:
    """Bytes in drafts."""
    return sum(path.lstat().st_size for path in files_below(store.layout.parts))


@pytest.mark.parametrize("before", ["nothing", "a tree that is wrong"])
@pytest.mark.parametrize(
    ("durability", "how"), [("lazy", "kill"), ("lazy", "tear"), ("lazy", "fail"), ("sync", "kill")]
)
def test_a_fault_at_any_step_costs_only_work(
    home: Path, how: str, durability: str, before: str
) -> None:
    outcomes = []
    for at in itertools.count(1):
        store = opened(home / f"{at}", durability=durability)
        if before != "nothing":
            tree = publish(store)
            cut(Path(tree.path) / "a.txt")
            (Path(tree.path) / "deep/b.bin").unlink()
        outcomes.append(strike(store, Fault(at, how)))
        found = find(store)
        assert found is None or is_right(found.path), at
        if before == "nothing":
            assert faults_of(store.layout.root) == [], at
        if outcomes[-1] == "done":
            break
        if how == "fail" and outcomes[-1] != "survived":  # which is said of a failed clean-up
            assert left(store) == 0, at
        work(store)
        found = find(store)
        assert found, at
        assert is_right(found.path), at
        assert faults_of(store.layout.root) == [], at
        assert left(store) < 1000, at  # one that was killed before it said whose it was
    assert len(outcomes) > (7 if how == "tear" else 18)
    assert outcomes[0] == ("failed" if how == "fail" else "killed")
