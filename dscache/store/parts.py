"""Parts: bytes in progress. A part belongs to one attempt of one process, never to two.

Beside each part lies its journal: whose it is, where the bytes come from, under which validator,
and how many of them were synced. A part that grows only at its end holds what it is long; from the
first byte that is written ahead of that, the journal says which ranges are here, and is behind by
at most `_UNSAVED` bytes. What a dead process left is adopted by rename; where it cannot be
told whether the owner still lives (another host or container) the bytes are copied, so that no two
writers ever share a file that may be published. Adopted bytes are no proof of anything: the hash
over the whole file decides in the end.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from dscache import copying, disk, filesystem
from dscache.malformed import MALFORMED
from dscache.store.layout import Layout
from dscache.store.owner import Boot, Owner, is_gone, this_boot, this_process
from dscache.store.ranges import Ranges, Span

#: Of journals: 2 knows `spans`.
_FORMAT = 2
#: Bytes that a killed process may have written without the journal knowing. Writing it down costs
#: some small system calls: at most once in so many seconds, unless bytes come very fast.
_UNSAVED = 8 << 20
_SAVE_EVERY, _WORTH_SAVING = 0.1, 1 << 20
#: Bytes that are given up when the disk is too full to write down what is here.
_SPARE = 64 << 10


class Journal(msgspec.Struct, frozen=True):
    """What is known of a part.

    Attributes:
        owner: the process that writes; None once it has let go in good order.
        boot: the boot in which the bytes were written.
        synced: bytes from the start that survive a power cut.
        url: where the bytes came from, without credentials.
        validator: strong ETag, or Last-Modified, under which they were sent; empty if none.
        total: size that the source announced; None if it did not.
        spans: which bytes are here; None where those are as many as the file is long.
    """

    owner: Owner | None
    boot: Boot | None
    synced: int = 0
    url: str = ""
    validator: str = ""
    total: int | None = None
    spans: tuple[Span, ...] | None = None
    format: int = _FORMAT


class Orphan(msgspec.Struct, frozen=True):
    """A part that some earlier attempt left.

    Attributes:
        usable: those of its bytes that can be used.
        allocated: bytes of the disk that it takes.
    """

    key: str
    token: str
    journal: Journal
    usable: Ranges
    allocated: int


class Part:
    """One growing file.

    Attributes:
        here: which bytes of it have been written.

    Methods that touch the disk raise the operating system's error as it comes.
    """

    def __init__(self, layout: Layout, key: str, journal: Journal) -> None:
        self._layout = layout
        self.key = key
        self.token = secrets.token_hex(8)
        self.path = layout.part(key, self.token)
        self.here = Ranges()
        self.journal = journal
        self._journal_path = layout.journal(key, self.token)
        self.fd = -1
        self._unsaved, self._saved = 0, 0.0

    @property
    def size(self) -> int:
        """How many bytes from the start are here without a gap."""
        return self.here.prefix

    def note(self, *, url: str, validator: str, total: int | None) -> None:
        """Remember where the bytes come from; written down only when it changes."""
        journal = msgspec.structs.replace(self.journal, url=url, validator=validator, total=total)
        if journal != self.journal:
            self._write_journal(journal)

    def write(self, chunks: Sequence[bytes], offset: int | None = None) -> None:
        """Write bytes, in the first gap or at `offset`."""
        at = self.size if offset is None else offset
        if self.journal.spans is None and at > self.size:
            self._save()
        count = filesystem.write(self.fd, chunks, at)
        self.here.add(at, at + count)
        self._unsaved += count
        if self.journal.spans is not None and self._is_save_due():
            self._save()

    def restart(self) -> None:
        """Throw the bytes away and begin again."""
        self._forget_bytes()
        filesystem.truncate(self.fd, 0)
        self.here = Ranges()
        self._end_gaps()

    def rewrite(self, chunks: Iterable[bytes]) -> None:
        """Replace the bytes by `chunks`, which may be made from them as they are read."""
        size = 0
        with filesystem.replacing(self.path) as fd:
            for chunk in chunks:
                size += filesystem.write(fd, [chunk], size)
            self._forget_bytes()
            self.close()
        self.fd, self.here = filesystem.open_for_update(self.path), Ranges([(0, size)])
        self._end_gaps()

    def sync(self) -> int:
        """Bring what is here to the disk; return how many bytes that were."""
        size = self.size
        filesystem.sync(self.fd)
        return size

    def note_synced(self, size: int) -> None:
        """Write down that the first `size` bytes survive a power cut."""
        self._write_journal(msgspec.structs.replace(self.journal, synced=size))

    def keep(self) -> None:
        """Let go; whoever comes next may take the bytes over.

        Never fails: where the disk does not let it be written down, the part is free when this
        process has ended.
        """
        with suppress(OSError):
            try:
                self._let_go()
            except OSError:  # a full disk has no room for the journal either: make some
                if self.here.end < 16 * _SPARE:
                    raise
                self.here = self.here.below(self.here.end - _SPARE)
                self._let_go()
        self.close()

    def _let_go(self) -> None:
        if self.fd >= 0:
            filesystem.truncate(self.fd, self.here.end)  # gives back what was only reserved
        if self.here.total and os.path.exists(self.path):
            spans = None if self.journal.spans is None else self.here.spans
            self._write_journal(msgspec.structs.replace(self.journal, owner=None, spans=spans))
        else:
            self.discard()

    def discard(self) -> None:
        """Remove the part and its journal."""
        self.close()
        filesystem.unlink(self.path)
        self.forget()

    def forget(self) -> None:
        """Remove the journal of a part that was published."""
        filesystem.unlink(self._journal_path)

    def close(self) -> None:
        """Close the file; doing it twice is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _is_save_due(self) -> bool:
        if self._unsaved < _WORTH_SAVING:
            return False
        return self._unsaved >= _UNSAVED or time.monotonic() - self._saved >= _SAVE_EVERY

    def _save(self) -> None:
        """Write down which bytes are here."""
        self._unsaved, self._saved = 0, time.monotonic()
        self._write_journal(msgspec.structs.replace(self.journal, spans=self.here.spans))

    def _forget_bytes(self) -> None:
        spans = None if self.journal.spans is None else ()  # as long as the file has gaps
        journal = msgspec.structs.replace(self.journal, synced=0, validator="", spans=spans)
        self._write_journal(journal)

    def _end_gaps(self) -> None:
        """From now on the length of the file says again what is here."""
        if self.journal.spans is not None:
            self._write_journal(msgspec.structs.replace(self.journal, spans=None))

    def _write_journal(self, journal: Journal) -> None:
        filesystem.publish_bytes(msgspec.json.encode(journal), self._journal_path)
        self.journal = journal

    def _begin(self, orphan: Orphan | None, twin: str = "") -> bool:
        """Make the file, or take over what `orphan` left; False if that cannot be had."""
        try:
            if orphan:
                return self._adopt(orphan)
            self._write_journal(self.journal)
            if not (twin and self._share(twin)):
                self.fd = filesystem.create(self.path)
        except BaseException:
            self.keep()
            raise
        return True

    def _share(self, twin: str) -> bool:
        """Begin with the bytes of another file, as far as that costs nothing."""
        try:
            copying.clone(twin, self.path)
        except OSError:  # whoever reads that file will hear what is wrong with it
            return False
        self.fd = filesystem.open_for_update(self.path)
        self.here = Ranges([(0, os.fstat(self.fd).st_size)])
        return True

    def _adopt(self, orphan: Orphan) -> bool:
        source = self._layout.part(orphan.key, orphan.token)
        try:
            if _is_free(orphan, source):
                self._take(orphan, source)
            else:
                self._write_journal(self.journal)
                _take_copy(source, self.path)
        except OSError:  # somebody was faster, or it is not ours to read
            with suppress(OSError):
                self.forget()
            return False
        self.here = orphan.usable.below(os.stat(self.path).st_size)
        self.fd = filesystem.open_for_update(self.path)
        filesystem.truncate(self.fd, self.here.end)
        if self.journal.spans not in (None, self.here.spans):
            self._save()
        if self.journal.boot != this_boot():
            synced = min(self.journal.synced, self.size)
            self._write_journal(
                msgspec.structs.replace(self.journal, boot=this_boot(), synced=synced, spans=None)
            )
        return True

    def _take(self, orphan: Orphan, source: str) -> None:
        """Move the file. The journal names the orphan's boot until what may be torn is cut off."""
        self._write_journal(msgspec.structs.replace(orphan.journal, owner=self.journal.owner))
        filesystem.rename(source, self.path)
        filesystem.unlink(self._layout.journal(orphan.key, orphan.token))


class Parts:
    """The parts of one cache root. What earlier attempts left is looked up once per instance."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._found: dict[str, list[Orphan]] | None = None

    def begin(self, key: str, size: int | None, twin: str = "") -> Part:
        """A part for `key`, holding what an earlier attempt left if that can be used.

        Args:
            size: the expected size of the whole; a longer orphan is not taken, and room for it is
                reserved where the filesystem can.
            twin: a file that should have the same bytes; they are shared with it where there was no
                earlier attempt and the filesystem can.
        """
        ours = Journal(this_process(), this_boot())
        for orphan in self._orphans(key):
            if size is None or orphan.usable.end <= size:
                spans = orphan.journal.spans if orphan.journal.boot == ours.boot else None
                journal = msgspec.structs.replace(
                    orphan.journal, owner=ours.owner, boot=ours.boot, synced=0, spans=spans
                )
                part = Part(self._layout, key, journal)
                if part._begin(orphan):
                    return _with_room(part, size)
        part = Part(self._layout, key, ours)
        part._begin(None, twin)
        return _with_room(part, size)

    def room(self, key: str) -> int:
        """Bytes of the disk that an attempt at `key` can take over."""
        return max((orphan.allocated for orphan in self._all().get(key, ())), default=0)

    def _orphans(self, key: str) -> list[Orphan]:
        """What can be taken over for `key`, the one with most bytes first."""
        return sorted(self._all().pop(key, []), key=lambda orphan: -orphan.usable.total)

    def _all(self) -> dict[str, list[Orphan]]:
        if self._found is None:
            self._found = {}
            for orphan in self._scan():
                self._found.setdefault(orphan.key, []).append(orphan)
        return self._found

    def _scan(self) -> list[Orphan]:
        found: list[Orphan] = []
        with os.scandir(self._layout.parts) as entries:
            for entry in entries:
                key, _, rest = entry.name.partition(".")
                token, _, suffix = rest.partition(".")
                if suffix == "part" and key != "small" and (orphan := self._orphan(key, token)):
                    found.append(orphan)
        return found

    def journal(self, key: str, token: str) -> Journal | None:
        """The journal of a part; None if there is none, or it makes no sense."""
        try:
            data = disk.read_small(self._layout.journal(key, token), 64 << 10)
            return msgspec.json.decode(data, type=Journal)
        except (OSError, *MALFORMED):
            return None  # taken over by another process, torn or not ours to read

    def _orphan(self, key: str, token: str) -> Orphan | None:
        journal = self.journal(key, token)
        if journal is None:
            return None
        try:
            path = self._layout.part(key, token)
            length, allocated = os.stat(path).st_size, disk.allocated(path)
        except OSError:
            return None  # as above
        if journal.format > _FORMAT or (journal.owner and is_gone(journal.owner) is False):
            return None
        # Where boots have no names, all of it is tried: the hash over the whole decides anyway.
        if journal.boot != this_boot():
            usable = Ranges([(0, journal.synced)])
        else:
            usable = Ranges([(0, length)] if journal.spans is None else journal.spans)
        usable = Ranges((max(0, start), end) for start, end in usable.below(length).spans)
        return Orphan(key, token, journal, usable, allocated) if usable.total else None


def _with_room(part: Part, size: int | None) -> Part:
    try:
        if size:
            filesystem.reserve(part.fd, size)
    except BaseException:
        part.keep()
        raise
    return part


def _is_free(orphan: Orphan, path: str) -> bool:
    """True if nobody can be writing to it and the file is ours to make read-only later."""
    owner = orphan.journal.owner
    own = not hasattr(os, "geteuid") or os.stat(path).st_uid == os.geteuid()
    return own and (owner is None or is_gone(owner) is True)


def _take_copy(source: str, target: str) -> None:
    try:
        copying.clone(source, target)
    except OSError as error:
        if error.errno not in copying.UNSUPPORTED:
            raise
        copying.copy(source, target)
