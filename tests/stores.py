"""Stores for tests: filling them, damaging them as accidents do, and looking at them from outside.

`faults_of` is the independent checker: it knows the layout on disk from the design, and shares no
code with the store.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import xxhash

from dscache import copying, filesystem
from dscache.digest import Digest, Sums
from dscache.store import SMALL, Blob, Store, key_of, owner

Steps = list[tuple[str, tuple[Any, ...]]]


def sums_by(data: bytes, *algorithms: str) -> Sums:
    """The hashes of some bytes by these algorithms, and sha256 and xxh3_128."""
    sums = Sums(algorithms)
    sums.update(data)
    return sums


def digest_of(data: bytes, algorithm: str = "sha256") -> Digest:
    """The digest of some bytes."""
    return Digest(algorithm, sums_by(data, algorithm)[algorithm])


def publish(store: Store, data: bytes, *known_as: Digest) -> Blob:
    """Bring bytes into the store as a download does."""
    sums = sums_by(data, *(digest.algorithm for digest in known_as))
    if len(data) <= SMALL:
        return store.blobs.publish_bytes(data, sums, known_as)
    part = store.parts().begin(key_of(digest_of(data)), len(data))
    part.write([data])
    part.close()
    blob = store.blobs.publish_file(part.path, part.size, sums, known_as)
    part.forget()
    return blob


def overwrite(path: str | Path, data: bytes) -> None:
    """Change the bytes of a file and nothing else, as a failing disk does: not even its time."""
    before = os.stat(path)
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.truncate(len(data))
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.chmod(path, stat.S_IMODE(before.st_mode))


def flip(path: Path) -> None:
    """Damage a file: one bit in its middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    overwrite(path, bytes(data))


def cut(path: Path) -> None:
    """Damage a file: its last byte is lost."""
    overwrite(path, path.read_bytes()[:-1])


def grow(path: Path) -> None:
    """Damage a file: it is longer."""
    overwrite(path, path.read_bytes() + b"more")


def zero(path: Path) -> None:
    """Damage a file: zeros, as a power cut leaves."""
    overwrite(path, bytes(path.stat().st_size))


def damaged(data: bytes) -> Iterator[bytes]:
    """What a power cut or an accident can leave of a small file."""
    for length in range(len(data)):
        yield data[:length]
    for length in range(0, len(data), 16):
        yield data[:length] + bytes(len(data) - length)
        yield bytes(length + 16) + data[length + 16 :]
    if data.startswith(b"{"):
        yield data.replace(b'":"', b'":"\xff', 1)
        yield data[:-1] + b',"x":' + b"[" * 100_000
    yield b"\xff\xfe\x00garbage" * 10
    yield b"{}"
    yield b"[]"
    yield b"null"
    yield b"x" * 100_000


@contextmanager
def boot(name: str) -> Iterator[None]:
    """The machine runs in another boot, as after a restart."""
    read = owner._read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, "_read", lambda path: name if "boot_id" in path else read(path))
        owner.this_boot.cache_clear()
        try:
            yield
        finally:
            owner.this_boot.cache_clear()


@contextmanager
def steps() -> Iterator[Steps]:
    """The steps that touch the disk, as (name, arguments), in their order."""
    taken: Steps = []
    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(STEPS[name], name, _noting(name, taken))
        yield taken


def _noting(name: str, taken: Steps) -> Any:
    step = getattr(STEPS[name], name)

    def noted(*arguments: Any, **keys: Any) -> Any:
        taken.append((name, arguments))
        return step(*arguments, **keys)

    return noted


_COMPOSED = {"created", "replacing", "publish_bytes", "drop"}  # of other steps
_LOOKING = {"mode_of", "beside"}


def _steps_of(module: ModuleType, *left_out: str) -> dict[str, ModuleType]:
    return {
        name: module
        for name, value in vars(module).items()
        if callable(value)
        and getattr(value, "__module__", "") == module.__name__
        and not name.startswith("_")
        and name not in left_out
    }


#: What changes the disk, one step each, with the module whose function it is.
STEPS = _steps_of(filesystem, *_COMPOSED, *_LOOKING) | _steps_of(copying, "copy")


#: The exit code of a process that a fault has ended.
KILLED = 77
_WRITE = filesystem.write


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th step: the process ends ("kill"), or the step fails as on a full or
    broken disk ("fail"). With "tear" only writes count, and the process ends when half is written.
    """

    at: int
    how: str

    def arm(self) -> Callable[[], int]:
        """Put the fault into this process; the result tells how many steps were taken."""
        count = 0

        def faulty(name: str) -> Callable[..., Any]:
            step = getattr(STEPS[name], name)

            def taken(*arguments: Any, **keys: Any) -> Any:
                nonlocal count
                count += 1
                if count == self.at:
                    self._strike(step, arguments)
                return step(*arguments, **keys)

            return taken

        for name in ["write"] if self.how == "tear" else STEPS:
            setattr(STEPS[name], name, faulty(name))
        return lambda: count

    def _strike(self, step: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if step is _WRITE and self.how != "kill":
            fd, chunks, offset = arguments
            data = b"".join(chunks)
            step(fd, [data[: len(data) // 2]], offset)
        if self.how != "fail":
            os._exit(KILLED)
        number = errno.EIO if self.at % 2 else errno.ENOSPC
        raise OSError(number, os.strerror(number))


def files_below(folder: str | Path) -> list[Path]:
    """All files below a folder, links included."""
    return sorted(path for path in Path(folder).rglob("*") if not path.is_dir())


def let_an_hour_pass(root: str | Path) -> None:
    """Nothing that is unfinished in a cache was written within the last hour."""
    then = time.time() - 3600
    for path in Path(root).rglob("*"):
        if path.suffix == ".tmp" or path.parent.name in ("parts", "removals"):
            os.utime(path, (then, then))


def faults_of(root: str | Path, contents: Mapping[str, bytes] | None = None) -> list[str]:
    """What is wrong with a cache folder, by the design's invariants.

    `contents` are the right bytes of the files of views, by their path in a dataset.
    """
    cache = Path(root)
    return [
        *_blob_faults(cache),
        *_tree_faults(cache),
        *_view_faults(cache, contents or {}),
        *_record_faults(cache),
        *_version_faults(cache),
    ]


def _blob_faults(cache: Path) -> Iterator[str]:
    for path in files_below(cache / "blobs"):
        name = path.parent.name + path.name
        if path.parents[1].name != "sha256" or sha256_of(path) != name:
            yield f"{path} does not hash to its name"
        if path.stat().st_mode & 0o222:
            yield f"{path} is writable"
    for path in files_below(cache / "aliases"):
        sha256 = path.read_text("latin-1").strip()
        blob = cache / "blobs/sha256" / sha256[:2] / sha256[2:]
        algorithm = path.parents[1].name
        if path.suffix or len(sha256) != 64 or not blob.exists():
            continue  # on its way, torn, or of a blob that is gone
        if algorithm in hashlib.algorithms_available:
            found = hashlib.new(algorithm, blob.read_bytes()).hexdigest()
            if found != path.parent.name + path.name:
                yield f"{path} is no alias of {blob}"


def _tree_faults(cache: Path) -> Iterator[str]:
    """Of trees that say that they can be believed: members that are not as the list says."""
    for path in cache.glob("trees/*/*/tree.json"):
        tree, summary = path.parent, json.loads(path.read_bytes())
        listed = (tree / "members").read_bytes()
        if xxhash.xxh3_128_hexdigest(listed) != summary["list_sum"]:
            yield f"{tree} has another list than it says"
        if Counter(walked(tree / "files")) != Counter(rows(listed)):
            yield f"{tree} does not hold what it lists"


def rows(listed: bytes) -> list[tuple[str, str, str, str, str]]:
    """The files and links of a list of members: path, mode in octal, size, xxh3_128, target."""
    texts = os.fsdecode(listed).split("\0")[:-1]
    found = []
    for facts, path, target in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
        mode, size, xxh3_128 = facts.split(" ")
        if not mode.startswith("4"):
            found.append((path, mode, size, xxh3_128, target))
    return found


def walked(folder: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """The same as it stands on the disk."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink():
            yield name, "120777", "0", "", os.readlink(path)
        else:
            data = path.read_bytes()
            mode = f"{path.stat().st_mode:o}"
            yield name, mode, str(len(data)), xxhash.xxh3_128_hexdigest(data), ""


def _view_faults(cache: Path, contents: Mapping[str, bytes]) -> Iterator[str]:
    for view in cache.glob("datasets/*/*/[!.]*"):
        for path in files_below(view):
            name = path.relative_to(view).as_posix()
            if not path.exists():
                continue  # a link that leads nowhere, as its archive has it
            if ".tmp" not in name and path.read_bytes() != contents.get(name, path.read_bytes()):
                yield f"{path} has wrong bytes"


def _record_faults(cache: Path) -> Iterator[str]:
    for path in cache.glob("records/*/*.json"):
        record = json.loads(path.read_bytes())
        version = f"{record['version']}+{record['content'][:8]}"
        view = cache / "datasets" / record["registry"] / record["name"] / version
        for name, sha256, size, _ in record["files"]:
            file = view / name
            if not file.exists() or file.stat().st_size != size or sha256_of(file) != sha256:
                yield f"{path} speaks of {name}, which is not there"


def _version_faults(cache: Path) -> Iterator[str]:
    version = cache / "VERSION"
    if version.exists() and version.read_text() != "1\n":
        yield f"{version} is torn"


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
