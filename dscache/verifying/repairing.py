"""Repairing: what a verification has found is put right, without ever being believed meanwhile.

The order makes it safe to be killed anywhere. First all that vouches for something damaged is taken
back: the proofs of blobs, the summaries of trees, and then the records. These stay, so that no
prune takes what they name for garbage, but prove nothing any more. Then damaged files go to
quarantine and are brought again. At last each view is mended, and only then its record says again
what it said before. Who comes between verifies all that such a record names.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial

from msgspec.structs import replace

from dscache import disk, pruning, view
from dscache.bringing import Bringing
from dscache.call import Call
from dscache.digest import Digest, sums_of
from dscache.errors import DscacheError, StorageError
from dscache.events import Notice
from dscache.hits import contents_of, view_of
from dscache.model import Artifact
from dscache.store import File, Record, Unpacked
from dscache.store.trees import stands
from dscache.transfer.wants import Want
from dscache.verifying.checking import LINKED, Finding
from dscache.verifying.provenance import Provenance
from dscache.verifying.recovering import recover

#: A blob by its sha256, or a tree, which has a recipe.
Thing = tuple[str, str]


class Repair:
    """The repair of what was found in one cache; `run` does it."""

    def __init__(
        self, call: Call, records: Mapping[str, Record], findings: Sequence[Finding]
    ) -> None:
        self._call = call
        self._store = call.store
        self._records = dict(records)
        self._findings = findings
        self._things = {(each.sha256, each.recipe) for each in findings if each.sha256}
        self._needed = {thing for record in records.values() for thing in _needed(record)}
        views = {each.mark for each in findings if each.kind == "view"}
        self._damaged = {
            mark: record
            for mark, record in records.items()
            if mark in views or not self._things.isdisjoint(_held(record))
        }
        self._known: dict[str, Provenance] = {}
        self._reasons: dict[Thing | str, str] = {}

    def run(self) -> dict[Finding, str]:
        """What remains, each with the reason, if there is one to tell.

        Raises:
            StorageError: the cache cannot be written to.
        """
        store = self._store
        store.prepare()
        with disk.storage_errors("the cache cannot be repaired"):
            for record in self._damaged.values():
                self._call.hold(record)
            for mark, record in [*self._damaged.items()]:
                if store.records.load(mark) != record:
                    del self._damaged[mark]  # removed, or done anew, which its fetch has proven
            dropped = {
                sha256 for sha256, recipe in self._things if recipe and not self._has(sha256)
            }
            self._known = {
                mark: Provenance(self._call, each) for mark, each in self._damaged.items()
            }
            doubtful = self._distrust()
            self._set_aside()
            self._bring()
            for mark, record in self._damaged.items():
                self._restore(record, doubtful[mark])
            for each in self._findings:
                if each.kind == "record":
                    self._recover(each)
            if dropped:
                self._drop(dropped)
            return {each: self._reason(each) for each in self._remaining()}

    def _distrust(self) -> dict[str, Record]:
        """Take back what vouches for the damaged files; the records as they are then."""
        for sha256, recipe in self._things:
            if recipe:
                self._store.trees.distrust(sha256, recipe)
            else:
                self._store.blobs.distrust(sha256)
        return {
            mark: self._store.records.distrust(record) for mark, record in self._damaged.items()
        }

    def _set_aside(self) -> None:
        """Move what is damaged into quarantine, unless it has come right meanwhile."""
        for each in self._findings:
            if each.kind == "blob" and self._is_wrong(each):
                self._move(each, each.sha256)
        members = {each.path: each for each in self._findings if each.kind == "tree"}
        for sha256, recipe in self._things:
            if recipe:
                self._set_members_aside(sha256, recipe, members)
                if (sha256, recipe) not in self._needed:
                    self._store.trees.forget(sha256, recipe)

    def _set_members_aside(self, sha256: str, recipe: str, findings: Mapping[str, Finding]) -> None:
        trees = self._store.trees
        root = trees.path(sha256, recipe)
        if trees.fault(sha256, recipe):
            return  # nothing tells what its members should be; those that are wrong are replaced
        for member in trees.members(sha256, recipe):
            found = findings.get(f"{root}/{member.path}")
            if found and member.is_file and os.path.isfile(found.path) and not stands(root, member):
                self._move(found, f"{sha256[:16]}-{os.path.basename(member.path)}")

    def _is_wrong(self, each: Finding) -> bool:
        """True if the file of a blob is there and is still not what its name says."""
        try:
            return sums_of(each.path)["sha256"] != each.sha256
        except FileNotFoundError:
            return False
        except PermissionError as error:
            self._reasons[each.sha256, ""] = os.strerror(error.errno or 0)
            return False  # what is in it only others may know
        except OSError:
            return True  # the disk has lost it

    def _move(self, each: Finding, name: str) -> None:
        try:
            aside = self._store.move_aside(each.path, name)
        except OSError as error:
            self._reasons[each.sha256, each.recipe] = os.strerror(error.errno or 0)
            return
        linked = "; files outside the cache that are linked to it stay as they are"
        linked = linked if LINKED in each.problem else ""
        self._call.emit(Notice(f"{each.path} was damaged and is kept in {aside}{linked}"))

    def _bring(self) -> None:
        """Bring everything again, from one dataset that has it after the other."""
        missing = {thing: self._sources(thing) for thing in sorted(self._things)}
        while missing:
            wants: list[tuple[Thing, Artifact]] = []
            for thing, sources in [*missing.items()]:
                if artifact := next(sources, None):
                    wants.append((thing, artifact))
                else:
                    del missing[thing]
            try:
                for thing in self._brought(wants):
                    del missing[thing]
            except DscacheError as error:  # it concerns all of them: the disk, the locks
                self._reasons |= {thing: str(error) for thing, _ in wants}
                return

    def _sources(self, thing: Thing) -> Iterator[Artifact]:
        sha256, recipe = thing
        for mark, record in self._damaged.items():
            known = self._known[mark]
            asked = [partial(known.artifact, row, recipe) for row in _rows(record, thing)]
            if not recipe and sha256 in record.keeps:
                asked.append(partial(known.kept, sha256))
            for ask in asked:
                try:
                    yield ask()
                except DscacheError as error:
                    self._reasons[thing] = str(error)

    def _brought(self, wants: Sequence[tuple[Thing, Artifact]]) -> Iterator[Thing]:
        if not wants:
            return
        asked = [Want(number, artifact) for number, (_, artifact) in enumerate(wants)]
        with closing(Bringing(self._call).deliver(asked)) as deliveries:
            for delivered in deliveries:
                thing = wants[delivered.want.fetch][0]
                if delivered.error:
                    self._reasons[thing] = str(delivered.error)
                else:
                    yield thing

    def _restore(self, record: Record, doubtful: Record) -> None:
        """Mend the view of a record, and let it say again what it said, if all of it is right."""
        store, things = self._store, self._things & _needed(record)
        if lost := [thing for thing in things if not self._is_whole(thing)]:
            if self._is_mistaken(record, lost):
                path = store.layout.record(record.mark)
                problem = "it names another file than its registry"
                self._recover(Finding("record", path, problem, mark=record.mark))
            return
        folder, contents = view_of(store, record), contents_of(store, record)
        try:
            view.build(folder, contents)
            if record.durable:
                store.sync(each for each in record.files if (each.sha256, "") in things)
                for each in record.trees:
                    store.trees.sync(each.sha256, each.recipe)
                view.sync(folder, contents)
            if store.records.load(record.mark) == doubtful:
                store.records.put(record)
        except DscacheError as error:
            self._reasons[record.mark] = str(error)

    def _is_mistaken(self, record: Record, lost: Sequence[Thing]) -> bool:
        """True if what cannot be had again was never part of the dataset."""
        provenance = self._known[record.mark]
        try:
            return any(provenance.contradicts(row) for each in lost for row in _rows(record, each))
        except DscacheError:
            return False  # why, is known already

    def _recover(self, each: Finding) -> None:
        """Have a record made anew, which then says what is needed."""
        self._reasons[each.mark] = recover(self._call, each)
        made = None if self._reasons[each.mark] else self._store.records.load(each.mark)
        if made:
            self._records[each.mark] = made
            self._needed = {thing for record in self._records.values() for thing in _needed(record)}

    def _drop(self, archives: Container[str]) -> None:
        """Give up archives that were brought only to be unpacked again."""
        names = [
            record.reference
            for record in self._damaged.values()
            if any(each.sha256 in archives for each in record.trees)
        ]
        if not names:
            return
        limits = pruning.Limits.of(self._call.settings)
        try:
            plan = pruning.plan(self._store, names, pruning.Policy(archives=True), limits)
            removed = tuple(row for row in plan.removed if row.target in archives)
            pruning.execute(self._store, replace(plan, removed=removed), limits)
        except StorageError as error:  # what was asked for is done all the same
            self._call.emit(Notice(f"archives are kept: {error}"))

    def _has(self, sha256: str) -> bool:
        return os.path.lexists(self._store.layout.blob(sha256))

    def _is_whole(self, thing: Thing) -> bool:
        """True if a blob or tree is here and is right, or is gone and nothing needs it."""
        sha256, recipe = thing
        if thing not in self._needed and (recipe or not self._has(sha256)):
            return True
        try:
            if recipe:
                return self._store.trees.find(sha256, recipe) is not None
            return self._store.blobs.find([Digest("sha256", sha256)]) is not None
        except DscacheError as error:
            self._reasons[thing] = str(error)
            return False

    def _remaining(self) -> Iterator[Finding]:
        yield from (each for each in self._findings if not self._is_right(each))
        told = {each.mark for each in self._findings}
        for mark, record in self._damaged.items():
            if self._reasons.get(mark) and mark not in told:
                folder = view_of(self._store, record)
                yield Finding("view", folder, "the view cannot be mended", mark=mark)

    def _is_right(self, each: Finding) -> bool:
        if each.kind == "record":
            return not self._reasons[each.mark]
        if each.kind != "view":
            return self._is_whole((each.sha256, each.recipe))
        record = self._store.records.load(each.mark)
        if record is None:
            return True  # removed meanwhile
        return not self._reason(each) and view.is_sound(each.path, contents_of(self._store, record))

    def _reason(self, each: Finding) -> str:
        return self._reasons.get(each.mark or (each.sha256, each.recipe), "")


def _rows(record: Record, thing: Thing) -> list[File | Unpacked]:
    """What a record says of a blob or tree."""
    sha256, recipe = thing
    trees = [each for each in record.trees if recipe in ("", each.recipe)]
    rows: list[File | Unpacked] = [*([] if recipe else record.files), *trees]
    return [row for row in rows if row.sha256 == sha256]


def _needed(record: Record) -> set[Thing]:
    """What a record cannot do without."""
    files = {(each.sha256, "") for each in record.files}
    trees = {(each.sha256, each.recipe) for each in record.trees}
    return files | trees | {(each, "") for each in record.keeps}


def _held(record: Record) -> set[Thing]:
    """What a record names, archives that are unpacked included."""
    return _needed(record) | {(each.sha256, "") for each in record.trees}
