"""Parts with bytes written ahead: a journal never claims a byte that was not written.

It may be behind, by a bounded number of bytes: that costs work. What is ahead of the truth would
be found by the hash of the whole file only after everything else had been fetched.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dscache import filesystem
from dscache.store import Store, parts
from dscache.store.parts import Journal, Part
from dscache.store.ranges import Ranges, Span
from tests.children import Died, forked
from tests.making import content
from tests.stores import STEPS, boot, files_below

KEY = "sha256-" + "0" * 64
SIZE = 10_000
DATA = content(SIZE, 1)
UNSAVED = 1500
MIB = 1 << 20


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(parts, "_UNSAVED", UNSAVED)
    monkeypatch.setattr(parts, "_WORTH_SAVING", UNSAVED // 2)
    made = Store(f"{home}/cache")
    made.prepare()
    return made


def begin(store: Store, size: int | None = SIZE) -> Part:
    return store.parts().begin(KEY, size)


def put(part: Part, *spans: Span) -> None:
    """Write the right bytes of these spans; at the end as a lead does it."""
    for start, end in spans:
        part.write([DATA[start:end]], None if start == part.size else start)


def are_right(part: Part) -> bool:
    """True if every byte that a part claims was written there."""
    found = Path(part.path).read_bytes()
    return all(found[start:end] == DATA[start:end] for start, end in part.here.spans)


def killed(work: Callable[[], object]) -> None:
    """Do something in a process that ends without a word."""

    def die() -> None:
        work()
        os._exit(9)

    with pytest.raises(Died):
        forked(die)


def journal_of(store: Store) -> tuple[Path, Journal]:
    (path,) = (each for each in files_below(store.layout.parts) if each.suffix == ".json")
    return path, msgspec.json.decode(path.read_bytes(), type=Journal)


def written_down(store: Store, **changes: object) -> None:
    """Change what the journal says."""
    path, known = journal_of(store)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(known, **changes)))


def test_what_was_kept_is_adopted_to_the_byte(store: Store) -> None:
    part = begin(store)
    put(part, (0, 100), (500, 600), (100, 120), (900, 1000))
    spans = part.here.spans
    part.keep()
    again = begin(store)
    assert again.here.spans == spans == ((0, 120), (500, 600), (900, 1000))
    assert again.size == 120
    assert are_right(again)
    put(again, *again.here.gaps(SIZE))
    assert Path(again.path).read_bytes() == DATA


def test_a_kill_costs_at_most_what_is_not_saved_yet(store: Store) -> None:
    """However the bytes come: the journal is behind by less than that and one more write."""
    order = [(0, 300), (5000, 5300), (300, 600), (5300, 5600), (8000, 8300), (600, 5000)]
    for count, step in itertools.product(range(1, len(order) + 1), (100, 300)):
        spans = [
            (at, min(at + step, end))
            for start, end in order[:count]
            for at in range(start, end, step)
        ]
        killed(lambda spans=spans: put(begin(store), *spans))  # type: ignore[misc]
        part = begin(store)
        written = Ranges(spans)
        assert are_right(part)
        assert set(Ranges([*written.spans, *part.here.spans]).spans) == set(written.spans)
        assert written.total - part.here.total < UNSAVED + step
        part.discard()


def test_a_part_that_grew_only_at_its_end_loses_nothing(store: Store) -> None:
    killed(lambda: put(begin(store), (0, 50), (50, 4000)))
    assert begin(store).size == 4000


def test_the_journal_is_changed_before_the_first_byte_ahead(store: Store) -> None:
    """So that a kill between both finds bytes that nobody claims, and not claims without bytes."""

    def work() -> None:
        part = begin(store)
        put(part, (0, 100))
        filesystem.write = lambda fd, chunks, offset: (
            os._exit(9) if offset == 500 else real(fd, chunks, offset)
        )
        put(part, (500, 600))

    real = filesystem.write
    killed(work)
    assert begin(store).here.spans == ((0, 100),)


@pytest.mark.parametrize("length", [0, 50, 120, 550, 600, 950])
def test_of_a_file_shorter_than_its_journal_says_only_what_is_there_is_used(
    store: Store, length: int
) -> None:
    """And what lies behind is not claimed later on, when the file has become longer again."""
    part = begin(store)
    put(part, (0, 120), (500, 600), (900, 1000))
    part.keep()
    os.truncate(part.path, length)
    again = begin(store)
    assert again.here.spans == Ranges([(0, 120), (500, 600), (900, 1000)]).below(length).spans
    again.discard()


def test_what_was_lost_once_is_not_claimed_by_the_next_attempt(store: Store) -> None:
    part = begin(store)
    put(part, (0, 120), (500, 600), (900, 1000))
    part.keep()
    os.truncate(part.path, 550)
    killed(lambda: put(begin(store), (2000, 2010)))
    assert are_right(begin(store))


def test_after_a_restart_of_the_machine_only_the_synced_prefix_is_used(store: Store) -> None:
    part = begin(store)
    put(part, (0, 120), (500, 600))
    part.note_synced(part.sync())
    put(part, (120, 500), (900, 1000))
    part.keep()
    with boot("another"):
        again = begin(store)
        assert again.here.spans == ((0, 120),)
        assert Path(again.path).read_bytes() == DATA[:120]
        put(again, (3000, 3100))
        again.keep()
        assert begin(store).here.spans == ((0, 120), (3000, 3100))


@pytest.mark.parametrize("again", ["restart", "rewrite"])
def test_starting_over_forgets_the_spans(store: Store, again: str) -> None:
    part = begin(store)
    put(part, (0, 120), (500, 3000))
    if again == "restart":
        part.restart()
        put(part, (0, 200))
    else:
        part.rewrite([DATA[:200]])
    assert part.here.spans == ((0, 200),)
    part.keep()
    assert begin(store).here.spans == ((0, 200),)


@pytest.mark.parametrize("again", ["restart", "rewrite"])
def test_dying_while_starting_over_claims_nothing_that_was_not_written(
    store: Store, again: str
) -> None:
    """At each step in turn; holes of what was there before are no bytes."""

    def work(at: int) -> bool:
        part = begin(store)
        put(part, (0, 120), (500, 3000))
        taken = dying_at(at)
        part.restart() if again == "restart" else part.rewrite([DATA[:200]])
        put(part, (3000, 3100) if again == "restart" else (200, 300))
        if taken() < at:
            part.discard()
        return taken() < at

    for at in itertools.count(1):
        try:
            if forked(lambda at=at: work(at)):  # type: ignore[misc]
                return
        except Died:
            part = begin(store)
            assert are_right(part), at
            part.discard()


def dying_at(at: int) -> Callable[[], int]:
    """From now on the `at`-th step that touches the disk ends the process before it is taken."""
    count = 0

    def dying(name: str) -> Callable[..., object]:
        step = getattr(STEPS[name], name)

        def taken(*arguments: object, **keys: object) -> object:
            nonlocal count
            count += 1
            if count == at:
                os._exit(9)
            return step(*arguments, **keys)

        return taken

    for name in STEPS:
        setattr(STEPS[name], name, dying(name))
    return lambda: count


def failing_at(at: int) -> Callable[[], int]:
    """From now on the `at`-th step that touches the disk, and each after it, finds it full."""
    count = 0

    def failing(name: str) -> Callable[..., object]:
        step = getattr(STEPS[name], name)

        def taken(*arguments: object, **keys: object) -> object:
            nonlocal count
            count += 1
            if count >= at and name in ("create", "rename", "unlink"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return step(*arguments, **keys)

        return taken

    for name in STEPS:
        setattr(STEPS[name], name, failing(name))
    return lambda: count


@pytest.mark.parametrize("ending", ["killed", "full"])
def test_each_step_may_be_the_last(store: Store, ending: str) -> None:
    """Or the first that a full disk refuses; then other connections may still bring bytes."""

    def work(at: int) -> bool:
        part = begin(store)
        taken = (dying_at if ending == "killed" else failing_at)(at)
        for span in ((0, 100), (500, 600), (2000, 4000), (100, 500), (6000, 7000), (600, 2000)):
            try:
                put(part, span)
            except OSError:
                continue
        part.keep()
        return taken() < at

    for at in itertools.count(1):
        is_over = False
        try:
            is_over = forked(lambda at=at: work(at))  # type: ignore[misc]
        except Died:
            pass
        part = begin(store)
        assert are_right(part), at
        part.discard()
        if is_over:
            return


def test_a_journal_without_spans_is_read(store: Store) -> None:
    """As earlier versions wrote it: the file holds what it is long."""
    part = begin(store)
    put(part, (0, 300))
    part.keep()
    path, _ = journal_of(store)
    known = msgspec.json.decode(path.read_bytes())
    del known["spans"]
    path.write_bytes(msgspec.json.encode(known))
    assert begin(store).here.spans == ((0, 300),)


@pytest.mark.parametrize(
    ("spans", "here"),
    [
        ([(0, 200), (100, 250)], ((0, 250),)),
        ([(200, 250), (0, 100)], ((0, 100), (200, 250))),
        ([(200, 100), (50, 50)], ()),
        ([(0, 1 << 62)], ((0, 300),)),
        ([(1 << 61, 1 << 62)], ()),
        ([(-200, -100)], ()),
        ([(-200, 100)], ((0, 100),)),
        ([], ()),
    ],
)
def test_a_journal_with_nonsense_does_no_harm(
    store: Store, spans: list[Span], here: tuple[Span, ...]
) -> None:
    """No more is claimed than the file is long, and nothing before its start."""
    part = begin(store)
    put(part, (0, 300))
    part.keep()
    written_down(store, spans=tuple(spans))
    again = begin(store)
    assert again.here.spans == here
    put(again, *again.here.gaps(SIZE))
    assert Path(again.path).read_bytes() == DATA


@pytest.mark.parametrize("spans", ['"all"', "[[1]]", "[1,2]", "[[0,1.5]]", '[["a","b"]]', "{}"])
def test_a_journal_with_spans_of_another_kind_means_beginning_anew(
    store: Store, spans: str
) -> None:
    part = begin(store)
    put(part, (0, 300))
    part.keep()
    path, _ = journal_of(store)
    path.write_bytes(path.read_bytes().replace(b'"spans":null', f'"spans":{spans}'.encode()))
    assert begin(store).size == 0
