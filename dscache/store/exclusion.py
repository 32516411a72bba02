"""Whether the system's locks exclude: found out with a real second process, once per host.

On some filesystems a lock is given to everybody who asks (Lustre mounted with localflock, some NFS
and FUSE). A second descriptor of the same process proves nothing, since NFS makes flock out of
locks that belong to processes. What was found is kept in the cache, per running kernel and
filesystem; `doctor` finds it out anew. How a lock is taken is not known here.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.malformed import MALFORMED
from dscache.store.layout import Layout
from dscache.store.owner import host_name, this_boot

#: What other hosts and boots have found is of no use after so many seconds.
_KEPT = 30 * 86400
_PATIENCE = 10.0

# Takes the lock of a file as filelock does, and says by its exit code what came of it.
_GOT, _EXCLUDED = 64, 65
_SECOND_PROCESS = f"""
import errno, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    try:
        import fcntl
    except ImportError:
        import msvcrt
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError as error:
    refused = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
    sys.exit({_EXCLUDED} if error.errno in refused else 1)
sys.exit({_GOT})
"""


class Verdict(msgspec.Struct, frozen=True):
    """What is known of the locks of one host on one filesystem.

    Attributes:
        exclude: whether they exclude between processes of the host; None where nobody can tell.
        reason: how that is known, in words.
        across: whether they exclude between it and `peer`, another host; None: the two have not
            met.
    """

    host: str
    exclude: bool | None
    reason: str
    since: str
    across: bool | None = None
    peer: str = ""
    format: int = 1

    @property
    def trusted(self) -> bool:
        """True unless it is known that they do not exclude."""
        return self.exclude is not False and self.across is not False


def verdict(exclude: bool | None, reason: str) -> Verdict:
    """What this host has found out now."""
    return Verdict(host_name(), exclude, reason, datetime.now(UTC).isoformat(timespec="seconds"))


def key_here(layout: Layout) -> str:
    """The name of this kernel and filesystem in locks/hosts/. A new mount is mostly a new one."""
    boot = this_boot()
    kernel = boot.id if boot else host_name()
    return hashlib.sha256(f"{kernel} {os.stat(layout.root).st_dev}".encode()).hexdigest()[:16]


def known(layout: Layout) -> Verdict | None:
    """What was found out here before."""
    try:
        data = disk.read_small(layout.host(key_here(layout)), 4096)
        return msgspec.json.decode(data, type=Verdict)
    except (OSError, StorageError, *MALFORMED):
        return None


def remember(layout: Layout, found: Verdict) -> None:
    """Keep it for the next process. Where that cannot be written it finds out for itself."""
    with suppress(OSError):
        path = layout.host(key_here(layout))
        filesystem.publish_bytes(msgspec.json.encode(found), path)
        _sweep(os.path.dirname(path), os.stat(path).st_mtime - _KEPT)


def second_process_gets(path: str) -> bool | None:
    """Whether another process is given the lock of the file as well; None if it cannot be asked."""
    program = sys.executable or ""
    # Elsewhere (frozen programs, servers with Python inside) that would start the program again.
    is_python = os.path.basename(program).lower().startswith(("python", "pypy", "graalpy"))
    if getattr(sys, "frozen", False) or not is_python:
        return None
    try:
        done = subprocess.run(
            [program, "-I", "-S", "-c", _SECOND_PROCESS, path],
            stdin=subprocess.DEVNULL,
            # Its end is seen at once: for a process alone Python looks at ever longer intervals.
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {_GOT: True, _EXCLUDED: False}.get(done.returncode)


def _sweep(folder: str, before: float) -> None:
    """Remove what kernels have left that are gone. Nobody ever waits for a lock in there."""
    for name in disk.names(folder):
        if os.stat(f"{folder}/{name}").st_mtime < before:
            filesystem.unlink(f"{folder}/{name}")
