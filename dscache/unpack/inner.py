"""Archives in an archive, where the entry says how they are unpacked: each gives way to its files.

They are unpacked one after the other from the files of the draft, once the archive around them has
been. They count towards the same limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dscache.recipes import SINGLE, recipe_for, stem_of
from dscache.store.drafts import Draft
from dscache.store.members import Member
from dscache.unpack.growing import Growing
from dscache.unpack.reading import Archive, unpack
from dscache.unpack.rules import Rules


def unpack_members(
    archive: Archive, draft: Draft, rules: Rules, advance: Callable[[int], None]
) -> None:
    """Unpack those members of an archive that its second recipe fits, told by their names.

    Args:
        advance: called on the way; raises if nobody wants the rest.

    Raises as `reading.unpack`.
    """
    for member in list(_fitting(draft, archive.inner)):
        _unpack_member(archive, member, draft, rules, advance)
        draft.remove(member)


def _fitting(draft: Draft, recipe: str) -> Iterator[Member]:
    for member in draft.members():
        if member.is_file and recipe_for(member.path, "auto") == recipe:
            yield member


def _unpack_member(
    archive: Archive,
    member: Member,
    draft: Draft,
    rules: Rules,
    advance: Callable[[int], None],
) -> None:
    recipe, place = archive.inner, stem_of(member.path, archive.inner)
    path = draft.path(member.path)
    growing = Growing(path, lambda: advance(0))
    growing.grow(member.size)
    growing.complete()
    if recipe not in SINGLE:
        draft.add_folder(place)
    inside = Archive(f"{archive.name}: {member.path}", recipe, path, member.size, place)
    with growing:
        unpack(inside, growing, draft, rules)
