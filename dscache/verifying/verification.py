"""Verifying: whether what the cache holds is still what was stored.

Blobs and the files of trees are compared with the xxh3_128 that was computed while they were
written, at the speed of the disk; `full` computes the sha256 of blobs instead. A file of a view is
mostly a link to one of these and is not read again; an edited hard link is found with them.

Nothing that is found is changed here, which is `repairing`'s work. A record that nothing proved,
since it is of another boot, is marked once all of it was found right.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from dscache import disk, view
from dscache.call import Call
from dscache.digest import Reader, sums_of
from dscache.errors import NotCached, StorageError, UsageError
from dscache.events import Notice
from dscache.hits import contents_of, make_durable, view_of
from dscache.model import Reference
from dscache.results import Damage, Verified
from dscache.store import File, Record, Store, Unpacked
from dscache.store.drafts import SUMMARY
from dscache.verifying import checking
from dscache.verifying.checking import LINKED, MISTOLD, Finding
from dscache.verifying.pacing import Pace
from dscache.verifying.repairing import Repair
from dscache.verifying.resuming import Progress
from dscache.verifying.sweeping import Sweep


class Question(msgspec.Struct, frozen=True):
    """What is to be verified, and how.

    Attributes:
        names: only these datasets, in all versions where none is named.
        full: by sha256.
        repairs: what is wrong is mended.
        rate: bytes that are read in a second, by all threads together; 0 for no limit.
    """

    names: tuple[str, ...] = ()
    full: bool = False
    repairs: bool = False
    rate: int = 0

    def __str__(self) -> str:
        """The same for what reads the same."""
        return " ".join(("full" if self.full else "quick", *sorted(self.names)))


class Records(msgspec.Struct, frozen=True):
    """The records of a cache.

    Attributes:
        all: by their marks.
        chosen: those that are asked for.
        bad: those that are asked for and make no sense.
    """

    all: dict[str, Record]
    chosen: list[Record]
    bad: list[Finding]


def verify(call: Call, question: Question) -> Verified:
    """Look at everything that is asked for, and mend what is wrong if that is wanted.

    Raises:
        NotCached: nothing of a name is in the cache.
        UsageError: a name is malformed.
        StorageError: the disk does not let it be read, or, to repair it, written.
    """
    store = call.store
    progress = Progress(store.layout, str(question))
    with disk.storage_errors("the cache cannot be read"):
        records = _records(store, question.names)
        units = checking.units(store, records.chosen, unnamed=not question.names)
        if left := progress.left():
            count = f"{left.files:,} files were looked at before"
            call.emit(Notice(f"going on with a verification that was interrupted: {count}"))
        pace, sweep = Pace(question.rate), Sweep(store, units, left)
        sweep.run(pace, progress, call.emit, full=question.full)
        views = _views(store, records.chosen, sweep.findings.values(), pace)
        told = _told(store, records.all, sweep.findings.values())
        found = list(_standing(store, records.all, [*records.bad, *told, *views]))
    remaining = dict.fromkeys(found, "")
    if question.repairs and found:
        remaining = Repair(call, records.all, found).run()
    _mark_durable(call, records.chosen, remaining)
    progress.end()
    checked = sweep.files + len(records.chosen) + len(records.bad)
    return _result(records.all, found, remaining, checked)


def _records(store: Store, names: Sequence[str]) -> Records:
    references = [Reference.parse(name) for name in names]
    missing = dict.fromkeys(references)
    records = Records({}, [], [])
    for path, _, record in store.records.survey():
        mark = path[len(store.layout.records) + 1 : -len(".json")]
        fault = record if isinstance(record, str) else checking.fault_of(record, mark)
        known = _reference(mark)
        named = [each for each in references if known and each.means(known)]
        for each in named:
            missing.pop(each, None)
        is_chosen = named or not names
        if isinstance(record, str) or fault:
            if is_chosen:
                records.bad.append(Finding("record", path, f"the record: {fault}", mark=mark))
            continue
        records.all[mark] = record
        if is_chosen:
            records.chosen.append(record)
    for each in missing:
        raise NotCached(f"{each} is not in the cache", name=str(each))
    return records


def _reference(mark: str) -> Reference | None:
    try:
        return Reference.parse(mark.rpartition("+")[0])
    except UsageError:
        return None  # somebody's own file


def _views(
    store: Store, records: Sequence[Record], damaged: Iterable[Finding], pace: Pace
) -> list[Finding]:
    """The views that do not show what their records name, as far as that is known."""
    wrong = {(each.sha256, each.recipe) for each in damaged}

    def fault(record: Record) -> str:
        files = tuple(each for each in record.files if (each.sha256, "") not in wrong)
        trees = tuple(each for each in record.trees if (each.sha256, each.recipe) not in wrong)
        reader = Reader(pace)
        try:
            is_sound = view.is_sound(
                view_of(store, record),
                contents_of(store, replace(record, files=files, trees=trees)),
                lambda path: reader.sum_of(path, "xxh3_128"),
            )
        except StorageError as error:
            return str(error)
        return "" if is_sound else "links of the view are missing or wrong"

    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="dscache-verify") as executor:
        try:
            faults = list(executor.map(fault, records))
        except BaseException:
            pace.stop()
            executor.shutdown(cancel_futures=True)
            raise
    suspects = [record.mark for record, found in zip(records, faults, strict=True) if found]
    # Looked at again as they are recorded now: prunes and fetches go on meanwhile.
    return [
        Finding("view", view_of(store, record), found, mark=record.mark)
        for record in filter(None, map(store.records.load, suspects))
        if (found := fault(record))
    ]


def _told(
    store: Store, records: Mapping[str, Record], findings: Iterable[Finding]
) -> Iterator[Finding]:
    """The findings; where a file is right and a record tells it otherwise, that record."""
    for each in findings:
        if each.problem != MISTOLD:
            yield each
            continue
        try:
            truth = os.stat(each.path).st_size, sums_of(each.path)["xxh3_128"]
        except FileNotFoundError:
            continue  # a prune was faster
        for mark, record in records.items():
            rows: list[File | Unpacked] = [*record.files, *record.trees]
            told = [(row.size, row.xxh3_128) for row in rows if row.sha256 == each.sha256]
            if any(one != truth for one in told):
                problem = f"the record: it tells another size or xxh3_128 than {each.path} has"
                yield Finding("record", store.layout.record(mark), problem, mark=mark)


def _standing(
    store: Store, records: Mapping[str, Record], findings: Iterable[Finding]
) -> Iterator[Finding]:
    """The findings without those of datasets that were removed meanwhile, or that came back."""
    names = _names(records.values()) if findings else {}
    for each in findings:
        if each.mark:
            if os.path.lexists(store.layout.record(each.mark)):
                yield each
            continue
        marks = names.get((each.sha256, each.recipe), [])
        if not _came_back(store, each) and _is_needed(store, each, marks):
            yield replace(each, problem=each.problem + _linked(each, len(marks)))


def _came_back(store: Store, each: Finding) -> bool:
    """True if what was missing stands there by now."""
    if each.recipe and each.path == store.layout.tree(each.sha256, each.recipe):
        return not store.trees.fault(each.sha256, each.recipe)
    return each.problem == "missing" and os.path.lexists(each.path)


def _is_needed(store: Store, each: Finding, marks: Sequence[str]) -> bool:
    """True if some record names it now, or nothing does and nobody takes it away."""
    if not marks:
        folder = store.layout.tree(each.sha256, each.recipe)
        return not each.recipe or os.path.lexists(f"{folder}/{SUMMARY}")
    for mark in dict.fromkeys(marks):
        record = store.records.load(mark)
        if record is None and os.path.lexists(store.layout.record(mark)):
            return True  # nobody knows what it needs
        if record and (each.sha256, each.recipe) in _names([record]):
            return True
    return False


def _linked(each: Finding, count: int) -> str:
    """What is to be said of a file that has more names than the cache can have given it."""
    try:
        found = os.lstat(each.path)
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode) or found.st_nlink <= count + 1:
        return ""
    return f"; {LINKED}"


def _names(records: Iterable[Record]) -> dict[tuple[str, str], list[str]]:
    """The marks of the datasets that hold each blob (its recipe is empty) and each tree, one for
    each time that they show it.
    """
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in records:
        for file in record.files:
            names[file.sha256, ""].append(record.mark)
        for each in record.trees:
            names[each.sha256, each.recipe].append(record.mark)
            names[each.sha256, ""].append(record.mark)
        for sha256 in record.keeps:
            names[sha256, ""].append(record.mark)
    return names


def _mark_durable(call: Call, records: Iterable[Record], found: Iterable[Finding]) -> None:
    """Note of the records that nothing proved, and of which all was right, that it was."""
    store = call.store
    doubtful = [each for each in records if not each.proven]
    if not doubtful or store.read_only or not store.is_writable:
        return
    wrong = {(each.sha256, each.recipe) for each in found} | {(each.mark, "") for each in found}
    for record in doubtful:
        held = {(each.sha256, "") for each in record.files}
        held |= {(each.sha256, each.recipe) for each in record.trees} | {(record.mark, "")}
        if held & wrong:
            continue
        with suppress(OSError):  # it is proven when it is used
            call.hold(record)
            if store.records.load(record.mark) == record:
                make_durable(store, record)


def _result(
    records: Mapping[str, Record],
    found: Sequence[Finding],
    remaining: Mapping[Finding, str],
    checked: int,
) -> Verified:
    names = _names(records.values()) if found else {}

    def damage(each: Finding) -> Damage:
        marks = [each.mark] if each.mark else names.get((each.sha256, each.recipe), [])
        datasets = tuple(str(_reference(mark) or mark) for mark in dict.fromkeys(marks))
        digest = f"sha256:{each.sha256}" if each.sha256 else ""
        why = remaining.get(each)
        problem = f"{each.problem}; not repaired: {why}" if why else each.problem
        return Damage(digest, each.path, datasets, problem)

    corrupt = tuple(map(damage, _in_order(remaining)))
    repaired = tuple(damage(each) for each in _in_order(found) if each not in remaining)
    return Verified(checked, checked - len(corrupt), corrupt, repaired)


def _in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By path: the order in which threads have found them says nothing."""
    return sorted(findings, key=lambda each: each.path)
