"""Progress on the terminal: what events look like there."""

from __future__ import annotations

import pytest
from rich.console import Console

from dscache.cli.progress import _State
from dscache.events import Checked, Event, Extracted, Linked, Started, Waiting


def drawn(*events: Event) -> list[str]:
    """The lines on a terminal after these events."""
    state = _State()
    for event in events:
        state.take(event)
    console = Console(width=120, height=20)
    with console.capture() as captured:
        console.print(state.picture(console.width, console.height))
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
