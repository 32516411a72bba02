"""What tests of downloading share: a cache that gives up soon, and a way to drive one source.

    desk = Desk(folder, retries=2)
    desk.offer("case", artifact("a.bin", DATA, site.url("/a.bin")))
    found = desk.fetch("case")
    assert found.bytes_downloaded == len(DATA)
    assert not desk.notices

A test may look at what was told (`desk.events`), and at every byte that lies in the cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dscache import settings
from dscache.cache import Cache
from dscache.events import Event, Notice, Retrying
from dscache.results import Fetched
from dscache.sources.exchange import Exchange, Request, Source
from tests.making import Shelf

PATIENCE = 60.0

Kind = TypeVar("Kind", bound=Event)


class Desk:
    """A cache, a registry in a folder, and a memory for events.

    Args:
        folder: where both lie.
        changes: settings. If nothing is said there are few retries, and time for a busy machine.
    """

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.shelf = Shelf(folder / "shelf")
        self.root = folder / "cache"
        chosen = {"retries": 2, "stall_timeout": 20, "connect_timeout": 5, **changes}
        self.settings = settings.load(
            cache_dir=str(self.root), registries={"shelf": str(self.shelf.folder)}, **chosen
        )
        self.cache = Cache(settings=self.settings)
        self.events: list[Event] = []
        self.hear: Callable[[Event], None] = self.events.append

    def offer(self, name: str, *artifacts: Mapping[str, Any]) -> None:
        """Write an entry of the registry."""
        self.shelf.add(name, artifacts)

    def fetch(self, name: str) -> Fetched:
        """Fetch one dataset of the registry; an error stands in the result."""
        return self.fetch_all(name)[0]

    def fetch_all(self, *names: str) -> list[Fetched]:
        """Fetch several at once."""
        return self.cache.fetch_all([f"shelf/{name}" for name in names], progress=self.hear)

    def retrieve(self, url: str, known_hash: str | None, **options: Any) -> Fetched:
        """Fetch one URL; an error stands in the result."""
        return self.cache.retrieve_all(url, known_hash, progress=self.hear, **options)

    def told(self, kind: type[Kind]) -> list[Kind]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def notices(self) -> list[str]:
        """What the user was told."""
        return [notice.message for notice in self.told(Notice)]

    @property
    def retries(self) -> list[str]:
        """Why a source was asked again, each time."""
        return [event.reason for event in self.told(Retrying)]

    def below(self, *parts: str) -> list[Path]:
        """The files below a folder of the cache."""
        return [path for path in self.root.joinpath(*parts).rglob("*") if path.is_file()]

    @property
    def parts(self) -> list[Path]:
        """The partial files."""
        return [path for path in self.below("parts") if path.suffix == ".part"]

    @property
    def quarantine(self) -> list[bytes]:
        """What was set aside."""
        return [path.read_bytes() for path in self.below("quarantine")]

    def text(self) -> str:
        """Everything that lies in the cache, names and bytes, and everything that was told."""
        found = [repr(self.events)]
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                found += [str(path), path.read_bytes().decode("latin-1")]
        return "\n".join(found)


def error_of(found: Fetched) -> Any:
    """The error of a fetch that must have failed."""
    assert found.error is not None
    return found.error


def ended(source: Source, *exchanges: Exchange) -> list[bytes]:
    """Let exchanges go on until all have ended; the bytes that each brought."""
    bodies = [bytearray() for _ in exchanges]
    for _ in moments():
        source.wait(0.05)
        for body, exchange in zip(bodies, exchanges, strict=True):
            for chunk in exchange.take():
                body += chunk
        if all(exchange.done for exchange in exchanges):
            break
    for body, exchange in zip(bodies, exchanges, strict=True):
        for chunk in exchange.take():
            body += chunk
    return [bytes(body) for body in bodies]


def answered(source: Source, url: str, start: int = 0, validator: str = "") -> tuple[Any, bytes]:
    """One request from its start to its end: the exchange, and its bytes."""
    exchange = source.start(Request(url, start, validator))
    return exchange, ended(source, exchange)[0]


def moments() -> Iterator[None]:
    """Go round a loop, for as long as anybody may wait for anything."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        yield
    raise TimeoutError(f"nothing came of it in {PATIENCE} seconds")
