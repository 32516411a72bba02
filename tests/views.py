"""Views for tests: files of a store without a store, the items that name them, and what stands.

`tree` is the independent checker: it tells all that is in a folder, and shares no code with views.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dscache import view
from dscache.view import Item, Placed, Target
from tests.making import content
from tests.stores import STEPS, digest_of

CONTENTS = {
    "one.bin": content(3000, 1),
    "deep/two.bin": content(5000, 2),
    "deep/er/three.bin": b"",
    "twin.bin": content(3000, 1),
}
#: What archives hold besides files.
EXTRAS = [
    Item("deep/er/link", kind="link", target="../two.bin"),
    Item("empty/er", kind="folder"),
    Item("folder", kind="link", target="deep"),
    Item("dangling", kind="link", target="no/such file"),
]
EXTRAS_STAND = {
    "deep/er/link": "-> ../two.bin",
    "empty": "",
    "empty/er": "",
    "folder": "-> deep",
    "dangling": "-> no/such file",
}
#: What systems answer where they do not have some kind of link.
REFUSALS = [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS]


def stocked(root: Path, contents: Mapping[str, bytes] = CONTENTS) -> list[Item]:
    """Items for these contents, with their sources sealed below `root`."""
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    items = []
    for path, data in contents.items():
        fast = digest_of(data, "xxh3_128").hex
        source = root / "blobs" / fast
        if not source.exists():
            source.write_bytes(data)
            source.chmod(0o444)
        items.append(Item(path, str(source), len(data), fast))
    return items


class Streamed(Iterable[Item]):
    """Items that can be iterated again and again, and nothing else."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Item]:
        yield from self._items


def place(folder: str | Path, items: Sequence[Item], built: str, **how: Any) -> Placed:
    """`view.place` into a folder that is the target's."""
    return view.place(Target(str(folder), **how), str(folder), Streamed(items), built)


def tree(folder: str | Path) -> dict[str, bytes | str]:
    """All that stands in a folder: the bytes of files, "-> target" for links, "" for folders."""
    return {path.relative_to(folder).as_posix(): _shown(path) for path in Path(folder).rglob("*")}


def _shown(path: Path) -> bytes | str:
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    return "" if path.is_dir() else path.read_bytes()


def with_folders(contents: Mapping[str, bytes | str]) -> dict[str, bytes | str]:
    """As `tree` tells these contents: with the folders that they are in."""
    parents = {str(each) for path in contents for each in Path(path).parents}
    return {**dict.fromkeys(parents - {"."}, ""), **contents}


#: As `tree` tells the items of `CONTENTS` and `EXTRAS`.
EVERYTHING = with_folders({**CONTENTS, **EXTRAS_STAND})


def check(folder: str | Path, names: Sequence[str] = tuple(CONTENTS)) -> None:
    """Exactly these files stand there, under any kind of link, with their bytes."""
    paths = [path for path in Path(folder).rglob("*") if not path.is_dir()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    assert found == {name: CONTENTS[name] for name in names}


def kinds(folder: str | Path, items: Sequence[Item]) -> set[str]:
    """By which links the files stand there."""
    found = set()
    for item in items:
        path = Path(folder, item.path)
        if path.is_symlink():
            found.add("symlink")
        else:
            found.add("hardlink" if os.path.samefile(path, item.source) else "copy")
    return found


def at_once(count: int, function: Callable[[], object]) -> None:
    """Run `function` in several forked processes at the same time; none may fail."""
    children = [_start(function) for _ in range(count)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count


def _start(function: Callable[[], object]) -> int:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function()
            code = 0
        except BaseException:  # noqa: BLE001 - its exit code tells the parent
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def refuse(patch: pytest.MonkeyPatch, number: int, *names: str) -> None:
    """Let steps fail, as on a filesystem that does not know them."""

    def refused(*arguments: Any, **_: Any) -> None:
        raise OSError(number, os.strerror(number), arguments[-1])

    for name in names:
        patch.setattr(STEPS[name], name, refused)
