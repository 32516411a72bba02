"""Recording: what has come of a dataset gets its view, and then its record, the commit point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice

import msgspec
from msgspec.structs import replace

from dscache import view
from dscache.errors import NotFound
from dscache.hits import hit, prove, view_of
from dscache.model import Artifact
from dscache.results import Fetched
from dscache.store import File, Record, Store, Unpacked
from dscache.store.owner import this_boot
from dscache.store.records import LOOKED_AT
from dscache.store.trees import Tree
from dscache.wishes import Wish

_LISTED = 5


class Came(msgspec.Struct, frozen=True):
    """What has come of a dataset: its files, its trees, and the sha256 of what no view shows."""

    files: Sequence[File] = ()
    trees: Sequence[Unpacked] = ()
    keeps: tuple[str, ...] = ()


def record(store: Store, wish: Wish, came: Came, status: str) -> Fetched:
    """Make the view of what has come, write the record, and say what there is now.

    Raises:
        NotFound: nothing that has come is asked for.
        InvalidFile: two things want the same place.
        StorageError: the disk does not take it.
    """
    if found := hit(store, wish):  # another process finished it meanwhile
        return replace(found, status=status)
    wants = wish.wants if wish.patterns else None
    contents = view.Contents(store, came.files, came.trees, wants)
    is_some, size = bool(came.trees) and not wish.patterns, 0
    for item in contents:
        is_some, size = True, size + item.size
    if not is_some:
        raise _no_match(store, wish, came)
    folder = view_of(store, wish.dataset)
    view.build(folder, contents)
    if store.durable:
        store.sync(came.files)
        for each in came.trees:
            store.trees.sync(each.sha256, each.recipe)
        view.sync(folder, contents)
    store.records.put(_merged(store, wish, came))
    return wish.fetched(folder, size, status)


def keep(store: Store, wish: Wish, keeps: Iterable[str]) -> None:
    """Record of a dataset that is not complete what is here of it, by sha256.

    Raises:
        StorageError: the disk does not take it.
    """
    store.records.put(_merged(store, wish, Came(keeps=tuple(keeps))))


def unpacked(store: Store, wish: Wish, artifact: Artifact, tree: Tree) -> Unpacked:
    """What a record says of an archive whose members come into the view."""
    row = Unpacked(
        path=artifact.path,
        sha256=tree.sha256,
        size=tree.size,
        xxh3_128=tree.xxh3_128,
        recipe=tree.recipe,
        place=artifact.unpack_to if artifact.single is None else artifact.single,
        files=tree.files,
        bytes=tree.bytes,
        complete=not wish.patterns,
    )
    items = (item for item in view.Contents(store, (), (row,)) if item.kind == "file")
    looks = tuple((item.path, item.size) for item in islice(items, LOOKED_AT))
    return replace(row, looks=looks)


def _merged(store: Store, wish: Wish, came: Came) -> Record:
    """The record of these and of what an earlier selection brought."""
    dataset = wish.dataset
    earlier = store.records.get(dataset)
    if earlier and not (earlier.proven or prove(store, earlier)):
        earlier = None
    all_files = {file.path: file for file in (*(earlier.files if earlier else ()), *came.files)}
    all_trees = {each.path: each for each in (earlier.trees if earlier else ())}
    for each in came.trees:
        before = all_trees.get(each.path)
        is_complete = each.complete or (before is not None and before.complete)
        all_trees[each.path] = replace(each, complete=is_complete)
    if dataset.manifest:
        complete = not wish.patterns or bool(earlier and earlier.complete)
    else:
        unpacked = {path for path, each in all_trees.items() if each.complete}
        complete = all(
            artifact.path in (unpacked if artifact.unpack else all_files)
            for artifact in dataset.artifacts
        )
    kept = earlier.keeps if earlier and not complete else ()
    return Record(
        registry=dataset.registry,
        name=dataset.name,
        version=dataset.version,
        content=dataset.content,
        complete=complete,
        files=tuple(all_files.values()),
        trees=tuple(all_trees.values()),
        boot=this_boot(),
        durable=store.durable and (earlier is None or earlier.durable),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=dataset.summary,
        url=dataset.base,
        first_use=dataset.first_use,
        keeps=tuple(dict.fromkeys((*kept, *came.keeps))),
    )


def _no_match(store: Store, wish: Wish, came: Came) -> NotFound:
    there = (item.path for item in view.Contents(store, came.files, came.trees))
    known = list(islice(there, _LISTED + 1))
    paths = known or [artifact.path for artifact in wish.dataset.artifacts]
    shown = ", ".join(paths[:_LISTED]) + (", …" if len(paths) > _LISTED else "")
    return NotFound(
        f"no file of {wish.dataset.reference} matches {' or '.join(wish.patterns)}",
        hint=f"its files are {shown}" if paths else "",
        files=list(wish.patterns),
    )
