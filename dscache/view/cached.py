"""Views in the cache: made at once, looked at quickly or thoroughly, mended where they stand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from dscache import disk, filesystem
from dscache.errors import InvalidFile, StorageError
from dscache.view.items import Item
from dscache.view.links import Ways, shown_otherwise, stands_as
from dscache.view.outline import folders_of

#: Ways to a file of a view, the best first. A copy in the cache is read-only, as a link would be.
_MODES = ("hardlink", "symlink", "sealed copy")


def is_whole(folder: str, looks: Sequence[tuple[str, int]]) -> bool:
    """A quick look whether files stand in the folder, each given by its path and its size.

    Without any, whether there is the folder.
    """
    try:
        for path, size in looks:
            if os.stat(f"{folder}/{path}").st_size != size:
                return False
        if not looks:
            os.stat(folder)
    except OSError:
        return False
    return True


def is_sound(
    folder: str, items: Iterable[Item], sum_of: Callable[[str], str] | None = None
) -> bool:
    """A thorough look: every file is a link to its source, or has the right bytes as a copy.

    Args:
        sum_of: how the xxh3_128 of a copy is found; by default by reading it.

    Raises:
        StorageError: the disk does not let it be looked at.
    """
    with disk.storage_errors(f"the view {folder} cannot be read"):
        return all(stands_as(f"{folder}/{item.path}", item, sum_of) for item in items)


def build(folder: str, items: Iterable[Item]) -> None:
    """Make the view in the cache, or mend the one that is there.

    Args:
        folder: where the view stands.
        items: what it holds, iterated several times; what an existing view has besides stays.

    Raises:
        UnsafeError: an item stands below a link.
        InvalidFile: two items want one place.
        StorageError: the disk does not take it.
    """
    with disk.storage_errors(f"the view {folder} cannot be made"):
        folders = folders_of(items)
        if os.path.isdir(folder):
            _mend(folder, items, folders)
        else:
            _publish(folder, items, folders)


def sync(folder: str, items: Iterable[Item]) -> None:
    """Bring a view whose sources are synced to the disk: its folders, and copies where it has them.

    Raises:
        StorageError: the disk does not take it.
    """
    with disk.storage_errors(f"the view {folder} cannot be synced"):
        for item in items:
            path = f"{folder}/{item.path}"
            if item.kind == "file" and not os.path.samefile(path, item.source):
                filesystem.sync_path(path)
        for path in folders_of(items):
            filesystem.sync_path(f"{folder}/{path}")
        filesystem.sync_path(folder)
        filesystem.sync_path(os.path.dirname(folder))


def _publish(folder: str, items: Iterable[Item], folders: Sequence[str]) -> None:
    temporary = filesystem.beside(folder)
    filesystem.make_folder(temporary)
    try:
        for path in folders:
            filesystem.make_folder(f"{temporary}/{path}")
        _fill(temporary, items, folder)
        try:
            filesystem.rename(temporary, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
            _mend(folder, items, folders)  # another process was faster
            filesystem.remove_tree(temporary)
    except BaseException:
        filesystem.remove_tree(temporary)
        raise


def _fill(folder: str, items: Iterable[Item], final: str) -> None:
    """Link everything into the new folder, which is going to be `final`."""
    ways = Ways(_MODES, _relative(final))
    for item in items:
        if item.kind != "folder":
            there = f"{folder}/{item.path}"
            try:
                ways.make(item, there)
            except FileExistsError:
                if stands_as(there, item):
                    continue
                if shown_otherwise(folder, item.path):
                    raise _one_name(item.path, final) from None
                raise _one_place(item.path) from None


def _mend(folder: str, items: Iterable[Item], folders: Sequence[str]) -> None:
    for path in folders:
        if not os.path.isdir(f"{folder}/{path}"):
            filesystem.make_folder(f"{folder}/{path}")
    ways = Ways(_MODES, _relative(folder))
    for item in items:
        there = f"{folder}/{item.path}"
        if item.kind != "folder" and not stands_as(there, item):
            if os.path.lexists(there) and shown_otherwise(folder, item.path):
                raise _one_name(item.path, folder)
            ways.replace(item, there)


def _relative(final: str) -> Callable[[Item], str]:
    """What a symbolic link in the view holds, it and the source being below the cache root."""

    def relative(item: Item) -> str:
        # As the kernel sees them: a folder of the cache may itself be a symbolic link.
        folder = os.path.realpath(os.path.dirname(f"{final}/{item.path}"))
        return os.path.relpath(os.path.realpath(item.source), folder)

    return relative


def _one_place(path: str) -> InvalidFile:
    return InvalidFile(
        f"two files of the dataset want to stand at {path}",
        hint="its registry entry should have them in separate folders, by `unpack_to`; tell its "
        "maintainer",
        files=[path],
    )


def _one_name(path: str, folder: str) -> StorageError:
    return StorageError(
        f"the view {folder} cannot be made: another of its files has the name {path} here",
        hint="a filesystem that ignores case cannot hold this dataset; "
        "set DSCACHE_DIR or --cache-dir to a folder on another",
        files=[path],
    )
