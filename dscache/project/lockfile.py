"""The lock file: one JSON object a line, each with all that there is to know of one dataset.

The order of the lines means nothing, and a line that stands twice is one: so what `sort` and git
make of a lock file is one. Lines are checked here as far as they must be to tell them apart; what
an entry may say is checked by the rules of registries, when a dataset is made of it. Knows no
registry, and no cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import msgspec

from dscache import disk
from dscache.errors import InvalidFile, StorageError, UsageError
from dscache.malformed import MALFORMED
from dscache.model import Dataset, Reference, is_name
from dscache.registry.rules import located
from dscache.registry.tables import Entry
from dscache.urls import redacted

LOCK_FILE = "dscache.lock"
#: The `format` of lines that this version reads and writes.
FORMAT = 1
#: The version of a `dscache.toml` that stands for whichever is current when it is locked.
ANY = "*"

_MAX_FILE = 1 << 30
#: What git leaves in a file that it could not merge.
_MARKERS = (b"<<<<<<<", b"|||||||", b"=======", b">>>>>>>")
_ANEW = "`dscache lock` writes it anew, and keeps what it can"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One dataset that is locked.

    Attributes:
        name: as `dscache.toml` has it: `[registry/]name`.
        registry: under which name its registry was known.
        address: where that was: a URL, a folder (a relative one is in the project), or `bundled`.
        entry: all that the registry said, and what the first download has added to it. Relative
            URLs are relative to the registry.
        dataset: its name in the registry, where `name` is another name for it.
    """

    name: str
    registry: str
    address: str
    entry: Entry
    dataset: str = ""

    @property
    def reference(self) -> Reference:
        """The full name: registry, name and version."""
        name = self.dataset or self.name.rpartition("/")[2]
        return Reference(name, self.registry, self.entry.version)

    def fits(self, version: str) -> bool:
        """True if it is what `dscache.toml` asks for."""
        return version in (ANY, self.entry.version)


class _Written(Line, frozen=True, omit_defaults=True):
    """A line as it stands in the file."""

    format: int = msgspec.field(default=0)


class _Format(msgspec.Struct):
    format: int = FORMAT


class Lock:
    """The lines of one lock file. No two have one name."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self._lines = {line.name: line for line in lines}
        #: Datasets that were made of lines, by name and by where their registry is.
        self.made: dict[tuple[str, str], Dataset] = {}

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    def get(self, name: str) -> Line | None:
        """The line of a name of `dscache.toml`."""
        return self._lines.get(name)

    def meant(self, reference: Reference) -> Sequence[Line]:
        """The lines that a reference may mean; a name as `dscache.toml` has it means its line."""
        exact = self._lines.get(str(msgspec.structs.replace(reference, version=None)))
        if exact and reference.version in (None, exact.entry.version):
            return (exact,)
        return [line for line in self._named.get(reference.name, ()) if _means(reference, line)]

    @cached_property
    def _named(self) -> Mapping[str, Sequence[Line]]:
        """Lines by what a bare name may be for them."""
        found: dict[str, list[Line]] = {}
        for line in self:
            for name in {line.reference.name, line.name.rpartition("/")[2]}:
                found.setdefault(name, []).append(line)
        return found


def _means(reference: Reference, line: Line) -> bool:
    found = line.reference
    return reference.registry in (None, found.registry) and reference.version in (
        None,
        found.version,
    )


def read(path: str) -> Lock | None:
    """The lock file at `path`, or None if there is none; remembered as long as it is the same.

    Raises:
        InvalidFile: it cannot be read or used; names the line.
    """
    try:
        return disk.parsed(path, _read)
    except (OSError, StorageError) as error:
        raise InvalidFile(f"{path} cannot be read: {error}", file=path) from error


def _read(path: str) -> Lock:
    try:
        return Lock(decode(disk.read_small(path, _MAX_FILE)))
    except InvalidFile as error:
        raise located(error, path) from error


def decode(data: bytes) -> list[Line]:
    """The lines of a lock file, each once.

    Raises:
        InvalidFile: one is malformed, of a newer format, or contradicts another.
    """
    try:
        lines = msgspec.json.Decoder(_Written).decode_lines(data)
        are_ours = all(line.format == FORMAT for line in lines)
    except MALFORMED:
        are_ours = False
    found: dict[str, Line] = {}
    for line in map(_plain, lines) if are_ours else _one_by_one(data):
        if found.setdefault(line.name, line) != line:
            raise _contradiction(found[line.name], line)
    for line in found.values():
        _check(line)
    return list(found.values())


def salvage(data: bytes) -> list[Line]:
    """What can be used of a lock file, whatever has become of it: no line of which two differ."""
    found: dict[str, Line | None] = {}
    for number, raw in enumerate(data.splitlines(), 1):
        try:
            line = _decoded(raw, number)
            _check(line)
        except InvalidFile:
            continue
        found[line.name] = line if found.get(line.name, line) == line else None
    return [line for line in found.values() if line]


def encode(lines: Iterable[Line]) -> bytes:
    """The lock file of some lines, always the same for the same ones."""
    written = (
        _Written(each.name, each.registry, each.address, each.entry, each.dataset, FORMAT)
        for each in lines
    )
    return b"".join(sorted(msgspec.json.encode(each) + b"\n" for each in written))


def _plain(line: _Written) -> Line:
    return Line(line.name, line.registry, line.address, line.entry, line.dataset)


def _one_by_one(data: bytes) -> Iterator[Line]:
    """As the decoder reads them, but slowly, to tell what is wrong with which line."""
    for number, raw in enumerate(data.splitlines(), 1):
        if raw.strip():
            yield _decoded(raw, number)


def _decoded(raw: bytes, number: int) -> Line:
    where = f"line {number}"
    if raw.startswith(_MARKERS):
        raise InvalidFile(f"{where}: left by a merge that had conflicts", hint=_ANEW)
    try:
        if (found := msgspec.json.decode(raw, type=_Format).format) != FORMAT:
            raise InvalidFile(
                f"{where}: format {found} is not known; this version reads {FORMAT}",
                hint="use a newer dscache",
                format=found,
            )
        return _plain(msgspec.json.decode(raw, type=_Written))
    except MALFORMED as error:
        raise InvalidFile(f"{where}: {error}", hint=_ANEW) from error


def _check(line: Line) -> None:
    """What must be right of a line before anything is made of it."""
    try:
        asked = Reference.parse(line.name)
        is_right = asked.version is None and asked.registry in (None, line.registry)
    except UsageError:
        is_right = False
    if not (is_right and is_name(line.registry) and is_name(line.reference.name)):
        raise InvalidFile(f"{line.name!r} of {line.registry!r}: not the name of a dataset")
    if "://" in line.address and redacted(line.address) != line.address:
        raise InvalidFile(f"{line.name}: the registry's address holds credentials or a query")


def _contradiction(one: Line, other: Line) -> InvalidFile:
    return InvalidFile(
        f"{one.name} is locked twice: as {one.reference} and as {other.reference}"
        + ("" if one.reference != other.reference else ", with other content"),
        hint="remove the line that you do not want, or " + _ANEW,
        datasets=[str(one.reference), str(other.reference)],
    )
