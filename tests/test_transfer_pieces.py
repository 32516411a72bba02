"""A download in pieces as a machine: any mirrors, any order of events, an oracle with the truth."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dscache.sources.exchange import Failure, Head, Request, Trouble
from dscache.store.ranges import Ranges
from dscache.transfer.download import State
from dscache.transfer.pieces import Piece
from dscache.transfer.sink import Origin
from tests.plays import BODIES, OTHER, TRUTH, Mirror, Play, World

BUSY = Failure(Trouble.BUSY, "busy", 503)
REFUSED = Failure(Trouble.REFUSED, "refused", 403)
MIRRORS = st.builds(
    Mirror,
    body=st.sampled_from(["right", *BODIES]),
    ranges=st.sampled_from(
        ["honest", "honest", "ignored", "refused", "elsewhere", "deaf", "endless", "clipped"]
    ),
    validator=st.sampled_from(["same", "new", "none"]),
    total=st.sampled_from(["always", "always", "never", "first"]),
    is_zipped=st.sampled_from([False, False, False, True]),
    troubles=st.lists(
        st.one_of(st.none(), st.sampled_from([BUSY, REFUSED]), st.integers(0, 59)), max_size=8
    ).map(tuple),
)


SCHEDULES = st.lists(st.integers(0, 2000), max_size=80)


@settings(max_examples=500)
@given(
    mirrors=st.lists(MIRRORS, min_size=1, max_size=4),
    is_sized=st.booleans(),
    kept=st.sampled_from([b"", TRUTH[:25], TRUTH, b"?" * 25, b"?" * 60]),
    schedule=SCHEDULES,
)
def test_it_ends_with_the_truth_or_with_every_source_tried(
    mirrors: list[Mirror], is_sized: bool, kept: bytes, schedule: list[int]
) -> None:
    play = Play(World(mirrors), is_sized=is_sized, kept=kept)
    play.run(schedule)
    if play.state is State.DONE:
        assert bytes(play.sink.data) == TRUTH
        assert play.download.verified is not None
    else:
        tried = [each.url for each in play.download.tried]
        assert sorted(tried) == sorted(play.download.artifact.urls)
        assert not any(mirror.is_honest for mirror in mirrors)
    leads = len(play.world.asked) - play.divided
    # Each time that a mirror is asked from the start, or after trouble, a request may be for as few
    # as seven bytes; and one more wherever the lead meets what a piece has brought.
    passes = sum(3 + len(mirror.troubles) for mirror in mirrors) + play.gave_way
    assert leads <= 9 * passes + play.divided


def can_be_told(mirror: Mirror) -> bool:
    """False for a mirror that has something else to begin with, or a part and says it is all."""
    says_all = mirror.ranges == "clipped" and mirror.total != "always"
    return mirror.body == "right" and not (mirror.is_zipped or says_all)


@settings(max_examples=400)
@given(
    mirror=MIRRORS.filter(can_be_told),
    changes_at=st.none() | st.integers(1, 8),
    kept=st.sampled_from([b"", TRUTH[:25]]),
    schedule=SCHEDULES,
)
def test_without_a_hash_two_contents_are_never_mixed(
    mirror: Mirror, changes_at: int | None, kept: bytes, schedule: list[int]
) -> None:
    """Nor is a part of one taken for the whole; only the validators of the source can tell."""
    world = World([mirror], changes_at)
    play = Play(world, is_sized=False, has_hash=False, kept=kept)
    if kept:
        validator = {"same": '"0 False"', "new": '"0 0"', "none": ""}[mirror.validator]
        play.sink.note(Origin("http://host/0", validator, len(TRUTH)))
    play.run(schedule)
    if play.state is State.DONE:
        assert bytes(play.sink.data[: play.sink.size]) in (TRUTH, OTHER)


# --- Rules ----------------------------------------------------------------------------------------


def begun(*mirrors: Mirror) -> Play:
    """A download whose lead has got its head and nine bytes."""
    play = Play(World(list(mirrors) or [Mirror()]))
    play.ask()
    for _ in range(2):
        play.next_steps()[0]()
    return play


def piece_of(play: Play, url: str = "http://host/0", size: int = 10) -> Piece:
    piece = play.divide(url, size)
    assert piece
    return piece


def test_pieces_are_asked_for_in_order_under_the_validator_of_the_lead() -> None:
    play = begun()
    first, second = piece_of(play), piece_of(play)
    assert first.request() == Request("http://host/0", 19, '"0 False"', 29, is_long=True)
    assert (second.start, second.end) == (29, 39)


def test_nothing_is_divided_before_the_lead_or_where_nothing_is_left() -> None:
    play = Play(World([Mirror()]))
    assert play.divide("http://host/0", 10) is None
    play = begun()
    while play.divide("http://host/0", 10):
        pass
    assert Ranges((each.start, each.end) for each in play.download.division.pieces).spans == (
        (19, 60),
    )


def test_a_piece_takes_no_more_than_it_asked_for_and_ends() -> None:
    """A source that goes on is left: it would bring the rest of the file for nothing."""
    play = begun(Mirror(ranges="endless"))
    piece = piece_of(play)
    piece.begin(Head(19, 60, '"0 False"'))
    piece.receive([TRUTH[19:40]])
    assert play.sink.here.spans == ((0, 9), (19, 29))
    assert not piece.is_receiving


@pytest.mark.parametrize(
    "head",
    [
        Head(0, 60, '"0 False"'),
        Head(18, 60, '"0 False"'),
        Head(19, 61, '"0 False"'),
        Head(19, None, '"0 False"'),
        Head(19, 60, '"other"'),
        Head(19, 60, ""),
        Head(19, 60, '"0 False"', encoding="gzip"),
    ],
)
def test_a_piece_of_another_file_is_not_taken_nor_another_asked_for(head: Head) -> None:
    """The lead goes on as if nothing had been."""
    play = begun()
    piece = piece_of(play)
    piece.begin(head)
    play.retire()
    assert not piece.is_receiving
    assert play.divide("http://host/0", 10) is None
    play.run([])
    assert play.state is State.DONE
    assert len(play.world.asked) == 2


def test_what_a_piece_does_not_bring_is_free_again() -> None:
    play = begun()
    piece = piece_of(play)
    piece.begin(Head(19, 60, '"0 False"'))
    piece.receive([TRUTH[19:23]])
    piece.fail(Failure(Trouble.CONNECTION, "dropped"))
    play.retire()
    again = piece_of(play)
    assert (again.start, again.end) == (23, 33)


def test_failing_pieces_leave_the_lead_its_retries() -> None:
    """A piece is a bonus: however many fail, the lead alone gets the file as without them."""
    play = begun()
    for _ in range(200):
        piece = play.divide("http://host/0", 10)
        if piece is None:
            break
        piece.fail(Failure(Trouble.CONNECTION, "refused"))
        play.retire()
    play.download.fail(Failure(Trouble.CONNECTION, "dropped"))
    play.retire()
    play.run([])
    assert play.state is State.DONE


@pytest.mark.parametrize("share", [None, 20])
def test_wrong_bytes_in_pieces_end_in_a_failure(share: int | None) -> None:
    """Where the last request was for a part of the file as well as where it was not."""
    play = begun(Mirror(body="last bit", troubles=(30, None, None, 30)))
    play.download.share = (lambda _: share) if share else None
    play.run([])
    assert play.state is State.FAILED
    assert play.download.tried[0].failure.trouble is Trouble.WRONG


def test_a_body_that_breaks_off_behind_its_last_byte_is_whole() -> None:
    play = begun(Mirror(total="never"))
    play.receive(play.download, 60)
    play.download.fail(Failure(Trouble.CONNECTION, "reset"))
    play.retire()
    play.run([])
    assert play.state is State.DONE
    assert len(play.world.asked) == 1


def test_without_a_hash_a_part_is_not_taken_for_the_whole() -> None:
    """The length was told once; that it is not told again does not make the file shorter."""
    play = Play(World([Mirror(total="first", troubles=(20,))]), is_sized=False, has_hash=False)
    play.download.share = lambda _: 10
    play.run([])
    assert play.state is State.DONE
    assert bytes(play.sink.data) == TRUTH
