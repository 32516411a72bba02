"""Who sent the wrong bytes, where several sources have sent spans of one file.

Only the whole has a hash. So when it is wrong, what each source gave is remembered by its sum; once
the right file is here, those are compared with what the file has there.
"""

from __future__ import annotations

from collections.abc import Iterable

from dscache.digest import Hasher, hasher
from dscache.store.ranges import Ranges


class Blame:
    """What each source has given of one file."""

    def __init__(self) -> None:
        self._given: dict[str, Ranges] = {}
        self._suspects: dict[str, tuple[Ranges, str]] = {}

    def note(self, url: str, start: int, end: int) -> None:
        """A source has sent the bytes from `start` up to `end`."""
        self._given.setdefault(url, Ranges()).add(start, end)

    def forget(self) -> None:
        """All that was given has been thrown away."""
        self._given = {}

    def suspect(self, chunks: Iterable[bytes]) -> None:
        """The file made of `chunks` is wrong, and more than one source may have spoilt it."""
        if len(self._given) > 1:
            sums = _sums(self._given, chunks)
            self._suspects = {url: (self._given[url], sums[url]) for url in self._given}

    def guilty(self, chunks: Iterable[bytes]) -> list[str]:
        """The sources that had sent other bytes than those of the right file `chunks`."""
        if not self._suspects:
            return []
        right = _sums({url: ranges for url, (ranges, _) in self._suspects.items()}, chunks)
        return [url for url, (_, was) in self._suspects.items() if was != right[url]]


def _sums(given: dict[str, Ranges], chunks: Iterable[bytes]) -> dict[str, str]:
    """One sum per source, over the bytes that it gave."""
    hashers: dict[str, Hasher] = {url: hasher("xxh3_128") for url in given}
    offset = 0
    for chunk in chunks:
        for url, ranges in given.items():
            for start, end in ranges.spans:
                if start < offset + len(chunk) and end > offset:
                    hashers[url].update(chunk[max(0, start - offset) : end - offset])
        offset += len(chunk)
    return {url: each.hexdigest() for url, each in hashers.items()}
