"""Views in the cache: made at once, looked at quickly or thoroughly, mended where they stand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from dscache import filesystem
from dscache.store import File
from dscache.view.links import beside, link, link_new, parents, stands_as

#: Ways to a file of a view, the best first. A copy in the cache is read-only, as a link would be.
_MODES = ("hardlink", "symlink", "sealed copy")
#: A hit looks at the sizes of no more files than this.
LOOKED_AT = 64


def is_whole(folder: str, files: Sequence[File]) -> bool:
    """A quick look whether the files stand in the folder with their sizes (the first 64)."""
    try:
        for file in files[:LOOKED_AT]:
            if os.stat(f"{folder}/{file.path}").st_size != file.size:
                return False
        if not files:
            os.stat(folder)
    except OSError:
        return False
    return True


def is_sound(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> bool:
    """A thorough look: every file is a link to its blob, or has the right bytes as a copy.

    Raises:
        StorageError: the disk does not let it be looked at.
    """
    with filesystem.storage_errors(f"the view {folder} cannot be read"):
        return all(stands_as(f"{folder}/{f.path}", f, blob(f.sha256)) for f in files)


def build(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    """Make the view in the cache, or mend the one that is there.

    Args:
        folder: where the view stands.
        files: what it holds; files of an existing view that are not among them stay.
        blob: the path of a blob, by its sha256.

    Raises:
        StorageError: the disk does not take it.
    """
    with filesystem.storage_errors(f"the view {folder} cannot be made"):
        if os.path.isdir(folder):
            _mend(folder, files, blob)
        else:
            _publish(folder, files, blob)


def sync(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    """Bring a view whose blobs are synced to the disk: its folders, and copies where it has them.

    Raises:
        StorageError: the disk does not take it.
    """
    with filesystem.storage_errors(f"the view {folder} cannot be synced"):
        for file in files:
            path = f"{folder}/{file.path}"
            if not os.path.samefile(path, blob(file.sha256)):
                filesystem.sync_path(path)
        for parent in sorted({parent for file in files for parent in parents(file.path)}):
            filesystem.sync_path(f"{folder}/{parent}")
        filesystem.sync_path(folder)
        filesystem.sync_path(os.path.dirname(folder))


def _publish(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    temporary = beside(folder)
    filesystem.make_folder(temporary)
    try:
        _fill(temporary, files, blob, folder)
        try:
            filesystem.rename(temporary, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
            _mend(folder, files, blob)  # another process was faster
            filesystem.remove_tree(temporary)
    except BaseException:
        filesystem.remove_tree(temporary)
        raise


def _fill(folder: str, files: Sequence[File], blob: Callable[[str], str], final: str) -> None:
    """Link everything into the new folder, which is going to be `final`."""
    made = {""}
    for file in files:
        parent = file.path.rpartition("/")[0]
        if parent not in made:
            filesystem.make_folder(f"{folder}/{parent}")
            made.add(parent)
        source = blob(file.sha256)
        pointing = _pointer(source, f"{final}/{file.path}")
        link_new(source, f"{folder}/{file.path}", _MODES, pointing)


def _mend(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    for file in files:
        there, source = f"{folder}/{file.path}", blob(file.sha256)
        if not stands_as(there, file, source):
            filesystem.make_folder(os.path.dirname(there))
            link(source, there, _MODES, _pointer(source, there))


def _pointer(source: str, target: str) -> Callable[[], str]:
    """What a symbolic link at `target` holds, both being below the cache root, if it is needed."""

    def relative() -> str:
        # As the kernel sees them: a folder of the cache may itself be a symbolic link.
        folder = os.path.realpath(os.path.dirname(target))
        return os.path.relpath(os.path.realpath(source), folder)

    return relative
