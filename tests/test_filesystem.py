"""The seam to the disk: what each step promises, on its own."""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dscache import copying, disk, filesystem
from dscache.errors import StorageError
from tests.children import unprivileged

DATA = bytes(range(256)) * 64


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file can grow beyond `size`: the next byte is an error, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("mask", "file", "final", "folder"),
    [(0o002, 0o664, 0o444, 0o775), (0o022, 0o644, 0o444, 0o755), (0o077, 0o600, 0o400, 0o700)],
)
def test_the_umask_decides_about_modes(
    home: Path, mask: int, file: int, final: int, folder: int
) -> None:
    with umask(mask):
        os.close(filesystem.create(f"{home}/file"))
        os.close(filesystem.create(f"{home}/final", final=True))
        filesystem.publish_bytes(b"x", f"{home}/folder/published")
        copying.copy(f"{home}/final", f"{home}/copy")
        copying.copy(f"{home}/file", f"{home}/sealed", final=True)
    assert mode(home / "file") == file
    assert mode(home / "final") == final
    assert mode(home / "folder") == folder
    assert mode(home / "folder/published") == file
    assert mode(home / "copy") == file
    assert mode(home / "sealed") == final


def test_what_is_private_is_for_its_owner_alone(home: Path) -> None:
    with umask(0):
        filesystem.new_folder(str(home / "keys"), private=True)
        with filesystem.created(str(home / "keys" / "key"), private=True):
            pass
    assert mode(home / "keys") == 0o700
    assert mode(home / "keys" / "key") == 0o600


def test_what_exists_is_never_created_over(home: Path) -> None:
    (home / "file").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        filesystem.create(f"{home}/file")
    with pytest.raises(FileExistsError):
        copying.copy(f"{home}/file", f"{home}/file")
    assert (home / "file").read_bytes() == b"mine"


def test_a_file_whose_making_fails_is_removed(home: Path) -> None:
    def fail() -> None:
        with filesystem.created(f"{home}/file") as fd:
            filesystem.write(fd, [DATA], 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(home.iterdir()) == []


def test_a_replacement_that_fails_leaves_the_file(home: Path) -> None:
    def fail() -> None:
        with filesystem.replacing(f"{home}/file") as fd:
            filesystem.write(fd, [DATA], 0)
            raise KeyboardInterrupt

    (home / "file").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert {path.name: path.read_bytes() for path in home.iterdir()} == {"file": b"old"}


def test_publishing_where_a_folder_stands_leaves_nothing_behind(home: Path) -> None:
    (home / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        filesystem.publish_bytes(b"new", f"{home}/taken")
    assert [path.name for path in home.iterdir()] == ["taken"]


def test_readers_see_all_of_a_published_file_or_none(home: Path) -> None:
    target = f"{home}/file"
    values = [bytes([letter]) * 50_000 for letter in b"abc"]
    filesystem.publish_bytes(values[0], target)
    done = threading.Event()

    def write() -> None:
        for turn in range(300):
            filesystem.publish_bytes(values[turn % 3], target)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(Path(target).read_bytes())
    writer.join()
    assert seen <= set(values)


@pytest.mark.parametrize("count", [1, 2, 1024, 1025, 5000])
def test_any_number_of_chunks_is_written_in_order(home: Path, count: int) -> None:
    chunks = [bytes([number % 251]) * (1 + number % 7) for number in range(count)]
    whole = b"".join(chunks)
    with filesystem.created(f"{home}/file") as fd:
        assert filesystem.write(fd, chunks, 0) == len(whole)
        assert filesystem.write(fd, chunks, len(whole)) == len(whole)
    assert (home / "file").read_bytes() == whole + whole


def test_nothing_written_is_nothing(home: Path) -> None:
    with filesystem.created(f"{home}/file") as fd:
        assert filesystem.write(fd, [], 0) == filesystem.write(fd, [b""], 0) == 0
    assert (home / "file").read_bytes() == b""


@pytest.mark.parametrize("chunks", [[DATA], [DATA[:100], DATA[100:]]])
def test_a_short_write_is_gone_on_with_until_the_error_shows(
    home: Path, chunks: list[bytes]
) -> None:
    fd = filesystem.create(f"{home}/file")
    with file_size_limit(5000), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        filesystem.write(fd, chunks, 0)
    os.close(fd)
    assert (home / "file").read_bytes() == DATA[:5000]


def test_a_copy_that_does_not_fit_leaves_nothing(home: Path) -> None:
    (home / "source").write_bytes(DATA)
    with file_size_limit(5000), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        copying.copy(f"{home}/source", f"{home}/target")
    assert [path.name for path in home.iterdir()] == ["source"]


def test_a_clone_holds_the_same_bytes_or_says_that_it_cannot_be_had(home: Path) -> None:
    (home / "source").write_bytes(DATA)
    try:
        copying.clone(f"{home}/source", f"{home}/target")
        found = 0
    except OSError as error:
        found = error.errno or -1
    if found:
        assert found in copying.UNSUPPORTED
        assert [path.name for path in home.iterdir()] == ["source"]
    else:
        assert (home / "target").read_bytes() == DATA
        assert os.stat(home / "target").st_ino != os.stat(home / "source").st_ino


def test_a_sealed_file_can_be_updated_by_its_owner_only_through_us(home: Path) -> None:
    path = home / "file"
    path.write_bytes(b"old")
    filesystem.seal(str(path))
    assert mode(path) & 0o222 == 0

    def update() -> None:
        with pytest.raises(PermissionError):
            path.write_bytes(b"new")
        fd = filesystem.open_for_update(str(path))
        filesystem.write(fd, [b"new"], 0)

    unprivileged(update)
    assert path.read_bytes() == b"new"


def test_sealing_keeps_other_bits_as_they_are(home: Path) -> None:
    path = home / "file"
    path.touch()
    for before, after in ((0o664, 0o444), (0o755, 0o555), (0o600, 0o400)):
        path.chmod(before)
        filesystem.seal(str(path))
        assert mode(path) == after


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_nobody_may_write_need_not_be_sealed(home: Path) -> None:
    path = home / "theirs"
    path.touch()
    path.chmod(0o444)
    os.chown(path, 12345, 12345)
    unprivileged(lambda: filesystem.seal(str(path)))


def test_removing_what_is_gone_is_fine(home: Path) -> None:
    filesystem.unlink(f"{home}/nothing")
    filesystem.drop(f"{home}/nothing/at/all")
    filesystem.remove_tree(f"{home}/nothing")


def test_a_tree_of_read_only_files_is_removed(home: Path) -> None:
    filesystem.make_folder(f"{home}/tree/deep")
    os.close(filesystem.create(f"{home}/tree/deep/file", final=True))
    filesystem.remove_tree(f"{home}/tree")
    assert list(home.iterdir()) == []


def test_touching_what_cannot_be_touched_is_fine(home: Path) -> None:
    filesystem.touch(f"{home}/nothing")
    path = home / "file"
    path.touch()
    os.utime(path, (1, 1))
    filesystem.touch(str(path))
    assert abs(path.stat().st_mtime - time.time()) < 60


def test_small_files_are_read_whole_or_refused(home: Path) -> None:
    path = home / "file"
    path.write_bytes(b"x" * 100)
    assert disk.read_small(str(path), 100) == b"x" * 100
    with pytest.raises(StorageError, match="longer than 99 bytes"):
        disk.read_small(str(path), 99)


def test_a_large_limit_takes_no_memory(home: Path) -> None:
    path = home / "file"
    path.write_bytes(b"x")

    def read() -> bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, resource.RLIM_INFINITY))
        return disk.read_small(str(path), 1 << 30)

    assert unprivileged(read) == b"x"


def _parse(path: str) -> list[bytes]:
    return [Path(path).read_bytes()]


def test_parsing_is_remembered_until_the_file_changes(home: Path) -> None:
    path = home / "file"
    path.write_bytes(b"one")
    os.utime(path, (1000, 1000))
    first = disk.parsed(str(path), _parse)
    assert first == [b"one"]
    assert disk.parsed(str(path), _parse) is first
    path.write_bytes(b"two")
    assert disk.parsed(str(path), _parse) == [b"two"]


def test_a_file_that_has_just_changed_is_not_remembered(home: Path) -> None:
    path = home / "file"
    for value in (b"1", b"2", b"3", b"4"):  # of one size, within one tick of the clock
        path.write_bytes(value)
        assert disk.parsed(str(path), _parse) == [value]


def test_parsing_nothing_gives_none(home: Path) -> None:
    (home / "file").touch()
    assert disk.parsed(f"{home}/nothing", _parse) is None
    assert disk.parsed(f"{home}/file/below", _parse) is None


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "DSCACHE_DIR"), (errno.EIO, "")],
)
def test_an_error_of_the_disk_says_what_to_do(number: int, hint: str) -> None:
    with (
        pytest.raises(StorageError) as found,
        disk.storage_errors("the file cannot be kept", size=7),
    ):
        raise OSError(number, os.strerror(number), "source", None, "target")
    error = found.value
    assert error.code == 6
    assert str(error) == f"the file cannot be kept: {os.strerror(number)} (target)"
    assert hint in error.hint
    assert error.facts["size"] == 7


def test_our_own_errors_pass_untranslated() -> None:
    ours = StorageError("as it is")
    with pytest.raises(StorageError) as found, disk.storage_errors("something else"):
        raise ours
    assert found.value is ours


def test_overwriting_makes_or_empties_a_file_and_leaves_none_of_what_failed(home: Path) -> None:
    (home / "file").write_bytes(DATA)
    (home / "other name").hardlink_to(home / "file")
    for name in ("file", "new"):
        with filesystem.overwriting(f"{home}/{name}") as fd:
            filesystem.write(fd, [b"xy"], 0)
        assert (home / name).read_bytes() == b"xy"
    assert (home / "other name").read_bytes() == b"xy"

    def fail() -> None:
        with filesystem.overwriting(f"{home}/file") as fd:
            filesystem.write(fd, [DATA], 0)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (home / "file").read_bytes() == b""


def test_overwriting_leaves_a_device_as_it_is() -> None:
    with pytest.raises(KeyError), filesystem.overwriting(os.devnull):
        raise KeyError
    assert not os.path.isfile(os.devnull)


def test_an_unnamed_file_is_in_no_list_afterwards(home: Path) -> None:
    with filesystem.unnamed(str(home)) as fd:
        filesystem.write(fd, [DATA], 0)
        os.lseek(fd, 0, os.SEEK_SET)
        assert os.read(fd, len(DATA)) == DATA
    assert not list(home.iterdir())
