"""Two hosts on one folder: played by two processes that think that their machines differ."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from dscache.events import Event, Notice
from dscache.store import Store
from dscache.store.exclusion import known
from dscache.store.locks import Locks
from tests.children import running

HOST = """
import os, sys, time
system, _, *rest = os.uname()
here = os.uname_result((system, sys.argv[1], *rest))
os.uname = lambda: here
{prelude}
sys.argv = ["dscache", "doctor", "--peer", "--json"]
from dscache.cli import main
main()
"""
LIES = "import fcntl; fcntl.flock = lambda *_: None"
ANOTHER_TIME = "right = time.time; time.time = lambda: right() + 3600"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    made = Store(str(home / "cache"))
    made.prepare()
    yield made
    assert os.listdir(made.layout.parts) == []


def host(name: str, prelude: str = "") -> AbstractContextManager[subprocess.Popen[str]]:
    """A host runs `dscache doctor --peer`."""
    return running(HOST.format(prelude=prelude), name)


def wait_for(store: Store) -> None:
    """Until somebody waits for another host."""
    deadline = time.monotonic() + 30
    while not list(Path(store.layout.parts).glob("meeting.*/first.json")):
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)


def said(process: subprocess.Popen[str], code: int = 0) -> dict[str, dict[str, Any]]:
    """The checks of a host, by name."""
    out, err = process.communicate(timeout=90)
    assert process.returncode == code, out + err
    return {each["name"]: each for each in json.loads(out)["checks"]}


def test_two_hosts_meet(store: Store) -> None:
    with host("alpha") as first:
        wait_for(store)
        with host("beta") as second:
            here, there = said(first), said(second)
    assert here["locks-between-hosts"]["detail"] == "they exclude between this host and beta"
    assert there["locks-between-hosts"]["detail"] == "they exclude between this host and alpha"
    for each in (here, there):
        assert each["peer"]["status"] == each["peer-clock"]["status"] == "ok"
    found = known(store.layout)
    assert found
    assert found.across is True


def test_two_that_begin_at_once(store: Store) -> None:
    for _ in range(3):
        with host("alpha") as first, host("beta") as second:
            assert said(first)["peer"]["status"] == said(second)["peer"]["status"] == "ok"
        assert os.listdir(store.layout.parts) == []


def test_locks_that_lie_between_hosts(store: Store) -> None:
    with host("alpha") as first:
        wait_for(store)
        with host("beta", LIES) as second:
            here, there = said(first), said(second)
    assert here["locks"]["status"] == "ok"
    assert here["locks-between-hosts"]["status"] == "warn"
    assert there["locks-between-hosts"]["status"] == "warn"
    told: list[Event] = []
    assert Locks(store.layout, 1, told.append).attempt("key")
    assert any(isinstance(each, Notice) and "do not work here" in each.message for each in told)
    assert os.path.isdir(store.layout.marker("key"))


def test_clocks_that_differ(store: Store) -> None:
    with host("alpha") as first:
        wait_for(store)
        with host("beta", ANOTHER_TIME) as second:
            here, there = said(first), said(second)
    assert here["peer-clock"]["status"] == there["peer-clock"]["status"] == "warn"
    assert "of beta is 60 min ahead of ours" in here["peer-clock"]["detail"]
    assert "of alpha is 60 min behind ours" in there["peer-clock"]["detail"]


def test_the_same_host_is_no_other(store: Store) -> None:
    with host("alpha") as first:
        wait_for(store)
        with host("alpha") as second:
            deadline = time.monotonic() + 30
            while len(list(Path(store.layout.parts).glob("meeting.*/first.json"))) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            second.send_signal(signal.SIGINT)
            assert second.wait(30) == 130
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "run `dscache doctor --peer --cache-dir" in err
    assert json.loads(out)["error"]["code"] == 130


def test_what_a_dead_host_has_left_is_not_waited_for(store: Store) -> None:
    with host("gone") as dead:
        wait_for(store)
        dead.kill()
        dead.wait()
    (folder,) = Path(store.layout.parts).iterdir()
    os.utime(folder / "first.json", (1, 1))
    with host("alpha") as first:
        deadline = time.monotonic() + 30
        while len(list(Path(store.layout.parts).glob("meeting.*/first.json"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with host("beta") as second:
            said(first), said(second)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_the_other_goes_away_in_the_middle(store: Store) -> None:
    with host("alpha") as first:
        wait_for(store)
        (folder,) = Path(store.layout.parts).iterdir()
        os.kill(first.pid, signal.SIGSTOP)
        with host("beta") as second:
            deadline = time.monotonic() + 30
            while not (folder / "second.json").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            first.kill()
            first.wait()
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            checks = said(second, code=6)
    assert checks["peer"]["status"] == "fail"
    assert "does not answer" in checks["peer"]["detail"]
