"""Relocking: from what a project asks for to its lock, and both onto the disk.

What is asked for is resolved first, and only then is anything written: both files by one rename
each, the lock first. Whoever is stopped between the two is told by `sync --locked` what differs.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence

import msgspec

from dscache import disk, filesystem
from dscache.call import Call
from dscache.errors import InvalidFile, NotFound, StorageError, TransferError, UnsafeError
from dscache.events import Notice
from dscache.fetching import withdrawn
from dscache.model import Dataset, Reference
from dscache.project import learning, wanted
from dscache.project.lines import dataset_in, dataset_of, line_of
from dscache.project.lockfile import ANY, LOCK_FILE, Line, Lock, encode
from dscache.results import Change, Relocked
from dscache.settings.files import PROJECT_FILE
from dscache.store import Record, Store
from dscache.store.roots import PROJECT, needs

_MAX_FILE = 1 << 30


class Project(msgspec.Struct, frozen=True):
    """A project: its folder, what it asks for, and what of that its file does not say yet."""

    folder: str
    wanted: Mapping[str, str]
    changes: Mapping[str, str | None] = {}

    def asking(self, changes: Mapping[str, str | None]) -> Project:
        """The project when these are asked for, or with None no more."""
        new = {**self.wanted, **changes}
        asked = {key: version for key, version in new.items() if version is not None}
        return Project(self.folder, asked, changes)

    @property
    def file(self) -> str:
        """What people write."""
        return f"{self.folder}/{PROJECT_FILE}"

    @property
    def lock(self) -> str:
        """What is written here."""
        return f"{self.folder}/{LOCK_FILE}"


def relock(call: Call, project: Project, old: Lock, anew: Container[str]) -> Relocked:
    """Lock what the project asks for: `anew` those in it, and what is not locked as it should be.

    The rest stays as it is, so that nothing moves that nobody has asked to.
    """
    lines = []
    for key, version in project.wanted.items():
        line = old.get(key)
        if line is None or key in anew or not line.fits(version):
            line = _resolved(call, project, key, line)
        lines.append(_taught(call, line))
    new = Lock(lines)
    datasets = [dataset_in(new, line, call.settings) for line in new]
    _write(project, lines)
    keep(call, project, datasets)
    return Relocked(project.lock, tuple(_changes(old, new)))


def _resolved(call: Call, project: Project, key: str, line: Line | None) -> Line:
    """What the registries say now; of what is locked, only the one that it is locked from."""
    version = project.wanted[key]
    asked = Reference.parse(key)
    registry = line.registry if line else asked.registry
    reference = Reference(asked.name, registry, None if version == ANY else version)
    try:
        dataset = call.lookup.resolve(reference)
    except (NotFound, TransferError, InvalidFile, UnsafeError) as error:
        if line is None or not line.fits(version):
            raise
        call.emit(Notice(f"{key} stays as it is locked, at {line.entry.version}: {error}"))
        return line
    if dataset.yanked:
        call.emit(withdrawn(dataset))
    found = line_of(key, dataset, project.folder)
    if line and line.address != found.address:
        moved = f"{line.registry} is {found.address} by now; {key} was locked from {line.address}"
        call.emit(Notice(moved))
    if line is None or line.reference != found.reference:
        return found
    if dataset_of(line, "").content != dataset.content or learning.contradict(
        line.entry, found.entry
    ):
        call.emit(
            Notice(
                f"{dataset.reference} has other content in its registry by now; it stays as it is "
                f"locked (to have the new content, `dscache remove {key}`, then add it again)"
            )
        )
        return line
    return learning.taught(found, learning.facts_of(line.entry))


def learn(call: Call, project: Project, found: Lock) -> None:
    """Lock what the first download has found out."""
    lines = [_taught(call, line) for line in found]
    if lines != list(found):
        _write(project, lines)


def _taught(call: Call, line: Line) -> Line:
    """The line, with what the cache knows of files of which the registry does not know all."""
    if not learning.wants_facts(line.entry):
        return line
    record = call.store.records.get(dataset_of(line, ""))
    if record is None:
        return line
    return learning.taught(line, _facts(call.store, line, record))


def _facts(store: Store, line: Line, record: Record) -> learning.Facts:
    if line.entry.manifest is None:
        archives = {each.path: (each.sha256, each.size) for each in record.trees}
        return archives | {each.path: (each.sha256, each.size) for each in record.files}
    if len(record.keeps) != 1:  # the list of its files, and nothing else
        return {}
    (sha256,) = record.keeps
    return {line.entry.manifest.path: (sha256, store.blobs.size(sha256) or None)}


def _changes(old: Lock, new: Lock) -> Iterable[Change]:
    for name in sorted({line.name for lock in (old, new) for line in lock}):
        before, after = old.get(name), new.get(name)
        change = Change(
            name, before.entry.version if before else None, after.entry.version if after else None
        )
        if change.before != change.after:
            yield change


def keep(call: Call, project: Project, datasets: Iterable[Dataset]) -> None:
    """Have the cache keep what is locked, and no more, as long as the lock file is there.

    What is kept so needs no lease, of which a thousand take longer than all else: once this
    returns, no prune that began before goes on.
    """
    marks = {dataset.mark for dataset in datasets}
    try:
        call.store.prepare()
        call.store.roots.renew(needs(PROJECT, project.lock, sorted(marks)))
        call.let_pass(marks, project.folder)
    except StorageError as error:
        call.emit(Notice(f"a prune may take what {project.folder} needs: {error}"))
    else:
        call.rooted = marks


def _write(project: Project, lines: Sequence[Line]) -> None:
    """Write what has changed; if one file cannot be written, both stay as they were."""
    # Files that are links to somewhere else stay that.
    lock_file, file = os.path.realpath(project.lock), os.path.realpath(project.file)
    data, before = encode(lines), bytes_of(lock_file)
    with disk.storage_errors(f"the project {project.folder} cannot be written"):
        if not project.changes:
            if data != before:
                filesystem.publish_bytes(data, lock_file)
            return
        text = wanted.edited((bytes_of(file) or b"").decode("utf-8-sig"), project.changes)
        try:
            with filesystem.replacing(file) as fd:
                filesystem.write(fd, [text.encode()], 0)
                filesystem.publish_bytes(data, lock_file)
        except BaseException:
            _restore(lock_file, before)
            raise


def _restore(path: str, data: bytes | None) -> None:
    """Put back what was there, if something else is there now."""
    if bytes_of(path) == data:
        return
    if data is None:
        filesystem.drop(path)
    else:
        filesystem.publish_bytes(data, path)


def bytes_of(path: str) -> bytes | None:
    """What is in a file of the project; None where there is none."""
    with disk.storage_errors(f"{path} cannot be read"):
        try:
            return disk.read_small(path, _MAX_FILE)
        except FileNotFoundError:
            return None
