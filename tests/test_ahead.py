"""Files that are fetched ahead of their use: in order, so many and no more, and without a thread
that outlives its iteration.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dscache.cache import Cache
from dscache.errors import DscacheError, TransferError
from dscache.events import Emit, Event, Waiting
from dscache.integrations.ahead import fetched_ahead
from dscache.store import SMALL
from tests.children import forked, running
from tests.downloads import Desk
from tests.making import artifact, content
from tests.origin import Late, Refuse, Site, Stall, origin

NAMES = [f"{n}.bin" for n in range(6)]
#: Large enough for a lock of their own: small files of a dataset have one together.
DATA = {name: content(SMALL + 1 + n, n) for n, name in enumerate(NAMES)}


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({f"/{name}": data for name, data in DATA.items()}) as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path, site: Site) -> Desk:
    made = Desk(tmp_path, stall_timeout=60)
    made.offer("case", *(artifact(name, DATA[name], site.url(f"/{name}")) for name in NAMES))
    return made


class Fetching:
    """Fetches files of the dataset, and remembers which ones."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.asked: list[str] = []

    def __call__(self, name: str, emit: Emit) -> Path:
        self.asked.append(name)
        return self.cache.fetch("case", files=name, progress=emit) / name


def until_asked(fetch: Fetching, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(fetch.asked) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("dscache-")]


@pytest.mark.parametrize("ahead", [0, 1, 2, 100])
def test_all_come_in_order(desk: Desk, ahead: int) -> None:
    found = list(fetched_ahead(Fetching(desk.cache), NAMES, ahead))
    assert [(name, path.read_bytes()) for name, path in found] == list(DATA.items())
    assert threads() == []


def test_so_many_are_fetched_ahead_and_no_more(desk: Desk) -> None:
    fetch = Fetching(desk.cache)
    with closing(fetched_ahead(fetch, NAMES, 2)) as coming:
        assert fetch.asked == []
        for count in (3, 4, 5, 6, 6, 6):
            next(coming)
            until_asked(fetch, count)
            while threads():  # each ends with its file, whether or not anybody takes it
                time.sleep(0.002)
            assert fetch.asked == NAMES[:count]


def test_one_that_cannot_be_had_is_told_in_its_turn(desk: Desk, site: Site) -> None:
    site.fault("/2.bin", Refuse(404))
    coming = fetched_ahead(Fetching(desk.cache), NAMES, 2)
    assert [next(coming)[0], next(coming)[0]] == NAMES[:2]
    with pytest.raises(TransferError, match=r"2\.bin"):
        next(coming)
    assert threads() == []


@pytest.mark.parametrize("how", ["closed", "raised"])
def test_who_stops_early_waits_for_nothing(desk: Desk, site: Site, how: str) -> None:
    site.fault("/1.bin", Stall(100_000))  # the stall itself would be noticed after a minute
    coming = fetched_ahead(Fetching(desk.cache), NAMES, 2)
    next(coming)
    while site.sent("/1.bin") < 100_000:
        time.sleep(0.002)
    if how == "closed":
        coming.close()
    else:
        with pytest.raises(KeyError):
            coming.throw(KeyError())
    assert threads() == []
    site.mend()
    assert [path.read_bytes() for _, path in fetched_ahead(Fetching(desk.cache), NAMES, 2)] == list(
        DATA.values()
    )


def test_who_stops_waits_for_no_other_process(
    desk: Desk, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(desk.shelf.folder))
    monkeypatch.setenv("DSCACHE_DIR", str(desk.root))
    site.fault("/1.bin", Stall(100_000))
    with running("from dscache import fetch; fetch('case', files='1.bin')"):
        while site.sent("/1.bin") < 100_000:
            time.sleep(0.002)
        waits = threading.Event()

        def fetch(name: str, emit: Emit) -> Path:
            def hear(event: Event) -> None:
                if isinstance(event, Waiting):
                    waits.set()
                emit(event)

            return desk.cache.fetch("case", files=name, progress=hear)

        with closing(fetched_ahead(fetch, NAMES, 2)) as coming:
            next(coming)
            assert waits.wait(30)
        assert threads() == []


def test_a_fork_goes_on_by_itself(desk: Desk, site: Site) -> None:
    site.fault("/1.bin", Late(0.5))
    coming = fetched_ahead(Fetching(desk.cache), NAMES, 2)
    next(coming)

    def child() -> list[bytes]:
        assert threads() == []
        return [path.read_bytes() for _, path in coming]

    assert forked(child) == list(DATA.values())[1:]
    assert [path.read_bytes() for _, path in coming] == list(DATA.values())[1:]
    assert [site.sent(f"/{name}") for name in NAMES] == [len(data) for data in DATA.values()]


UNFINISHED = """
import sys
from dscache import Cache
from dscache.integrations.ahead import fetched_ahead

def fetch(name, emit):
    return Cache().fetch("case", files=name, progress=emit) / name

coming = fetched_ahead(fetch, sys.argv[1:], 2)
print(next(coming)[0], flush=True)
sys.stdin.readline()
{end}
"""


@pytest.mark.parametrize("end", ["", "raise KeyboardInterrupt"])
def test_a_program_ends_in_the_middle(
    desk: Desk, site: Site, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(desk.shelf.folder))
    site.fault("/1.bin", Stall(100_000))
    with running(UNFINISHED.format(end=end), *NAMES) as process:
        assert process.stdout
        assert process.stdout.readline() == "0.bin\n"
        while site.sent("/1.bin") < 100_000:
            time.sleep(0.002)
        _, said = process.communicate("\n", timeout=30)
    assert process.returncode == (-signal.SIGINT if end else 0), said
    assert "Stopped" not in said


def test_a_mistake_is_raised_where_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def fetch(name: str, _: Emit) -> Path:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError, match="first"):
        list(fetched_ahead(fetch, ["first"], 2))


def test_errors_keep_their_kind() -> None:
    def fetch(name: str, _: Emit) -> Path:
        raise DscacheError(name, hint="nothing")

    with pytest.raises(DscacheError, match="first") as caught:
        list(fetched_ahead(fetch, ["first", "second"], 1))
    assert caught.value.hint == "nothing"
