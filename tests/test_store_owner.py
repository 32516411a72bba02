"""Owners: who is gone for certain, who lives, and whom one cannot see from here."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from dscache.store import owner
from dscache.store.owner import Boot, Owner, is_gone, this_boot, this_process
from tests.children import Died, forked
from tests.stores import boot

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="what is told apart here is told by Linux"
)
_PR_SET_NAME = 15


@contextmanager
def child() -> Iterator[int]:
    """A living child process, with a name that is no text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"\xff) Z \xfe", 0, 0, 0)
        os.write(writer, b"!")
        time.sleep(600)
        os._exit(0)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    try:
        yield pid
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def of(pid: int) -> Owner:
    """What a process would say of itself."""
    return msgspec.structs.replace(this_process(), pid=pid, start=owner._status(pid)[1])


def test_this_process_lives() -> None:
    me = this_process()
    assert me.pid == os.getpid()
    assert me.start.isdigit()
    assert is_gone(me) is False


def test_a_fork_is_another_process() -> None:
    me = this_process()
    assert forked(this_process) != me
    assert forked(lambda: is_gone(me)) is False


def test_a_living_process_is_not_gone_whatever_its_name() -> None:
    with child() as pid:
        assert is_gone(of(pid)) is False


def test_an_ended_process_is_gone() -> None:
    assert is_gone(forked(this_process)) is True


def test_a_process_that_nobody_has_buried_is_gone() -> None:
    with child() as pid:
        them = of(pid)
        os.kill(pid, 9)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(them) is True


def test_a_pid_that_is_used_again_is_another_process() -> None:
    with child() as pid:
        them = of(pid)
        assert is_gone(msgspec.structs.replace(them, start="12")) is True


def test_a_process_that_is_not_shown_is_taken_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    me = this_process()
    read = owner._read
    monkeypatch.setattr(owner, "_read", lambda path: "" if path.endswith("stat") else read(path))
    assert is_gone(me) is False


def test_every_process_of_an_earlier_boot_is_gone() -> None:
    me = this_process()
    with boot("another"):
        assert is_gone(me) is True


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "pid:[1]"},
        {"boot": None},
        {"boot": Boot("elsewhere", "0")},
    ],
)
def test_of_others_nothing_can_be_told(change: dict[str, Boot | str | None]) -> None:
    assert is_gone(msgspec.structs.replace(this_process(), **change)) is None


def test_without_a_name_for_the_boot_nothing_can_be_told() -> None:
    me = this_process()
    with boot(""):
        assert this_boot() is None
        assert is_gone(me) is None


def test_a_container_is_another_world() -> None:
    unshare = shutil.which("unshare")
    code = (
        "import msgspec; from dscache.store.owner import this_process as p;"
        "print(msgspec.json.encode(p()).decode())"
    )
    command = [str(unshare), "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = (
        subprocess.run(command, capture_output=True, env=environment, check=False)
        if unshare
        else None
    )
    if done is None or done.returncode:
        pytest.skip("no pid namespace can be made here")
    them = msgspec.json.decode(done.stdout, type=Owner)
    assert json.loads(done.stdout)["pid"] in (1, 2)
    assert them.boot == this_boot()
    assert them.namespace != this_process().namespace
    assert is_gone(them) is None


def test_the_boot_is_asked_for_once() -> None:
    assert this_boot() is this_boot()
    with pytest.raises(Died):
        forked(lambda: os._exit(3))
