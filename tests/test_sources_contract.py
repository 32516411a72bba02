"""The contract of sources: the same tests for local files, libcurl and Pooch's downloaders."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dscache.sources.exchange import Request, Source, Trouble
from dscache.sources.file import Files
from dscache.sources.http import Http
from dscache.sources.options import Options
from dscache.sources.pooch import PoochDownloads
from dscache.sources.retry import Policy
from dscache.sources.small import is_there
from tests.downloads import answered, ended, moments
from tests.ftp import ftp_server
from tests.making import content
from tests.origin import Drip, origin
from tests.servers import caddy, nginx

SMALL, OTHER, BIG = content(50_000, 1), content(70_000, 2), content(24 << 20, 3)
FILES = {"small.bin": SMALL, "other.bin": OTHER, "big.bin": BIG, "empty.bin": b"", "a b%.bin": b"x"}


class Place:
    """A source, and a place from which it can take `FILES`."""

    def __init__(self, source: Source, url: Callable[[str], str]) -> None:
        self.source = source
        self.url = url


@contextmanager
def _files(root: Path, _: Path) -> Iterator[Place]:
    yield Place(Files(), lambda name: (root / name).as_uri())


@contextmanager
def _nginx(root: Path, work: Path) -> Iterator[Place]:
    with nginx(root, work) as server:
        yield Place(Http(Options(), 4), lambda name: f"{server.url}/{name}")


@contextmanager
def _caddy(root: Path, work: Path) -> Iterator[Place]:
    with caddy(root, work, tls=True) as server:
        options = Options(ca_bundle=str(work / "authority.pem"))
        yield Place(Http(options, 4), lambda name: f"{server.url}/{name}")


@contextmanager
def _origin(_: Path, __: Path) -> Iterator[Place]:
    with origin({f"/{name}": data for name, data in FILES.items()}) as site:
        yield Place(Http(Options(), 4), lambda name: f"{site.base}/{name}")


@contextmanager
def _pooch_http(root: Path, work: Path) -> Iterator[Place]:
    with nginx(root, work) as server:
        source = PoochDownloads(Options(), str(work / "parts"))
        yield Place(source, lambda name: f"{server.url}/{name}")


@contextmanager
def _pooch_ftp(root: Path, work: Path) -> Iterator[Place]:
    with ftp_server(root) as port:
        source = PoochDownloads(Options(), str(work / "parts"))
        yield Place(source, lambda name: f"ftp://127.0.0.1:{port}/{name}")


PLACES = {
    "files": _files,
    "nginx": _nginx,
    "caddy": _caddy,
    "origin": _origin,
    "pooch-http": _pooch_http,
    "pooch-ftp": _pooch_ftp,
}


@pytest.fixture(scope="module", params=PLACES)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    root, work = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("work")
    for name, data in FILES.items():
        (root / name).write_bytes(data)
    with ExitStack() as stack:
        found = stack.enter_context(PLACES[request.param](root, work))
        yield found
        found.source.close()


def test_a_whole_file(place: Place) -> None:
    exchange, body = answered(place.source, place.url("small.bin"))
    assert body == SMALL
    assert exchange.failure is None
    assert exchange.head.start == 0
    assert exchange.head.total == len(SMALL)


def test_an_empty_file(place: Place) -> None:
    exchange, body = answered(place.source, place.url("empty.bin"))
    assert body == b""
    assert exchange.failure is None
    assert exchange.head is not None
    assert exchange.head.total in (0, None)


def test_a_big_file(place: Place) -> None:
    exchange, body = answered(place.source, place.url("big.bin"))
    assert exchange.failure is None
    assert body == BIG


def test_a_name_that_must_be_quoted(place: Place) -> None:
    name = "a b%.bin" if isinstance(place.source, Files) else "a%20b%25.bin"  # as_uri() quotes
    assert answered(place.source, place.url(name))[1] == b"x"


def test_an_offset_is_honoured_or_said_not_to_be(place: Place) -> None:
    exchange, body = answered(place.source, place.url("small.bin"), 12_345)
    assert exchange.failure is None
    assert exchange.head.start in (0, 12_345)
    assert body == SMALL[exchange.head.start :]


def test_an_offset_under_the_validator_of_the_file(place: Place) -> None:
    first, _ = answered(place.source, place.url("small.bin"))
    validator = first.head.validator
    exchange, body = answered(place.source, place.url("small.bin"), 1, validator)
    assert exchange.head.start == (1 if validator else 0)
    assert exchange.head.validator == validator
    assert body == SMALL[exchange.head.start :]


def test_an_offset_under_another_validator_gives_the_whole_file(place: Place) -> None:
    exchange, body = answered(place.source, place.url("small.bin"), 1, '"another"')
    assert exchange.head.start == 0
    assert body == SMALL


def test_a_missing_file_is_refused(place: Place) -> None:
    exchange, body = answered(place.source, place.url("missing.bin"))
    assert exchange.failure.trouble is Trouble.REFUSED
    assert exchange.failure.reason
    assert not body


def test_whether_a_file_is_there(place: Place) -> None:
    for name in ("small.bin", "empty.bin"):
        assert is_there(place.source, place.url(name), policy=Policy())
    assert not is_there(place.source, place.url("missing.bin"), policy=Policy())


def test_a_probe_leaves_nothing_to_those_who_come_after(place: Place) -> None:
    is_there(place.source, place.url("big.bin"), policy=Policy())
    assert answered(place.source, place.url("small.bin"))[1] == SMALL


def test_two_at_once(place: Place) -> None:
    requests = [Request(place.url(name)) for name in ("big.bin", "other.bin", "small.bin")]
    exchanges = [place.source.start(request) for request in requests]
    assert ended(place.source, *exchanges) == [BIG, OTHER, SMALL]


def test_cancelled_in_the_middle(place: Place) -> None:
    exchange = place.source.start(Request(place.url("big.bin")))
    for _ in moments():
        place.source.wait(0.05)
        if exchange.take():
            break
    exchange.cancel()
    exchange.cancel()
    place.source.wait(0.05)
    assert exchange.done
    assert exchange.take() == []
    assert answered(place.source, place.url("small.bin"))[1] == SMALL


def test_cancelled_before_anything_came(place: Place) -> None:
    exchange = place.source.start(Request(place.url("big.bin")))
    exchange.cancel()
    assert exchange.done
    assert exchange.take() == []
    assert answered(place.source, place.url("other.bin"))[1] == OTHER


def test_nobody_listens() -> None:
    for source in (Http(Options(), 1), PoochDownloads(Options(), ".")):
        exchange, _ = answered(source, "http://127.0.0.1:1/a.bin")
        assert exchange.failure.trouble is Trouble.CONNECTION
        source.close()


def test_closing_ends_what_is_under_way() -> None:
    with origin({"/a.bin": SMALL}) as site:
        site.fault("*", Drip(1000, 0.1))
        source = Http(Options(), 2)
        exchange = source.start(Request(site.url("/a.bin")))
        for _ in moments():
            source.wait(0.05)
            if exchange.take():
                break
        source.close()
        assert exchange.done


def test_pooch_leaves_no_file_behind(tmp_path: Path) -> None:
    with origin({"/a.bin": SMALL}) as site:
        site.fault("/a.bin", Drip(10_000, 0.05))
        source = PoochDownloads(Options(), str(tmp_path / "parts"))
        whole, _ = answered(source, site.url("/a.bin"))
        cancelled = source.start(Request(site.url("/a.bin")))
        cancelled.cancel()
        assert whole.failure is None
        for _ in moments():
            if not _pooch_threads():
                break
            source.wait(0.01)
        assert not list((tmp_path / "parts").iterdir())


def _pooch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dscache-pooch"]


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        exchange, _ = answered(Files(), (tmp_path / name).as_uri())
        assert exchange.failure.trouble is Trouble.REFUSED
