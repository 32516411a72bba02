"""Ranges: a set of byte offsets, in whatever order spans come; a plain set is the oracle."""

from __future__ import annotations

import itertools
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dscache.store.ranges import Ranges, Span

_SIZE = 40
offsets = st.integers(0, _SIZE)
spans = st.lists(st.tuples(offsets, offsets), max_size=12)


def offsets_in(found: list[Span] | tuple[Span, ...]) -> list[int]:
    """Every offset that is in one of the spans, as often as it is."""
    return [offset for start, end in found for offset in range(start, end)]


@given(spans)
def test_what_was_added_is_there_and_nothing_else(added: list[Span]) -> None:
    ranges, oracle = Ranges(), set[int]()
    for start, end in added:
        ranges.add(start, end)
        oracle |= set(range(start, end))
        assert offsets_in(ranges.spans) == sorted(oracle)


@given(spans)
def test_spans_are_in_order_not_empty_and_neither_overlap_nor_touch(added: list[Span]) -> None:
    found = Ranges(added).spans
    assert all(start < end for start, end in found)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))


@given(spans, st.randoms(use_true_random=False))
def test_the_order_of_adding_does_not_matter(added: list[Span], random: Random) -> None:
    shuffled = list(added)
    random.shuffle(shuffled)
    assert Ranges(shuffled).spans == Ranges(added).spans
    assert Ranges(Ranges(added).spans).spans == Ranges(added).spans


@given(spans)
def test_total_prefix_and_end_are_those_of_the_set(added: list[Span]) -> None:
    ranges, oracle = Ranges(added), set(offsets_in(added))
    assert ranges.total == len(oracle)
    assert ranges.prefix == next(offset for offset in itertools.count() if offset not in oracle)
    assert ranges.end == max(oracle, default=-1) + 1


@given(spans, offsets)
def test_below_a_size_are_the_bytes_that_such_a_file_can_have(added: list[Span], size: int) -> None:
    ranges = Ranges(added)
    before = ranges.spans
    assert offsets_in(ranges.below(size).spans) == [
        offset for offset in sorted(set(offsets_in(added))) if offset < size
    ]
    assert ranges.spans == before


@given(spans, offsets)
def test_gaps_and_bytes_together_are_the_whole_file(added: list[Span], size: int) -> None:
    """Gaps are in order, not empty, as long as they can be, and within the size."""
    gaps = list(Ranges(added).gaps(size))
    oracle = set(offsets_in(added))
    assert offsets_in(gaps) == [offset for offset in range(size) if offset not in oracle]
    assert all(start < end for start, end in gaps)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(gaps))


@given(spans)
def test_spans_given_out_are_no_way_in(added: list[Span]) -> None:
    """What was handed out does not change with what is added afterwards."""
    ranges = Ranges(added)
    given_out, copied = ranges.spans, Ranges(ranges.spans)
    ranges.add(0, _SIZE)
    assert offsets_in(given_out) == sorted(set(offsets_in(added)))
    assert copied.spans == given_out


def test_spans_that_hold_no_byte_change_nothing() -> None:
    ranges = Ranges([(3, 5)])
    ranges.add(5, 5)
    ranges.add(9, 2)
    assert ranges.spans == ((3, 5),)
    assert (Ranges().total, Ranges().prefix, Ranges().end) == (0, 0, 0)
    assert list(Ranges().gaps(0)) == []
