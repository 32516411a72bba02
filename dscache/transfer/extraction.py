"""Extraction: archives become trees, on the way as they arrive or when they are complete."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from dscache.events import Emit, Extracted
from dscache.model import Artifact
from dscache.store import Store
from dscache.transfer.download import State
from dscache.transfer.wants import Delivered, claim_key

if TYPE_CHECKING:
    from dscache.unpack.rules import Limits
    from dscache.unpack.unpacking import Unpacking

#: Formats that are read from the start to the end. Of what `auto` finds one may be zip.
_STREAMS = frozenset({"tar", "gzip", "bzip2", "xz", "zstd"})
_TELL_EVERY = 0.1


class Extraction(msgspec.Struct, eq=False):
    """A blob that was delivered, on its way to a tree; the pool looks after it beside downloads."""

    delivered: Delivered
    unpacking: Unpacking
    emit: Emit
    state: State = State.HASHING
    _told: float = 0.0

    @property
    def key(self) -> str:
        """Under which it is claimed."""
        return claim_key(self.delivered.want.artifact)

    def verify(self) -> None:
        """Look whether it is done, and tell how far it is."""
        archive, now = self.unpacking.archive, time.monotonic()
        if self.unpacking.is_done:
            self.state = State.DONE
            self.emit(Extracted(archive.name, archive.size, archive.size))
        elif now - self._told > _TELL_EVERY:
            self._told = now
            self.emit(Extracted(archive.name, self.unpacking.done, archive.size))


class Extractions:
    """The extractions of one call."""

    def __init__(self, store: Store, limits: Limits, jobs: int, emit: Emit) -> None:
        self._store = store
        self._limits = limits
        self._emit = emit
        # A thread that follows a download mostly waits for it. One that does not keeps a core busy.
        self._following = ThreadPoolExecutor(jobs, thread_name_prefix="dscache-unpack")
        self._busy = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="dscache-unpack")

    def follow(self, artifact: Artifact, key: str, path: str) -> Unpacking | None:
        """The extraction of an archive that arrives in the file at `path`.

        None where it must be complete first, as a zip archive.
        """
        if artifact.recipe.partition("+")[0] not in _STREAMS:
            return None
        # Late: most downloads are no archives.
        from dscache.unpack.reading import Archive
        from dscache.unpack.unpacking import Unpacking

        archive = Archive(artifact.path, artifact.recipe, path, artifact.size or 0)
        return Unpacking(archive, self._store.trees, key, self._limits, self._following)

    def begin(self, delivered: Delivered) -> Extraction:
        """The extraction of a blob, begun."""
        from dscache.unpack.reading import Archive
        from dscache.unpack.unpacking import Unpacking  # late: as above

        artifact, blob = delivered.want.artifact, delivered.blob
        if blob is None:
            raise RuntimeError("what is unpacked is here")
        archive = Archive(artifact.path, artifact.recipe, blob.path, blob.size)
        key = claim_key(artifact)
        unpacking = Unpacking(archive, self._store.trees, key, self._limits, self._busy)
        unpacking.grow(blob.size)
        unpacking.complete()
        return Extraction(delivered, unpacking, self._emit)

    def close(self) -> None:
        """End the threads; all extractions have ended or been stopped."""
        self._following.shutdown()
        self._busy.shutdown()
