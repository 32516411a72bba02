"""Claiming: of the machines that miss the same dataset, one brings it to the remote.

The others wait, and have it from there. A claim is a small file in the remote, created where there
is none. Its holder writes it anew every some seconds, so that one of the dead is known by its
silence; in its place stands in the end that the dataset is there, and nobody waits for it again. As
with all locks, what is at stake is work: a lost claim means that two ask the origin.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from queue import Empty, SimpleQueue

import msgspec

from dscache.call import Call
from dscache.depots import Depot, Stored, open_depot
from dscache.depots.asking import Interruptible
from dscache.errors import DscacheError
from dscache.events import Idle, Notice
from dscache.malformed import MALFORMED
from dscache.sources.buckets import has_left_home, is_bucket
from dscache.sources.exchange import Failure, Trouble
from dscache.store.owner import host_name
from dscache.wishes import Wish

FOLDER = "claims"
_MOST = 4096
#: Seconds between two signs of life, and of silence after which a holder is taken for dead.
_RENEW, _DEAD = 10.0, 60.0
#: Seconds between two looks of those who wait.
_LOOK, _LONGEST_LOOK = 0.5, 5.0


class Claim(msgspec.Struct, frozen=True):
    """What the file says: who brings the dataset, or that it is there."""

    host: str
    pid: int
    is_done: bool = False
    beat: int = 0
    format: int = 1

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def claim_key(content: str, patterns: Sequence[str] = ()) -> str:
    """Where the claim of a dataset is: by its content, and the files that are chosen of it."""
    chosen = sha256(os.fsencode("\n".join(patterns))).hexdigest()[:8] if patterns else "all"
    return f"{FOLDER}/{content[:32]}-{chosen}"


def mark_done(depot: Depot, key: str) -> None:
    """Say that the remote has all that a claim is for."""
    _write(depot, key, _own(is_done=True))


class Claims:
    """The claims of one call. Without a remote to write to, everything is one's own at once."""

    def __init__(self, call: Call) -> None:
        settings = call.settings
        self._call = call
        self._patience = settings.lock_timeout
        self._depot: Depot | None = None
        is_wanted = settings.push and not settings.offline and call.remote is not None
        if is_wanted and _takes_files(settings.remote):
            self._depot = Interruptible(open_depot(settings.remote))
        self._held: dict[str, Renewal] = {}

    def attempt(self, wish: Wish) -> bool:
        """True if it is this call that should bring it now, or nobody need."""
        return self._asked(lambda depot: self._take(depot, _key_of(wish)) is None)

    def wait(self, wish: Wish, on_wait: Callable[[str], None]) -> None:
        """Wait until somebody else has brought it, or it falls to this call."""
        end = time.monotonic() + self._patience
        key, told, pause = _key_of(wish), "", _LOOK
        watch = _Watch()

        def is_over(depot: Depot) -> bool:
            nonlocal told
            found = self._take(depot, key)
            if found is None:
                return True
            if (holder := str(_decoded(found))) != told:
                on_wait(told := holder)
            return watch.is_dead(found) and self._take_over(depot, key, found)

        while not self._asked(is_over):
            if time.monotonic() > end:
                self._call.emit(Notice(f"{told} has not brought {wish.dataset.name} in time"))
                return
            self._call.emit(Idle())
            time.sleep(pause)
            pause = min(_LONGEST_LOOK, pause * 1.5)

    def release(self, wish: Wish, *, is_done: bool) -> None:
        """Let the others go on: the remote has it, or somebody else has to bring it."""
        key = _key_of(wish)
        renewal = self._held.pop(key, None)
        depot = self._depot
        if renewal is None or depot is None:
            return
        renewal.stop()
        with suppress(DscacheError):  # it falls silent then, and is taken for dead
            if is_done:
                mark_done(depot, key)
            else:
                depot.remove([key])

    def _asked(self, ask: Callable[[Depot], bool]) -> bool:
        """What the remote says; True, so that the call goes on alone, where it says nothing."""
        if self._depot is None:
            return True
        try:
            return ask(self._depot)
        except DscacheError as error:
            if self._call.remote:
                self._call.remote.fail(Failure(Trouble.CONNECTION, str(error)))
            self._depot = None
            return True

    def _take(self, depot: Depot, key: str) -> Stored | None:
        """None if the claim is this call's now, or nobody needs it; else whose it is."""
        found = depot.read(key, _MOST)
        if found is None:
            if not depot.create(key, _encoded(_own())):
                return depot.read(key, _MOST) or Stored(b"", "")
            self._held[key] = Renewal(depot, key)
            return None
        claim = _decoded(found)
        return None if claim and claim.is_done else found

    def _take_over(self, depot: Depot, key: str, found: Stored) -> bool:
        if not depot.replace(key, _encoded(_own()), found.version):
            return False
        self._held[key] = Renewal(depot, key)
        return True


class Renewal:
    """Shows every some seconds that the holder of a claim lives, in a thread of its own."""

    def __init__(self, depot: Depot, key: str) -> None:
        self._depot, self._key = depot, key
        self._end: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="dscache-claim", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; once this returns, nothing is written any more."""
        self._end.put(None)
        self._thread.join()

    def _run(self) -> None:
        beat = 0
        while True:
            try:
                self._end.get(timeout=_RENEW)
            except Empty:
                beat += 1
                with suppress(DscacheError):  # the next time it may work
                    _write(self._depot, self._key, _own(beat=beat))
            else:
                return


class _Watch:
    """Tells by one's own clock how long a claim has been silent."""

    def __init__(self) -> None:
        self._version = ""
        self._since = time.monotonic()

    def is_dead(self, found: Stored) -> bool:
        now = time.monotonic()
        if found.version != self._version:
            self._version, self._since = found.version, now
        return now - self._since > _DEAD


def _takes_files(remote: str) -> bool:
    """True for a remote that this process can write to."""
    if is_bucket(remote):
        return not has_left_home()
    return not remote.startswith(("http://", "https://"))


def _key_of(wish: Wish) -> str:
    return claim_key(wish.dataset.content, wish.patterns)


def _own(*, is_done: bool = False, beat: int = 0) -> Claim:
    return Claim(host_name(), os.getpid(), is_done, beat)


def _write(depot: Depot, key: str, claim: Claim) -> None:
    data = _encoded(claim)
    depot.upload(key, [data], len(data))


def _encoded(claim: Claim) -> bytes:
    return msgspec.json.encode(claim)


def _decoded(found: Stored) -> Claim | None:
    try:
        return msgspec.json.decode(found.data, type=Claim)
    except MALFORMED:
        return None
