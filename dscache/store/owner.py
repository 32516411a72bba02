"""Who wrote something, and in which boot of which host: what proofs, parts and locks go by.

A process is named by host, boot, pid namespace, pid and start time, since pids are used again and
mean nothing in another container. Where these cannot be read the answer is "unknown", and callers
take the safe way.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache

import msgspec

#: States of a process that has ended, though nobody has asked for its exit code yet.
_ENDED = frozenset("ZX")


class Boot(msgspec.Struct, frozen=True):
    """One run of one kernel: while it lasts, what was written can be read back (page cache)."""

    host: str
    id: str


class Owner(msgspec.Struct, frozen=True):
    """One process."""

    boot: Boot | None
    namespace: str
    pid: int
    start: str


@lru_cache(maxsize=1)
def this_boot() -> Boot | None:
    """The running boot, or None where the platform does not name it."""
    if sys.platform.startswith("linux"):
        boot = _read("/proc/sys/kernel/random/boot_id")
    elif sys.platform == "darwin":
        import subprocess  # late: asked for by every process, needed on this platform alone

        called = ("sysctl", "-n", "kern.bootsessionuuid")
        boot = subprocess.run(called, capture_output=True, text=True, check=False).stdout.strip()
    else:
        boot = ""
    return Boot(host_name(), boot) if boot else None


def is_running(boot: Boot | None) -> bool:
    """True for the boot that runs now, in which what was written can be read back."""
    return boot is not None and boot == this_boot()


def host_name() -> str:
    """The name by which this machine knows itself."""
    if hasattr(os, "uname"):  # a tenth of what importing `platform` takes
        return os.uname().nodename
    import platform

    return platform.node()


def this_process() -> Owner:
    """The running process; asked anew at each call, since a fork makes another one."""
    return Owner(this_boot(), _namespace(), os.getpid(), _status(os.getpid())[1])


def is_gone(owner: Owner) -> bool | None:
    """True if that process has ended, False if it lives, None if it cannot be told from here."""
    here = this_process()
    if here.boot is None or owner.boot is None or owner.boot.host != here.boot.host:
        return None
    if owner.boot.id != here.boot.id:
        return True
    if owner.namespace != here.namespace:
        return None
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    state, start = _status(owner.pid)
    if state in _ENDED:
        return True
    # What /proc hides (hidepid), or where there is no /proc, a process of that pid is taken for it.
    return bool(start and owner.start) and start != owner.start


def in_words(owner: Owner) -> str:
    """A process as messages name it."""
    host = owner.boot.host if owner.boot else "a host that cannot be named"
    return f"process {owner.pid} on {host}"


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _status(pid: int) -> tuple[str, str]:
    """State and start time of a process (in clock ticks since boot): fields 3 and 22 of its stat.

    Empty where there is no such process, or it is not shown.
    """
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (fields[0], fields[19]) if len(fields) > 19 else ("", "")


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:  # a process may have any bytes in its name
            return file.read().strip()
    except OSError:
        return ""
