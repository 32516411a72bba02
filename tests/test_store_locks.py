"""Locks: one at a time, with a word on who has it; and nothing depends on them."""

from __future__ import annotations

import errno
import os
import platform
import threading
import time
from pathlib import Path

import pytest

from dscache import filesystem
from dscache.errors import StorageError
from dscache.store import Store
from dscache.store.locks import Locks
from tests.children import forked
from tests.holder import KEY, held
from tests.stores import damaged, overwrite


@pytest.fixture
def store(home: Path) -> Store:
    made = Store(f"{home}/cache", lock_timeout=0.3)
    made.prepare()
    return made


def test_one_at_a_time(store: Store) -> None:
    lock = store.locks.attempt(KEY)
    assert lock
    assert store.locks.attempt(KEY) is None
    assert forked(lambda: store.locks.attempt(KEY) is None)
    other = store.locks.attempt("another")
    assert other
    lock.release()
    lock.release()
    again = store.locks.attempt(KEY)
    assert again


def test_between_processes(store: Store) -> None:
    with held(store) as (_, release, _kill):
        assert store.locks.attempt(KEY) is None
        release()
        assert store.locks.attempt(KEY) is not None


def test_death_releases(store: Store) -> None:
    with held(store) as (_, _release, kill):
        kill()
        heard: list[str] = []
        assert Locks(store.layout, 10).wait(KEY, heard.append)


def test_those_who_wait_hear_who_has_it(store: Store) -> None:
    heard: list[str] = []
    with held(store) as (pid, release, _):
        threading.Timer(0.2, release).start()
        lock = Locks(store.layout, 10).wait(KEY, heard.append)
    (holder,) = heard
    assert holder.startswith(f"process {pid} on {platform.node()}, since 20")
    lock.release()


def test_a_free_lock_is_had_without_a_word(store: Store) -> None:
    heard: list[str] = []
    assert store.locks.wait(KEY, heard.append)
    assert heard == []


def test_waiting_ends_and_says_for_whom(store: Store) -> None:
    with held(store) as (pid, _, _kill):
        began = time.monotonic()
        with pytest.raises(StorageError, match=f"held by process {pid} on ") as found:
            store.locks.wait(KEY, lambda _: None)
    assert 0.2 < time.monotonic() - began < 5
    assert found.value.code == 6
    assert "lock_timeout" in found.value.hint


def test_a_torn_word_on_the_holder_is_none(store: Store) -> None:
    lock = store.locks.attempt(KEY)
    assert lock
    path = Path(store.layout.holder(KEY))
    whole = path.read_bytes()
    for torn in damaged(whole):
        overwrite(path, torn)
        assert store.locks.holder(KEY) == "another process"
    path.unlink()
    assert store.locks.holder(KEY) == "another process"


def test_lock_files_stay(store: Store) -> None:
    lock = store.locks.attempt(KEY)
    assert lock
    inode = os.stat(store.layout.lock(KEY)).st_ino
    lock.release()
    assert os.stat(store.layout.lock(KEY)).st_ino == inode
    again = store.locks.attempt(KEY)
    assert again
    again.release()
    assert os.stat(store.layout.lock(KEY)).st_ino == inode


def test_a_group_can_share_lock_files(store: Store) -> None:
    before = os.umask(0o002)
    try:
        assert store.locks.attempt(KEY)
    finally:
        os.umask(before)
    for path in (store.layout.lock(KEY), store.layout.holder(KEY)):
        assert os.stat(path).st_mode & 0o777 == 0o664
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o775


def test_other_trouble_with_locks_is_an_error_of_storage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(StorageError, match="locks cannot be used") as found:
        store.locks.attempt(KEY)
    assert found.value.code == 6


def test_a_full_disk_costs_only_the_word_on_the_holder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(filesystem, "publish_bytes", full)
    lock = store.locks.attempt(KEY)
    assert lock
    assert store.locks.attempt(KEY) is None
    assert store.locks.holder(KEY) == "another process"
