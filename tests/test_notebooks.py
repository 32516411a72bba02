"""Notebooks, run for real: what cells that fetch leave below themselves, and what they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from dscache import Cache
from dscache.events import (
    Advanced,
    Event,
    Failed,
    Finished,
    Idle,
    Notice,
    Planned,
    Retrying,
    Started,
    Waiting,
)
from dscache.progress.display import Display
from dscache.progress.tally import Tally
from dscache.results import Kept, Plan
from tests.making import Shelf, artifact, content
from tests.origin import Drip, Site, origin

DATA, BIG = content(5000, 1), content(4 << 20, 2)
HOSTILE = "<script>alert('x')</script>"
_GUIDE = Path(__file__).parents[1] / "docs/guide/notebooks.md"


class Notebook:
    """A notebook with cells of code, run in a kernel of its own.

    Attributes:
        messages: what the kernel said of outputs, in order: (kind, HTML).
    """

    def __init__(self, *cells: str) -> None:
        self.messages: list[tuple[str, str]] = []
        self.book = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells]  # type: ignore[no-untyped-call]
        )
        self.client = NotebookClient(self.book, timeout=100, kernel_name="python3")
        process = self.client.process_message

        def heard(message: dict[str, Any], cell: Any, index: int) -> Any:
            if message["msg_type"] in ("display_data", "update_display_data"):
                html = message["content"]["data"].get("text/html", "")
                self.messages.append((message["msg_type"], html))
            return process(message, cell, index)

        self.client.process_message = heard  # type: ignore[method-assign, assignment]

    def run(self) -> list[list[dict[str, Any]]]:
        """The outputs of each cell."""
        self.client.execute()
        return self.outputs

    @property
    def outputs(self) -> list[list[dict[str, Any]]]:
        """What stands below each cell now."""
        return [cell["outputs"] for cell in self.book["cells"]]


def html_of(output: dict[str, Any]) -> str:
    """The HTML of one output."""
    text = output["data"]["text/html"]
    return text if isinstance(text, str) else "".join(text)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/one.bin": DATA, "/big.bin": BIG, "/bigger.bin": BIG[::-1]}) as found:
        yield found


@pytest.fixture
def shelf(shelf: Shelf, site: Site) -> Shelf:
    shelf.add("one", [artifact(f"{HOSTILE}.bin".replace("/", "|"), DATA, site.url("/one.bin"))])
    shelf.add("big", [artifact("big&.bin", BIG, site.url("/big.bin"))])
    shelf.add("bigger", [artifact("bigger.bin", BIG[::-1], site.url("/bigger.bin"))])
    shelf.add("gone", [artifact("gone.bin", DATA, site.url("/gone.bin"))])
    return shelf


def test_cells_show_progress(shelf: Shelf, site: Site) -> None:
    site.fault("/big.bin", Drip(size=1 << 19, every=0.1))
    book = Notebook(
        "import dscache; dscache.fetch('big', progress=True);",
        "dscache.fetch('big', progress=True);",
        "with dscache.bars() as progress:\n"
        "    dscache.fetch_many(['one'], progress=progress)\n"
        "    dscache.Cache().verify(progress=progress)\n"
        "    dscache.fetch('bigger', progress=progress)",
        "with dscache.bars() as progress:\n"
        f"    progress(dscache.events.Notice({HOSTILE!r}))\n"
        f"    progress(dscache.events.Waiting({HOSTILE!r}, {HOSTILE!r}))",
        "import sys; 'ipywidgets' in sys.modules or 'rich' in sys.modules",
    )
    first, again, several, noted, loaded = book.run()
    (output,) = first
    assert re.search(r">1 file, 4\.19 MB, .*</div>", html_of(output))
    assert "<progress" not in html_of(output)
    shown = [html for _, html in book.messages if "big&amp;.bin" in html]
    assert len(shown) >= 2
    assert all("<progress value=" in html for html in shown)
    assert [kind for kind, _ in book.messages[:2]] == ["display_data", "update_display_data"]
    assert not again
    assert len(several) == 1
    assert re.search(r">\d files, 8.4 MB, ", html_of(several[0]))
    assert "note: &lt;script&gt;" in html_of(noted[0])
    assert not any("<script" in html for _, html in book.messages)
    assert loaded[0]["data"]["text/plain"] == "False"


def test_an_interrupt_leaves_one_line(shelf: Shelf, site: Site) -> None:
    site.fault("/big.bin", Drip(size=1 << 14, every=0.1))
    book = Notebook(
        "import signal, dscache\n"
        "def stopping(event):\n"
        "    progress(event)\n"
        "    if isinstance(event, dscache.events.Advanced) and event.done > 100_000:\n"
        "        signal.raise_signal(signal.SIGINT)  # what the kernel gets for an interrupt\n"
        "with dscache.bars() as progress:\n"
        "    dscache.fetch('big', progress=stopping)"
    )
    with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
        book.run()
    display = next(each for each in book.outputs[0] if each["output_type"] == "display_data")
    assert "stopped: 0 of 1 files" in html_of(display)
    assert "<progress" not in html_of(display)


def test_values_are_tables(shelf: Shelf) -> None:
    (outputs,) = Notebook(
        "import dscache\n"
        "cache = dscache.Cache()\n"
        "cache.fetch('big'); cache.fetch('one'); cache.pin('one')\n"
        "display(cache, cache.info('one'), cache.usage('age'), cache.plan_prune(all=True),\n"
        "        cache.verify(), dscache.Cache('/dev/null/nowhere'))"
    ).run()
    pages = [html_of(each) for each in outputs]
    assert len(pages) == 6
    assert "shelf/big@1" in pages[0]
    assert "&lt;script&gt;" in pages[1]
    assert "4.19 MB" in pages[2]
    assert "pinned" in pages[3]
    assert not any("<script" in page for page in pages)


def test_results_read_as_text(shelf: Shelf) -> None:
    cache = Cache()
    with cache.hold("big"), cache.hold("one"):
        pass
    plan = cache.plan_prune(all=True)
    assert repr(plan).splitlines()[:3] == ["Plan", "  frees  4.2 MB", "  removed (2)"]
    assert re.search(r"dataset +shelf/big@1 +4\.19 MB +\S", repr(plan))
    assert HOSTILE.replace("/", "|") in repr(cache.info("one"))
    assert re.search(r"saved by sharing +0 B", repr(cache.usage()))


def test_a_table_is_cut() -> None:
    rows = tuple(Kept(f"name{number}\x1b[2J", number, "pinned") for number in range(1234))
    text = repr(Plan((), rows))
    assert text.endswith("and 1,194 more")
    assert len(text.splitlines()) < 50
    assert "\x1b" not in text
    assert "and 1,134 more" in Plan((), rows)._repr_html_()


def test_a_look_at_a_cache_never_raises(home: Path) -> None:
    (home / "config.toml").write_text("jobs = '<b>'")
    assert "jobs" in repr(Cache())
    assert "jobs" in Cache()._repr_html_()
    assert "<b>" not in Cache()._repr_html_()
    assert not (home / "cache").exists()


def test_the_example_of_the_guide_runs(home: Path) -> None:
    cells = re.findall(r"```python\n(.*?)```", _GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(cells) >= 3
    Notebook(*cells).run()
    assert Cache().names() == ["samples/penguins@1"]


# --- what is drawn, and when ---


class Face:
    """Remembers what was drawn, and when."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.times: list[float] = []
        self.left: str | None = None
        self.notices: list[str] = []

    def draw(self, tally: Tally, notices: list[str]) -> None:
        self.times.append(self.clock.now)

    def end(self, line: str, notices: list[str]) -> None:
        self.left, self.notices = line, notices[:]


class Clock:
    """Time as a test wants it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drawn(*steps: Event | float) -> Face:
    """A face after these events, and seconds between them."""
    clock = Clock()
    face = Face(clock)
    with Display(face, clock) as progress:
        for step in steps:
            if isinstance(step, float):
                clock.now += step
            else:
                progress(step)
    return face


def test_what_is_done_at_once_is_a_line_and_no_picture() -> None:
    face = drawn(Planned(1, 10), Started("k", "a", 10), Finished("k", 10))
    assert not face.times
    assert face.left == "1 file, 10 B, 0 s"


def test_nothing_done_is_nothing_said() -> None:
    assert drawn(Idle()).left == ""


@pytest.mark.parametrize(
    "event", [Advanced("k", 1), Notice("n"), Retrying("k", "reset", 1.0), Waiting("a", "b")]
)
def test_no_second_has_more_than_ten_pictures(event: Event) -> None:
    steps: list[Event | float] = []
    for _ in range(3000):
        steps += [event, 0.001]
    times = drawn(Started("k", "a", 10), *steps).times
    assert len(times) > 5
    assert all(later - first >= 1 for first, later in zip(times, times[10:], strict=False))


def test_what_goes_before_a_silence_is_drawn_at_once() -> None:
    face = drawn(Started("k", "a", 10), 1.0, Advanced("k", 1), 0.01, Retrying("k", "reset", 60.0))
    assert face.times == [101.0, 101.01]


def test_the_end_says_what_is_missing() -> None:
    face = drawn(Planned(2, 20), Started("k", "a", 10), Finished("k", 10), Failed("m", "refused"))
    assert face.left == "1 of 2 files, 10 B, 0 s, 1 failed"


def test_bytes_of_an_earlier_attempt_are_no_speed() -> None:
    clock = Clock()
    tally = Tally(clock)
    for event in (Planned(1, 2000), Started("k", "a", 2000, 1000)):
        tally.take(event)
    assert tally.bars(1)[-1].text == "1 kB / 2 kB"
    clock.now += 1
    tally.take(Advanced("k", 1100))
    assert tally.bars(1)[-1].text == "1.1 kB / 2 kB  100 B/s  0:09 left"


def test_a_wait_is_said_until_something_goes_on() -> None:
    tally = Tally()
    tally.take(Waiting("the lock", "pid 1"))
    tally.take(Idle())
    assert tally.note == "waiting for the lock: pid 1 has the lock"
    tally.take(Started("k", "a", 1))
    assert not tally.note
