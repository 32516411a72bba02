"""Which bytes of a file are here: spans in order that neither overlap nor touch. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: The offset of the first byte, and the one behind the last.
Span = tuple[int, int]


class Ranges:
    """A set of byte offsets; it stays small as long as bytes come nearly in order."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans: list[Span] = []
        for start, end in spans:
            self.add(start, end)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans in order."""
        return tuple(self._spans)

    @property
    def total(self) -> int:
        """How many bytes these are."""
        return sum(end - start for start, end in self._spans)

    @property
    def prefix(self) -> int:
        """How many bytes from the file's start are here without a gap."""
        return self._spans[0][1] if self._spans and self._spans[0][0] == 0 else 0

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self._spans[-1][1] if self._spans else 0

    def add(self, start: int, end: int) -> None:
        """Count the bytes from `start` up to, and without, `end`."""
        if start >= end:
            return
        before = [span for span in self._spans if span[1] < start]
        after = [span for span in self._spans if span[0] > end]
        touched = self._spans[len(before) : len(self._spans) - len(after)]
        if touched:
            start, end = min(start, touched[0][0]), max(end, touched[-1][1])
        self._spans = [*before, (start, end), *after]

    def below(self, size: int) -> Ranges:
        """Those of the bytes that a file of `size` bytes can have."""
        return Ranges((start, min(end, size)) for start, end in self._spans if start < size)

    def gaps(self, size: int) -> Iterator[Span]:
        """What a file of `size` bytes lacks, in order."""
        here = 0
        for start, end in self._spans:
            if here < min(start, size):
                yield here, min(start, size)
            here = end
        if here < size:
            yield here, size
