"""A meeting: two hosts on one cache folder find out whether its locks exclude between them.

The first one makes a folder, holds a lock in it and answers; the second finds it, tries to take the
lock and asks. Each question and answer is a rename over a file, so that the time from one to the
other is how late the hosts see each other's changes, and the times in them compare their clocks.
All is bounded in time, and removed at the end.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import msgspec

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.events import Emit, Notice
from dscache.malformed import MALFORMED
from dscache.quantities import show_duration
from dscache.store.layout import Layout
from dscache.store.locks import NoLocks, system_lock
from dscache.store.owner import Owner, host_name, is_gone, this_process

Found = TypeVar("Found")

_PREFIX = "meeting."
_ROUNDS = 3
_POLL = 0.05
#: Network filesystems may show an old state that long, in seconds.
_STALE = 90.0
_SIGN_OF_LIFE, _SAY_AGAIN = 1.0, 30.0


class _Word(msgspec.Struct, frozen=True):
    """What one host says: who it is, at what time by its clock, and the question or answer."""

    host: str
    owner: Owner
    at: float
    round: int = 0
    holds: bool = True


class Met(msgspec.Struct, frozen=True):
    """What two hosts have found out.

    Attributes:
        peer: the other host.
        exclude: whether a lock that one holds is refused to the other.
        late: seconds from a question by rename to its answer, at most.
        ahead: seconds by which the other's clock is ahead of ours, give or take `late` / 2.
    """

    peer: str
    exclude: bool
    late: float
    ahead: float


class Meeting:
    """One attempt to meet another host.

    Args:
        patience: seconds to wait for it.
    """

    def __init__(self, layout: Layout, emit: Emit, patience: float) -> None:
        self._layout = layout
        self._emit = emit
        self._end = time.monotonic() + patience
        self._token = secrets.token_hex(8)

    def hold(self) -> Met | None:
        """Meet whoever is there already, or wait; None if nobody has come in time.

        Raises:
            StorageError: the folder cannot be used, or the other host went away in the middle.
        """
        with disk.storage_errors("two hosts cannot meet in the cache folder"):
            if there := self._first_there():
                return self._join(there)
            with self._opened() as folder:
                joined = self._wait(folder)
                if not isinstance(joined, str):
                    return joined
            return self._join(joined)

    # --- the first ---

    @contextmanager
    def _opened(self) -> Iterator[str]:
        """Our folder, with the lock held that the other host is to try."""
        folder = self._layout.meeting(self._token)
        filesystem.make_folder(folder)
        try:
            try:
                release = system_lock(f"{folder}/lock", 0)
            except NoLocks:
                release = None
            try:
                self._say(folder, "first", holds=release is not None)
                yield folder
            finally:
                if release:
                    release()
        finally:
            with suppress(OSError):
                filesystem.remove_tree(folder)

    def _wait(self, folder: str) -> Met | str | None:
        """Answer until all is found out; a folder if another host was there at the same time."""
        answered, said, told = 0, time.monotonic(), 0.0
        while (left := self._end - time.monotonic()) > 0 or answered:
            if found := _read(f"{folder}/found.json", Met):
                return found
            if answered and time.monotonic() - said > _STALE:
                raise StorageError("the other host does not ask any more", hint=_AGAIN)
            asked = _read(f"{folder}/second.json", _Word)
            if asked and asked.round > answered:
                answered, said = asked.round, time.monotonic()
                self._say(folder, "first", answered)
            elif not answered and (other := self._first_there()) and other < folder:
                return other
            elif not answered and time.monotonic() - said > _SIGN_OF_LIFE:
                said = time.monotonic()
                filesystem.touch(f"{folder}/first.json")
            if not answered and time.monotonic() - told > _SAY_AGAIN:
                told = time.monotonic()
                self._invite(left)
            time.sleep(_POLL)
        return None

    def _invite(self, left: float) -> None:
        self._emit(
            Notice(
                f"run `dscache doctor --peer --cache-dir {self._layout.root}` on another host that "
                f"has this folder; waiting for it ({show_duration(left)} left)"
            )
        )

    # --- the second ---

    def _first_there(self) -> str | None:
        """The folder of another host that waits, as far as can be told from here."""
        for name in disk.names(self._layout.parts):
            folder = f"{self._layout.parts}/{name}"
            if not name.startswith(_PREFIX) or name == f"{_PREFIX}{self._token}":
                continue
            word = _read(f"{folder}/first.json", _Word)
            if word is None or word.host == host_name() or is_gone(word.owner):
                continue
            if not os.path.exists(f"{folder}/taken") and self._is_fresh(f"{folder}/first.json"):
                return folder
        return None

    def _is_fresh(self, path: str) -> bool:
        """Whether the file was touched lately, by the clock of its filesystem."""
        probe = f"{self._layout.meeting(self._token)}.tmp"
        filesystem.publish_bytes(b"", probe)
        try:
            return os.stat(probe).st_mtime - os.stat(path).st_mtime < _STALE
        except FileNotFoundError:
            return False
        finally:
            filesystem.drop(probe)

    def _join(self, folder: str) -> Met:
        os.close(filesystem.create(f"{folder}/taken"))
        first = _read(f"{folder}/first.json", _Word)
        if first is None:
            raise StorageError("the other host has gone away", hint=_AGAIN)
        exclude = first.holds and _is_refused(f"{folder}/lock")
        late, ahead = [], 0.0
        for number in range(1, _ROUNDS + 1):
            asked = time.time(), time.monotonic()
            self._say(folder, "second", number)
            answer = self._answer(folder, number)
            late.append(time.monotonic() - asked[1])
            if late[-1] == min(late):
                ahead = answer.at - (asked[0] + late[-1] / 2)
        ours = Met(host_name(), exclude, max(late), -ahead)
        filesystem.publish_bytes(msgspec.json.encode(ours), f"{folder}/found.json")
        return Met(first.host, exclude, max(late), ahead)

    def _answer(self, folder: str, number: int) -> _Word:
        end = time.monotonic() + _STALE
        while time.monotonic() < end:
            answer = _read(f"{folder}/first.json", _Word)
            if answer and answer.round == number:
                return answer
            if answer is None and not os.path.isdir(folder):
                break
            time.sleep(_POLL)
        raise StorageError("the other host does not answer", hint=_AGAIN)

    def _say(self, folder: str, who: str, number: int = 0, *, holds: bool = True) -> None:
        word = _Word(host_name(), this_process(), time.time(), number, holds)
        filesystem.publish_bytes(msgspec.json.encode(word), f"{folder}/{who}.json")


_AGAIN = "run `dscache doctor --peer` again on both"


def _is_refused(path: str) -> bool:
    """Whether a lock that another host holds cannot be taken."""
    try:
        release = system_lock(path, 0)
    except NoLocks:
        return False
    if release:
        release()
    return release is None


def _read(path: str, kind: Callable[..., Found]) -> Found | None:
    """What the other host has said, if it can be read."""
    decode: Any = msgspec.json.decode
    try:
        found: Found = decode(disk.read_small(path, 4096), type=kind)
    except (FileNotFoundError, StorageError, *MALFORMED):
        return None
    return found
