"""Resuming: how far a verification has come, in one small file, so that it can go on from there.

Checks have one order. The state names the last one that was handed out and those before it that
were still being made, so that it is small however many files there are. What was checked is looked
at again if it may have changed since, told by the time of its file. If the machine was started anew
all of it is: what is on the disk need not be what was read.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

import msgspec

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.malformed import MALFORMED
from dscache.store.layout import Layout
from dscache.store.owner import Owner, is_gone, this_boot, this_process
from dscache.verifying.checking import Check, Finding, Position, is_changed

#: An older state says nothing any more, in seconds.
_LASTS = 86400
#: How exact the times of files are, in seconds; FAT counts by two.
_GRAIN = 2.0
_MAX_FILE = 1 << 28
_FORMAT = 1


class State(msgspec.Struct, frozen=True):
    """How far a verification has come.

    Attributes:
        question: what is verified, and how.
        began: when, by the clock of the cache's filesystem, in seconds since 1970.
        last: the last check that was handed out.
        unfinished: those up to it that were not done.
        findings: what was found.
        files: how many files were looked at.
    """

    question: str
    owner: Owner
    began: float
    last: Position
    unfinished: tuple[Position, ...]
    findings: tuple[Finding, ...]
    files: int
    format: int = _FORMAT

    def has_done(self, check: Check) -> bool:
        """True if that check was made, and nothing has come to the file since."""
        position = check.position
        is_done = position <= self.last and position not in self.unfinished
        # What describes a tree is always read again: it takes next to nothing.
        is_kept = is_done and (check.member is not None or not check.unit.recipe)
        return is_kept and not is_changed(check.path, self.began)


class Progress:
    """The state of one verification on the disk, written now and then, and removed at the end.

    It is a convenience: where it cannot be written, there is none.
    """

    def __init__(self, layout: Layout, question: str) -> None:
        self._path = layout.verification
        self._question = question
        self._start = time.monotonic()
        self._began: float | None = None

    def left(self) -> State | None:
        """What an interrupted verification of the same has left, if it can be used."""
        try:
            age = time.time() - os.stat(self._path).st_mtime
            state = msgspec.json.decode(disk.read_small(self._path, _MAX_FILE), type=State)
        except (OSError, StorageError, *MALFORMED):
            return None
        owner = state.owner
        is_ours = (state.question, state.format) == (self._question, _FORMAT)
        is_left = owner.boot == this_boot() and is_gone(owner) is not False
        if not is_ours or not is_left or age > _LASTS:
            return None
        self._began = state.began
        return state

    def save(
        self,
        last: Position,
        unfinished: tuple[Position, ...],
        findings: tuple[Finding, ...],
        files: int,
    ) -> None:
        """Write down how far it is; the arguments are as in `State`."""
        began = self._began or 0.0
        owner = this_process()
        state = State(self._question, owner, began, last, unfinished, findings, files)
        with suppress(OSError):
            filesystem.publish_bytes(msgspec.json.encode(state), self._path)
            if self._began is None:  # the clock of the filesystem may be another than ours
                now = os.stat(self._path).st_mtime
                self._began = now - (time.monotonic() - self._start) - _GRAIN
                state = msgspec.structs.replace(state, began=self._began)
                filesystem.publish_bytes(msgspec.json.encode(state), self._path)

    def end(self) -> None:
        """It is done, and nothing is left to go on with."""
        if self._began is not None:
            with suppress(OSError):
                filesystem.unlink(self._path)
