"""Runs one command and prints its figures as JSON, in the last line: `… [--until FILE] COMMAND…`.

A program of its own, of the standard library's least, since the peak memory that the kernel tells
of a process is never less than that of the process that started it. What the command prints stands
above the figures. With `--until` the command is ended as soon as the file is there.
"""

from __future__ import annotations

import os
import signal
import sys
import time

_POLL = 0.002


def main() -> None:
    """Run what the arguments say; ends with the command's exit code."""
    words = sys.argv[1:]
    until = ""
    if words[0] == "--until":
        until, words = words[1], words[2:]
    began = time.perf_counter()
    pid = os.posix_spawnp(words[0], words, os.environ)
    if until:
        _end_when_there(until, pid)
    _, status, used = os.wait4(pid, 0)
    seconds = time.perf_counter() - began
    code = 0 if until and os.path.exists(until) else os.waitstatus_to_exitcode(status)
    # macOS counts bytes, everybody else KiB.
    memory = used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    cpu = used.ru_utime + used.ru_stime
    sys.stdout.flush()
    print(f'\n{{"code": {code}, "seconds": {seconds}, "cpu": {cpu}, "memory": {memory}}}')


def _end_when_there(path: str, pid: int) -> None:
    """Returns when the command has ended, or was ended; it is not reaped here."""
    while not os.path.exists(path):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return
        time.sleep(_POLL)
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
