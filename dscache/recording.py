"""Recording: what has come of a dataset gets its view, and then its record, the commit point."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

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


def record(
    store: Store, wish: Wish, files: Sequence[File], trees: Sequence[Unpacked], status: str
) -> Fetched:
    """Make the view of what has come, write the record, and say what there is now.

    Raises:
        NotFound: nothing that has come is asked for.
        InvalidFile: two things want the same place.
        StorageError: the disk does not take it.
    """
    if found := hit(store, wish):  # another process finished it meanwhile
        return replace(found, status=status)
    contents = view.Contents(store, files, trees, wish.wants if wish.patterns else None)
    is_some, size = bool(trees) and not wish.patterns, 0
    for item in contents:
        is_some, size = True, size + item.size
    if not is_some:
        raise _no_match(store, wish, files, trees)
    folder = view_of(store, wish.dataset)
    view.build(folder, contents)
    if store.durable:
        store.sync(files)
        for each in trees:
            store.trees.sync(each.sha256, each.recipe)
        view.sync(folder, contents)
    store.records.put(_merged(store, wish, files, trees))
    return wish.fetched(folder, size, status)


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


def _merged(store: Store, wish: Wish, files: Sequence[File], trees: Sequence[Unpacked]) -> Record:
    """The record of these and of what an earlier selection brought."""
    dataset = wish.dataset
    earlier = store.records.get(dataset)
    if earlier and not (earlier.proven or prove(store, earlier)):
        earlier = None
    all_files = {file.path: file for file in (*(earlier.files if earlier else ()), *files)}
    all_trees = {each.path: each for each in (earlier.trees if earlier else ())}
    for each in trees:
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
    )


def _no_match(
    store: Store, wish: Wish, files: Sequence[File], trees: Sequence[Unpacked]
) -> NotFound:
    there = (item.path for item in view.Contents(store, files, trees))
    known = list(islice(there, _LISTED + 1))
    paths = known or [artifact.path for artifact in wish.dataset.artifacts]
    shown = ", ".join(paths[:_LISTED]) + (", …" if len(paths) > _LISTED else "")
    return NotFound(
        f"no file of {wish.dataset.reference} matches {' or '.join(wish.patterns)}",
        hint=f"its files are {shown}" if paths else "",
        files=list(wish.patterns),
    )
