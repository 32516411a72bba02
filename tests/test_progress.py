"""Progress on the terminal: what events look like there, from commands and from programs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from dscache.cli.progress import picture
from dscache.events import Checked, Event, Extracted, Linked, Started, Waiting
from dscache.progress.tally import Tally
from tests.children import running
from tests.making import Shelf, artifact, content
from tests.origin import Drip, origin


def drawn(*events: Event) -> list[str]:
    """The lines on a terminal after these events."""
    tally = Tally()
    for event in events:
        tally.take(event)
    console = Console(width=120, height=20)
    with console.capture() as captured:
        console.print(picture(tally, console.width, console.height))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize(("total", "shown"), [(50_000, "12,000 of 50,000"), (0, "12,000")])
def test_placing_is_one_line(total: int, shown: str) -> None:
    started = Started("key", "file.bin", 10)
    before = drawn(started)
    after = drawn(started, Linked("DIR", 500, total), Linked("DIR", 12_000, total))
    assert len(after) == len(before) + 1
    assert after[-1].startswith("linking into DIR ")
    assert after[-1].endswith(f" {shown}")


def test_a_wait_has_its_line_below() -> None:
    assert "waiting for the lock" in drawn(Linked("DIR", 1, 2), Waiting("the lock", "pid 1"))[-1]


def test_an_archive_that_is_unpacked_has_a_line_until_it_is_done() -> None:
    started = Started("key", "file.bin", 10)
    during = drawn(started, Extracted("a.zip", 500, 2000))
    assert any(line.startswith("unpacking a.zip ") for line in during)
    assert drawn(started, Extracted("a.zip", 500, 2000), Extracted("a.zip", 2000, 2000)) == drawn(
        started
    )


def test_a_verification_is_the_total() -> None:
    (line,) = drawn(Checked(1, 40, 10_000, 90_000), Checked(12, 40, 30_000, 90_000))
    assert line.startswith("12 of 40 files ")
    assert "30 kB / 90 kB" in line


# --- what programs show ---

PROGRAM = """
import logging, dscache
logging.basicConfig(format="%(name)s: %(message)s")
with dscache.bars() as progress:
    progress(dscache.events.Notice("a\\x1b[31m notice"))
    dscache.fetch("big", progress=progress)
dscache.fetch("big", progress=True)
"""


@pytest.fixture
def big(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    data = content(4 << 20, 2)
    with origin({"/big.bin": data}) as site:
        site.fault("/big.bin", Drip(size=1 << 19, every=0.1))
        shelf = Shelf(home / "shelf")
        shelf.add("big", [artifact("big.bin", data, site.url("/big.bin"))])
        monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
        yield


@pytest.mark.usefixtures("big")
def test_a_program_on_a_terminal_draws_one_line() -> None:
    screen, end = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=end) as process:
        os.close(end)
        shown = b""
        with suppress(OSError):  # its other end is closed (Linux)
            while chunk := os.read(screen, 65536):
                shown += chunk
        os.close(screen)
        assert process.wait() == 0
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    assert lines[0].endswith("note: a?[31m notice")
    assert "0 of 1 files  " in lines[1]
    assert "/ 4.19 MB" in lines[1]
    assert lines[1].rpartition("\r")[2].startswith("1 file, 4.19 MB, ")
    assert lines[2:] == [""]
    assert "\x1b" not in shown.decode()


@pytest.mark.usefixtures("big")
def test_a_program_that_nobody_watches_logs_its_notices() -> None:
    with running(PROGRAM) as process:
        said, complaints = process.communicate()
    assert said == ""
    assert complaints == "dscache: a\x1b[31m notice\n"
