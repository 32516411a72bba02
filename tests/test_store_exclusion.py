"""Locks that lie: what a second process finds out, and the markers that take their place."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import msgspec
import pytest

from dscache import filesystem
from dscache.errors import StorageError
from dscache.events import Event, Notice
from dscache.store import Store, exclusion, owner
from dscache.store.exclusion import Verdict, known
from dscache.store.locks import Locks
from dscache.store.markers import Markers
from dscache.store.owner import Boot, this_process
from tests.children import forked, running
from tests.holder import KEY, held
from tests.mounts import SMALLEST, mounted
from tests.stores import boot, damaged

fcntl = pytest.importorskip("fcntl", reason="what lies here is flock")

#: Every process is given the lock, as on some network filesystems.
LIES = "import fcntl; fcntl.flock = lambda *_: None\n"


@pytest.fixture
def store(home: Path) -> Store:
    made = Store(f"{home}/cache", lock_timeout=0.3, emit=lambda _: None)
    made.prepare()
    return made


@pytest.fixture
def liar(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store on a filesystem whose locks exclude nobody."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    return store


def verdict_of(store: Store) -> Verdict:
    found = known(store.layout)
    assert found
    return found


def notices(store: Store, work: Callable[[Locks], object], timeout: float = 0.3) -> list[str]:
    """What is said while something is done with the locks of one call."""
    told: list[Event] = []
    work(Locks(store.layout, timeout, told.append))
    return [each.message for each in told if isinstance(each, Notice)]


# --- finding out ----------------------------------------------------------------------------------


def test_locks_that_exclude_are_used_without_a_word(store: Store) -> None:
    assert notices(store, lambda locks: locks.attempt(KEY)) == []
    found = verdict_of(store)
    assert (found.exclude, found.across, found.host) == (True, None, owner.host_name())
    assert os.path.exists(store.layout.lock(KEY))
    assert not os.path.exists(store.layout.marker(KEY))


def test_it_is_found_out_once_for_all_processes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = exclusion.second_process_gets

    def noted(path: str) -> bool | None:
        asked.append(path)
        return ask(path)

    monkeypatch.setattr(exclusion, "second_process_gets", noted)
    for _ in range(3):
        assert Locks(store.layout, 1).attempt("a key")
    assert len(asked) == 1
    with boot("another"):
        Locks(store.layout, 1).attempt("b key")
    assert len(asked) == 2  # what was mounted how may have changed


def test_locks_that_lie_are_found_out(liar: Store) -> None:
    (told,) = notices(liar, lambda locks: [locks.attempt(KEY), locks.attempt("other")])
    assert "do not work here" in told
    assert "dscache doctor" in told
    assert verdict_of(liar).exclude is False
    assert os.path.isdir(liar.layout.marker(KEY))
    assert not os.path.exists(liar.layout.lock(KEY))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_markers_take_their_place(
    store: Store, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (told,) = notices(store, lambda locks: locks.attempt(KEY))
    assert "has no locks" in told
    assert verdict_of(store).exclude is False
    with pytest.raises(StorageError, match="held by"):
        store.locks.wait(KEY, lambda _: None)


def test_locks_that_go_away_later_are_replaced_for_the_call(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.locks.attempt("before")

    def gone(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", gone)
    (told,) = notices(store, lambda locks: [locks.attempt(KEY), locks.attempt("other")])
    assert "has no locks" in told
    assert verdict_of(store).exclude is True  # a server that is down is no reason to remember


def test_who_is_refused_while_it_is_found_out_knows(store: Store) -> None:
    code = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'a'), 2); print(flush=True); input()"
    path = store.layout.host_lock(exclusion.key_here(store.layout))
    os.makedirs(os.path.dirname(path))
    with running(code, path) as process:
        assert process.stdout
        process.stdout.readline()
        assert store.locks.probe().exclude is True


@pytest.mark.parametrize(
    "program", ["", "/no/such/python", "/bin/false", "/usr/bin/uwsgi", sys.prefix]
)
def test_where_no_python_can_be_started_locks_are_used(
    store: Store, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    assert notices(store, lambda locks: locks.attempt(KEY)) == []
    assert known(store.layout) is None
    assert os.path.exists(store.layout.lock(KEY))


def test_a_frozen_program_is_not_started_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(subprocess, "run", None)
    assert store.locks.probe().exclude is None


def test_what_cannot_be_read_is_found_out_again(store: Store) -> None:
    store.locks.probe()
    path = Path(store.layout.host(exclusion.key_here(store.layout)))
    for torn in list(damaged(path.read_bytes()))[::8]:
        path.write_bytes(torn)
        assert known(store.layout) is None
    store.locks.probe()
    assert known(store.layout)


def test_what_cannot_be_written_is_not_needed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(filesystem, "publish_bytes", full)
    assert Locks(store.layout, 1).attempt(KEY)
    assert known(store.layout) is None


def test_what_kernels_that_are_gone_have_left_is_removed(store: Store) -> None:
    with boot("long ago"):
        store.locks.probe()
    with boot("yesterday"):
        store.locks.probe()
        recent = store.layout.host(exclusion.key_here(store.layout))
    folder = Path(recent).parent
    for path in folder.iterdir():
        if not str(path).startswith(recent.removesuffix(".json")):
            os.utime(path, (1, 1))
    store.locks.probe()
    assert len(list(folder.glob("*.json"))) == 2
    assert os.path.exists(recent)


def test_what_was_found_between_hosts_stays_and_counts(store: Store) -> None:
    store.locks.met("elsewhere", False)
    found = store.locks.probe()
    assert (found.exclude, found.across, found.peer) == (True, False, "elsewhere")
    (told,) = notices(store, lambda locks: locks.attempt(KEY))
    assert "elsewhere was given the same lock" in told
    store.locks.met("elsewhere", True)
    assert notices(store, lambda locks: locks.attempt("other")) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no program strace")
def test_a_kernel_that_lies_to_every_process(store: Store) -> None:
    code = "import sys; from dscache.store import Store; print(Store(sys.argv[1]).locks.probe())"
    lie = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "inject=flock:retval=0"]
    done = subprocess.run(
        [*lie, sys.executable, "-c", code, store.layout.root],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    if "exclude=" not in done.stdout:
        pytest.skip(f"strace cannot trace here: {done.stderr[:200]}")
    assert "exclude=False" in done.stdout


# --- markers --------------------------------------------------------------------------------------


def test_a_marker_is_for_one_at_a_time(liar: Store) -> None:
    lock = liar.locks.attempt(KEY)
    assert lock
    assert liar.locks.attempt(KEY) is None
    assert forked(lambda: liar.locks.attempt(KEY) is None)
    assert liar.locks.attempt("another")
    lock.release()
    lock.release()
    again = liar.locks.attempt(KEY)
    assert again
    lock.release()  # which is not the one that is held now
    assert liar.locks.attempt(KEY) is None


def test_between_processes(liar: Store) -> None:
    with held(liar, LIES) as (_, release, _kill):
        assert liar.locks.attempt(KEY) is None
        release()
        assert liar.locks.attempt(KEY)


def test_a_killed_holder_blocks_nobody(liar: Store) -> None:
    with held(liar, LIES) as (pid, _, _kill):
        assert liar.locks.attempt(KEY) is None
        os.kill(pid, 9)
        assert Locks(liar.layout, 10, lambda _: None).wait(KEY, lambda _: None)


def test_those_who_wait_hear_who_has_it(liar: Store) -> None:
    heard: list[str] = []
    with held(liar, LIES) as (pid, release, _):
        threading.Timer(0.2, release).start()
        assert Locks(liar.layout, 10, lambda _: None).wait(KEY, heard.append)
    (holder,) = heard
    assert holder.startswith(f"process {pid} on ")


def test_a_holder_on_another_host_is_waited_for_and_named(
    liar: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "host_name", lambda: "elsewhere")
    monkeypatch.setattr("dscache.store.locks.host_name", lambda: "elsewhere")
    owner.this_boot.cache_clear()
    assert liar.locks.attempt(KEY)
    monkeypatch.undo()
    owner.this_boot.cache_clear()
    with pytest.raises(StorageError, match=f"held by process {os.getpid()} on elsewhere") as found:
        liar.locks.wait(KEY, lambda _: None)
    assert found.value.code == 6
    assert f"remove {liar.layout.marker(KEY)}" in found.value.hint
    shutil.rmtree(liar.layout.marker(KEY))
    assert liar.locks.attempt(KEY)


def test_a_fork_does_not_release_what_it_has_not_taken(liar: Store) -> None:
    lock = liar.locks.attempt(KEY)
    assert lock
    forked(lock.release)
    assert liar.locks.attempt(KEY) is None


def test_a_torn_marker_is_nobodys_to_break(store: Store) -> None:
    markers = Markers(store.layout)
    assert markers.acquire(KEY, 0)
    (path,) = Path(store.layout.marker(KEY)).iterdir()
    for torn in list(damaged(path.read_bytes()))[::16]:
        path.write_bytes(torn)
        assert markers.acquire(KEY, 0) is None


def test_what_a_network_disk_keeps_of_removed_files_is_no_holder(store: Store) -> None:
    marker = Path(store.layout.marker(KEY))
    marker.mkdir(parents=True)
    (marker / ".nfs0001").touch()
    assert Markers(store.layout).acquire(KEY, 0) is None  # it cannot be had yet
    assert [path.name for path in marker.iterdir()] == [".nfs0001"]
    (marker / ".nfs0001").unlink()
    assert Markers(store.layout).acquire(KEY, 0)


def test_a_rename_whose_answer_was_lost_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = filesystem.rename

    def lost(source: str, target: str) -> None:
        rename(source, target)
        if os.path.isdir(target):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)

    monkeypatch.setattr(filesystem, "rename", lost)
    assert Markers(store.layout).acquire(KEY, 0)
    assert Markers(store.layout).acquire(KEY, 0) is None


def test_a_slow_breaker_does_not_break_the_next_holder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He has seen that the holder is gone; then another breaks the marker and takes it."""
    gone = msgspec.structs.replace(this_process(), boot=Boot(owner.host_name(), "long ago"))
    markers = Markers(store.layout)
    marker = Path(store.layout.marker(KEY))
    marker.mkdir(parents=True)
    (marker / "token").write_bytes(msgspec.json.encode(gone))
    unlink = filesystem.unlink
    quick: list[object] = []

    def slow(path: str) -> None:
        if path.endswith("/token") and not quick:
            quick.append(None)
            quick.append(Markers(store.layout).acquire(KEY, 0))
        unlink(path)

    monkeypatch.setattr(filesystem, "unlink", slow)
    assert markers.acquire(KEY, 0) is None
    assert quick[1]
    assert markers.acquire(KEY, 0) is None


def test_a_disk_that_is_full_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(filesystem, "publish_bytes", full)
    with pytest.raises(StorageError, match="markers cannot be used"):
        Markers(store.layout).acquire(KEY, 0)
    assert os.listdir(f"{store.layout.root}/locks") == []


def test_a_group_can_share_markers(liar: Store) -> None:
    before = os.umask(0o002)
    try:
        assert liar.locks.attempt(KEY)
    finally:
        os.umask(before)
    marker = Path(liar.layout.marker(KEY))
    assert marker.stat().st_mode & 0o777 == 0o775
    assert {path.stat().st_mode & 0o777 for path in marker.iterdir()} == {0o664}


RACE = """
import fcntl, os, sys, time
fcntl.flock = lambda *_: None
from dscache.store import Store
store = Store(sys.argv[1], lock_timeout=60, emit=lambda _: None)
print(flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    lock = store.locks.wait(sys.argv[2], lambda _: None)
    os.mkdir(f"{sys.argv[1]}/inside")  # fails if another is inside
    time.sleep(0.002)
    os.rmdir(f"{sys.argv[1]}/inside")
    if number == int(sys.argv[3]) - 1:
        os._exit(0)  # as one that is killed while it has the lock
    lock.release()
"""


@pytest.mark.parametrize("kind", ["", "ext4", "exfat", "btrfs"])
def test_markers_exclude_on_real_filesystems(home: Path, kind: str) -> None:
    with mounted(kind, SMALLEST[kind], home / "disk") if kind else _plain(home) as folder:
        root = str(folder / "cache")
        Store(root).prepare()
        # Known before, since the processes that the two would ask do not lie.
        exclusion.remember(Store(root).layout, exclusion.verdict(False, "it is known"))
        with running(RACE, root, KEY, "5") as one, running(RACE, root, KEY, "5") as two:
            processes = [one, two]
            for process in processes:
                assert process.stdout
                process.stdout.readline()
            outcomes = [process.communicate("\n", timeout=60) for process in _together(processes)]
            assert [process.returncode for process in processes] == [0, 0], outcomes


def _together(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


@contextmanager
def _plain(home: Path) -> Iterator[Path]:
    yield home


def test_lock_files_are_made_with_the_umask_alone(home: Path) -> None:
    """What filelock does where no mode is given; a mode would be set whatever the umask says."""
    for mask, mode in ((0o002, 0o664), (0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            with filelock.FileLock(home / f"{mask}.lock", thread_local=False):
                assert (home / f"{mask}.lock").stat().st_mode & 0o777 == mode
        finally:
            os.umask(before)


def test_waiting_for_a_marker_ends(liar: Store) -> None:
    with held(liar, LIES) as (pid, _, _kill), pytest.raises(StorageError, match=f"process {pid} "):
        liar.locks.wait(KEY, lambda _: None)
