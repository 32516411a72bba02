"""Probes: what the filesystem of a cache can do, tried with the very steps that the store takes.

Each probe works in a folder of its own below the cache root and answers with a plain value; what
it means is for `doctor` to say. What a filesystem refuses is an answer, other trouble an error.
"""

from __future__ import annotations

import os
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dscache import copying, disk, filesystem
from dscache.store.layout import Layout

#: Bytes of the longest name that filesystems of today have.
_LONGEST = 255
_STAMPS = 5


@contextmanager
def probing(layout: Layout) -> Iterator[str]:
    """A folder to try things in, which is gone at the end."""
    folder = layout.probe(secrets.token_hex(8))
    filesystem.make_folder(layout.parts)
    filesystem.new_folder(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):  # a later prune finds it
            filesystem.remove_tree(folder)


def replaces_open_files(folder: str) -> bool:
    """Whether a rename takes the place of a file that somebody reads, who reads the old one on."""
    path = f"{folder}/open"
    filesystem.publish_bytes(b"old", path)
    try:
        with open(path, "rb", buffering=0) as file:
            filesystem.publish_bytes(b"new", path)
            return file.read() == b"old" and disk.read_small(path, 3) == b"new"
    except PermissionError:
        return False


def links_hard(folder: str) -> str:
    """Why a read-only file cannot be given a second name; empty if it can."""

    def try_it(source: str, target: str) -> bool:
        filesystem.link(source, target)
        return os.path.samefile(source, target)

    return _refusal(folder, "hard", try_it)


def links_symbolically(folder: str) -> str:
    """Why there cannot be symbolic links; empty if there can."""

    def try_it(source: str, target: str) -> bool:
        filesystem.symlink(os.path.basename(source), target)
        return os.path.samefile(source, target)

    return _refusal(folder, "symbolic", try_it)


def clones(folder: str) -> str:
    """Why two files cannot share their bytes until one is changed; empty if they can."""

    def try_it(source: str, target: str) -> bool:
        copying.clone(source, target)
        return disk.read_small(source, 100) == disk.read_small(target, 100)

    return _refusal(folder, "clone", try_it)


def tells_case_apart(folder: str) -> bool:
    """Whether `a` and `A` are two files."""
    filesystem.publish_bytes(b"", f"{folder}/case")
    return not os.path.lexists(f"{folder}/CASE")


def changes_unicode(folder: str) -> str:
    """What is done to names in composed Unicode (NFC), which all ours are; empty for nothing."""
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    path = f"{folder}/unicode"
    filesystem.new_folder(path)
    filesystem.publish_bytes(b"", f"{path}/{composed}")
    if disk.names(path) != [composed]:
        return "stores them in another form"
    return "takes both forms for one" if os.path.lexists(f"{path}/{decomposed}") else ""


def longest_name(folder: str) -> int:
    """How many bytes a name may have, as far as that matters."""
    fits, too_long = 0, _LONGEST + 1
    tried = _LONGEST
    while fits + 1 < too_long:
        if _takes_name(f"{folder}/{'n' * tried}"):
            fits = tried
        else:
            too_long = tried
        tried = (fits + too_long) // 2
    return fits


def syncs(folder: str) -> float:
    """Bring a file and its name to the disk; the seconds that took."""
    began = time.perf_counter()
    filesystem.publish_bytes(b"synced", f"{folder}/synced", durable=True)
    return time.perf_counter() - began


def keeps_permissions(folder: str) -> bool:
    """Whether a file can be read-only; FAT has the permissions of its mount for all files."""
    path = f"{folder}/read-only"
    os.close(filesystem.create(path, final=True))
    return not os.stat(path).st_mode & 0o222


def excludes_by_name(folder: str) -> bool:
    """Whether a file that exists cannot be created a second time."""
    path = f"{folder}/once"
    os.close(filesystem.create(path))
    try:
        os.close(filesystem.create(path))
    except FileExistsError:
        return True
    return False


def clock_ahead(folder: str) -> float:
    """Seconds by which the clock of the filesystem is ahead of this machine's."""
    path = f"{folder}/clock"
    before = time.time()
    filesystem.publish_bytes(b"", path)
    filesystem.touch(path)
    after, stamp = time.time(), os.stat(path).st_mtime
    if before - 2 <= stamp <= after:  # time stamps may be whole, even numbers of seconds
        return 0.0
    return stamp - (before + after) / 2


def stamps_in_whole_seconds(folder: str) -> bool:
    """Whether the times of files have no fractions."""
    path = f"{folder}/stamp"
    filesystem.publish_bytes(b"", path)
    for _ in range(_STAMPS):
        filesystem.touch(path)
        if os.stat(path).st_mtime_ns % 1_000_000_000:
            return False
        time.sleep(0.011)
    return True


def _refusal(folder: str, name: str, try_it: Callable[[str, str], bool]) -> str:
    """Why there are no links of a kind from a blob; empty if there are."""
    source = f"{folder}/{name}-source"
    filesystem.publish_bytes(b"the bytes of a blob", source)
    filesystem.seal(source)
    try:
        return "" if try_it(source, f"{folder}/{name}-target") else "it is another file"
    except OSError as error:
        if error.errno not in copying.UNSUPPORTED:
            raise
        return os.strerror(error.errno or 0)


def _takes_name(path: str) -> bool:
    try:
        os.close(filesystem.create(path))
    except OSError as error:
        if error.errno in disk.FULL:
            raise
        return False
    return True
