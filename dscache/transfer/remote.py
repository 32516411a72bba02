"""The remote: a store that a team shares, asked by digest before the sources of the registry.

It is asked alone, so that the sources are left in peace while it serves. Once it cannot be reached
that is said, and for the rest of the call nobody waits for it again.
"""

from __future__ import annotations

import os
from pathlib import Path

from dscache.digest import Digest
from dscache.events import Emit, Notice
from dscache.model import Artifact
from dscache.registry import blobs
from dscache.sources.exchange import Failure, Trouble

#: Answers that tell of one file only.
_MISSING = frozenset({404, 410})


def remote_key(digest: Digest) -> str:
    """Where the remote has the file of a digest; for sha256 that is as in a registry's blobs."""
    return blobs.file(digest.hex, digest.algorithm)


class Remote:
    """The remote of one call.

    Attributes:
        is_out: it has failed, and is not asked any more.
    """

    def __init__(self, address: str, emit: Emit) -> None:
        self.is_out = False
        self._address = address
        self._emit = emit
        is_url = "://" in address
        self._base = address.rstrip("/") if is_url else Path(os.path.abspath(address)).as_uri()

    def near(self, artifact: Artifact) -> Near | None:
        """Where it would have an artifact; None for one that no hash tells from others."""
        identity = artifact.identity
        if identity is None or self.is_out:
            return None
        return Near(f"{self._base}/{remote_key(identity)}", self)

    def fail(self, failure: Failure) -> None:
        """It did not give a file: that is no news if it only does not have it."""
        is_of_file = failure.status in _MISSING or failure.trouble is Trouble.WRONG
        if not (is_of_file or self.is_out):
            self.is_out = True
            self._emit(
                Notice(
                    f"the remote {self._address} cannot be used: {failure.reason}; "
                    "the sources of the registry are"
                )
            )


class Near:
    """A source of our own, the first of a download's and alone in its turn.

    Attributes:
        url: where it has the file, if it has it.
        remote: whose it is; None for a file of another cache on this machine.
    """

    def __init__(self, url: str, remote: Remote | None = None) -> None:
        self.url = url
        self.remote = remote

    @property
    def is_out(self) -> bool:
        """True if it is not worth asking any more."""
        return self.remote is not None and self.remote.is_out

    def fail(self, failure: Failure) -> None:
        """It did not give the file."""
        if self.remote:
            self.remote.fail(failure)
