"""Child processes for tests: forked ones that may die, and real ones that run at the same time.

It owns processes, each ended by its own process id, and the pipes to them. A forked child begins
where the test stands, with its memory, so that a fault can be put into it and nowhere else.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

Result = TypeVar("Result")

_ROOT = Path(__file__).parents[1]


class Died(Exception):
    """A forked child ended without a result; `code` is its exit code, negative for signals."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the child ended with {code}")
        self.code = code


def forked(function: Callable[[], Result]) -> Result:
    """What `function` returns in a forked child; what it raises there is raised here.

    Raises:
        Died: the child ended on the way.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reader)
            with open(writer, "wb") as pipe:
                pipe.write(_answer(function))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code or not data:
        raise Died(code)
    ok, found = pickle.loads(data)
    if not ok:
        raise found
    result: Result = found
    return result


def _answer(function: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((True, function()))
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        error.add_note(traceback.format_exc())
        return pickle.dumps((False, error))


def unprivileged(function: Callable[[], Result]) -> Result:
    """As `forked`, and permissions count for root too: the child is just the owner of its files."""

    linux = sys.platform.startswith("linux")
    if os.geteuid() == 0 and not linux:
        pytest.skip("permissions do not bind root here")

    def child() -> Result:
        if linux:
            _drop_capabilities()
        return function()

    return forked(child)


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # linux/capability.h: version 3, this process
    nothing = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def running(
    code: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A new interpreter runs `code`, which finds the arguments in sys.argv; killed at the end."""
    return interpreter("-c", code, *arguments, environment=environment)


@contextmanager
def interpreter(
    *words: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A new interpreter with these words on its command line; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(_ROOT), **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
