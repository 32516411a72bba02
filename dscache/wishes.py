"""Wishes: what a call asks for, a dataset or those of its files that match. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dscache.errors import DscacheError
from dscache.model import Artifact, Dataset
from dscache.results import Fetched

_WILD = frozenset("*?[")


class Wish(msgspec.Struct, frozen=True, eq=False):
    """A dataset that is asked for, or those of its files that match a pattern.

    Patterns are fnmatch patterns on the whole relative path, as the files stand in the dataset;
    `*` crosses `/`.
    """

    dataset: Dataset
    patterns: tuple[str, ...] = ()
    began: float = msgspec.field(default_factory=time.perf_counter)

    def wants(self, path: str) -> bool:
        """True if the selection holds that file of the dataset."""
        return not self.patterns or any(fnmatchcase(path, each) for each in self.patterns)

    def needed(self) -> Iterator[Artifact]:
        """The artifacts that are needed; with `unpack` taken away, the archive as it is.

        Which members an archive has is not known here: it is needed unless none can match.
        """
        open_patterns = self._open_patterns()
        for artifact in self.dataset.artifacts:
            if not artifact.unpack:
                if self.wants(artifact.path):
                    yield artifact
                continue
            if artifact.path in self.patterns:
                yield replace(artifact, unpack="")
            if self._may_want_members(artifact, open_patterns):
                yield artifact

    def _may_want_members(self, artifact: Artifact, patterns: Sequence[str]) -> bool:
        """True unless it is clear that nothing that the archive holds is asked for."""
        if not self.patterns:
            return True
        if artifact.single is not None:
            return self.wants(artifact.single)
        folder = f"{artifact.unpack_to}/" if artifact.unpack_to else ""
        return any(each != artifact.path and _may_match_below(folder, each) for each in patterns)

    def _open_patterns(self) -> Sequence[str]:
        """Those that may match members: where a file of the dataset stands, no archive has one."""
        if not self.patterns:
            return ()
        files = {each.single if each.unpack else each.path for each in self.dataset.artifacts}
        return [each for each in self.patterns if each not in files]

    def fetched(self, folder: str, size: int, status: str) -> Fetched:
        """The result for `size` bytes that stand in the dataset's folder."""
        dataset = self.dataset
        only = self._only()
        return Fetched(
            name=dataset.name,
            version=dataset.version,
            registry=dataset.registry,
            path=_path_of(f"{folder}/{only}" if only else folder),
            status=status,
            size=size,
            seconds=time.perf_counter() - self.began,
        )

    def failed(self, error: DscacheError) -> Fetched:
        """The result where something went wrong."""
        return Fetched(
            name=self.dataset.name,
            version=self.dataset.version,
            registry=self.dataset.registry,
            seconds=time.perf_counter() - self.began,
            error=error,
        )

    def _only(self) -> str | None:
        """Where the file of a dataset of one file stands; None where the folder is the result."""
        dataset = self.dataset
        if dataset.manifest or len(dataset.artifacts) != 1:
            return None
        artifact = dataset.artifacts[0]
        if not artifact.unpack or not self._may_want_members(artifact, self._open_patterns()):
            return artifact.path
        return artifact.single


#: Taking a path apart is a good part of a hit, and a process asks for few of them again and again.
_path_of = lru_cache(maxsize=256)(Path)


def _may_match_below(folder: str, pattern: str) -> bool:
    """True if some path that begins with `folder` could match."""
    wild = next((at for at, char in enumerate(pattern) if char in _WILD), None)
    if wild is None:
        return pattern.startswith(folder)
    start = pattern[:wild]
    return start.startswith(folder) or folder.startswith(start)
